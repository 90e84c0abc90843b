"""Reconstruction of hidden patches as a training task, stage by stage.

Shapes: N batch, T tile px, Gh Gw patch grid of a tile, L = Gh x Gw.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from weedseg.config import Recipe
from weedseg.data import augment
from weedseg.data.datasets import PhotoPool, photo_numbers
from weedseg.imaging import Image
from weedseg.nets.segmenter import SegmentationNet
from weedseg.pretraining import patches, selection
from weedseg.pretraining.diagnostics import SelectionLog
from weedseg.pretraining.scorer import PhotoScorer, Scored
from weedseg.pretraining.scoring import (
    Hidden,
    ScoreCache,
    error_map,
    random_masks,
    structured_noise,
)
from weedseg.pretraining.similarity import ms_ssim
from weedseg.pretraining.step_errors import StepErrors
from weedseg.training import average, distributed

logger = logging.getLogger(__name__)

Positions = npt.NDArray[np.float32]
Cells = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

MOST_HIDDEN_IN_CLEAN = 0.1
"""Largest hidden share of a tile that is only lightly masked."""


@dataclass
class TileBatch:
    """Tiles of one step; hidden patches are chosen later, by the scores of that moment."""

    images: Tensor
    """(N, 3, T, T), 0-1."""
    photos: list[int]
    rows: Positions
    """(N, Gh, Gw): where each patch's centre lies in its photo, px from the top."""
    columns: Positions
    sizes: list[tuple[int, int]]
    """Of the photos, px at working resolution."""
    names: list[str]
    slots: list[int]
    """Places of the tiles in the batch of all processes."""
    attempt: int


class PretrainTask:
    """Hide, reconstruct, compare; score photos at every stage border."""

    scale = 1.0
    """Working resolution of the pool, share of the photo's."""

    def __init__(
        self, net: SegmentationNet, pool: PhotoPool, recipe: Recipe, seed: int, log: SelectionLog
    ) -> None:
        """Prepare the first stage.

        Args:
            net: Network with three outputs.
            pool: Photos at working resolution.
            recipe: Pretraining, scoring and selection.
            seed: Seeds everything.
            log: Counts what is hidden.
        """
        self.net, self.pool, self.recipe, self.seed, self.log = net, pool, recipe, seed, log
        self.config = recipe.pretrain
        self.fill = torch.from_numpy(mean_colour(pool))
        self.borders = selection.stage_borders(self.config)
        self.cache = ScoreCache(self.config.patch_px)
        self.step_errors = StepErrors()
        self.scorer = PhotoScorer(pool, self.config, recipe.scoring, self.fill)
        self.teacher = average.frozen_copy(net) if self._uses_teacher() else None
        self.border_values: dict[str, float] = {}
        self.at_border: Callable[[int], None] | None = None
        """Called with the last step of every stage but the last, e.g. to write pictures."""

    @property
    def kept(self) -> SegmentationNet:
        """The network whose weights are the result."""
        return self.net

    def _uses_teacher(self) -> bool:
        scoring = self.recipe.scoring
        return self.recipe.uses_scores and scoring.has_own_passes and scoring.teacher == "ema"

    def _uses_steps(self) -> bool:
        scoring = self.recipe.scoring
        at_no_cost = scoring.source == "error" and not scoring.has_own_passes
        return self.recipe.uses_scores and at_no_cost

    def stage_of(self, step: int) -> int:
        """Return the number of the stage a step belongs to."""
        return max(i for i, border in enumerate(self.borders[:-1]) if border <= step)

    def _photos_of(self, stage: int) -> list[int]:
        everything = range(len(self.pool))
        if not self.config.disjoint_photos or self.config.stages < 2:
            return list(everything)
        shuffled = np.random.default_rng([self.seed, 3]).permutation(len(self.pool))
        order: list[int] = shuffled.tolist()
        return order[stage :: self.config.stages] or order

    def prepare(self, step: int, attempt: int) -> TileBatch:
        """Cut and jitter this process's tiles of a step.

        Raises:
            ConfigError: There are more processes than tiles.
            FieldDataError: Too many photos are unreadable.
        """
        config = self.config
        photos = self._photos_of(self.stage_of(step))
        picked = photo_numbers(
            self.seed + attempt, step, config.batch, len(photos), self.pool.window
        )
        tiles, centres, sizes = [], [], []
        mine = distributed.own_slots(config.batch)
        numbers = [self.pool.readable(photos[picked[i]]) for i in mine]
        for slot, number in zip(mine, numbers):
            rng = np.random.default_rng([self.seed, attempt, step, slot])
            image = self.pool.image(number)
            sizes.append(_size(image))
            cut = self._draw_cut(rng, number, sizes[-1], step)
            tile = augment.take_cut(image, cut, config.tile_px)
            tiles.append(augment.jitter(rng, config.jitter).apply(tile))
            centres.append(patches.centres(cut, config.tile_px, config.patch_px))
        batch = self._batch(tiles, numbers, centres, sizes)
        return replace(batch, slots=list(mine), attempt=attempt)

    def _draw_cut(
        self, rng: np.random.Generator, number: int, size: tuple[int, int], step: int
    ) -> augment.Cut:
        """Draw a cut of a photo; of several choices take the one with the hardest patches."""
        config, stage = self.config, self.stage_of(step)
        num = self.recipe.selection.cut_choices if self.recipe.uses_scores else 1
        # The first cut stays that of the arms without scores: the others have their own chance.
        sources = (rng, *rng.spawn(1) * (num - 1))
        choices = [
            augment.draw_cut(source, size, config.tile_px, config.min_cut_share)
            for source in sources
        ]

        def score(cut: augment.Cut) -> float:
            at = patches.centres(cut, config.tile_px, config.patch_px)
            found = self.cache.lookup(number, at[..., 0], at[..., 1], before=stage)
            return 0.0 if found is None else float(found.mean())

        return choices[0] if len(choices) == 1 else max(choices, key=score)

    def begin_step(self, step: int) -> None:
        """Score photos when a selective stage begins."""
        if self.teacher is not None:
            self.teacher.to(next(self.net.parameters()).device)
        if not self.recipe.uses_scores or self.recipe.scoring.source == "noise":
            return
        if step not in self.borders[1:-1]:
            return
        stage = self.stage_of(step)
        if any(s == stage for s in self.cache.stages.values()):
            return  # resumed right at the border: scored before the kill
        scored = self._score(stage)
        for number, result in scored.items():
            self.cache.put(number, result.grid, stage)
        correlations = [
            s.gradient_correlation for s in scored.values() if np.isfinite(s.gradient_correlation)
        ]
        self.border_values = {
            "scored_share": len(self.cache.grids) / len(self.pool),
            "gradient_correlation": float(np.mean(correlations)) if correlations else 0.0,
        }

    def _score(self, stage: int) -> dict[int, Scored]:
        """Score what the stage will see: by errors of the steps so far, or by looking at photos."""
        if self._uses_steps():
            return self.scorer.score_measured(self.step_errors.gathered(), self.seed + stage)
        order = sorted(
            self._photos_of(stage),
            key=lambda n: (
                self.cache.stages.get(n, -1),
                np.random.default_rng([self.seed, stage, n, 4]).random(),
            ),
        )
        num_steps = self.borders[stage + 1] - self.borders[stage]
        chosen = order[: self.scorer.affordable(num_steps, order)]
        return self.scorer.score_all(self.teacher or self.net, chosen, self.seed + stage)

    def choose_hidden(self, batch: TileBatch, step: int) -> Hidden:
        """Choose the hidden patches of every tile, (N, Gh, Gw); a few tiles stay nearly clean."""
        config, num = self.config, batch.rows[0].size
        num_clean = round(config.clean_share * config.batch)
        result = np.zeros((len(batch.photos), num), bool)
        for i, slot in enumerate(batch.slots):
            rng = np.random.default_rng([self.seed, batch.attempt, step, slot, 0, 5])
            if slot < num_clean:
                share = rng.uniform(0, MOST_HIDDEN_IN_CLEAN)
                result[i] = self._draw(rng, None, num, share, 0.0)
            else:
                result[i] = self.hidden_in(batch, i, step, rng)
                self._count(step, batch, i, result[i])
        return result.reshape(batch.rows.shape)

    def hidden_in(
        self, batch: TileBatch, i: int, step: int, rng: np.random.Generator
    ) -> npt.NDArray[np.bool_]:
        """Choose the hidden patches of one tile as this step of training would, (L,)."""
        hard = selection.hard_share_at(step, self.recipe.selection, self.config)
        scores = self.cache.lookup(batch.photos[i], batch.rows[i], batch.columns[i])
        if self.recipe.scoring.source == "noise" and hard > 0:
            scores = structured_noise(rng, (batch.rows.shape[1], batch.rows.shape[2]))
        flat = None if scores is None else scores.ravel()
        return self._draw(rng, flat, batch.rows[i].size, self.config.hidden_share, hard)

    def _draw(
        self, rng: np.random.Generator, scores: Any, num: int, share: float, hard: float
    ) -> npt.NDArray[np.bool_]:
        chosen = replace(self.recipe.selection, hard_share=hard)
        return selection.select_hidden(rng, scores, num, round(share * num), chosen)

    def _count(self, step: int, batch: TileBatch, i: int, hidden: Hidden) -> None:
        cells, grid = self._cells(batch, i)
        self.log.add(self.stage_of(step), batch.photos[i], cells, hidden, grid)

    def _cells(self, batch: TileBatch, i: int) -> tuple[Cells, tuple[int, int]]:
        """Return in which patch of its photo each patch of a tile lies, and the photo's grid."""
        patch_px = self.config.patch_px
        grid = patches.grid_size(batch.sizes[i], patch_px)
        y = np.clip(batch.rows[i].ravel() // patch_px, 0, grid[0] - 1).astype(np.int64)
        x = np.clip(batch.columns[i].ravel() // patch_px, 0, grid[1] - 1).astype(np.int64)
        return (y, x), grid

    def _measure(self, output: Tensor, images: Tensor, hidden: Tensor, batch: TileBatch) -> None:
        """Keep the errors of the patches that this step hid, but for nearly clean tiles."""
        error = error_map(output, images, self.recipe.scoring.error)
        grids = patches.pool(error, self.config.patch_px).float().cpu().numpy()
        chosen = hidden.cpu().numpy()
        num_clean = round(self.config.clean_share * self.config.batch)
        for i, slot in enumerate(batch.slots):
            if slot >= num_clean:
                (y, x), grid = self._cells(batch, i)
                own = chosen[i].ravel()
                at = (y[own], x[own])
                self.step_errors.add(batch.photos[i], grid, at, grids[i].ravel()[own])

    def loss(
        self, model: nn.Module, batch: TileBatch, step: int
    ) -> tuple[Tensor, dict[str, float]]:
        """L1 + (1 - MS-SSIM); errors on visible pixels count `visible_weight`."""
        device = next(self.net.parameters()).device
        hidden = torch.from_numpy(self.choose_hidden(batch, step)).to(device)
        images = batch.images.to(device, memory_format=torch.channels_last)
        patch_px = self.config.patch_px
        self.net.train()
        masked = patches.hide(images, hidden, patch_px, self.fill.to(device))
        output = model(masked.contiguous(memory_format=torch.channels_last))
        pixels = patches.to_pixels(hidden.float(), patch_px, (images.shape[2], images.shape[3]))
        weight = pixels + (1 - pixels) * self.config.visible_weight
        error = output - images
        l1 = (error.abs() * weight).sum((1, 2, 3)) / (3 * weight.sum((1, 2, 3))).clamp_min(1)
        similarity = ms_ssim(images + error * weight, images)
        loss = distributed.batch_mean(l1 + 1 - similarity)
        with torch.no_grad():
            hidden_l1 = (error.abs() * pixels).sum() / (3 * pixels.sum()).clamp_min(1)
            if self._uses_steps():
                self._measure(output.float(), images, hidden, batch)
        return loss, {"hidden_l1": hidden_l1.item()}

    @torch.no_grad()
    def end_step(self, step: int) -> dict[str, float] | None:
        """Move the teacher; report what happened at a stage border."""
        if self.teacher is not None:
            average.follow(self.teacher, self.net, step, self.recipe.scoring.ema_decay)
        if step + 1 not in self.borders[1:]:
            return None
        values, self.border_values = self.border_values, {}
        values |= {"stage": float(self.stage_of(step)), "hidden_entropy": self.log.hidden_entropy()}
        values["random_hidden_l1"] = self.random_hidden_l1()
        if self.at_border is not None and step + 1 < self.config.steps:
            self.at_border(step)
        return values

    def fixed_batch(self, num: int) -> TileBatch:
        """Cut the same tiles, without jitter, from photos spread over the pool, at any time."""
        size = self.config.tile_px
        spread = np.linspace(0, len(self.pool) - 1, num).round().astype(int).tolist()
        numbers = [self.pool.readable(n) for n in spread]
        tiles, centres, sizes = [], [], []
        for number in numbers:
            image = self.pool.image(number)
            sizes.append(_size(image))
            cut = augment.draw_cut(np.random.default_rng([number, 6]), sizes[-1], size, 1.0)
            tiles.append(augment.take_cut(image, cut, size).astype(np.float32) / 255)
            centres.append(patches.centres(cut, size, self.config.patch_px))
        return self._batch(tiles, numbers, centres, sizes)

    def _batch(
        self, tiles: list[Any], numbers: list[int], centres: list[Any], sizes: Any
    ) -> TileBatch:
        return TileBatch(
            images=torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2),
            photos=numbers,
            rows=np.stack(centres)[..., 0],
            columns=np.stack(centres)[..., 1],
            sizes=sizes,
            names=[self.pool.photos[n].name for n in numbers],
            slots=list(range(len(tiles))),
            attempt=0,
        )

    @torch.no_grad()
    def reconstruct(self, batch: TileBatch, hidden: Hidden) -> Tensor:
        """Reconstruct tiles with the network in evaluation mode, (N, 3, T, T)."""
        device = next(self.net.parameters()).device
        masked = patches.hide(
            batch.images, torch.from_numpy(hidden), self.config.patch_px, self.fill
        )
        self.net.eval()
        output: Tensor = self.net(masked.to(device, memory_format=torch.channels_last))
        return output.float().cpu()

    def random_hidden_l1(self) -> float:
        """Measure L1 on fixed, randomly hidden patches of fixed tiles: comparable between arms."""
        batch = self.fixed_batch(8)
        hidden = random_masks(
            np.random.default_rng(7), batch.rows.shape[1:], self.config.hidden_share, 8
        )
        pixels = patches.to_pixels(
            torch.from_numpy(hidden).float(), self.config.patch_px, (self.config.tile_px,) * 2
        )
        error = (self.reconstruct(batch, hidden) - batch.images).abs() * pixels
        return float(error.sum() / (3 * pixels.sum()))

    def state_dict(self) -> dict[str, Any]:
        """Return score cache, teacher and counts."""
        return {
            "cache": self.cache.state_dict(),
            "step_errors": self.step_errors.state_dict(),
            "teacher": self.teacher.state_dict() if self.teacher is not None else {},
            "log": self.log.state_dict(),
            "border_values": dict(self.border_values),
            "scoring_seconds": self.scorer.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.cache.load_state_dict(state["cache"])
        self.step_errors.load_state_dict(state["step_errors"])
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])
        self.log.load_state_dict(state["log"])
        self.border_values = dict(state["border_values"])
        self.scorer.seconds = state["scoring_seconds"]


def _size(image: Image) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def mean_colour(pool: PhotoPool, num: int = 50) -> npt.NDArray[np.float32]:
    """Compute the mean colour (3,) in 0-1 of up to `num` photos spread over the pool."""
    numbers = sorted(set(np.linspace(0, len(pool) - 1, num).round().astype(int).tolist()))
    means = [pool.image(n).reshape(-1, 3).mean(0) / 255 for n in numbers]
    return np.asarray(np.mean(means, axis=0), np.float32)
