"""Weights on disk as safetensors, which can hold no code."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from weedseg.errors import CheckpointError
from weedseg.nets.encoders import load_imagenet_weights
from weedseg.nets.segmenter import SegmentationNet

HEAD = "head."


def dump_weights(net: SegmentationNet) -> bytes:
    """Return a network's weights as the bytes of a safetensors file."""
    return save(
        {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of weights.

    Raises:
        CheckpointError: The file is missing or holds no weights.
    """
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} holds no weights ({error})", "a weights.safetensors of weedseg", "check --init"
        ) from error


def initialise(net: SegmentationNet, init: str) -> None:
    """Put first weights into encoder and decoder; the head stays new.

    Args:
        net: The network.
        init: none; imagenet (encoder only); or a weights file, or a run folder that holds one.

    Raises:
        CheckpointError: The file does not fit the network.
        RuntimeUnavailableError: ImageNet weights are not to be had.
    """
    if init == "none":
        return
    if init == "imagenet":
        load_imagenet_weights(net.encoder)
        return
    path = weights_file(Path(init))
    state = {k: v for k, v in read_weights(path).items() if not k.startswith(HEAD)}
    own = {k: v for k, v in net.state_dict().items() if not k.startswith(HEAD)}
    wrong = [k for k in own if k not in state or state[k].shape != own[k].shape]
    if wrong or len(state) != len(own):
        raise CheckpointError(
            f"{path} does not fit the network ({(wrong or sorted(set(state) - set(own)))[0]})",
            f"weights of encoder {net.encoder.name} with the same decoder",
            "use the recipe it was trained with",
        )
    net.load_state_dict(state, strict=False)


def load_whole(net: SegmentationNet, path: Path) -> None:
    """Load all weights, head included.

    Raises:
        CheckpointError: The file does not fit.
    """
    try:
        net.load_state_dict(read_weights(path))
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not fit the network", "weights of the same recipe", "check the run folder"
        ) from error


def weights_file(path: Path) -> Path:
    """Find the pretrained weights that a path means: the file itself, or inside a run folder.

    Raises:
        CheckpointError: There are none.
    """
    for candidate in (
        path,
        path / "pretrain" / "weights.safetensors",
        path / "weights.safetensors",
    ):
        if candidate.is_file():
            return candidate
    raise CheckpointError(
        f"no weights in {path}", "a weights.safetensors or a run folder", "check --init"
    )


def start_head(net: SegmentationNet, values: Tensor) -> None:
    """Let the outputs begin near constant values, (C,): mean colours, or class priors."""
    with torch.no_grad():
        net.head.weight.mul_(0.1)
        if net.head.bias is not None:
            net.head.bias.copy_(values)
