"""Fine-tune from labelled photos to a file of weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from weedseg.config import Recipe
from weedseg.data.datasets import PhotoPool
from weedseg.data.index import Farm, Photo
from weedseg.errors import FieldDataError
from weedseg.finetuning.consistency import Consistency
from weedseg.finetuning.task import FinetuneTask, has_weed
from weedseg.imaging import write_png
from weedseg.nets.segmenter import build_net
from weedseg.nets.weights import dump_weights, initialise, start_head
from weedseg.training import checkpoint, distributed
from weedseg.training.loop import FitOptions, Reporter, fit
from weedseg.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """Where and on what to fine-tune."""

    folder: Path
    device: torch.device
    seed: int
    scale: float
    """Working resolution, share of the photo's."""
    init: str = "none"
    """Weights to start from: none, imagenet, or a file of pretrained weights."""
    resume: bool = False
    practice: tuple[Photo, ...] = ()
    """Photos to practise on without masks (consistency.py), none that measures the network; empty:
    the training photos."""
    phase: str = "fine-tune"
    needs_weeds: bool = True
    """Refuse training masks without a weed pixel; a fold of a cross-validation may lack weeds."""


def finetune(
    farm: Farm,
    photos: tuple[tuple[Photo, ...], tuple[Photo, ...]],
    recipe: Recipe,
    options: FinetuneOptions,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Fine-tune and write ``weights.safetensors`` (whole network) and ``finetune.json``.

    The weights are those of the best step by validation weed IoU, or of the last step when there
    are too few validation photos to tell.

    Args:
        farm: Classes and palette.
        photos: Training photos, and validation photos (may be empty).
        recipe: All settings.
        options: Folder, device, seed, first weights, resume.
        reporter: Is told about every step.

    Returns:
        What ``finetune.json`` holds: steps, seconds, best step and score, class weights.

    Raises:
        FieldDataError: No weed pixel in any training mask.
        TrainingError: The loss stayed NaN, or the best checkpoint was damaged meanwhile.
    """
    task = build_task(farm, photos, recipe, options)
    result = fit(task, _fit_options(recipe, options), reporter)
    if result.best_score is not None:
        name = checkpoint.checkpoint_name(checkpoint.BEST, result.best_step)
        best = checkpoint.load_checkpoint(options.folder / "checkpoints" / f"{name}.pt")
        task.kept.load_state_dict(best["net"])
    practice = task.consistency.pool if task.consistency is not None else None
    summary = {
        "steps": result.steps,
        "best_step": result.best_step or result.steps,
        "best_score": result.best_score,
        "seconds": result.seconds,
        "step_seconds": result.median_step_seconds if result.step_seconds else None,
        "num_train": len(photos[0]),
        "num_val": len(photos[1]),
        "num_practice": len(practice) if practice is not None else 0,
        "bad_photos": sorted({n for pool in (task.pool, practice) if pool for n in pool.bad_names}),
        "num_reloads": result.num_reloads,
        "class_weights": [float(w) for w in task.weights],
        "init": options.init,
    }
    if distributed.rank() == 0:
        data = dump_weights(task.kept)
        checkpoint.write_durably(options.folder / "weights.safetensors", data)
        if task.consistency is not None:
            picture = task.consistency.picture(task.net, farm.classes)
            write_png(options.folder / "pictures" / "practice.png", picture)
        text = json.dumps(summary, indent=1, allow_nan=False)
        checkpoint.write_durably(options.folder / "finetune.json", text.encode())
    return summary


def build_task(
    farm: Farm,
    photos: tuple[tuple[Photo, ...], tuple[Photo, ...]],
    recipe: Recipe,
    options: FinetuneOptions,
) -> FinetuneTask:
    """Build network, pools and task; the head is always new and seeded.

    Raises:
        FieldDataError: There is no labelled photo, or no weed pixel in any of them.
        CheckpointError: The first weights do not fit.
    """
    torch.manual_seed(options.seed)
    net = build_net(recipe.net, len(farm.classes))
    initialise(net, options.init)
    training, validation = (_pool(farm, part, recipe, options) for part in photos)
    if training is None:
        raise FieldDataError("no labelled photo to train on", "at least one", "label some photos")
    task = FinetuneTask(net, (training, validation), farm.classes, recipe, options.seed)
    if options.needs_weeds:
        _check_classes(task, farm)
    start_head(net, _log_priors(task.counts))
    config = recipe.finetune
    if config.consistency_weight and config.steps >= config.consistency_min_steps:
        practice = _pool(farm, options.practice or photos[0], recipe, options, masks=False)
        if practice is not None:
            task.consistency = Consistency(net, practice, recipe, options.seed)
    return task


def _pool(
    farm: Farm,
    photos: tuple[Photo, ...],
    recipe: Recipe,
    options: FinetuneOptions,
    masks: bool = True,
) -> PhotoPool | None:
    if not photos:
        return None
    share = recipe.data.bad_photo_share
    return PhotoPool(farm, photos, options.scale, recipe.data.cache_mib, masks, share)


def _check_classes(task: FinetuneTask, farm: Farm) -> None:
    if not has_weed(task.counts, farm.classes):
        raise FieldDataError(
            "no weed pixel in any training mask",
            "weeds in at least one mask",
            "label photos with weeds, or correct the classes and roles",
        )


def _log_priors(counts: torch.Tensor) -> torch.Tensor:
    """Return log class shares, (C,): the head starts by predicting how often a class occurs."""
    shares = (counts + 1) / (counts + 1).sum()
    return shares.log().clamp_min(-6)


def _fit_options(recipe: Recipe, options: FinetuneOptions) -> FitOptions:
    config = recipe.finetune
    return FitOptions(
        phase=options.phase,
        folder=options.folder,
        steps=config.steps,
        lr=config.lr,
        schedule=Schedule((0, config.steps), config.warmup_share),
        device=options.device,
        weight_decay=config.weight_decay,
        resume=options.resume,
    )
