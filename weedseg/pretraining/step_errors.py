"""Scores at no cost: what training steps measured on the patches that they hid.

Shapes: Gh Gw patch grid of a photo, K patches of one tile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from weedseg.pretraining.scoring import Grid
from weedseg.training import distributed

FADE = 0.5
"""Weight of what earlier stages measured, a stage."""


@dataclass
class StepErrors:
    """Sums and counts of errors per photo, in photo coordinates."""

    sums: dict[int, Grid] = field(default_factory=dict)
    counts: dict[int, Grid] = field(default_factory=dict)

    def add(
        self,
        photo: int,
        grid: tuple[int, int],
        at: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
        errors: npt.NDArray[np.float32],
    ) -> None:
        """Count the hidden patches of one tile.

        Errors are divided by their mean over the tile, so that jitter and light do not count.

        Args:
            photo: Number of the photo.
            grid: Its patch grid.
            at: Row and column of each patch, (K,) each, inside the grid.
            errors: (K,) errors.
        """
        if not errors.size or not np.isfinite(errors).all():
            return
        if photo not in self.sums:
            self.sums[photo] = np.zeros(grid, np.float32)
            self.counts[photo] = np.zeros(grid, np.float32)
        np.add.at(self.sums[photo], at, errors / max(float(errors.mean()), 1e-6))
        np.add.at(self.counts[photo], at, 1)

    def gathered(self) -> dict[int, Grid]:
        """Return the mean error per patch of every photo seen, over all processes, and fade.

        A patch that was never hidden takes what was measured around it, or 1, the mean.
        """
        parts = distributed.gather((self.sums, self.counts))
        found: dict[int, Grid] = {}
        for photo in sorted({photo for sums, _ in parts for photo in sums}):
            total = np.sum([sums[photo] for sums, _ in parts if photo in sums], axis=0)
            times = np.sum([counts[photo] for _, counts in parts if photo in counts], axis=0)
            around, near = (
                cv2.blur(v, (3, 3), borderType=cv2.BORDER_CONSTANT) for v in (total, times)
            )
            rest = np.where(near > 0, around / np.maximum(near, 1e-6), 1)
            mean = np.where(times > 0, total / np.maximum(times, 1e-6), rest)
            found[photo] = mean.astype(np.float32)
        self.sums = {photo: FADE * grid for photo, grid in self.sums.items()}
        self.counts = {photo: FADE * grid for photo, grid in self.counts.items()}
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return tensors for a checkpoint."""
        return {
            "sums": {n: torch.from_numpy(g.copy()) for n, g in self.sums.items()},
            "counts": {n: torch.from_numpy(g.copy()) for n, g in self.counts.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.sums = {int(n): g.numpy().copy() for n, g in state["sums"].items()}
        self.counts = {int(n): g.numpy().copy() for n, g in state["counts"].items()}
