"""Score whole photos with the model trained so far, within a time budget.

Shapes: H W photo px at working resolution, Gh Gw patch grid.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from weedseg.config import PretrainConfig, ScoringConfig
from weedseg.data.datasets import PhotoPool
from weedseg.imaging import Image
from weedseg.pretraining import patches, scoring
from weedseg.training import distributed

FORWARD_SHARE = 0.4
"""Cost of one evaluation pass over a tile as a share of a training step on it; 1/3 by counting
operations, measured 0.25 to 0.37."""
NUM_CORRELATED = 16
"""Photos on which scores of training steps are compared with edges."""


@dataclass(frozen=True)
class Scored:
    """What scoring one photo gave."""

    grid: scoring.Grid
    mean_error: float
    """Mean error of the photo's patches: how little the network knows photos like it."""
    gradient_correlation: float
    """Correlation of the score with edges; above 0.8 selection is only an edge detector."""


class PhotoScorer:
    """Scores photos; keeps count of the time it takes."""

    def __init__(
        self, pool: PhotoPool, pretrain: PretrainConfig, config: ScoringConfig, fill: Tensor
    ) -> None:
        """Prepare.

        Args:
            pool: The photos.
            pretrain: Patch size, hidden share, batch and tile.
            config: Which masks, which error.
            fill: (3,) colour of hidden patches, 0-1.
        """
        self._pool, self._pretrain, self._config, self._fill = pool, pretrain, config, fill
        self.seconds = 0.0

    def affordable(self, num_steps: int, order: list[int]) -> int:
        """Count how many photos, in the given order, a stage of `num_steps` steps may score."""
        if self._config.source != "error":
            return len(order)
        share = min(self._config.time_share, 0.99)
        budget = share / (1 - share) * num_steps * self._pretrain.batch
        num_masks = self._num_masks()
        cost = 0.0
        for number, photo in enumerate(order):
            height, width = self._pool.image(photo).shape[:2]
            cost += height * width / self._pretrain.tile_px**2 * num_masks * FORWARD_SHARE
            if cost > budget:
                return number
        return len(order)

    def score_measured(self, measured: dict[int, scoring.Grid], seed: int) -> dict[int, Scored]:
        """Turn errors that training steps measured into scores.

        Args:
            measured: Mean error per patch, (Gh, Gw), by number of the photo.
            seed: Seeds the control that shuffles.
        """
        started = time.perf_counter()
        looked_at = set(list(measured)[:: max(len(measured) // NUM_CORRELATED, 1)])
        found = {}
        for photo, errors in measured.items():
            rng = np.random.default_rng([seed, photo, 2])
            grid = scoring.ordered(scoring.ranks(errors), self._config.order, rng)
            correlation = math.nan
            if photo in looked_at:
                target = photo_tensor(self._pool.image(photo))
                edges = scoring.gradient_energy(target, self._pretrain.patch_px)
                correlation = _correlation(grid, edges)
            found[photo] = Scored(grid, float(errors.mean()), correlation)
        self.seconds += time.perf_counter() - started
        return found

    def _num_masks(self) -> int:
        if self._config.masks == "pair":
            return max(round(1 / self._pretrain.hidden_share), 2)
        return self._config.num_masks

    def score_all(self, net: nn.Module, photos: list[int], seed: int) -> dict[int, Scored]:
        """Score photos, shared out over processes.

        Args:
            net: The reconstructing network.
            photos: Numbers of the photos.
            seed: Seeds the masks, together with the photo's number.
        """
        started = time.perf_counter()
        mine = photos[distributed.rank() :: distributed.world_size()]
        found = {photo: self._score(net, photo, seed) for photo in mine}
        merged = {n: s for part in distributed.gather(found) for n, s in part.items()}
        self.seconds += time.perf_counter() - started
        return merged

    @torch.no_grad()
    def _score(self, net: nn.Module, photo: int, seed: int) -> Scored:
        net.eval()
        patch_px = self._pretrain.patch_px
        target = photo_tensor(self._pool.image(photo))
        grid = patches.grid_size((target.shape[2], target.shape[3]), patch_px)
        edges = scoring.gradient_energy(target, patch_px)
        rng = np.random.default_rng([seed, photo, 2])
        if self._config.source == "error":
            raw, grid_scores = self._errors(net, target, grid, rng)
        else:
            raw = edges
            if self._config.source == "vegetation":
                raw = scoring.vegetation(target, patch_px)
            grid_scores = scoring.ranks(raw)
        grid_scores = scoring.ordered(grid_scores, self._config.order, rng)
        return Scored(grid_scores, float(raw.mean()), _correlation(grid_scores, edges))

    def _errors(
        self, net: nn.Module, target: Tensor, grid: tuple[int, int], rng: np.random.Generator
    ) -> tuple[scoring.Grid, scoring.Grid]:
        """Measure the error per patch while it is hidden; returns it raw and as the score."""
        patch_px, share = self._pretrain.patch_px, self._pretrain.hidden_share
        if self._config.masks == "pair":
            hidden = scoring.complementary_masks(rng, grid, share)
        else:
            hidden = scoring.random_masks(rng, grid, share, self._config.num_masks)
        errors = np.stack([self._error(net, target, mask) for mask in hidden])
        raw = scoring.combine(errors, hidden, self._config.hidden_only)
        if self._config.error == "reducible":
            return raw, scoring.reducible(raw, *scoring.contrast_and_usable(target, patch_px))
        return raw, raw if self._config.error == "structure" else scoring.ranks(raw)

    def _error(self, net: nn.Module, target: Tensor, hidden: scoring.Hidden) -> scoring.Grid:
        patch_px = self._pretrain.patch_px
        masked = patches.hide(target, torch.from_numpy(hidden)[None], patch_px, self._fill)
        reconstruction = reconstruct(net, masked)
        error = scoring.error_map(reconstruction, target, self._config.error)
        grid: scoring.Grid = patches.pool(error, patch_px)[0].numpy()
        return grid


def photo_tensor(image: Image) -> Tensor:
    """Turn a photo (H, W, 3) uint8 into (1, 3, H, W) float32 in 0-1."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def reconstruct(net: nn.Module, masked: Tensor) -> Tensor:
    """Run a network on (N, 3, H, W) of any size, on its own device, padded to multiples of 32."""
    height, width = masked.shape[2:]
    padded = nn.functional.pad(masked, (0, -width % 32, 0, -height % 32), mode="replicate")
    device = next(net.parameters()).device
    padded = padded.to(device, memory_format=torch.channels_last)
    output: Tensor = net(padded)
    return output[:, :, :height, :width].float().cpu().clamp(0, 1)


def _correlation(a: scoring.Grid, b: scoring.Grid) -> float:
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(scoring.ranks(a).ravel(), scoring.ranks(b).ravel())[0, 1])
