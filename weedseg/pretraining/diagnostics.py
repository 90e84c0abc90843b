"""What selection does: for reporting only, nothing here steers the training.

Shapes: Gh Gw patch grid of a photo, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from weedseg.data.datasets import PhotoPool
from weedseg.pretraining.scoring import Grid
from weedseg.pretraining.selection import entropy

MAX_LABELLED = 50


def class_grids(
    pool: PhotoPool, labelled: list[int], num_classes: int, patch_px: int
) -> dict[int, Grid]:
    """Compute the share of each class in every patch of some labelled photos.

    Args:
        pool: Photos with masks.
        labelled: Numbers of photos that have a mask; the first 50 are used.
        num_classes: C.
        patch_px: Side of a patch, px.

    Returns:
        Photo number -> (Gh, Gw, C), summing to at most 1 (ignored pixels count for nothing);
        unreadable photos are left out.
    """
    grids = {}
    for number in labelled[:MAX_LABELLED]:
        if pool.readable(number) != number:
            continue
        mask = pool.mask(number)
        one_hot = torch.from_numpy(mask[None] == np.arange(num_classes)[:, None, None]).float()
        pooled = torch.nn.functional.avg_pool2d(
            one_hot[None], patch_px, ceil_mode=True, count_include_pad=False
        )
        grids[number] = pooled[0].permute(1, 2, 0).contiguous().numpy()
    return grids


class SelectionLog:
    """Counts what was hidden in each stage."""

    def __init__(self, classes: dict[int, Grid], num_classes: int, num_stages: int) -> None:
        """Start with empty counts.

        Args:
            classes: From `class_grids`, may be empty.
            num_classes: C.
            num_stages: Stages of the pretraining.
        """
        self._classes = classes
        self._hidden = np.zeros((num_stages, num_classes))
        self._all = np.zeros((num_stages, num_classes))
        self._counts: dict[int, Grid] = {}

    def add(
        self,
        stage: int,
        photo: int,
        cells: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
        hidden: npt.NDArray[np.bool_],
        grid: tuple[int, int],
    ) -> None:
        """Count one tile.

        Args:
            stage: Number of the stage.
            photo: Number of the photo.
            cells: Row and column, in the photo's patch grid, of every patch of the tile, (L,) each.
            hidden: (L,).
            grid: Size of the photo's patch grid.
        """
        counts = self._counts.setdefault(photo, np.zeros(grid, np.float32))
        np.add.at(counts, (cells[0][hidden], cells[1][hidden]), 1)
        shares = self._classes.get(photo)
        if shares is not None:
            here = shares[cells]
            self._hidden[stage] += here[hidden].sum(0)
            self._all[stage] += here.sum(0)

    def hidden_entropy(self) -> float:
        """Return the mean entropy of the counts over photos, 0-1; 1 hides all patches equally."""
        values = [entropy(counts) for counts in self._counts.values()]
        return float(np.mean(values)) if values else 1.0

    def class_shares(self, names: tuple[str, ...]) -> list[dict[str, dict[str, float]]]:
        """Return, per stage, the share of each class among hidden patches and its base rate."""
        rows = []
        for hidden, everything in zip(self._hidden, self._all):
            if everything.sum() == 0:
                continue
            rows.append(
                {
                    name: {
                        "hidden": float(hidden[i] / max(hidden.sum(), 1e-9)),
                        "base": float(everything[i] / everything.sum()),
                    }
                    for i, name in enumerate(names)
                }
            )
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Return tensors for a checkpoint."""
        return {
            "hidden": torch.from_numpy(self._hidden.copy()),
            "all": torch.from_numpy(self._all.copy()),
            "counts": {n: torch.from_numpy(c.copy()) for n, c in self._counts.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self._hidden = state["hidden"].numpy().copy()
        self._all = state["all"].numpy().copy()
        self._counts = {int(n): c.numpy().copy() for n, c in state["counts"].items()}
