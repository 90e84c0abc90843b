"""The stages of a run; each reads what the one before wrote, and is done once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from weedseg.classes import Role
from weedseg.data.datasets import PhotoPool
from weedseg.data.index import Photo
from weedseg.data.splits import LEAKS
from weedseg.export.details import ModelDetails
from weedseg.export.figures import add_figures
from weedseg.export.model import export_model
from weedseg.finetuning.run import FinetuneOptions, finetune
from weedseg.imaging import Image, read_image
from weedseg.nets.prediction import predict_class_map
from weedseg.nets.segmenter import SegmentationNet, build_net
from weedseg.nets.weights import load_whole
from weedseg.pipeline.calibrating import calibrate
from weedseg.pipeline.figures import model_metrics
from weedseg.pipeline.run import Run
from weedseg.pretraining.run import PretrainOptions, pretrain
from weedseg.training import distributed
from weedseg.training.loop import Reporter

Photos = tuple[Photo, ...]
WEIGHTS = "weights.safetensors"
NUM_PARITY_PHOTOS = 4
NUM_WEED_CANDIDATES = 24


def _timed(run: Run, name: str, stage: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    result = stage()
    run.folder.update("run.json", {"seconds": {name: time.perf_counter() - started}})
    return result


def pretrain_stage(run: Run, reporter: Reporter | None = None) -> dict[str, Any]:
    """Pretrain on all photos that the split allows; does nothing when it is done.

    Raises:
        TrainingError: Training cannot go on.
    """
    done = run.folder.read("pretrain/pretrain.json")
    if done or not run.pretrain:
        return done
    options = PretrainOptions(
        folder=run.folder.pretrain,
        device=run.device,
        seed=run.seed,
        init=run.init,
        resume=run.resume,
    )
    summary: dict[str, Any] = _timed(
        run,
        "pretrain",
        lambda: pretrain(run.farm, run.pretrain_photos, run.recipe, options, reporter),
    )
    distributed.wait_for_all()
    if run.recipe.uses_scores:
        facts = {"scored_share": summary["scored_share"]}
        run.folder.update("run.json", {**facts, "scoring_time_share": summary["scoring_share"]})
    return summary


def finetune_stage(run: Run, reporter: Reporter | None = None) -> dict[str, Any]:
    """Fine-tune; in a cross-validation, once per fold and then on all labels.

    Raises:
        TrainingError: Training cannot go on.
        FieldDataError: No training mask shows a weed.
    """
    done = run.folder.read("finetune/finetune.json")
    if done:
        return done
    summary: dict[str, Any] = _timed(run, "finetune", lambda: _finetune_all(run, reporter))
    distributed.wait_for_all()
    return summary


def _finetune_all(run: Run, reporter: Reporter | None) -> dict[str, Any]:
    split = run.split
    if split.kind != "cross-validation":
        options = _finetune_options(run, run.folder.finetune, "fine-tune")
        return finetune(run.farm, (split.train, split.val), run.recipe, options, reporter)
    for number, _ in enumerate(split.folds):
        folder = fold_folder(run, number)
        if run.folder.read(f"{folder.relative_to(run.folder.path)}/finetune.json"):
            continue
        options = _finetune_options(run, folder, f"fold {number + 1} of {len(split.folds)}")
        others = _without(split.unlabelled, split.folds[number])
        options = replace(options, needs_weeds=False, practice=others)
        training = photos_outside(split.folds, number)
        finetune(run.farm, (training, ()), run.recipe, options, reporter)
        distributed.wait_for_all()
    options = _finetune_options(run, run.folder.finetune, "final model")
    return finetune(run.farm, (split.train, ()), run.recipe, options, reporter)


def fold_folder(run: Run, number: int) -> Path:
    """Return the folder of one fold."""
    return run.folder.path / "folds" / f"fold-{number}"


def photos_outside(folds: Sequence[Photos], number: int) -> Photos:
    """Return the photos of all folds but one."""
    return tuple(photo for i, fold in enumerate(folds) if i != number for photo in fold)


def _finetune_options(run: Run, folder: Path, phase: str) -> FinetuneOptions:
    return FinetuneOptions(
        folder=folder,
        device=run.device,
        seed=run.seed,
        scale=run.scale,
        init=run.first_weights,
        resume=run.resume,
        practice=_without(run.split.unlabelled, run.split.val),
        phase=phase,
    )


def _without(photos: Photos, left_out: Photos) -> Photos:
    """Leave photos out that will measure the network, by name."""
    names = {photo.name for photo in left_out}
    return tuple(photo for photo in photos if photo.name not in names)


def load_net(run: Run, weights: Path) -> SegmentationNet:
    """Build the run's network with trained weights.

    Raises:
        CheckpointError: The weights are missing or do not fit.
    """
    net = build_net(run.recipe.net, len(run.farm.classes))
    load_whole(net, weights)
    return net


def held_out_nets(run: Run) -> Iterator[tuple[SegmentationNet, Photos]]:
    """Yield networks with photos to calibrate on, which they were not trained on.

    These are the validation photos of a hold-out, or every fold with the network of that fold.

    Raises:
        CheckpointError: Weights are missing or do not fit.
    """
    if run.split.kind == "holdout" and run.split.val:
        yield load_net(run, run.folder.finetune / WEIGHTS), run.split.val
    for number, fold in enumerate(run.split.folds):
        yield load_net(run, fold_folder(run, number) / WEIGHTS), fold


def model_details(run: Run) -> ModelDetails:
    """Say what the model file tells beside its network; calibrates when that is not done yet.

    Raises:
        CheckpointError: Weights are missing or do not fit.
    """
    known = [p.mm_per_px for p in run.farm.photos if p.mm_per_px is not None]
    whole = known and len(known) == len(run.farm.photos)
    calibration = calibrate(run, held_out_nets(run))
    return ModelDetails(
        tile_px=run.recipe.export.tile_px,
        overlap_px=run.recipe.export.overlap_px,
        scale=run.scale,
        temperature=calibration["temperature"],
        ood=calibration["ood"],
        mm_per_px=(min(known), max(known)) if whole else None,
        data_fingerprint=run.farm.fingerprint(),
        evaluation_note=_evaluation_note(run),
    )


def _evaluation_note(run: Run) -> str:
    if run.split.kind == "untested":
        return "accuracy unknown"
    if run.split.leaks:
        return LEAKS
    return "within-field" if run.split.within_field else f"held out by {run.split.basis}"


def export_stage(run: Run, force: bool = False) -> dict[str, Any]:
    """Write ``model.onnx``, proven to equal the trained network; returns the parity figures.

    Args:
        run: A fine-tuned run.
        force: Write a model that differs, and record it there.

    Raises:
        ParityError: The model differs.
        OutputError: The disk is full.
    """
    net = load_net(run, run.folder.finetune / WEIGHTS)
    photos = parity_photos(run, net)
    details, path = model_details(run), run.folder.model
    figures: dict[str, Any] = _timed(
        run,
        "export",
        lambda: export_model(net, run.farm.classes, details, photos, path, force=force),
    )
    return figures


def describe_stage(run: Run) -> None:
    """Write the evaluation's figures into the metadata of ``model.onnx``.

    Raises:
        OutputError: The disk is full.
    """
    metrics = model_metrics(run.folder.read("evaluation.json"), run.recipe.data.crop)
    add_figures(run.folder.model, metrics, _evaluation_note(run))


def parity_photos(run: Run, net: SegmentationNet) -> list[Image]:
    """Choose the photos with the most predicted weed among a few, at their own resolution."""
    everything = run.split.test or run.split.train or run.farm.photos
    step = max(len(everything) // NUM_WEED_CANDIDATES, 1)
    candidates = everything[::step][:NUM_WEED_CANDIDATES]
    pool = PhotoPool(run.farm, candidates, run.scale, run.recipe.data.cache_mib)
    weeds = run.farm.classes.ids_of(Role.WEED)
    shares = []
    for number in range(len(pool)):
        class_map = predict_class_map(net, pool.image(number), run.recipe.export.tile_px, 0)
        shares.append(sum(float((class_map == i).mean()) for i in weeds))
    order = sorted(range(len(pool)), key=lambda n: -shares[n])[:NUM_PARITY_PHOTOS]
    return [read_image(candidates[pool.readable(n)].path) for n in order]
