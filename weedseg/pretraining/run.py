"""Pretrain from a list of photos to a file of weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from weedseg.config import Recipe
from weedseg.data import augment
from weedseg.data.datasets import PhotoPool, working_scale
from weedseg.data.index import Farm, Photo
from weedseg.evaluation import pictures
from weedseg.imaging import write_png
from weedseg.nets.segmenter import build_net
from weedseg.nets.weights import dump_weights, initialise, start_head
from weedseg.pretraining import patches
from weedseg.pretraining.diagnostics import SelectionLog, class_grids
from weedseg.pretraining.task import PretrainTask
from weedseg.training import distributed
from weedseg.training.checkpoint import write_durably
from weedseg.training.loop import FitOptions, Reporter, fit
from weedseg.training.schedule import Schedule

NUM_PICTURES = 4


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """Where and on what to pretrain."""

    folder: Path
    device: torch.device
    seed: int
    init: str = "none"
    """Encoder weights to start from: none, imagenet, or a file of weights."""
    resume: bool = False


def pretrain(
    farm: Farm,
    photos: tuple[Photo, ...],
    recipe: Recipe,
    options: PretrainOptions,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Pretrain and write ``weights.safetensors`` and ``pretrain.json``.

    Args:
        farm: For classes and masks; masks are used for reporting only.
        photos: What the network may see.
        recipe: All settings.
        options: Folder, device, seed, first weights, resume.
        reporter: Is told about every step.

    Returns:
        What ``pretrain.json`` holds: steps, seconds, scoring share, what was hidden.

    Raises:
        TrainingError: The loss stayed NaN.
        FieldDataError: Too many photos are unreadable.
    """
    task = build_task(farm, photos, recipe, options)
    net, pool = task.net, task.pool
    folder = options.folder / "pictures"
    if distributed.rank() == 0:
        task.at_border = lambda step: write_picture(task, step, folder)
    result = fit(task, _fit_options(recipe, task, options), reporter)
    leader = distributed.rank() == 0
    summary = {
        "steps": result.steps,
        "seconds": result.seconds,
        "step_seconds": result.median_step_seconds if result.step_seconds else None,
        "scoring_share": task.scorer.seconds / max(result.seconds, 1e-9),
        "scored_share": len(task.cache.grids) / len(pool),
        "num_photos": len(pool),
        "bad_photos": list(pool.bad_names),
        "num_reloads": result.num_reloads,
        "scale": task.scale,
        "init": options.init,
        "hidden_classes": task.log.class_shares(farm.classes.names),
    }
    if leader:
        # Before the statistics of whole tiles: with those the network draws hidden patches badly.
        summary["random_hidden_l1"] = task.random_hidden_l1()
        write_picture(task, max(recipe.pretrain.steps - 1, 0), folder)
        reestimate_batch_norm(net, pool, recipe, options.seed)
        write_durably(options.folder / "weights.safetensors", dump_weights(net))
        write_durably(
            options.folder / "pretrain.json",
            json.dumps(summary, indent=1, allow_nan=False).encode(),
        )
    return summary


def build_task(
    farm: Farm, photos: tuple[Photo, ...], recipe: Recipe, options: PretrainOptions
) -> PretrainTask:
    """Build network, pool and task; the network's first weights are seeded.

    Raises:
        CheckpointError: The first weights do not fit.
        FieldDataError: There is no readable photo.
    """
    torch.manual_seed(options.seed)
    net = build_net(recipe.net, 3)
    initialise(net, options.init)
    scale = working_scale(photos, recipe.data.scale)
    pool = PhotoPool(
        farm, photos, scale, recipe.data.cache_mib, bad_photo_share=recipe.data.bad_photo_share
    )
    log = _selection_log(farm, photos, recipe, scale)
    task = PretrainTask(net, pool, recipe, options.seed, log)
    task.scale = scale
    start_head(net, task.fill)
    return task


def _selection_log(
    farm: Farm, photos: tuple[Photo, ...], recipe: Recipe, scale: float
) -> SelectionLog:
    labelled = [i for i, photo in enumerate(photos) if photo.mask is not None]
    grids = {}
    if labelled:
        chosen = [photos[i] for i in labelled]
        pool = PhotoPool(farm, chosen, scale, 256, with_masks=True, bad_photo_share=1.0)
        found = class_grids(
            pool, list(range(len(labelled))), len(farm.classes), recipe.pretrain.patch_px
        )
        grids = {labelled[i]: grid for i, grid in found.items()}
    return SelectionLog(grids, len(farm.classes), recipe.pretrain.stages)


def _fit_options(recipe: Recipe, task: PretrainTask, options: PretrainOptions) -> FitOptions:
    config = recipe.pretrain
    borders = task.borders if config.restart_lr else (0, config.steps)
    return FitOptions(
        phase="pretrain",
        folder=options.folder,
        steps=config.steps,
        lr=config.lr,
        schedule=Schedule(borders, config.warmup_share),
        device=options.device,
        weight_decay=config.weight_decay,
        decoupled=config.optimiser == "adamw",
        resume=options.resume,
    )


@torch.no_grad()
def reestimate_batch_norm(
    net: nn.Module, pool: PhotoPool, recipe: Recipe, seed: int, num_batches: int = 20
) -> None:
    """Compute batch-norm statistics anew on whole tiles: in pretraining they saw hidden patches."""
    layers = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    net.train()
    device = next(net.parameters()).device
    config = recipe.pretrain
    rng = np.random.default_rng([seed, 8])
    for _ in range(num_batches):
        tiles = []
        for number in rng.integers(0, len(pool), config.batch).tolist():
            image = pool.image(number)
            size = (image.shape[0], image.shape[1])
            cut = augment.draw_cut(rng, size, config.tile_px, config.min_cut_share)
            tiles.append(augment.take_cut(image, cut, config.tile_px))
        images = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).to(device).float() / 255
        net(images.contiguous(memory_format=torch.channels_last))
    for layer, momentum in zip(layers, momenta):
        layer.momentum = momentum


def write_picture(task: PretrainTask, step: int, folder: Path) -> None:
    """Write ``stage-K-of-N.png``: image, hidden patches, reconstruction and error after `step`.

    The tiles are the same in every stage, so the pictures show how selection moves.
    """
    batch = task.fixed_batch(NUM_PICTURES)
    rng = np.random.default_rng(9)
    rows = [task.hidden_in(batch, i, step, rng) for i in range(NUM_PICTURES)]
    hidden = np.stack(rows).reshape(batch.rows.shape)
    found = task.reconstruct(batch, hidden).clamp(0, 1)
    size = (batch.images.shape[2], batch.images.shape[3])
    pixels = patches.to_pixels(torch.from_numpy(hidden), task.config.patch_px, size)[:, 0]
    images, reconstructions = (
        (tiles.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
        for tiles in (batch.images, found)
    )
    path = folder / f"stage-{task.stage_of(step) + 1:02d}-of-{task.config.stages:02d}.png"
    write_png(path, pictures.reconstruction_grid(images, pixels.numpy(), reconstructions))
