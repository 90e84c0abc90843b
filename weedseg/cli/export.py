"""``weedseg export``: write the model files of a run, each proven by its gate or not written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weedseg.errors import ConfigError

if TYPE_CHECKING:
    from weedseg.export.details import ModelDetails
    from weedseg.pipeline.run import Run

FORMATS = ("onnx", "onnx-fp16", "onnx-int8", "onnx-int8-trt", "onnx-u8", "gis", "tensorrt")
FILES = {
    "onnx": "model.onnx",
    "onnx-fp16": "model.fp16.onnx",
    "onnx-int8": "model.int8.onnx",
    "onnx-int8-trt": "model.int8-trt.onnx",
    "onnx-u8": "model.u8.onnx",
    "gis": "model.gis.onnx",
    "tensorrt": "model.fp16.engine",
}
ENGINE_OF = "onnx-fp16"
"""What the engine of a run is built of; name another model file to build of that."""
PROGRESS_EVERY_S = 2.0
NUM_CALIBRATION_PHOTOS, NUM_JUDGING_PHOTOS = 16, 24


RunOrModel = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder; for tensorrt also a model file.")
]


def export(
    run: RunOrModel,
    *,
    formats: Annotated[
        str, typer.Option("--format", help=f"One or several of: {','.join(FORMATS)}")
    ] = "onnx",
    force: Annotated[
        bool, typer.Option("--force", help="Write a variant that fails its gate; recorded in it.")
    ] = False,
    compute_capability: Annotated[
        str,
        typer.Option(help="Build the engine without a GPU (tensorrt-rtx only): for 8.6, 8.9, ..."),
    ] = "",
) -> None:
    """Export a run's network; refuses to write a file that differs from it too much.

    onnx: fp32, for ONNX Runtime. onnx-fp16: half the size, for GPUs. onnx-int8: for CPUs, written
    only if as accurate and faster. onnx-int8-trt: the same for TensorRT. onnx-u8: fp32 from the
    bytes of a camera. gis: class probabilities for the QGIS plugin Deepness. tensorrt: an engine
    for the GPU of this machine, of RUN's fp16 model or of the model file that is named.

    Raises:
        WeedsegError: The run is not trained yet, or an exported model fails its gate.
    """
    wanted = _parse(formats)
    build = _Build(compute_capability, force)
    if run.is_file():
        if wanted != ["tensorrt"]:
            raise ConfigError(
                f"a model file and --format {formats}", "a run folder", "or --format tensorrt"
            )
        typer.echo(build.engine(run))
        return
    from weedseg.pipeline.run import reopen

    opened = reopen(run)
    for name in wanted:
        path = opened.folder.path / FILES[name]
        if name == "tensorrt":
            typer.echo(build.engine_of_run(opened))
            continue
        figures = _export_one(opened, name, path, force)
        typer.echo(f"{path}: {_sentence(name, figures)}")


@dataclass(frozen=True)
class _Build:
    """Builds engines with the flags of the command."""

    compute_capability: str
    force: bool

    def engine(self, model: Path, photos: Sequence[Any] = ()) -> str:
        """Build the engine of a model file; returns a sentence."""
        from weedseg.export.tensorrt import BuildOptions, build_engine, say

        options = BuildOptions(
            compute_capability=self.compute_capability, force=self.force, report=_progress()
        )
        built = build_engine(model, photos, options)
        return f"{built.path}: {say(built)}"

    def engine_of_run(self, run: Run) -> str:
        """Build the engine of a run's fp16 model, which is exported when it is missing."""
        from weedseg.pipeline.stages import WEIGHTS, load_net, parity_photos

        model = run.folder.path / FILES[ENGINE_OF]
        if not model.is_file():
            figures = _export_one(run, ENGINE_OF, model, self.force)
            typer.echo(f"{model}: {_sentence(ENGINE_OF, figures)}")
        return self.engine(model, parity_photos(run, load_net(run, run.folder.finetune / WEIGHTS)))


def _progress() -> Callable[[str, int, int], None]:
    """Return what writes a line about a build now and then, to stderr."""
    last_s = time.monotonic()

    def report(phase: str, step: int, num_steps: int) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= PROGRESS_EVERY_S:
            last_s = time.monotonic()
            typer.echo(f"{phase}: {step} of {num_steps}", err=True)

    return report


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
    from weedseg.export.quantise import CPU, TENSORRT
    from weedseg.export.u8 import export_u8
    from weedseg.pipeline.stages import (
        WEIGHTS,
        describe_stage,
        export_stage,
        load_net,
        model_details,
        parity_photos,
    )

    if name == "onnx":
        figures = export_stage(run, force)
        describe_stage(run)
        return figures
    net = load_net(run, run.folder.finetune / WEIGHTS)
    details = _with_scores(run, model_details(run))
    flavour = {"onnx-int8": CPU, "onnx-int8-trt": TENSORRT}.get(name)
    if flavour is not None:
        material = Int8Material(
            calibration=_calibration(run), labelled=_labelled(run), flavour=flavour
        )
        return export_int8(net, run.farm.classes, details, material, path, force=force)
    write = {"onnx-fp16": export_half, "onnx-u8": export_u8, "gis": export_gis}[name]
    photos = parity_photos(run, net)
    return write(net, run.farm.classes, details, photos, path, force=force)


def _with_scores(run: Run, details: ModelDetails) -> ModelDetails:
    """Add the scores of the evaluation, which were measured with model.onnx."""
    from dataclasses import replace

    from weedseg.pipeline.figures import model_metrics

    metrics = model_metrics(run.folder.read("evaluation.json"), run.recipe.data.crop)
    if metrics is None:
        return details
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
    if name in ("onnx-int8", "onnx-int8-trt"):
        speed = f"speed {figures.get('speed')}"
        if "time_share" in figures:
            speed = (
                f"{figures['time_share']:.2f} of the time of fp32 ({figures['ms']:.1f} ms a tile, "
                f"{figures['threads']} thread)"
            )
        return (
            f"mIoU {figures['miou']:.4f} (fp32 {figures['miou_fp32']:.4f}), {speed}, "
            f"{figures['bytes'] / 2**20:.1f} MiB, {figures['fp32_nodes']} operators left in fp32"
        )
    equal = f"{100 * figures['equal_share']:.4f} % of {figures['pixels']} pixels as in torch"
    if name == "gis":
        return f"{equal}, largest difference of a probability {figures['max_dprob']:.2g}"
    return (
        f"{equal}, largest difference of logits {figures['max_dlogit']:.2g}, "
        f"{figures['weed_photos']} of {figures['photos']} photos with at least 1 % weed"
    )
