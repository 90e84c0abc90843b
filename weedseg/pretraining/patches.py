"""Patches of a tile: from patch grids to pixels and back.

Shapes: N batch, H W tile px, P patch px, Gh = ceil(H / P), Gw = ceil(W / P).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def grid_size(size: tuple[int, int], patch_px: int) -> tuple[int, int]:
    """Return (Gh, Gw), the last patches being cut off at the border."""
    return -(-size[0] // patch_px), -(-size[1] // patch_px)


def to_pixels(hidden: Tensor, patch_px: int, size: tuple[int, int]) -> Tensor:
    """Enlarge a patch grid (N, Gh, Gw) to pixels (N, 1, H, W), same dtype."""
    pixels = hidden.repeat_interleave(patch_px, 1).repeat_interleave(patch_px, 2)
    return pixels[:, None, : size[0], : size[1]]


def pool(values: Tensor, patch_px: int) -> Tensor:
    """Average pixel values (N, H, W) per patch to (N, Gh, Gw); cut-off patches count their part."""
    return functional.avg_pool2d(
        values[:, None], patch_px, ceil_mode=True, count_include_pad=False
    )[:, 0]


def hide(images: Tensor, hidden: Tensor, patch_px: int, fill: Tensor) -> Tensor:
    """Paint hidden patches in one colour.

    Args:
        images: (N, 3, H, W), 0-1.
        hidden: bool (N, Gh, Gw), True = hidden.
        patch_px: P.
        fill: (3,) colour, 0-1; the dataset's mean.

    Returns:
        (N, 3, H, W); the images are not changed.
    """
    pixels = to_pixels(hidden, patch_px, (images.shape[2], images.shape[3]))
    return torch.where(pixels, fill.view(1, 3, 1, 1), images)
