"""A run: a farm, a split, a recipe and a folder, settled before the first step."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weedseg import __version__
from weedseg.classes import Role
from weedseg.config import Recipe
from weedseg.data.check import raise_on_errors
from weedseg.data.check_report import check_sentence, check_summary
from weedseg.data.datasets import working_scale
from weedseg.data.index import Farm, Photo, index_farm
from weedseg.data.look import full_check
from weedseg.data.masks import read_mask
from weedseg.data.splits import Split, make_split
from weedseg.errors import ConfigError, FieldDataError
from weedseg.nets.encoders import has_imagenet_weights
from weedseg.nets.segmenter import build_net
from weedseg.nets.weights import initialise
from weedseg.pipeline.run_folder import RunFolder
from weedseg.training import distributed

_UNSTARTED = {"check.json", "recipe.json", "split.json"}
"""What a run that was stopped before it began may have left behind."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a person asks for."""

    farm_images: Path
    out: Path
    recipe: Recipe
    labels: Path | None = None
    init: str = "auto"
    """Encoder weights to start from: auto, none, imagenet, a run folder or a file of weights."""
    pretrain: bool = True
    minutes: float = 0.0
    """Wall-clock budget of the whole command, min; 0 takes the recipe's steps."""
    device: str = "auto"
    seed: int = 0
    resume: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is settled before the first step."""

    folder: RunFolder
    farm: Farm
    split: Split
    recipe: Recipe
    device: torch.device
    seed: int
    init: str
    pretrain: bool
    resume: bool
    scale: float
    """Working resolution, share of the photos'."""
    notes: tuple[str, ...]
    """Sentences for the person."""
    check: dict[str, Any]
    """What the check of the farm found, as `check_summary`; {} when a run goes on, because its
    files are those that were checked when it began."""

    @property
    def pretrain_photos(self) -> tuple[Photo, ...]:
        """Photos that pretraining may see."""
        return self.split.unlabelled

    @property
    def pretraining_saw_test(self) -> bool:
        """Whether pretraining saw photos, without masks, on which accuracy is measured."""
        tested = {p.name for fold in self.split.folds for p in fold}
        tested |= {p.name for p in self.split.test}
        return self.pretrain and any(p.name in tested for p in self.pretrain_photos)

    @property
    def first_weights(self) -> str:
        """What fine-tuning starts from."""
        weights = self.folder.pretrain / "weights.safetensors"
        return str(weights) if self.pretrain else self.init


def settle(options: RunOptions) -> Run:
    """Index, check and split the farm; refuse what cannot work, before anything is written.

    Raises:
        ConfigError: The run folder is in use, or --resume does not fit it.
        FieldDataError: The farm folder has faults, or not what training needs.
        CheckpointError: The first weights do not fit.
        RuntimeUnavailableError: There is no such device, or no ImageNet weights.
    """
    folder = RunFolder(options.out)
    state = folder.read("run.json")
    _check_folder(options, bool(state))
    recipe = (
        Recipe.from_dict(folder.read("recipe.json"), "recipe.json") if state else options.recipe
    )
    farm = index_farm(options.farm_images, options.labels, recipe.data)
    if state:
        return _go_on(options, farm, recipe, state)
    faults, pixels = full_check(farm, recipe.data.bad_photo_share)
    raise_on_errors(faults)
    check = check_summary(farm, faults, pixels)
    split = make_split(
        farm, options.seed, recipe.finetune.labelled, _fixed_test(recipe.data.test_photos)
    )
    notes = (*farm.notes, check_sentence(check), split.note)
    run = replace(_run(options, farm, split, recipe, notes), check=check)
    _check_first_weights(run)
    _check_labels(run)
    return run


def _go_on(options: RunOptions, farm: Farm, recipe: Recipe, state: dict[str, Any]) -> Run:
    """Settle a run that has begun; its files were checked then, so they only must be the same.

    Raises:
        ConfigError: Photos or masks changed.
    """
    if state["fingerprint"] != farm.fingerprint():
        raise ConfigError(
            f"the photos or masks in {options.farm_images} changed since the run began",
            "the same files",
            "bring them back, or start a new run",
        )
    kept = {key: state[key] for key in ("init", "pretrain", "seed")}
    split = Split.from_dict(RunFolder(options.out).read("split.json"), farm)
    return _run(replace(options, **kept), farm, split, recipe, farm.notes)


def _check_folder(options: RunOptions, in_use: bool) -> None:
    """Refuse a run folder that does not fit.

    Raises:
        ConfigError: It is in use, holds no run to resume, or lies among the photos.
    """
    out, remedy = options.out, "choose another --out"
    if options.resume and not in_use:
        raise ConfigError(
            f"{out} holds no run to resume", "the folder of a stopped run", "check --out"
        )
    if options.resume:
        return
    if in_use:
        raise ConfigError(
            f"{out} already holds a run", "a new folder", f"{remedy}, or add --resume"
        )
    if out.is_file() or (out.is_dir() and _holds_more(out)):
        raise ConfigError(f"{out} is not empty", "a new or empty folder", remedy)
    for folder in (options.farm_images, options.labels):
        if folder is not None and folder.resolve() in (out.resolve(), *out.resolve().parents):
            raise ConfigError(
                f"run folder {out} lies in {folder}, where its pictures would count as photos",
                "a folder outside",
                remedy,
            )


def _holds_more(out: Path) -> bool:
    """Tell whether a folder holds anything but what a run leaves that was stopped at its start."""
    return any(f.name not in _UNSTARTED and not f.name.startswith(".") for f in out.iterdir())


def _check_first_weights(run: Run) -> None:
    """Try the first weights on a network of the recipe, before anything is written.

    Raises:
        CheckpointError: They are missing or do not fit.
        RuntimeUnavailableError: ImageNet weights are not to be had.
    """
    if run.init != "none":
        initialise(build_net(run.recipe.net, len(run.farm.classes)), run.init)


def _check_labels(run: Run) -> None:
    """Check that there is something to train on, before hours of pretraining.

    Raises:
        FieldDataError: There is no label and no pretraining, or no weed in any training mask.
    """
    if run.split.kind == "unlabelled":
        if not run.pretrain:
            raise FieldDataError(
                f"no labelled photo in {run.farm.root}, and no pretraining is wanted",
                "labelled photos, or pretraining",
                "label some photos, or leave --no-pretrain out",
            )
        return
    weeds = run.farm.classes.ids_of(Role.WEED)
    if not any(np.isin(read_mask(run.farm, photo), weeds).any() for photo in run.split.train):
        raise FieldDataError(
            f"no weed pixel in any of {len(run.split.train)} training masks",
            "weeds in at least one of them",
            "label more photos that show weeds, or try another --seed",
        )


def _fixed_test(file: str) -> list[str] | None:
    """Read the names of the test photos of a published split.

    Raises:
        ConfigError: The file cannot be read, or names none.
    """
    if not file:
        return None
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"data.test_photos: {file} cannot be read", "a text file", "check the path"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ConfigError(f"data.test_photos: {file} is empty", "names of photos", "fill it")
    return names


def _run(
    options: RunOptions,
    farm: Farm,
    split: Split,
    recipe: Recipe,
    notes: tuple[str, ...],
) -> Run:
    return Run(
        folder=RunFolder(options.out),
        farm=farm,
        split=split,
        recipe=recipe,
        device=distributed.choose_device(options.device),
        seed=options.seed,
        init=_resolve(options.init, recipe.net.encoder),
        pretrain=options.pretrain and recipe.pretrain.steps > 0,
        resume=options.resume,
        scale=working_scale(farm.photos, recipe.data.scale),
        notes=tuple(note for note in notes if note),
        check={},
    )


def _resolve(init: str, encoder: str) -> str:
    """Settle what auto means on this machine, and make a path independent of the folder."""
    if init == "auto":
        return "imagenet" if has_imagenet_weights(encoder) else "none"
    return init if init in ("none", "imagenet") else str(Path(init).resolve())


def record(run: Run, options: RunOptions) -> None:
    """Write recipe, split and run facts before step 0.

    Raises:
        OutputError: The folder cannot be written.
    """
    if distributed.rank():
        distributed.wait_for_all()
        return
    run.folder.write("recipe.json", run.recipe.to_dict())
    run.folder.write("check.json", run.check)
    run.folder.write("split.json", run.split.to_dict())
    run.folder.write(
        "run.json",
        {
            "weedseg": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "processes": distributed.world_size(),
            "seed": run.seed,
            "device": str(run.device),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "farm_images": str(options.farm_images.resolve()),
            "labels": str(options.labels.resolve()) if options.labels else "",
            "fingerprint": run.farm.fingerprint(),
            "init": run.init,
            "pretrain": run.pretrain,
            "minutes": options.minutes,
            "scale": run.scale,
            "num_photos": len(run.farm.photos),
            "num_labelled": len(run.farm.labelled),
            "num_pretrain_photos": len(run.pretrain_photos) if run.pretrain else 0,
            "pretraining_saw_test": run.pretraining_saw_test,
            "plan": {
                "pretrain_steps": run.recipe.pretrain.steps if run.pretrain else 0,
                "finetune_steps": run.recipe.finetune.steps,
            },
            "notes": list(run.notes),
            "seconds": {},
        },
    )
    distributed.wait_for_all()


def reopen(out: Path) -> Run:
    """Open the run of a folder again, for a single stage.

    Raises:
        ConfigError: The folder holds no run.
    """
    state = RunFolder(out).read("run.json")
    if not state:
        raise ConfigError(
            f"{out} holds no run", "a folder that weedseg train or pretrain wrote", "check the path"
        )
    options = RunOptions(
        farm_images=Path(state["farm_images"]),
        labels=Path(state["labels"]) if state["labels"] else None,
        out=out,
        recipe=Recipe(),
        init=state["init"],
        pretrain=state["pretrain"],
        device="cuda" if state["device"].startswith("cuda") else "cpu",
        seed=state["seed"],
        resume=True,
    )
    return settle(options)


def with_steps(run: Run, pretrain_steps: int, finetune_steps: int) -> Run:
    """Return the run with other numbers of steps."""
    return replace(
        run,
        recipe=replace(
            run.recipe,
            pretrain=replace(run.recipe.pretrain, steps=pretrain_steps),
            finetune=replace(run.recipe.finetune, steps=finetune_steps),
        ),
    )
