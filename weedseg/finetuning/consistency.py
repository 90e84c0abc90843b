"""Practise without labels: recognise under hidden patches what a teacher sees whole.

The teacher is a moving average of the network (Tarvainen and Valpola 2017) and sees a whole tile.
The network sees the tile in other colours and with hidden patches, and has to name the same classes
where the teacher is sure (masked image consistency, Hoyer et al. 2023).

Shapes: N batch, C classes, T tile px.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from weedseg.classes import ClassTable, Role
from weedseg.config import Recipe
from weedseg.data import augment
from weedseg.data.datasets import PhotoPool, photo_numbers
from weedseg.evaluation import pictures
from weedseg.imaging import Image
from weedseg.nets.segmenter import SegmentationNet
from weedseg.training import average, distributed

TEACHER_DECAY = 0.99
"""Memory of the teacher, a step."""
NUM_PICTURES = 3
"""Tiles in the picture of practice."""
RAMP_SHARE = 0.2
"""Share of the steps in which the weight of practice rises from 0."""


class Consistency:
    """Practice tiles, the teacher, and how well the network agrees with it."""

    def __init__(self, net: SegmentationNet, pool: PhotoPool, recipe: Recipe, seed: int) -> None:
        """Prepare.

        Args:
            net: The network with its first weights, head included.
            pool: Photos to practise on; masks are not read.
            recipe: Fine-tuning settings, and the side of a patch.
            seed: Seeds everything.
        """
        self.pool, self.config, self.seed = pool, recipe.finetune, seed
        self.patch_px = recipe.pretrain.patch_px
        self.teacher = average.frozen_copy(net)

    def draw(self, step: int, attempt: int) -> tuple[Tensor, Tensor]:
        """Cut this process's practice tiles of a step.

        Returns:
            What the teacher and what the network sees, float32 (N, 3, T, T) each, 0-1.

        Raises:
            ConfigError: There are more processes than tiles.
            FieldDataError: Too many photos are unreadable.
        """
        config = self.config
        picked = photo_numbers(
            self.seed + attempt, step, config.batch, len(self.pool), self.pool.window
        )
        pairs = []
        for slot in distributed.own_slots(config.batch):
            image = self.pool.image(self.pool.readable(picked[slot]))
            rng = np.random.default_rng([self.seed, attempt, step, slot, 11])
            size = (image.shape[0], image.shape[1])
            cut = augment.draw_cut(rng, size, config.tile_px, config.min_cut_share)
            whole = augment.take_cut(image, cut, config.tile_px)
            changed = augment.jitter(rng, config.jitter).apply(whole)
            changed[self._hidden(rng)] = changed.mean((0, 1))
            pairs.append((whole.astype(np.float32) / 255, changed))
        whole_tiles, changed_tiles = (np.stack(tiles) for tiles in zip(*pairs))
        return (
            torch.from_numpy(whole_tiles).permute(0, 3, 1, 2),
            torch.from_numpy(changed_tiles).permute(0, 3, 1, 2),
        )

    def _hidden(self, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Draw the hidden pixels of a tile, (T, T): whole patches, each by chance."""
        side = -(-self.config.tile_px // self.patch_px)
        patches = rng.random((side, side)) < self.config.consistency_hidden_share
        pixels = np.kron(patches, np.ones((self.patch_px, self.patch_px), bool))
        return pixels[: self.config.tile_px, : self.config.tile_px]

    def loss(
        self, logits: Tensor, whole: Tensor, weights: Tensor, step: int
    ) -> tuple[Tensor, float]:
        """Compare the network with the teacher.

        Args:
            logits: (N, C, T, T), of the network on the changed tiles.
            whole: (N, 3, T, T), the tiles as the teacher sees them.
            weights: (C,) weight of each class.
            step: Optimiser step.

        Returns:
            The loss, weighted as the recipe says and less at the beginning; and the share of the
            pixels that count.
        """
        teacher = self.teacher.to(logits.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            seen = whole.to(logits.device).contiguous(memory_format=torch.channels_last)
            wanted = teacher.eval()(seen)
        found, sure = agreement_loss(logits, wanted, weights, self.config.consistency_sure)
        rise = min(1.0, step / max(RAMP_SHARE * self.config.steps, 1.0))
        return self.config.consistency_weight * rise * found, sure

    def follow(self, net: SegmentationNet, step: int) -> None:
        """Move the teacher after a step."""
        average.follow(self.teacher, net, step, TEACHER_DECAY)

    @torch.no_grad()
    def picture(self, net: SegmentationNet, classes: ClassTable) -> Image:
        """Draw the practice of a step that never was: the tiles with the most plants.

        Args:
            net: The network; is put into evaluation mode.
            classes: Names and colours.

        Returns:
            A row per tile: whole tile, the teacher's classes, visible patches, the network's.
        """
        device = next(net.parameters()).device
        whole, changed = self.draw(self.config.steps, 0)
        taught = self.teacher.to(device).eval()(whole.to(device)).argmax(1).byte().cpu().numpy()
        found = net.eval()(changed.to(device)).argmax(1).byte().cpu().numpy()
        soil = classes.ids_of(Role.BACKGROUND)
        plants = (~np.isin(taught, soil)).mean((1, 2))
        rows = []
        for i in np.argsort(-plants)[:NUM_PICTURES]:
            tile, masked = (
                (tiles[i].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
                for tiles in (whole, changed)
            )
            seen = ("teacher sees all", pictures.overlay(tile, taught[i], classes))
            guessed = ("network names", pictures.overlay(masked, found[i], classes))
            rows.append([("tile", tile), seen, ("network sees", masked), guessed])
        return pictures.grid(rows)


def agreement_loss(
    logits: Tensor, wanted: Tensor, weights: Tensor, sure: float
) -> tuple[Tensor, float]:
    """Compute the cross-entropy with the teacher's classes, where it is sure of them.

    Args:
        logits: (N, C, T, T) of the network.
        wanted: (N, C, T, T) of the teacher.
        weights: (C,) weight of each class.
        sure: Smallest probability of the teacher's class with which a pixel counts, 0-1.

    Returns:
        Scalar: the mean over all pixels of all processes, a pixel that does not count being 0; and
        the share of this process's pixels that count.
    """
    probability, classes = wanted.softmax(1).max(1)
    counts = (probability >= sure).to(logits.dtype)
    entropy = functional.cross_entropy(logits, classes, weight=weights, reduction="none")
    return distributed.batch_mean((entropy * counts).mean((1, 2))), float(counts.mean())
