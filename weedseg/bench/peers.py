"""Is the small network as good as the usual ones? Same data, steps, loss and first weights.

Every arm goes through our own fine-tuning task and loop; only the network differs. No photo
chooses a checkpoint: the weights of the last step are tested, once, on the held-out photos. Each
finished run is one line of JSON; a killed benchmark goes on where it was.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from weedseg.bench.lines import append_line, claim, file_name, finished, read_lines
from weedseg.bench.peers_nets import PEERS, build_peer, start_heads
from weedseg.bench.pretraining import Dataset, circumstances, count_pixels
from weedseg.config import Recipe, load_recipe
from weedseg.data.datasets import PhotoPool, working_scale
from weedseg.data.index import index_farm
from weedseg.data.splits import make_split
from weedseg.data.synthetic import write_farm
from weedseg.errors import ConfigError
from weedseg.evaluation.confusion import ConfusionMatrix
from weedseg.finetuning.task import FinetuneTask
from weedseg.training.checkpoint import write_durably
from weedseg.training.loop import FitOptions, FitResult, Reporter, fit
from weedseg.training.schedule import Schedule

IMAGENET = "+I"
"""An arm that ends so starts from ImageNet weights of the encoder; the others from scratch."""
ARMS = (*PEERS, *(f"{name}{IMAGENET}" for name, peer in PEERS.items() if peer.lite0))
SETTINGS = ("data.scale=0.5", "finetune.tile_px=192", "finetune.steps=250")
"""Sized so that three seeds of all arms take about an hour and a half of one core."""
_QUICK = (
    "finetune.steps=2",
    "finetune.batch=4",
    "finetune.tile_px=64",
    "export.tile_px=64",
    "export.overlap_px=16",
)


@dataclass(frozen=True, kw_only=True)
class PeersPlan:
    """What is compared."""

    dataset: Dataset
    arms: tuple[str, ...]
    seeds: int
    settings: tuple[str, ...]
    lines: Path
    work: Path
    """Folder for checkpoints and weights; may be deleted."""

    def runs(self) -> Iterator[tuple[str, int]]:
        """List (arm, seed), seed by seed so that arms stay even."""
        for seed in range(self.seeds):
            for arm in self.arms:
                yield arm, seed

    def key(self, arm: str, seed: int) -> str:
        """Name a run so that it is found again; other settings make another run."""
        return f"peers/{self.dataset.name}/{arm}/{seed}/{','.join(sorted(self.settings))}"

    def folder(self, arm: str, seed: int) -> Path:
        """Return the folder of a run's weights."""
        return self.work / file_name(self.key(arm, seed))


@contextmanager
def quick_comparison(arms: tuple[str, ...]) -> Iterator[PeersPlan]:
    """Plan two steps of each arm on a small drawn farm; all of it is deleted at the end.

    Args:
        arms: Which.

    Yields:
        The plan.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_farm(folder / "farm", 0, num_photos=24, num_labelled=24, size=(96, 128))
        farm = index_farm(folder / "farm")
        test = tuple(photo.name for photo in make_split(farm, 0).test)
        yield PeersPlan(
            dataset=Dataset(name="drawn", farm=farm, test=test),
            arms=arms,
            seeds=1,
            settings=_QUICK,
            lines=folder / "lines" / "drawn.jsonl",
            work=folder / "work",
        )


def run_peers(plan: PeersPlan, reporter: Reporter | None = None) -> int:
    """Train and test all that has no line yet; returns how many runs this process did.

    Raises:
        ConfigError: An arm is unknown.
        RuntimeUnavailableError: A package is missing.
    """
    unknown = [arm for arm in plan.arms if arm not in ARMS]
    if unknown:
        raise ConfigError(f"arm '{unknown[0]}'", f"one of {', '.join(ARMS)}", "choose one of them")
    done = 0
    for arm, seed in plan.runs():
        key = plan.key(arm, seed)
        with claim(plan.folder(arm, seed).with_suffix(".lock")) as mine:
            if not mine or key in finished(plan.lines):
                continue
            append_line(plan.lines, {"key": key, **_run(plan, arm, seed, reporter)})
            done += 1
    return done


def network_of(arm: str) -> tuple[str, str]:
    """Take an arm apart into network and first weights (none or imagenet)."""
    name = arm.removesuffix(IMAGENET)
    return name, "none" if name == arm else "imagenet"


def _run(plan: PeersPlan, arm: str, seed: int, reporter: Reporter | None) -> dict[str, Any]:
    recipe = load_recipe("default", list(plan.settings))
    farm, split = plan.dataset.farm, plan.dataset.split(seed, 0)
    photos = (*split.train, *split.val)
    scale = working_scale(farm.photos, recipe.data.scale)
    name, init = network_of(arm)
    net = build_peer(name, len(farm.classes), init, seed)
    pool = PhotoPool(farm, photos, scale, recipe.data.cache_mib, True, recipe.data.bad_photo_share)
    task = FinetuneTask(_as_any(net), (pool, None), farm.classes, recipe, seed)
    start_heads(net, _log_shares(task.counts))
    folder = plan.folder(arm, seed)
    result = fit(task, _fit_options(recipe, folder, arm), reporter)
    write_durably(folder / "weights.safetensors", save(_state(net)))
    started = time.perf_counter()
    matrices = count_pixels(net, farm, split.test, recipe, scale)
    total = sum(matrices.values(), ConfusionMatrix(len(farm.classes)))
    return {
        "arm": arm,
        "network": name,
        "init": init,
        "dataset": plan.dataset.name,
        "seed": seed,
        "iou": dict(zip(farm.classes.names, total.iou())),
        "miou": total.miou(),
        "counts": {photo: matrix.counts.tolist() for photo, matrix in matrices.items()},
        "num_train": len(photos),
        "num_test": len(split.test),
        **_course(result, folder),
        "test_seconds": time.perf_counter() - started,
        "batch": recipe.finetune.batch,
        "tile_px": recipe.finetune.tile_px,
        "settings": list(plan.settings),
        **circumstances(),
    }


def _as_any(net: nn.Module) -> Any:
    """Pass a network where our own is named; the task asks no more of it than of any module."""
    return net


def _log_shares(counts: torch.Tensor) -> torch.Tensor:
    shares = (counts + 1) / (counts + 1).sum()
    return shares.log().clamp_min(-6)


def _fit_options(recipe: Recipe, folder: Path, arm: str) -> FitOptions:
    config = recipe.finetune
    return FitOptions(
        phase=f"{arm} training",
        folder=folder,
        steps=config.steps,
        lr=config.lr,
        schedule=Schedule((0, config.steps), config.warmup_share),
        device=torch.device("cpu"),
        weight_decay=config.weight_decay,
        resume=True,
        checkpoint_every=50,
    )


def _state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}


def _course(result: FitResult, folder: Path) -> dict[str, Any]:
    """Say how the training went; the losses are those of every tenth step."""
    losses = [round(line["loss"], 4) for line in read_lines(folder / "metrics.jsonl")]
    return {
        "steps": result.steps,
        "seconds": result.seconds,
        "step_seconds": result.median_step_seconds if result.step_seconds else None,
        "num_reloads": result.num_reloads,
        "losses": losses,
    }
