"""A moving average of a network's weights: the teacher of scoring and of consistency."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def frozen_copy(net: Net) -> Net:
    """Copy a network; the copy learns nothing by itself."""
    return copy.deepcopy(net).requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, step: int, decay: float) -> None:
    """Move an average towards its network after a step; batch-norm statistics are copied.

    Args:
        average: Changed in place.
        net: The network in training.
        step: The step that was just done, from 0.
        decay: Memory of the average a step, 0-1; it is shorter in the first steps, where the
            network changes most: (1 + step) / (10 + step) (TensorFlow's `num_updates`).
    """
    memory = min(decay, (1 + step) / (10 + step))
    for mine, theirs in zip(average.parameters(), net.parameters()):
        mine.lerp_(theirs, 1 - memory)
    for copied, own in zip(average.buffers(), net.buffers()):
        copied.copy_(own)
