"""The networks that ours is compared with, each in one form: 0-1 images in, logits out.

All get the same treatment where their libraries differ: input normalised by 0.5, batch-norm
momentum 0.1, a last layer that begins at the class shares.

Shapes: N batch, C classes, H W tile px (multiples of 32).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weedseg.config import NetConfig
from weedseg.errors import ConfigError, RuntimeUnavailableError
from weedseg.nets.encoders import Encoder, load_imagenet_weights
from weedseg.nets.segmenter import build_net

SMP_ENCODER = "tu-tf_efficientnet_lite0"
"""Our encoder lite0 in segmentation_models_pytorch: the same timm backbone, tensor by tensor."""
MOMENTUM = 0.1


class PeerNet(nn.Module):
    """A network of another library behind our interface."""

    def __init__(self, body: nn.Module, heads: Sequence[nn.Module]) -> None:
        """Wrap it.

        Args:
            body: Takes normalised images; gives logits, or a dict with them under ``out``.
            heads: Its last layers, whose outputs are summed to the logits.
        """
        super().__init__()
        self.body = body
        self.heads = tuple(heads)  # a tuple registers nothing: the body has them already

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (N, C, H, W) of images (N, 3, H, W) in 0-1."""
        found: Any = self.body((images - 0.5) / 0.5)
        logits: Tensor = found["out"] if isinstance(found, dict) else found
        return logits


@dataclass(frozen=True)
class Peer:
    """One network of the comparison."""

    build: Callable[[int], nn.Module]
    """Number of classes -> network with random weights."""
    lite0: bool = False
    """Whether its encoder is our lite0, so that our ImageNet weights fit."""


def _ours(num_classes: int) -> nn.Module:
    return build_net(NetConfig(), num_classes)


def _lraspp(num_classes: int) -> nn.Module:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    body = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=num_classes)
    return PeerNet(body, (body.classifier.low_classifier, body.classifier.high_classifier))


def _smp(kind: str, encoder: str) -> Callable[[int], nn.Module]:
    def build(num_classes: int) -> nn.Module:
        make = getattr(_import_smp(), kind)
        body = make(encoder, encoder_weights=None, classes=num_classes)
        return PeerNet(body, (body.segmentation_head[0],))

    return build


def _import_smp() -> Any:
    """Import segmentation_models_pytorch.

    Raises:
        RuntimeUnavailableError: It is not installed.
    """
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"segmentation_models_pytorch cannot be imported ({error})",
            "the networks to compare with",
            "run: pip install 'weedseg[peers]'",
        ) from error
    return segmentation_models_pytorch


OURS = "ours"
PEERS = {
    OURS: Peer(_ours, lite0=True),
    "lraspp": Peer(_lraspp),
    "unet": Peer(_smp("Unet", SMP_ENCODER), lite0=True),
    "fpn": Peer(_smp("FPN", SMP_ENCODER), lite0=True),
    "unet-resnet34": Peer(_smp("Unet", "resnet34")),
}
"""All networks, the smallest decoders first; `weedseg.bench.peers_table` says what they are."""


def build_peer(name: str, num_classes: int, init: str, seed: int) -> nn.Module:
    """Build a network with its first weights.

    Args:
        name: A key of `PEERS`.
        num_classes: C.
        init: none, or imagenet for the encoder (lite0 only).
        seed: Seeds all random weights.

    Raises:
        ConfigError: There are no ImageNet weights for this encoder.
        RuntimeUnavailableError: A package is missing.
    """
    peer = PEERS[name]
    torch.manual_seed(seed)
    net = peer.build(num_classes)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = MOMENTUM
    if init == "imagenet":
        if not peer.lite0:
            raise ConfigError(f"{name} from ImageNet", "an encoder lite0", "train it from scratch")
        encoder = Encoder("lite0")
        load_imagenet_weights(encoder)
        backbone_of(net).load_state_dict(encoder.backbone.state_dict())
    return net


def backbone_of(net: nn.Module) -> nn.Module:
    """Return the timm backbone of a network whose encoder is lite0."""
    return net.get_submodule(
        "body.encoder.model" if isinstance(net, PeerNet) else "encoder.backbone"
    )


def start_heads(net: Any, log_shares: Tensor) -> None:
    """Let the logits begin near the log share of each class, (C,), as `finetune` does."""
    heads = net.heads if isinstance(net, PeerNet) else (net.head,)
    with torch.no_grad():
        for i, head in enumerate(heads):
            head.weight.mul_(0.1)
            head.bias.copy_(log_shares if i == 0 else torch.zeros_like(log_shares))
