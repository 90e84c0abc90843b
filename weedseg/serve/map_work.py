"""Jobs whose upload is a mosaic: the work that `weedseg map` does, one shard a step.

The last step makes the map from the parts that the others saved; a part that is missing, after a
power cut for instance, is made then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weedseg.data.mosaics import Mosaic
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import WeedsegError
from weedseg.imaging import write_bytes
from weedseg.maps.boundary import read_boundary
from weedseg.maps.cells import CellOptions
from weedseg.maps.engine import ShardJob, open_mosaic
from weedseg.maps.field_picture import COVER, overview_png
from weedseg.maps.ground import Ground
from weedseg.maps.parts import PartFolder
from weedseg.maps.report import write_report
from weedseg.maps.run import MapOptions, make_map, plan_map
from weedseg.maps.shards import segment_shard
from weedseg.maps.vectors import load_weed_map
from weedseg.maps.worst_cells import NUM_WORST, worst_cells, worst_rows
from weedseg.serve.decoding import clean_name
from weedseg.serve.files import make_folder, sync, writing
from weedseg.serve.job_store import Claim
from weedseg.serve.limits import Limits
from weedseg.serve.models import ServedModel
from weedseg.serve.mosaic_intake import (
    BYTES_PER_PIXEL,
    MAX_PIXELS,
    copy_mosaic,
    is_tiff,
    sandboxed,
)
from weedseg.serve.problems import Problem
from weedseg.serve.results import MAP_SUMMARY_NAME, OVERVIEW_NAME
from weedseg.serve.settings import Settings

_MOSAIC, _FACTS, _BOUNDARY = "mosaic", "facts.json", "boundary.geojson"
_ASK_S = 1.0
_OVERVIEW_DPI = 150

Wanted = Callable[[], bool]
"""Tells whether the job is still wanted."""


class MapWork:
    """Does the steps of maps; the mosaic and the model of the job that was last stay open."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        """Remember how.

        Args:
            settings: Memory of the process that reads mosaics, threads of the model.
            limits: Is asked for room.
        """
        self._settings = settings
        self._limits = limits
        self._open: tuple[str, _OpenMap] | None = None

    def prepare(
        self, folders: tuple[Path, Path], claim: Claim, model: ServedModel, wanted: Wanted
    ) -> int:
        """Take the mosaic in and plan the map.

        Args:
            folders: Of what came in, with one file, and of the results.
            claim: The step that unpacks.
            model: What will segment it.
            wanted: Asked now and then.

        Returns:
            Number of shards; 0 when the file is no mosaic with a CRS.

        Raises:
            GeoreferenceError: The mosaic cannot be mapped, or not with this model.
            FieldDataError: It is damaged or too large.
            OutputError: The disk is full or not writable.
            Problem: The owner has no room for the map, or the job was cancelled.
        """
        (row,) = claim.options["inputs"]
        path = folders[0] / row["file"]
        if not is_tiff(path):
            return 0
        with sandboxed(path, row["name"], self._settings.decode_memory_bytes) as source:
            facts = source.open(MAX_PIXELS, self._settings.max_pixels)
            if facts is None:
                return 0
            pixels = facts.size[0] * facts.size[1]
            self._limits.demand(claim.owner, BYTES_PER_PIXEL * pixels)
            make_folder(folders[0] / _MOSAIC)
            copy_mosaic(source, facts, _mosaic_path(folders[0], claim), _asking(wanted))
        write_bytes(folders[0] / _FACTS, json.dumps(asdict(facts)).encode())
        if outline := claim.options.get("boundary"):
            write_bytes(folders[1] / _BOUNDARY, json.dumps(outline).encode())
        self._open = None
        return self._job(folders, claim, model).job.plan.num_shards

    def shard(self, folders: tuple[Path, Path], claim: Claim, model: ServedModel) -> None:
        """Segment one shard and keep its part.

        Raises:
            WeedsegError: As `prepare`.
        """
        work = self._job(folders, claim, model)
        number = claim.number - 1
        segmenter = work.segmenter
        data = segment_shard(
            work.mosaic, work.job.plan, number, segmenter.metadata, segmenter.run_tiles
        )
        work.parts.save(number, data)

    def finish(
        self, folders: tuple[Path, Path], claim: Claim, model: ServedModel, wanted: Wanted
    ) -> None:
        """Write the map, its report and what the web page shows.

        Raises:
            WeedsegError: As `prepare`.
        """
        self._open = None
        ask, results = _asking(wanted), folders[1]
        options = self._options(folders, claim, model)
        with _named(folders):
            made = make_map(options, lambda _: ask())
            facts = json.loads((folders[0] / _FACTS).read_bytes())
            warnings = map(_plain, [*facts["warnings"], *made.values["warnings"]])
            values = {
                **made.values,
                "input": options.mosaic.name,
                "boundary": options.boundary and options.boundary.name,
                "warnings": list(dict.fromkeys(warnings)),
            }
            write_bytes(
                results / "map.json", json.dumps(values, ensure_ascii=False, indent=1).encode()
            )
            write_report(results, options.mosaic)
            _write_summary(results, values, options.boundary)
        with writing(results):
            for path in (*sorted(p for p in results.iterdir() if p.is_file()), results):
                sync(path)

    def _job(self, folders: tuple[Path, Path], claim: Claim, model: ServedModel) -> _OpenMap:
        """Return the plan of a job's map with mosaic and model open."""
        if self._open is None or self._open[0] != claim.job_id:
            with _named(folders):
                job, parts = plan_map(self._options(folders, claim, model))
            self._open = claim.job_id, _OpenMap(job, parts, self._settings)
        return self._open[1]

    def _options(self, folders: tuple[Path, Path], claim: Claim, model: ServedModel) -> MapOptions:
        return MapOptions(
            mosaic=_mosaic_path(folders[0], claim),
            out=folders[1],
            model=model.path,
            crop=claim.options.get("crop") or "",
            cells=CellOptions(cell_m=claim.options.get("cell_m") or CellOptions.cell_m),
            resample=bool(claim.options.get("resample")),
            boundary=folders[1] / _BOUNDARY if claim.options.get("boundary") else None,
            require_provider=self._settings.require_provider,
        )


class _OpenMap:
    """What the shards of one job need."""

    def __init__(self, job: ShardJob, parts: PartFolder, settings: Settings) -> None:
        self.job, self.parts = job, parts
        self.mosaic: Mosaic = open_mosaic(job)
        self.segmenter = Segmenter(
            job.model,
            threads=settings.infer_threads,
            require_provider=job.require_provider,
        )


def _write_summary(results: Path, values: dict[str, Any], boundary: Path | None) -> None:
    """Write what the web page shows of a map."""
    weed_map = load_weed_map(results)
    worst = worst_cells(weed_map, NUM_WORST)
    outline = read_boundary(boundary, Ground(**values["ground"])) if boundary else None
    kept = ("crop", "mm_per_px", "boundary", "totals", "areas", "trust", "warnings")
    summary = {
        **{key: values[key] for key in kept},
        "cell_m": list(weed_map.grid.cell_m),
        "worst": worst_rows(weed_map, worst),
        "legend": [{"label": n, "colour": c} for n, c in zip(COVER.labels, COVER.colours)],
    }
    overview = overview_png(weed_map, outline, worst, _OVERVIEW_DPI, legend=False)
    write_bytes(results / OVERVIEW_NAME, overview)
    write_bytes(results / MAP_SUMMARY_NAME, json.dumps(summary, ensure_ascii=False).encode())


def _mosaic_path(photos: Path, claim: Claim) -> Path:
    """Return where the plain copy of the mosaic lies; it has the name that its owner gave it."""
    stem = Path(clean_name(claim.options["inputs"][0]["name"])).stem
    kept = "".join(c if c.isalnum() or c in "._- " else "_" for c in stem).strip(". ")
    return photos / _MOSAIC / f"{kept or 'mosaic'}.tif"


def _asking(wanted: Wanted) -> Callable[[], None]:
    """Return what ends the work when the job is not wanted any more."""
    last = time.monotonic()

    def ask() -> None:
        nonlocal last
        if time.monotonic() - last < _ASK_S:
            return
        last = time.monotonic()
        if not wanted():
            raise Problem(410, "Gone", "the job was cancelled")

    return ask


def _plain(warning: str) -> str:
    """Leave out what only the command line can do."""
    return warning.partition("; state what it was trained at with --mm-per-px")[0]


@contextmanager
def _named(folders: tuple[Path, Path]) -> Iterator[None]:
    """Leave the places of files out of messages, and say what to do in words of the service.

    Raises:
        WeedsegError: The one that came, in other words.
    """
    try:
        yield
    except WeedsegError as error:
        remedy = error.remedy
        if "--resample" in remedy:
            remedy = "hand it in again with 'resample' switched on"
        facts = [error.found, error.expected, remedy]
        for folder in (folders[0] / _MOSAIC, *folders):
            facts = [fact.replace(f"{folder}/", "") for fact in facts]
        raise type(error)(*facts) from error
