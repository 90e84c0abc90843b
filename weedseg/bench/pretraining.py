"""Does pretraining pay, and which? One code path, equal steps, arms that differ in one thing.

A benchmark is a list of runs (arm x pretraining seed x fine-tuning seed). Each finished run is one
line of JSON; a killed benchmark goes on where it was, and the same command started twice shares
the runs between two processes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from weedseg import __version__
from weedseg.bench.arms import ARMS, Arm
from weedseg.bench.lines import append_line, claim, commit, file_name, finished, read_lines
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
SCALES = {"cwfid": 0.5, "peanut": 0.6667}
"""Working resolution of each set in benchmarks: both come to about 640 px."""
MOST_DEVELOPMENT = 40
"""Photos that an idea is judged on, at most."""


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
    pretrain_on: Dataset | None = None
    """Pretrain on the photos of another set; None: on the same."""
    read: str = "test"
    """test: score the test photos, once; development: score labelled photos that are neither test
    photos nor among the labels of the run, for choosing between ideas."""

    def runs(self) -> Iterator[tuple[str, int, int]]:
        """List (arm, pretraining seed, fine-tuning seed), seed by seed so that arms stay even.

        A new pretraining comes before the next fine-tuning of an old one: a second process finds
        work of its own. Arms without pretraining have one pretraining seed, 0.
        """
        seeds = [(p, f) for f in range(self.finetune_seeds) for p in range(self.pretrain_seeds)]
        for pretrain_seed, finetune_seed in sorted(seeds, key=max):
            for arm in self.arms:
                if ARMS[arm].recipe is not None or pretrain_seed == 0:
                    yield arm, pretrain_seed, finetune_seed

    def recipe(self, arm: str) -> Recipe:
        """Load the recipe of an arm with its changes and the benchmark's.

        Raises:
            ConfigError: A setting is unknown.
        """
        chosen = ARMS[arm]
        plain = () if chosen.consistency else ("finetune.consistency_weight=0",)
        return load_recipe(chosen.recipe or "default", [*chosen.settings, *plain, *self.settings])


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


def label_counts(dataset: Dataset, wanted: str) -> tuple[int, ...]:
    """Read a list of numbers of labelled photos, such as ``5,10,all``.

    Args:
        dataset: Where the labels are; ``all`` is what it has beside the test.
        wanted: Numbers and ``all``, with commas.

    Returns:
        The numbers, in the order given.

    Raises:
        ConfigError: One is no number from 2 on (one trains, one validates), or there are fewer.
    """
    split = dataset.split(0, 0)
    most = len(split.train) + len(split.val)
    counts = []
    for word in wanted.split(","):
        count = most if word == "all" else int(word) if word.isdecimal() else 0
        if not 2 <= count <= most:
            raise ConfigError(
                f"'{word}' labelled photos of {dataset.name}",
                f"2 to {most}, or all",
                "choose fewer",
            )
        counts.append(count)
    return tuple(counts)


def run_plan(plan: Plan, reporter: Reporter | None = None) -> int:
    """Do all runs that have no line yet; returns how many this process did.

    Raises:
        ConfigError: An arm, or what to read, is unknown.
    """
    unknown = [arm for arm in plan.arms if arm not in ARMS]
    if unknown:
        raise ConfigError(f"arm '{unknown[0]}'", f"one of {', '.join(ARMS)}", "choose one of them")
    if plan.read not in ("test", "development"):
        raise ConfigError(f"read '{plan.read}'", "test or development", "choose one of them")
    done = 0
    for arm, pretrain_seed, finetune_seed in plan.runs():
        key = run_key(plan, arm, pretrain_seed, finetune_seed)
        with claim(plan.work / f"{file_name(key)}.lock") as mine:
            if not mine or key in finished(plan.lines):
                continue
            line = _run(plan, arm, pretrain_seed, finetune_seed, reporter)
            append_line(plan.lines, {**line, "key": key})
            done += 1
    return done


def run_key(plan: Plan, arm: str, pretrain_seed: int, finetune_seed: int) -> str:
    """Name a run so that it is found again; other settings make another run."""
    settings = ",".join(sorted(plan.settings))
    name = f"{plan.dataset.name}/{arm}/{pretrain_seed}/{finetune_seed}/{plan.labels}"
    if plan.pretrain_on is not None:
        name += f"/pretrained on {plan.pretrain_on.name}"
    if plan.read != "test":
        name += f"/{plan.read}"
    return f"{name}/{settings}"


def pretraining_of(plan: Plan, arm: str) -> dict[str, Any]:
    """Describe the pretraining of an arm by what decides its result, and by nothing else.

    A recipe that never chooses by score draws as if it had one stage (tests/integration/
    test_training.py shows equal weights to the byte), unless its stages see parts of the photos
    or restart the learning rate. Arms of equal description share one pretraining.
    """
    chosen = ARMS[arm]
    if chosen.recipe is None:
        return {"init": chosen.init}
    source = plan.pretrain_on or plan.dataset
    recipe = plan.recipe(arm)
    if plan.pretrain_on is not None:
        data = replace(recipe.data, scale=SCALES.get(source.name, 0.0))
        recipe = replace(recipe, data=data)
    found = recipe.to_dict()
    own = {key: found[key] for key in ("data", "net", "pretrain", "scoring", "selection")}
    config = recipe.pretrain
    if recipe.selection.hard_share == 0 or config.stages < 2:
        del own["scoring"], own["selection"]
        if not config.disjoint_photos and not config.restart_lr:
            del own["pretrain"]["stages"], own["pretrain"]["first_stage_share"]
    return {"init": chosen.init, "photos": source.name, **own}


def _twin(
    plan: Plan, name: str, pretraining: dict[str, Any], finetune_seed: int
) -> dict[str, Any] | None:
    """Find a finished run that differs from the wanted one by the name of its arm alone."""
    for line in read_lines(plan.lines):
        same = (
            line.get("pretraining") == pretraining
            and ARMS[line["arm"]].consistency == ARMS[name].consistency
            and line["finetune_seed"] == finetune_seed
            and line["labels"] == plan.labels
            and line["read"] == plan.read
            and line["settings"] == list(plan.settings)
        )
        if same:
            return line
    return None


def _run(
    plan: Plan, name: str, pretrain_seed: int, finetune_seed: int, reporter: Reporter | None
) -> dict[str, Any]:
    arm, recipe = ARMS[name], plan.recipe(name)
    pretraining = {**pretraining_of(plan, name), "seed": pretrain_seed}
    twin = _twin(plan, name, pretraining, finetune_seed)
    if twin is not None:
        return {**twin, "arm": name, "same_as": twin["arm"]}
    split = plan.dataset.split(finetune_seed, plan.labels)
    started = time.perf_counter()
    weights, before = _pretrain(plan, name, pretraining, reporter)
    scale = working_scale(plan.dataset.farm.photos, recipe.data.scale)
    folder = plan.work / file_name(run_key(plan, name, pretrain_seed, finetune_seed)) / "finetune"
    options = FinetuneOptions(
        folder=folder,
        device=torch.device("cpu"),
        seed=finetune_seed,
        scale=scale,
        init=weights,
        resume=True,
        practice=consistency_photos(plan, arm, split),
        phase=f"{name} fine-tune",
    )
    after = finetune(plan.dataset.farm, (split.train, split.val), recipe, options, reporter)
    photos = split.test if plan.read == "test" else development_photos(split)
    net = build_net(recipe.net, len(plan.dataset.farm.classes))
    load_whole(net, folder / "weights.safetensors")
    net.to(memory_format=torch.channels_last)
    matrices = count_pixels(net, plan.dataset.farm, photos, recipe, scale)
    total = sum(matrices.values(), ConfusionMatrix(len(plan.dataset.farm.classes)))
    return {
        "arm": name,
        "pretraining": pretraining,
        "dataset": plan.dataset.name,
        "pretrain_dataset": (plan.pretrain_on or plan.dataset).name if arm.recipe else None,
        "read": plan.read,
        "pretrain_seed": pretrain_seed,
        "finetune_seed": finetune_seed,
        "labels": plan.labels,
        "iou": dict(zip(plan.dataset.farm.classes.names, total.iou())),
        "miou": total.miou(),
        "counts": {photo: matrix.counts.tolist() for photo, matrix in matrices.items()},
        "num_test": len(photos),
        "pretrain_steps": recipe.pretrain.steps if arm.recipe else 0,
        "finetune_steps": after["steps"],
        "best_step": after["best_step"],
        "val_score": after["best_score"],
        "num_practice": after["num_practice"],
        "pretrain_seconds": before.get("seconds", 0.0),
        "finetune_seconds": after["seconds"],
        "seconds": time.perf_counter() - started,
        "scoring_share": before.get("scoring_share", 0.0),
        "scored_share": before.get("scored_share", 0.0),
        "random_hidden_l1": before.get("random_hidden_l1"),
        "hidden_classes": before.get("hidden_classes"),
        "settings": list(plan.settings),
        **circumstances(),
    }


def circumstances() -> dict[str, Any]:
    """Say with what a run was made."""
    return {
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "version": __version__,
        "torch": torch.__version__,
    }


def _pretrain(
    plan: Plan, name: str, pretraining: dict[str, Any], reporter: Reporter | None
) -> tuple[str, dict[str, Any]]:
    """Pretrain unless the arm needs none; the photos are all that are not in the test.

    Returns:
        What fine-tuning starts from, and the summary of the pretraining.
    """
    arm, source = ARMS[name], plan.pretrain_on or plan.dataset
    if arm.recipe is None:
        return arm.init, {}
    described = json.dumps(pretraining, sort_keys=True)
    folder = plan.work / f"{source.name}-{file_name(described)[-12:]}"
    weights, summary = folder / "weights.safetensors", folder / "pretrain.json"
    with claim(plan.work / f"{folder.name}.lock", wait=True):
        if not (summary.exists() and weights.exists()):
            recipe = plan.recipe(name)
            data = replace(recipe.data, scale=pretraining["data"]["scale"])
            options = PretrainOptions(
                folder=folder,
                device=torch.device("cpu"),
                seed=pretraining["seed"],
                init=arm.init,
                resume=True,
            )
            photos = source.split(0, 0).unlabelled
            pretrain(source.farm, photos, replace(recipe, data=data), options, reporter)
        found: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
    return str(weights), found


def consistency_photos(plan: Plan, arm: Arm, split: Split) -> tuple[Photo, ...]:
    """List the photos that fine-tuning may see without masks: none that are scored, or validate."""
    if arm.consistency == "labelled":
        return split.train
    scored = development_photos(split) if plan.read != "test" else split.test
    measured = {photo.name for photo in (*scored, *split.val)}
    return tuple(photo for photo in split.unlabelled if photo.name not in measured)


def development_photos(split: Split) -> tuple[Photo, ...]:
    """List the photos with masks that a run may be judged on while ideas are still chosen.

    They are photos that pretraining saw unlabelled and whose masks the run did not use, evenly
    thinned to at most `MOST_DEVELOPMENT`; never a test photo.
    """
    used = {photo.name for photo in (*split.train, *split.val, *split.test)}
    free = [p for p in split.unlabelled if p.mask is not None and p.name not in used]
    return tuple(free[:: max(-(-len(free) // MOST_DEVELOPMENT), 1)])


def count_pixels(
    net: nn.Module, farm: Farm, photos: tuple[Photo, ...], recipe: Recipe, scale: float
) -> dict[str, ConfusionMatrix]:
    """Count the pixels of every photo, at the photo's own resolution.

    Args:
        net: Trained network, in any layout.
        farm: Where the photos belong to.
        photos: Photos with masks.
        recipe: Its export settings cut the tiles.
        scale: Working resolution, share of the photo's.
    """
    export, matrices = recipe.export, {}
    for photo in photos:
        image, mask = read_image(photo.path), read_mask(farm, photo)
        class_map = predict_class_map(
            net, resize_image(image, scale), export.tile_px, export.overlap_px
        )
        matrix = matrices[photo.name] = ConfusionMatrix(len(farm.classes))
        matrix.add(mask, resize_class_map(class_map, (image.shape[0], image.shape[1])))
    return matrices
