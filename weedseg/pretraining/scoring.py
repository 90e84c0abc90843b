"""How hard is a patch to reconstruct? Pure functions from errors to one score per patch.

Shapes: M masks of one photo, H W photo px at working resolution, P patch px, Gh Gw patch grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from weedseg.pretraining import patches
from weedseg.pretraining.similarity import ssim_map

Grid = npt.NDArray[np.float32]
Hidden = npt.NDArray[np.bool_]

CONTRAST_FLOOR = 0.05
WINSORISED = 0.95
GLARE, DEAD = 0.97, 0.02
NOISE_MARGIN = 8
"""Patches drawn around a tile's, so that its border is like its middle."""


def complementary_masks(rng: np.random.Generator, grid: tuple[int, int], share: float) -> Hidden:
    """Draw masks that hide every patch exactly once, about `share` of the patches each.

    Returns:
        (M, Gh, Gw) with M = round(1 / share): two for a share of one half.
    """
    num = max(round(1 / share), 2)
    part = rng.permutation(grid[0] * grid[1]).reshape(grid) % num
    return np.stack([part == i for i in range(num)])


def random_masks(rng: np.random.Generator, grid: tuple[int, int], share: float, num: int) -> Hidden:
    """Draw independent masks with exactly round(share x patches) hidden each, (M, Gh, Gw)."""
    order = rng.random((num, grid[0] * grid[1])).argsort(1).argsort(1)
    return (order < round(share * grid[0] * grid[1])).reshape(num, *grid)


def error_map(reconstruction: Tensor, target: Tensor, kind: str) -> Tensor:
    """Compute the error per pixel.

    Args:
        reconstruction: (N, 3, H, W), 0-1.
        target: (N, 3, H, W), 0-1.
        kind: structure: L1 + (1 - SSIM), as published. reducible: the same at half resolution,
            since fine texture cannot be learnt anyway. colour: L1 of what is left of each channel
            without the pixel's mean, at half resolution; brightness, which stones and their
            shadows change most, does not count.

    Returns:
        (N, H, W), >= 0.
    """
    size = target.shape[2:]
    if kind != "structure":
        reconstruction = functional.avg_pool2d(reconstruction, 2, ceil_mode=True)
        target = functional.avg_pool2d(target, 2, ceil_mode=True)
    difference = reconstruction - target
    if kind == "colour":
        error = (difference - difference.mean(1, keepdim=True)).abs().mean(1)
    else:
        error = difference.abs().mean(1) + 1 - ssim_map(reconstruction, target)
    if kind != "structure":
        error = error.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, : size[0], : size[1]]
    return error


def combine(errors: Grid, hidden: Hidden, hidden_only: bool) -> Grid:
    """Merge the errors of M masks, (M, Gh, Gw) each, to one per patch, (Gh, Gw).

    Args:
        errors: Mean error per patch and mask.
        hidden: Which patches were hidden.
        hidden_only: Average over the masks that hid the patch (the published method averages over
            all). A patch never hidden gets the mean of the others.
    """
    if not hidden_only:
        return np.asarray(errors.mean(0, dtype=np.float32))
    times = hidden.sum(0)
    total = (errors * hidden).sum(0)
    seen = times > 0
    fallback = total.sum() / max(times.sum(), 1)
    merged: Grid = np.where(seen, total / np.maximum(times, 1), fallback).astype(np.float32)
    return merged


def reducible(scores: Grid, contrast: Grid, usable: Grid) -> Grid:
    """Turn raw errors into ranks that prefer error which can still be learnt.

    Divides by sqrt(contrast + c), since a high-contrast patch is hard for any model; cuts off the
    highest five per cent, which are mostly noise (RHO-LOSS, ICML 2022); ranks within the photo;
    unusable patches (glare, dead pixels, padding) get 0.

    Args:
        scores: (Gh, Gw) raw errors.
        contrast: (Gh, Gw) standard deviation of brightness in a patch, 0-1.
        usable: (Gh, Gw) share of pixels that are neither glare nor dead.

    Returns:
        (Gh, Gw) ranks in [0, 1], 1 is hardest.
    """
    normed = scores / np.sqrt(contrast + CONTRAST_FLOOR)
    good = usable > 0.5
    if good.any():
        normed = np.minimum(normed, np.quantile(normed[good], WINSORISED))
    normed = np.where(good, normed, -np.inf)
    lowest: Grid = ranks(normed) * good
    return lowest


def ranks(values: Grid) -> Grid:
    """Rank within the photo to [0, 1]; equal values share the mean of their ranks."""
    flat = values.ravel()
    _, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts + 1) / 2
    scaled = mean_rank[inverse] / max(flat.size - 1, 1)
    return scaled.reshape(values.shape).astype(np.float32)


def contrast_and_usable(target: Tensor, patch_px: int) -> tuple[Grid, Grid]:
    """Describe the patches of one photo (1, 3, H, W): brightness contrast and usable share."""
    bright = target.mean(1)
    mean = patches.pool(bright, patch_px)
    variance = patches.pool(bright * bright, patch_px) - mean * mean
    good = ((bright < GLARE) & (bright > DEAD)).to(target.dtype)
    contrast: Grid = variance.clamp_min(0).sqrt()[0].numpy()
    usable: Grid = patches.pool(good, patch_px)[0].numpy()
    return contrast, usable


def gradient_energy(target: Tensor, patch_px: int) -> Grid:
    """Measure edges per patch of one photo (1, 3, H, W): mean absolute brightness difference."""
    bright = target.mean(1)
    down = functional.pad((bright[:, 1:] - bright[:, :-1]).abs(), (0, 0, 0, 1))
    across = functional.pad((bright[:, :, 1:] - bright[:, :, :-1]).abs(), (0, 1))
    energy: Grid = patches.pool(down + across, patch_px)[0].numpy()
    return energy


def vegetation(target: Tensor, patch_px: int) -> Grid:
    """Measure green per patch of one photo (1, 3, H, W): excess green (Woebbecke 1995)."""
    share = target / target.sum(1, keepdim=True).clamp_min(1e-6)
    green: Grid = patches.pool(3 * share[:, 1] - 1, patch_px)[0].numpy()
    return green


def structured_noise(rng: np.random.Generator, grid: tuple[int, int]) -> Grid:
    """Draw band-passed noise ("green" noise of ColorMAE, ECCV 2024), ranked to [0, 1], (Gh, Gw).

    Its blobs are two to four patches wide and know nothing of the photo.
    """
    rows, columns = grid
    margin = 2 * NOISE_MARGIN
    white = rng.standard_normal((rows + margin, columns + margin)).astype(np.float32)
    narrow, wide = (cv2.GaussianBlur(white, (0, 0), sigma) for sigma in (1, 2))
    inside = (slice(NOISE_MARGIN, -NOISE_MARGIN),) * 2
    return ranks(np.asarray((narrow - wide)[inside], np.float32))


def ordered(scores: Grid, order: str, rng: np.random.Generator) -> Grid:
    """Turn scores round (easiest) or move them to other patches of the photo (shuffled)."""
    if order == "easiest":
        return np.asarray(scores.max() - scores, np.float32)
    if order == "shuffled":
        return rng.permutation(scores.ravel()).reshape(scores.shape)
    return scores


@dataclass
class ScoreCache:
    """Small score grids per photo, in photo coordinates: the newest, and the one before."""

    patch_px: int
    grids: dict[int, Grid] = field(default_factory=dict)
    stages: dict[int, int] = field(default_factory=dict)
    """Stage that wrote the newest grid of a photo."""
    older: dict[int, Grid] = field(default_factory=dict)

    def put(self, photo: int, grid: Grid, stage: int) -> None:
        """Keep the scores of a photo.

        Tiles are prepared ahead in another thread: the grid changes last, so that `lookup` before
        this stage finds the same scores at any moment.
        """
        if photo in self.grids:
            self.older[photo] = self.grids[photo]
        self.stages[photo] = stage
        self.grids[photo] = grid.astype(np.float32)

    def lookup(
        self,
        photo: int,
        rows: npt.NDArray[Any],
        columns: npt.NDArray[Any],
        before: int | None = None,
    ) -> Grid | None:
        """Read scores at photo positions, px; None for a photo that has none.

        Args:
            photo: Number of the photo.
            rows: Vertical positions, any shape.
            columns: Horizontal positions, same shape.
            before: Only scores written before this stage, which may be asked for while the stage's
                own are being written.
        """
        grid = self.grids.get(photo)
        if before is not None and self.stages.get(photo, 0) >= before:
            grid = self.older.get(photo)
        if grid is None:
            return None
        y = np.clip((rows // self.patch_px).astype(np.int64), 0, grid.shape[0] - 1)
        x = np.clip((columns // self.patch_px).astype(np.int64), 0, grid.shape[1] - 1)
        found: Grid = grid[y, x]
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and numbers for a checkpoint."""
        return {
            "grids": {n: torch.from_numpy(g.copy()) for n, g in self.grids.items()},
            "stages": dict(self.stages),
            "older": {n: torch.from_numpy(g.copy()) for n, g in self.older.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.grids = {int(n): g.numpy().copy() for n, g in state["grids"].items()}
        self.stages = {int(n): int(s) for n, s in state["stages"].items()}
        self.older = {int(n): g.numpy().copy() for n, g in state["older"].items()}
