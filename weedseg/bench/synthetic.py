"""Is the synthetic farm like a field? A network that saw nothing else, on real photos.

The network learns crop and weed from synthetic farms only, and chooses its best step on others of
them. On real photos it is scored on plants against soil, beside ExG + Otsu, which needs no
training: crop against weed cannot be learned from habits that the real field does not grow.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weedseg import __version__
from weedseg.bench.lines import commit
from weedseg.bench.pretraining import SCALES, Dataset
from weedseg.classes import IGNORE_ID, Role
from weedseg.config import Recipe
from weedseg.data.index import Farm, Photo, index_farm
from weedseg.data.masks import read_mask
from weedseg.data.synthetic import write_farm
from weedseg.evaluation.baselines import exg_otsu
from weedseg.evaluation.confusion import ConfusionMatrix
from weedseg.finetuning.run import FinetuneOptions, finetune
from weedseg.imaging import ClassMap, Image, read_image, resize_class_map, resize_image
from weedseg.nets.prediction import predict_class_map
from weedseg.nets.segmenter import build_net
from weedseg.nets.weights import load_whole
from weedseg.training.loop import Reporter

VALIDATION_FARMS = 3
"""So many of the farms, one of each crop, choose the best step."""
PLANT = 1
Classify = Callable[[Image], ClassMap]


@dataclass(frozen=True, kw_only=True)
class SyntheticPlan:
    """What to train on and from which weights."""

    work: Path
    """Folder of the farms and the weights; farms that are there are used again."""
    farms: int = 18
    """Farms of seeds 0, 1, ..., at least 6."""
    photos: int = 10
    """Photos per farm."""
    init: str = "imagenet"
    """none or imagenet."""
    seed: int = 0


def measure_synthetic(
    plan: SyntheticPlan, dataset: Dataset, recipe: Recipe, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Train on synthetic farms only, and score plants against soil on real photos.

    Args:
        plan: What to train on.
        dataset: Real photos with masks; none of them is trained on.
        recipe: Fine-tuning steps and network.
        reporter: Is told about every step.

    Returns:
        One line: plant IoU of the network and of ExG + Otsu over all pixels of all labelled
        photos and of the test photos, share of the photos on which the network is better.

    Raises:
        TrainingError: Training cannot go on.
    """
    started = time.perf_counter()
    farm = compose_farms(plan)
    parts = split_farms(farm)
    folder = plan.work / f"weights-{plan.init}-{recipe.finetune.steps}-{plan.seed}"
    options = FinetuneOptions(
        folder=folder,
        device=torch.device("cpu"),
        seed=plan.seed,
        scale=1.0,
        init=plan.init,
        resume=True,
        phase=f"synthetic only, from {plan.init}",
    )
    summary = finetune(farm, parts, recipe, options, reporter)
    classify = _network(recipe, folder / "weights.safetensors", SCALES[dataset.name], farm)
    return {
        "bench": "synthetic",
        "dataset": dataset.name,
        "init": plan.init,
        "seed": plan.seed,
        "farms": plan.farms,
        "train_photos": len(parts[0]),
        "steps": summary["steps"],
        "best_step": summary["best_step"],
        "val_score": summary["best_score"],
        **score_plants(dataset, classify),
        "finetune_seconds": summary["seconds"],
        "seconds": time.perf_counter() - started,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "commit": commit(),
        "version": __version__,
        "torch": str(torch.__version__),
    }


def compose_farms(plan: SyntheticPlan) -> Farm:
    """Write the farms of a plan side by side, all labelled; each becomes a field of one farm."""
    root = plan.work / "farms"
    for seed in range(plan.farms):
        folder = root / f"farm-{seed:03d}"
        if not (folder / "fields.csv").is_file():
            write_farm(folder, seed, num_photos=plan.photos, num_labelled=plan.photos, fields=2)
    return index_farm(root)


def split_farms(farm: Farm) -> tuple[tuple[Photo, ...], tuple[Photo, ...]]:
    """Return training and validation photos; whole farms are kept apart."""
    names = sorted({photo.field for photo in farm.photos})
    held = set(names[-VALIDATION_FARMS:])
    return (
        tuple(p for p in farm.photos if p.field not in held),
        tuple(p for p in farm.photos if p.field in held),
    )


def score_plants(dataset: Dataset, classify: Classify) -> dict[str, Any]:
    """Score plants against soil, of a network and of ExG + Otsu.

    Args:
        dataset: Real photos with masks.
        classify: Gives 1 on plants and 0 on soil, (H, W, 3) -> (H, W).

    Returns:
        ``plant_iou`` and ``exg_otsu_plant_iou`` (all labelled photos, test photos), share of the
        photos with plants on which the network is better, number of photos.
    """
    photos, test = dataset.farm.labelled, set(dataset.test)
    matrices = [_compare(dataset.farm, photo, classify) for photo in photos]
    tested = [pair for photo, pair in zip(photos, matrices) if photo.name in test]
    lines: dict[str, Any] = {"num_photos": len(photos), "num_test": len(tested)}
    for number, name in enumerate(("plant_iou", "exg_otsu_plant_iou")):
        chosen = {"all": matrices, "test": tested}
        lines[name] = {part: _plant_iou([m[number] for m in of]) for part, of in chosen.items()}
    pairs = [(_plant_iou([own]), _plant_iou([other])) for own, other in matrices]
    better = [a > b for a, b in pairs if a is not None and b is not None]
    return {**lines, "better_share": float(np.mean(better)) if better else None}


def _compare(
    farm: Farm, photo: Photo, classify: Classify
) -> tuple[ConfusionMatrix, ConfusionMatrix]:
    """Count the pixels of one photo, for the network and for ExG + Otsu."""
    image, mask = read_image(photo.path), read_mask(farm, photo)
    soil = [*farm.classes.ids_of(Role.BACKGROUND), IGNORE_ID]
    truth = np.where(mask == IGNORE_ID, IGNORE_ID, ~np.isin(mask, soil)).astype(np.uint8)
    pair = ConfusionMatrix(2), ConfusionMatrix(2)
    pair[0].add(truth, classify(image))
    pair[1].add(truth, exg_otsu(image).astype(np.uint8))
    return pair


def _plant_iou(matrices: Sequence[ConfusionMatrix]) -> float | None:
    return sum(matrices, ConfusionMatrix(2)).iou()[PLANT]


def _network(recipe: Recipe, weights: Path, scale: float, farm: Farm) -> Classify:
    """Return what tells plants from soil with a trained network, at working resolution."""
    net = build_net(recipe.net, len(farm.classes))
    load_whole(net, weights)
    net.to(memory_format=torch.channels_last)
    soil = farm.classes.ids_of(Role.BACKGROUND)

    def classify(image: Image) -> ClassMap:
        small = resize_image(image, scale)
        found = predict_class_map(net, small, recipe.export.tile_px, recipe.export.overlap_px)
        plants = (~np.isin(found, soil)).astype(np.uint8)
        return resize_class_map(plants, (image.shape[0], image.shape[1]))

    return classify
