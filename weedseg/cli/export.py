"""``weedseg export``: write the model files of a run, each proven by its gate or not written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weedseg.cli import options
from weedseg.errors import ConfigError

if TYPE_CHECKING:
    from weedseg.export.details import ModelDetails
    from weedseg.pipeline.run import Run

FORMATS = ("onnx", "onnx-fp16", "onnx-int8", "gis")
FILES = {
    "onnx": "model.onnx",
    "onnx-fp16": "model.fp16.onnx",
    "onnx-int8": "model.int8.onnx",
    "gis": "model.gis.onnx",
}
NUM_CALIBRATION_PHOTOS, NUM_JUDGING_PHOTOS = 16, 24


def export(
    run: options.RunPath,
    *,
    formats: Annotated[
        str, typer.Option("--format", help=f"One or several of: {','.join(FORMATS)}")
    ] = "onnx",
    force: Annotated[
        bool, typer.Option("--force", help="Write a variant that fails its gate; recorded in it.")
    ] = False,
) -> None:
    """Export a run's network; refuses to write a file that differs from it too much.

    onnx: fp32, for ONNX Runtime. onnx-fp16: half the size, for GPUs. onnx-int8: for CPUs, written
    only if as accurate and faster. gis: class probabilities for the QGIS plugin Deepness.

    Raises:
        WeedsegError: The run is not trained yet, or an exported model fails its gate.
    """
    from weedseg.pipeline.run import reopen

    wanted = _parse(formats)
    opened = reopen(run)
    for name in wanted:
        path = opened.folder.path / FILES[name]
        figures = _export_one(opened, name, path, force)
        typer.echo(f"{path}: {_sentence(name, figures)}")


def _parse(formats: str) -> list[str]:
    """Return the formats.

    Raises:
        ConfigError: One is unknown.
    """
    wanted = [name.strip() for name in formats.split(",")]
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown:
        raise ConfigError(
            f"--format '{unknown[0]}'", ", ".join(FORMATS), "name formats with commas between"
        )
    return list(dict.fromkeys(wanted))


def _export_one(run: Run, name: str, path: Path, force: bool) -> dict[str, Any]:
    """Write one file; returns the figures of its gate."""
    from weedseg.export.gis import export_gis
    from weedseg.export.half import export_half
    from weedseg.export.int8 import Int8Material, export_int8
    from weedseg.pipeline.stages import (
        WEIGHTS,
        describe_stage,
        export_stage,
        load_net,
        model_details,
        parity_photos,
    )

    if name == "onnx":
        figures = export_stage(run)
        describe_stage(run)
        return figures
    net = load_net(run, run.folder.finetune / WEIGHTS)
    details = _with_scores(run, model_details(run))
    if name == "onnx-int8":
        material = Int8Material(calibration=_calibration(run), labelled=_labelled(run))
        return export_int8(net, run.farm.classes, details, material, path, force=force)
    write = export_half if name == "onnx-fp16" else export_gis
    photos = parity_photos(run, net)
    return write(net, run.farm.classes, details, photos, path, force=force)


def _with_scores(run: Run, details: ModelDetails) -> ModelDetails:
    """Add the scores of the evaluation, which were measured with model.onnx."""
    from dataclasses import replace

    found = run.folder.read("evaluation.json")
    if not found or found.get("miou") is None:
        return details
    metrics = {"miou": found["miou"], "iou": found["iou"], "num_photos": found["num_photos"]}
    note = f"{details.evaluation_note}; measured with model.onnx"
    return replace(details, metrics=metrics, evaluation_note=note)


def _evenly(photos: Sequence[Any], most: int) -> list[Any]:
    return list(photos[:: max(-(-len(photos) // most), 1)])


def _calibration(run: Run) -> list[Any]:
    """Read photos of the training part only."""
    from weedseg.imaging import read_image

    everything = run.split.train or run.farm.photos
    return [read_image(photo.path) for photo in _evenly(everything, NUM_CALIBRATION_PHOTOS)]


def _labelled(run: Run) -> list[tuple[Any, Any]]:
    """Read photos with masks, held out if there are any."""
    from weedseg.data.masks import read_mask
    from weedseg.imaging import read_image

    photos = _evenly(run.split.test or run.farm.labelled, NUM_JUDGING_PHOTOS)
    return [(read_image(photo.path), read_mask(run.farm, photo)) for photo in photos]


def _sentence(name: str, figures: dict[str, Any]) -> str:
    """Word the figures of a gate."""
    if name == "onnx-int8":
        return (
            f"mIoU {figures['miou']:.4f} (fp32 {figures['miou_fp32']:.4f}), "
            f"{figures['time_share']:.2f} of the time of fp32 ({figures['ms']:.1f} ms a tile, "
            f"{figures['threads']} threads), {figures['bytes'] / 2**20:.1f} MiB, "
            f"{figures['fp32_nodes']} operators left in fp32"
        )
    equal = f"{100 * figures['equal_share']:.4f} % of {figures['pixels']} pixels as in torch"
    if name == "gis":
        return f"{equal}, largest difference of a probability {figures['max_dprob']:.2g}"
    return (
        f"{equal}, largest difference of logits {figures['max_dlogit']:.2g}, "
        f"{figures['weed_photos']} of {figures['photos']} photos with at least 1 % weed"
    )
