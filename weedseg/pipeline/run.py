"""A run: a farm, a split, a recipe and a folder, settled before the first step."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import torch

from weedseg import __version__
from weedseg.config import Recipe
from weedseg.data.check import check_farm, raise_on_errors
from weedseg.data.datasets import working_scale
from weedseg.data.index import Farm, Photo, index_farm
from weedseg.data.splits import Split, make_split
from weedseg.errors import ConfigError
from weedseg.pipeline.run_folder import RunFolder
from weedseg.training import distributed


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a person asks for."""

    farm_images: Path
    out: Path
    recipe: Recipe
    labels: Path | None = None
    init: str = "none"
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

    @property
    def pretrain_photos(self) -> tuple[Photo, ...]:
        """Photos that pretraining may see.

        In a cross-validation every labelled photo is tested once, so labelled photos are left out
        when there are at least as many others.
        """
        others = tuple(p for p in self.split.unlabelled if p.mask is None)
        if self.split.kind == "cross-validation" and len(others) >= len(self.split.train):
            return others
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
        FieldDataError: The farm folder has faults.
    """
    folder = RunFolder(options.out)
    state = folder.read("run.json")
    if options.resume and not state:
        raise ConfigError(
            f"--resume, but {options.out} holds no run", "the folder of a stopped run", "check --out"
        )
    if state and not options.resume:
        raise ConfigError(
            f"{options.out} already holds a run", "a new folder", "choose another --out, or --resume"
        )
    recipe = Recipe.from_dict(folder.read("recipe.json"), "recipe.json") if state else options.recipe
    farm = index_farm(options.farm_images, options.labels, recipe.data)
    faults = check_farm(farm)
    raise_on_errors(faults)
    notes = (*farm.notes, *(fault.sentence for fault in faults))
    fingerprint = farm.fingerprint()
    if state and state["fingerprint"] != fingerprint:
        raise ConfigError(
            f"the photos or masks in {options.farm_images} changed since the run began",
            "the same files",
            "bring them back, or start a new run",
        )
    if state:
        kept = {key: state[key] for key in ("init", "pretrain", "seed")}
        split = Split.from_dict(folder.read("split.json"), farm)
        return _run(replace(options, **kept), folder, farm, split, recipe, notes)
    split = make_split(farm, options.seed, labelled_limit=recipe.finetune.labelled)
    return _run(options, folder, farm, split, recipe, (*notes, split.note))


def _run(
    options: RunOptions,
    folder: RunFolder,
    farm: Farm,
    split: Split,
    recipe: Recipe,
    notes: tuple[str, ...],
) -> Run:
    return Run(
        folder=folder,
        farm=farm,
        split=split,
        recipe=recipe,
        device=distributed.choose_device(options.device),
        seed=options.seed,
        init=options.init,
        pretrain=options.pretrain and recipe.pretrain.steps > 0,
        resume=options.resume,
        scale=working_scale(farm.photos, recipe.data.scale),
        notes=tuple(note for note in notes if note),
    )


def record(run: Run, options: RunOptions) -> None:
    """Write recipe, split and run facts before step 0.

    Raises:
        OutputError: The folder cannot be written.
    """
    run.folder.write("recipe.json", run.recipe.to_dict())
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
