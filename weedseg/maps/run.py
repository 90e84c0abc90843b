"""``weedseg map``: from an orthomosaic to the folder of a weed map.

Shards are segmented and kept; then one pass over all of them, in order, writes the rasters and
counts cells and rows. A stopped run goes on where it was and ends in the same bytes.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from weedseg import __version__
from weedseg.edge.photos import make_folder
from weedseg.edge.segmenter import Segmenter
from weedseg.edge.session import physical_cores
from weedseg.errors import ConfigError
from weedseg.imaging import write_bytes
from weedseg.maps.boundary import read_boundary
from weedseg.maps.cells import CellCounter, CellOptions
from weedseg.maps.engine import MapProgress, ShardJob, Tell, find_engine, read_parts, run_shards
from weedseg.maps.georaster import (
    FieldMosaic,
    Resolution,
    choose_resolution,
    open_field,
    unlike_training,
)
from weedseg.maps.parts import PartFolder, map_state
from weedseg.maps.prescription_files import remove_prescription
from weedseg.maps.raster import LayerWriter
from weedseg.maps.report import write_report
from weedseg.maps.rows import RowFinder, Rows
from weedseg.maps.shards import ShardPlan, plan_shards
from weedseg.maps.trust import Trust, trust_in
from weedseg.maps.vectors import save_weed_map
from weedseg.maps.weed_map import WeedMap

SCHEMA = 1
CLASSES_NAME, CONFIDENCE_NAME, MAP_NAME = "classes.tif", "confidence.tif", "map.json"


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """What to map and how."""

    mosaic: Path
    out: Path
    model: Path
    """A model file."""
    crop: str = ""
    """Crop that grows on the field; '' is not said."""
    cells: CellOptions = field(default_factory=CellOptions)
    boundary: Path | None = None
    """File with the outline of the field."""
    resample: bool = False
    """Resize a mosaic whose ground resolution the model was not trained at."""
    as_is: bool = False
    """Map it nevertheless."""
    training_mm: tuple[float, float] | None = None
    """Lowest and highest mm per px that the model was trained at, if its file does not say."""
    engine: str = "local"
    workers: int = 0
    """0 takes as many as the machine has cores."""
    require_provider: str | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the mosaic.

        Raises:
            ConfigError: Two options exclude each other, or a range is none.
        """
        if self.resample and self.as_is:
            raise ConfigError("both --resample and --as-is", "one of them", "leave one out")
        low, high = self.training_mm or (1.0, 1.0)
        if not 0 < low <= high < math.inf:
            raise ConfigError(
                f"--mm-per-px {low:g} {high:g}", "two lengths, LOW <= HIGH", "correct it"
            )


@dataclass(frozen=True, kw_only=True)
class MapReport:
    """What a run has done."""

    values: dict[str, Any]
    """What ``map.json`` holds."""
    files: tuple[Path, ...]
    num_shards: int
    num_run: int
    """Shards of this run; an earlier one had finished the others."""


def make_map(options: MapOptions, tell: Tell | None = None) -> MapReport:
    """Make the map of a mosaic.

    Args:
        options: What and how.
        tell: Called with the progress.

    Returns:
        What was written.

    Raises:
        ConfigError: An option makes no sense for this mosaic.
        FieldDataError: Mosaic or boundary cannot be used.
        GeoreferenceError: The mosaic does not say where it lies, or its ground resolution is not
            one that the model was trained at.
        ModelFileError: The model cannot be used.
        OutputError: The disk is full or not writable.
        RuntimeUnavailableError: ONNX Runtime fails.
    """
    start, processor = time.monotonic(), time.process_time()
    tell, engine = tell or _tell_nobody, find_engine(options.engine)
    work = _prepare(options)
    parts = PartFolder(options.out, map_state(options.mosaic, work.plan, work.segmenter.sha256))
    num_run = run_shards(work.job(), parts, tell, engine, options.workers)
    segmented, processed = time.monotonic(), time.process_time()
    notes = [*work.notes, *([parts.thrown_away] if parts.thrown_away else [])]
    found = _read_all(work, parts, tell)
    values = _describe(work, found, notes)
    values["seconds"] = round(time.monotonic() - start, 3)
    values["segmenting_seconds"] = round(segmented - start, 3)
    values["segmenting_processor_seconds"] = round(processed - processor, 3)
    files = _finish(options.out, found, work.trust, values)
    parts.delete()
    return MapReport(
        values=values,
        files=tuple(files),
        num_shards=work.plan.num_shards,
        num_run=num_run,
    )


def plan_map(options: MapOptions) -> tuple[ShardJob, PartFolder]:
    """Plan a map whose shards somebody else runs; `make_map` goes on from the parts they save.

    Args:
        options: What and how; the same for `make_map`.

    Returns:
        What runs the shards must know, and where their parts go.

    Raises:
        WeedsegError: As `make_map`.
    """
    work = _prepare(options)
    state = map_state(options.mosaic, work.plan, work.segmenter.sha256)
    return work.job(), PartFolder(options.out, state)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Everything that is known before the first shard."""

    options: MapOptions
    field: FieldMosaic
    resolution: Resolution
    segmenter: Segmenter
    plan: ShardPlan
    trust: Trust
    counter: CellCounter
    rows: RowFinder
    notes: tuple[str, ...]
    """Warnings for people."""

    def job(self) -> ShardJob:
        """Return what workers need."""
        return ShardJob(
            mosaic=self.options.mosaic,
            model=self.options.model,
            plan=self.plan,
            require_provider=self.options.require_provider,
        )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What the pass over all parts gave; the rasters lie under their final names."""

    weed_map: WeedMap
    rows: Rows
    rasters: tuple[Path, Path]


def _prepare(options: MapOptions) -> _Work:
    """Check all that can be checked before the long work."""
    mosaic = open_field(options.mosaic)
    segmenter = Segmenter(options.model, threads=1, require_provider=options.require_provider)
    metadata = segmenter.metadata
    resolution = choose_resolution(
        mosaic,
        metadata.mm_per_px or options.training_mm,
        resample=options.resample,
        as_is=options.as_is,
    )
    ground = mosaic.ground
    outline = read_boundary(options.boundary, ground) if options.boundary else None
    down, across = (side * metadata.scale * resolution.factor for side in mosaic.stretch)
    ood = metadata.ood
    strange = unlike_training(options.mosaic, ood, (down, across)) if ood else []
    make_folder(options.out)
    return _Work(
        options=options,
        field=mosaic,
        resolution=resolution,
        segmenter=segmenter,
        plan=plan_shards(ground.size, metadata, (down, across)),
        trust=trust_in(metadata.properties, options.crop),
        counter=CellCounter(ground, segmenter.classes, options.cells, outline),
        rows=RowFinder(ground, segmenter.classes, boundary=outline),
        notes=(*mosaic.warnings, *resolution.warnings, *strange),
    )


def _read_all(work: _Work, parts: PartFolder, tell: Tell) -> _Found:
    """Write the rasters and count, in one pass."""
    out, ground, total = work.options.out, work.field.ground, work.plan.num_shards
    threads = work.options.workers or physical_cores()
    with (
        closing(LayerWriter(out / CLASSES_NAME, parts.path, ground)) as classes,
        closing(LayerWriter(out / CONFIDENCE_NAME, parts.path, ground)) as confidence,
    ):
        classes.describe("class", work.segmenter.classes)
        confidence.describe("confidence in per cent")
        begun = time.monotonic()
        for done, part in enumerate(read_parts(work.plan, parts), start=1):
            classes.add(part.window, part.class_map)
            confidence.add(part.window, part.confidence)
            work.counter.add(part)
            work.rows.add(part)
            left = (time.monotonic() - begun) / done * (total - done)
            tell(MapProgress(done=done, total=total, seconds_left=left, what="writing"))
        weed_map, rows = work.counter.finish(), work.rows.finish()
        (out / MAP_NAME).unlink(missing_ok=True)  # from here on an older map is no longer whole
        remove_prescription(out)
        rasters = classes.finish(threads), confidence.finish(threads)
    return _Found(weed_map=weed_map, rows=rows, rasters=rasters)


def _describe(work: _Work, found: _Found, notes: list[str]) -> dict[str, Any]:
    """Return what ``map.json`` holds."""
    options, ground, totals = work.options, work.field.ground, found.weed_map.totals()
    areas = {
        role: asdict(work.trust.area(totals[f"{role}_m2"], totals["ground_m2"], role))
        for role in ("weed", "crop")
    }
    if not work.trust.evaluated:
        notes = [*notes, work.trust.note]
    model = options.model
    return {
        "schema": SCHEMA,
        "input": str(options.mosaic.resolve()),
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "model": {
            "name": model.parent.name if model.stem == "model" else model.stem,
            "sha256": work.segmenter.sha256,
        },
        "classes": work.segmenter.classes.to_list(),
        "crop": options.crop,
        "ground": asdict(ground),
        "mm_per_px": round(ground.mm_per_px(), 4),
        "training_mm_per_px": work.resolution.training_mm,
        "resampled": work.resolution.factor != 1.0,
        "grid": asdict(found.weed_map.grid),
        "min_patch_m2": found.weed_map.min_patch_m2,
        "boundary": str(options.boundary.resolve()) if options.boundary else None,
        "totals": totals,
        "areas": areas,
        "trust": work.trust.to_dict(),
        "rows": found.rows.to_dict(),
        "warnings": notes,
        "weedseg_version": __version__,
    }


def _finish(out: Path, found: _Found, trust: Trust, values: dict[str, Any]) -> list[Path]:
    """Write vectors, ``map.json`` and the report."""
    files = [*found.rasters, *save_weed_map(found.weed_map, trust, out)]
    text = json.dumps(values, ensure_ascii=False, indent=1)
    write_bytes(out / MAP_NAME, text.encode())
    return [*files, out / MAP_NAME, *write_report(out)]


def _tell_nobody(progress: MapProgress) -> None:
    """Do nothing."""
