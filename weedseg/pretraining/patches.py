"""Patches of a tile: from patch grids to pixels and back.

Shapes: N batch, H W tile px, P patch px, Gh = ceil(H / P), Gw = ceil(W / P).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from weedseg.data.augment import Cut


def grid_size(size: tuple[int, int], patch_px: int) -> tuple[int, int]:
    """Return (Gh, Gw), the last patches being cut off at the border."""
    return -(-size[0] // patch_px), -(-size[1] // patch_px)


def centres(cut: Cut, tile_px: int, patch_px: int) -> npt.NDArray[np.float32]:
    """Say where the patches of a finished tile lie in the photo it was cut from.

    Returns:
        (Gh, Gw, 2): row and column of each patch's centre, px of the photo; of a patch that is cut
        off, the centre of what is left.
    """
    if tile_px % patch_px == 0:
        return cut.centres(tile_px // patch_px)
    pixels = torch.from_numpy(cut.centres(tile_px)).permute(2, 0, 1)
    return np.asarray(pool(pixels, patch_px).permute(1, 2, 0).numpy(), np.float32)


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
