"""Does pretraining pay, and which? One code path, equal steps, arms that differ in one thing.

A benchmark is a list of runs (arm x pretraining seed x fine-tuning seed). Each finished run is one
line of JSON; a killed benchmark goes on where it was, and the same command started twice shares
the runs between two processes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from weedseg import __version__
from weedseg.bench.lines import append_line, commit, read_lines
from weedseg.config import Recipe, load_recipe
from weedseg.data.datasets import working_scale
from weedseg.data.importers.cwfid import cwfid_farm
from weedseg.data.importers.peanut import peanut_farm
from weedseg.data.index import Farm, Photo
from weedseg.data.masks import read_mask
from weedseg.data.splits import Split, make_split
from weedseg.errors import ConfigError
from weedseg.evaluation.confusion import ConfusionMatrix
from weedseg.finetuning.run import FinetuneOptions, finetune
from weedseg.imaging import read_image, resize_class_map, resize_image
from weedseg.nets.prediction import predict_class_map
from weedseg.nets.segmenter import build_net
from weedseg.nets.weights import load_whole
from weedseg.pretraining.run import PretrainOptions, pretrain
from weedseg.training.loop import Reporter

SPLIT_SEED = 0
"""Seeds the test photos of sets without a published split: the same for all runs."""


@dataclass(frozen=True)
class Arm:
    """One way to get first weights."""

    recipe: str | None
    """Recipe of the pretraining; None does none."""
    init: str = "none"


ARMS = {
    "N": Arm(None),
    "I": Arm(None, "imagenet"),
    "R": Arm("random"),
    "P": Arm("random-staged"),
    "F": Arm("faithful"),
    "S+": Arm("default"),
    "I+R": Arm("random", "imagenet"),
    "I+S+": Arm("default", "imagenet"),
}


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A labelled set with its test photos fixed."""

    name: str
    farm: Farm
    test: tuple[str, ...]

    def split(self, seed: int, labelled: int) -> Split:
        """Split with nested subsets of labels; the test photos are always the same."""
        return make_split(self.farm, seed, labelled_limit=labelled, fixed_test=self.test)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a benchmark runs."""

    dataset: Dataset
    arms: tuple[str, ...]
    pretrain_seeds: int
    finetune_seeds: int
    labels: int
    settings: tuple[str, ...]
    lines: Path
    work: Path

    def runs(self) -> Iterator[tuple[str, int, int]]:
        """List (arm, pretraining seed, fine-tuning seed), seed by seed so that arms stay even."""
        for seed in range(self.finetune_seeds):
            for arm in self.arms:
                yield arm, seed % self.pretrain_seeds, seed


def load_dataset(name: str, folder: Path) -> Dataset:
    """Read a known set where it lies.

    Raises:
        ConfigError: The name is unknown.
    """
    if name == "cwfid":
        farm, test, _ = cwfid_farm(folder)
        return Dataset(name=name, farm=farm, test=tuple(test))
    if name == "peanut":
        farm = peanut_farm(folder)
        split = make_split(farm, SPLIT_SEED)
        return Dataset(name=name, farm=farm, test=tuple(p.name for p in split.test))
    raise ConfigError(f"data set '{name}'", "cwfid or peanut", "choose one of them")


def run_plan(plan: Plan, reporter: Reporter | None = None) -> int:
    """Do all runs that have no line yet; returns how many this process did.

    Raises:
        ConfigError: An arm is unknown.
    """
    unknown = [arm for arm in plan.arms if arm not in ARMS]
    if unknown:
        raise ConfigError(f"arm '{unknown[0]}'", f"one of {', '.join(ARMS)}", "choose one of them")
    done = 0
    for arm, pretrain_seed, finetune_seed in plan.runs():
        key = run_key(plan, arm, pretrain_seed, finetune_seed)
        with _claim(plan.work / f"{_safe(key)}.lock") as mine:
            if not mine or key in finished(plan.lines):
                continue
            line = _run(plan, arm, pretrain_seed, finetune_seed, reporter)
            append_line(plan.lines, {"key": key, **line})
            done += 1
    return done


def run_key(plan: Plan, arm: str, pretrain_seed: int, finetune_seed: int) -> str:
    """Name a run so that it is found again; other settings make another run."""
    settings = ",".join(sorted(plan.settings))
    name = f"{plan.dataset.name}/{arm}/{pretrain_seed}/{finetune_seed}/{plan.labels}"
    return f"{name}/{settings}"


def _safe(key: str) -> str:
    """Turn a key into a file name: readable at the front, unique by its checksum."""
    front = "".join(c if c.isalnum() or c in "+-." else "_" for c in key[:40])
    return f"{front}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def finished(lines: Path) -> set[str]:
    """Read the keys of all finished runs."""
    return {str(line["key"]) for line in read_lines(lines)}


@contextmanager
def _claim(path: Path) -> Iterator[bool]:
    """Claim a run for this process; a claim dies with its process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _run(
    plan: Plan, name: str, pretrain_seed: int, finetune_seed: int, reporter: Reporter | None
) -> dict[str, Any]:
    arm = ARMS[name]
    recipe = load_recipe(arm.recipe or "default", list(plan.settings))
    split = plan.dataset.split(finetune_seed, plan.labels)
    started = time.perf_counter()
    weights, before = _pretrain(plan, name, recipe, (pretrain_seed, finetune_seed), reporter)
    scale = working_scale(plan.dataset.farm.photos, recipe.data.scale)
    folder = plan.work / _safe(run_key(plan, name, pretrain_seed, finetune_seed)) / "finetune"
    after = finetune(
        plan.dataset.farm,
        (split.train, split.val),
        recipe,
        FinetuneOptions(
            folder=folder,
            device=torch.device("cpu"),
            seed=finetune_seed,
            scale=scale,
            init=weights,
            resume=True,
            phase=f"{name} fine-tune",
        ),
        reporter,
    )
    matrices = _evaluate(
        plan.dataset.farm, split.test, recipe, folder / "weights.safetensors", scale
    )
    total = sum(matrices.values(), ConfusionMatrix(len(plan.dataset.farm.classes)))
    return {
        "arm": name,
        "dataset": plan.dataset.name,
        "pretrain_dataset": plan.dataset.name if arm.recipe else None,
        "pretrain_seed": pretrain_seed,
        "finetune_seed": finetune_seed,
        "labels": plan.labels,
        "iou": dict(zip(plan.dataset.farm.classes.names, total.iou())),
        "miou": total.miou(),
        "counts": {photo: matrix.counts.tolist() for photo, matrix in matrices.items()},
        "num_test": len(split.test),
        "pretrain_steps": recipe.pretrain.steps if arm.recipe else 0,
        "finetune_steps": after["steps"],
        "best_step": after["best_step"],
        "val_score": after["best_score"],
        "pretrain_seconds": before.get("seconds", 0.0),
        "finetune_seconds": after["seconds"],
        "seconds": time.perf_counter() - started,
        "scoring_share": before.get("scoring_share", 0.0),
        "scored_share": before.get("scored_share", 0.0),
        "random_hidden_l1": before.get("random_hidden_l1"),
        "settings": list(plan.settings),
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "version": __version__,
        "torch": torch.__version__,
    }


def _pretrain(
    plan: Plan, name: str, recipe: Recipe, seeds: tuple[int, int], reporter: Reporter | None
) -> tuple[str, dict[str, Any]]:
    """Pretrain unless the arm needs none; the photos are all that are not in the test.

    Returns:
        What fine-tuning starts from, and the summary of the pretraining.
    """
    arm = ARMS[name]
    if arm.recipe is None:
        return arm.init, {}
    folder = plan.work / _safe(f"{plan.dataset.name}-{name}-{seeds[0]}-{','.join(plan.settings)}")
    weights, summary = folder / "weights.safetensors", folder / "pretrain.json"
    if summary.exists() and weights.exists():
        found: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
        return str(weights), found
    photos = plan.dataset.split(0, 0).unlabelled
    options = PretrainOptions(
        folder=folder, device=torch.device("cpu"), seed=seeds[0], init=arm.init, resume=True
    )
    return str(weights), pretrain(plan.dataset.farm, photos, recipe, options, reporter)


def _evaluate(
    farm: Farm, photos: tuple[Photo, ...], recipe: Recipe, weights: Path, scale: float
) -> dict[str, ConfusionMatrix]:
    """Count pixels of every test photo, at the photo's own resolution."""
    net = build_net(recipe.net, len(farm.classes))
    load_whole(net, weights)
    net.to(memory_format=torch.channels_last)
    export, matrices = recipe.export, {}
    for photo in photos:
        image, mask = read_image(photo.path), read_mask(farm, photo)
        class_map = predict_class_map(
            net, resize_image(image, scale), export.tile_px, export.overlap_px
        )
        matrices[photo.name] = ConfusionMatrix(len(farm.classes))
        matrices[photo.name].add(
            mask, resize_class_map(class_map, (image.shape[0], image.shape[1]))
        )
    return matrices
