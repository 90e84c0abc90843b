"""Losses for few labels and rare classes, built from sums over the whole batch.

Pixels with the ignore id count for nothing; a class absent from the batch adds nothing. Sums are
taken over all processes, so two processes compute the gradient that one would.

Shapes: N batch, C classes, H W tile px.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from weedseg.classes import IGNORE_ID
from weedseg.training.distributed import global_sum


def weighted_cross_entropy(logits: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Compute the mean cross-entropy, each pixel weighted by its class.

    Args:
        logits: (N, C, H, W).
        mask: int64 (N, H, W), 255 = ignore.
        weights: (C,) weight of each class.

    Returns:
        Scalar; 0 when every pixel is ignored.
    """
    total = functional.cross_entropy(
        logits, mask, weight=weights, ignore_index=IGNORE_ID, reduction="sum"
    )
    valid = mask != IGNORE_ID
    weight = (weights[mask.clamp_max(len(weights) - 1)] * valid).sum()
    return global_sum(total) / global_sum(weight).clamp_min(1e-6)


def jaccard_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Compute one minus the soft intersection over union, averaged over the classes present.

    Source: Rahman and Wang 2016, over the pixels of the whole batch.

    Args:
        logits: (N, C, H, W).
        mask: int64 (N, H, W), 255 = ignore.

    Returns:
        Scalar in [0, 1]; 0 when every pixel is ignored.
    """
    num_classes = logits.shape[1]
    valid = (mask != IGNORE_ID)[:, None]
    shares = logits.softmax(1) * valid
    truth = functional.one_hot(mask.clamp_max(num_classes - 1), num_classes)
    truth = truth.permute(0, 3, 1, 2).to(shares.dtype) * valid
    axes = (0, 2, 3)
    sums = torch.stack([(shares * truth).sum(axes), shares.sum(axes), truth.sum(axes)])
    intersection, predicted, true = global_sum(sums)
    present = true > 0
    iou = intersection / (predicted + true - intersection).clamp_min(1e-6)
    loss: Tensor = ((1 - iou) * present).sum() / present.sum().clamp_min(1)
    return loss


def class_weights(counts: Tensor) -> Tensor:
    """Weigh classes by the inverse square root of how often they occur, mean 1 over those present.

    The square root is a compromise: full inverse frequency lets a class of 0.1 % of the pixels
    drown the others.

    Args:
        counts: (C,) pixels per class in the training masks.

    Returns:
        (C,), at most 10; 1 for a class that never occurs.
    """
    shares = counts / counts.sum().clamp_min(1)
    present = counts > 0
    raw = torch.where(present, shares.clamp_min(1e-4).rsqrt(), torch.zeros_like(shares))
    mean = raw.sum() / present.sum().clamp_min(1)
    return torch.where(present, (raw / mean.clamp_min(1e-6)).clamp_max(10), torch.ones_like(raw))
