"""Segmentation as a training task.

Shapes: N batch, C classes, T tile px.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from weedseg.classes import IGNORE_ID, ClassTable, Role
from weedseg.config import Recipe
from weedseg.data import augment
from weedseg.data.datasets import PhotoPool, photo_numbers
from weedseg.evaluation.confusion import ConfusionMatrix, role_scores
from weedseg.finetuning.consistency import Consistency
from weedseg.finetuning.losses import class_weights, jaccard_loss, weighted_cross_entropy
from weedseg.nets.prediction import predict_class_map
from weedseg.nets.segmenter import SegmentationNet
from weedseg.training import distributed

FEWEST_TO_CHOOSE = 5
"""With fewer validation photos the best step by them is chance: DECISIONS.md has the figures."""
SMALLEST_NORMED_BATCH = 4
"""Below so many tiles a process, batch-norm keeps the statistics it came with."""


@dataclass
class LabelledBatch:
    """Tiles and their masks."""

    images: Tensor
    """(N, 3, T, T), 0-1."""
    masks: Tensor
    """int64 (N, T, T), 255 = ignore."""
    names: list[str]
    pair: tuple[Tensor, Tensor] | None = None
    """Practice tiles as the teacher sees them, and as the network does."""


class FinetuneTask:
    """Cut labelled tiles, compare, and score the validation photos now and then."""

    def __init__(
        self,
        net: SegmentationNet,
        pools: tuple[PhotoPool, PhotoPool | None],
        classes: ClassTable,
        recipe: Recipe,
        seed: int,
    ) -> None:
        """Prepare.

        Args:
            net: Network with one output per class.
            pools: Training photos, and validation photos if there are any, with masks.
            classes: Names and roles.
            recipe: Fine-tuning and export settings.
            seed: Seeds everything.
        """
        self.net, self.classes, self.recipe, self.seed = net, classes, recipe, seed
        self.config = recipe.finetune
        self.pool, self.validation = pools
        self.consistency: Consistency | None = None
        """Practice without labels, where it is set."""
        counts = sum(
            torch.from_numpy(_count(self.pool.mask(i), len(classes)))
            for i in range(min(len(self.pool), 500))
        )
        self.counts = torch.as_tensor(counts, dtype=torch.float32)
        self.weights = class_weights(self.counts)
        self.every = max(self.config.steps // self.config.evaluations, 1)

    @property
    def kept(self) -> SegmentationNet:
        """The network that is scored and kept: the teacher where there is one."""
        return self.net if self.consistency is None else self.consistency.teacher

    def prepare(self, step: int, attempt: int) -> LabelledBatch:
        """Cut and augment this process's tiles of a step.

        Raises:
            ConfigError: There are more processes than tiles.
            FieldDataError: Too many photos are unreadable.
        """
        config = self.config
        picked = photo_numbers(
            self.seed + attempt, step, config.batch, len(self.pool), self.pool.window
        )
        images, masks, names = [], [], []
        for slot in distributed.own_slots(config.batch):
            number = self.pool.readable(picked[slot])
            rng = np.random.default_rng([self.seed, attempt, step, slot, 10])
            image, mask = self.pool.image(number), self.pool.mask(number)
            centre = draw_centre(rng, mask) if rng.random() < config.rare_share else None
            size = (image.shape[0], image.shape[1])
            cut = augment.draw_cut(rng, size, config.tile_px, config.min_cut_share, centre)
            tile = augment.take_cut(image, cut, config.tile_px)
            images.append(augment.jitter(rng, config.jitter).apply(tile))
            masks.append(augment.take_cut(mask, cut, config.tile_px, nearest=True))
            names.append(self.pool.photos[number].name)
        return LabelledBatch(
            torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
            torch.from_numpy(np.stack(masks)).long(),
            names,
            None if self.consistency is None else self.consistency.draw(step, attempt),
        )

    def begin_step(self, step: int) -> None:
        """Do nothing."""

    def loss(
        self, model: nn.Module, batch: LabelledBatch, step: int
    ) -> tuple[Tensor, dict[str, float]]:
        """Weighted cross-entropy plus Jaccard loss, plus what practice asks for."""
        device = next(self.net.parameters()).device
        self.net.train()
        if self.config.batch // distributed.world_size() < SMALLEST_NORMED_BATCH:
            freeze_batch_norm(self.net)
        images = batch.images if batch.pair is None else torch.cat([batch.images, batch.pair[1]])
        masks, weights = batch.masks.to(device), self.weights.to(device)
        logits = model(images.to(device).contiguous(memory_format=torch.channels_last))
        num = len(masks)
        entropy = weighted_cross_entropy(logits[:num], masks, weights)
        jaccard = jaccard_loss(logits[:num], masks)
        loss, values = entropy + jaccard, {"jaccard_loss": float(jaccard.detach())}
        if self.consistency is not None and batch.pair is not None:
            other, sure = self.consistency.loss(logits[num:], batch.pair[0], weights, step)
            loss, values = loss + other, {**values, "sure_share": sure}
        return loss, values

    def end_step(self, step: int) -> dict[str, float] | None:
        """Move the teacher; score the validation photos at regular steps and at the end.

        Where they are fewer than `FEWEST_TO_CHOOSE`, only the last step may be kept.
        """
        if self.consistency is not None:
            self.consistency.follow(self.net, step)
        done = step + 1
        if self.validation is None or (done % self.every and done != self.config.steps):
            return None
        matrix = ConfusionMatrix(len(self.classes))
        overlap_px = min(self.recipe.export.overlap_px, self.recipe.export.tile_px // 4)
        for i in range(len(self.validation)):
            class_map = predict_class_map(
                self.kept, self.validation.image(i), self.recipe.export.tile_px, overlap_px
            )
            matrix.add(self.validation.mask(i), class_map)
        values = validation_scores(matrix, self.classes)
        if len(self.validation) < FEWEST_TO_CHOOSE and done != self.config.steps:
            del values["selection"]
        return values

    def state_dict(self) -> dict[str, Any]:
        """Return the teacher's weights, where there is one."""
        return {} if self.consistency is None else {"teacher": self.kept.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        if self.consistency is not None:
            self.kept.load_state_dict(state["teacher"])


def validation_scores(matrix: ConfusionMatrix, classes: ClassTable) -> dict[str, float]:
    """Return weed IoU and mIoU where known, and `selection`: weed IoU, with mIoU to break ties."""
    roles, miou = role_scores(matrix, classes), matrix.miou()
    weed = roles.weed_iou
    values = {"val_weed_iou": weed, "val_crop_iou": roles.crop_iou, "val_miou": miou}
    known = {name: value for name, value in values.items() if value is not None}
    if weed is not None:
        return {**known, "selection": weed + 1e-3 * (miou or 0.0)}
    return {**known, "selection": miou or 0.0}


def draw_centre(rng: np.random.Generator, mask: npt.NDArray[np.uint8]) -> tuple[int, int] | None:
    """Draw a pixel of a class drawn evenly among those in the mask; None if all is ignored."""
    present = [i for i in np.unique(mask).tolist() if i != IGNORE_ID]
    if not present:
        return None
    wanted = present[int(rng.integers(len(present)))]
    places = np.flatnonzero(mask == wanted)
    place = int(places[int(rng.integers(places.size))])
    return place // mask.shape[1], place % mask.shape[1]


def freeze_batch_norm(net: nn.Module) -> None:
    """Let batch-norm layers use, and keep, the statistics that they have."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()


def _count(mask: npt.NDArray[np.uint8], num_classes: int) -> npt.NDArray[np.int64]:
    return np.bincount(mask.ravel(), minlength=256)[:num_classes]


def has_weed(counts: Tensor, classes: ClassTable) -> bool:
    """Tell whether any weed pixel was counted."""
    return bool(sum(counts[i] for i in classes.ids_of(Role.WEED)) > 0)
