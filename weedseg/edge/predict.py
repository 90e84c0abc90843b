"""Segment a folder of photos: class maps, confidence, overlays and a table of coverage.

A stopped run goes on where it was, and ends in the same bytes as one that was never stopped. A bad
photo is listed and left out. Memory holds two decoded photos, however many there are.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from weedseg.classes import ClassTable, Role
from weedseg.edge.manifest import Entry, Manifest, source_state
from weedseg.edge.photos import (
    CLASS_MAP_END,
    CONFIDENCE_END,
    OVERLAY_END,
    FoundPhoto,
    find_photos,
    make_folder,
)
from weedseg.edge.segmenter import Result, Segmenter
from weedseg.errors import FieldDataError, OutputError
from weedseg.imaging import ClassMap, Image, read_image, write_bytes, write_png

_log = logging.getLogger(__name__)

COVERAGE_NAME, ERRORS_NAME = "coverage.csv", "errors.csv"
OVERLAY_SHARE = 0.45
"""How much of a class colour covers the photo in an overlay, 0-1."""
MAX_SIDE_PX = 65_500
"""Photos with a longer side are listed as bad: JPEG cannot hold their overlay."""
_JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is; given to the callback after every photo."""

    done: int
    """Photos that are finished, skipped or bad."""
    total: int
    photo: str
    result: Result | None = None
    """None when the photo was skipped or bad."""


@dataclass(frozen=True, kw_only=True)
class PredictReport:
    """What a run has done."""

    num_segmented: int
    num_skipped: int
    """Photos that an earlier run had finished."""
    errors: dict[str, str]
    """Photo -> why it could not be segmented."""
    table: Path
    """The table of coverage."""


def predict_folder(
    segmenter: Segmenter,
    inputs: str | Path | Sequence[str | Path],
    out: Path,
    *,
    overlay: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> PredictReport:
    """Segment photos and write the results.

    For ``a/1.jpg`` these are ``a/1_classes.png`` (class ids), ``a/1_confidence.png`` (0-100) and
    ``a/1_overlay.jpg``; for all photos ``coverage.csv``, and ``errors.csv`` when there are any.

    Args:
        segmenter: The model.
        inputs: A photo, a folder or a glob, or several of these.
        out: Output folder.
        overlay: Also draw the class colours over the photo.
        progress: Called after every photo.

    Returns:
        Counts and errors.

    Raises:
        ImageError: There is no photo at all.
        OutputError: The disk is full or not writable.
        RuntimeUnavailableError: ONNX Runtime fails.
    """
    photos = find_photos(inputs, out)
    make_folder(out)
    run = _Run(segmenter, out, overlay)
    errors: dict[str, str] = {}
    num_segmented = 0
    with closing(run.manifest), closing(_decode_ahead(photos, run)) as coming:
        for number, (photo, loaded) in enumerate(coming, start=1):
            result = None
            if isinstance(loaded, str):
                errors[photo.name] = loaded
                run.manifest.remove(photo.name)
                _log.warning("left out: %s", loaded)
            elif loaded is not None:
                result = run.segment(photo, loaded)
                num_segmented += 1
            if progress is not None:
                progress(Progress(done=number, total=len(photos), photo=photo.name, result=result))
    run.manifest.rewrite()
    _write_errors(out / ERRORS_NAME, errors)
    table = out / COVERAGE_NAME
    _write_text(table, coverage_table(run.manifest.entries, segmenter.classes))
    return PredictReport(
        num_segmented=num_segmented,
        num_skipped=len(photos) - num_segmented - len(errors),
        errors=errors,
        table=table,
    )


class _Loaded(NamedTuple):
    """A decoded photo and the state of its file before it was read."""

    image: Image
    size_bytes: int
    mtime_ns: int


class _Run:
    """What stays the same for all photos of a run."""

    def __init__(self, segmenter: Segmenter, out: Path, overlay: bool) -> None:
        self.segmenter = segmenter
        self.out = out
        self.overlay = overlay
        self.manifest = Manifest(out, segmenter.sha256)

    def names(self, photo: FoundPhoto) -> list[str]:
        """Name the results of a photo, below the output folder."""
        ends = [CLASS_MAP_END, CONFIDENCE_END, *([OVERLAY_END] if self.overlay else [])]
        return [photo.output + end for end in ends]

    def load(self, photo: FoundPhoto) -> _Loaded | str | None:
        """Decode a photo; None when it is done already, a text that says why it is bad."""
        if self.manifest.done(photo, self.names(photo)):
            return None
        try:
            size_bytes, mtime_ns = source_state(photo.path)
            image = read_image(photo.path)
        except FieldDataError as error:
            return str(error)
        except MemoryError:
            return f"{photo.path}: too large for the memory of this machine"
        height, width = image.shape[:2]
        if max(height, width) > MAX_SIDE_PX:
            return (
                f"{photo.path}: {width}x{height} px; expected sides of at most {MAX_SIDE_PX} px; "
                "cut it into parts"
            )
        return _Loaded(image, size_bytes, mtime_ns)

    def segment(self, photo: FoundPhoto, loaded: _Loaded) -> Result:
        """Segment a photo, write its results, then its line."""
        image = loaded.image
        result = self.segmenter.segment(image)
        paths = [self.out / name for name in self.names(photo)]
        write_png(paths[0], result.class_map)
        write_png(paths[1], result.confidence)
        if self.overlay:
            drawn = draw_overlay(image, result.class_map, self.segmenter.classes)
            write_bytes(paths[2], _jpeg(drawn))
        self.manifest.add(
            Entry(
                photo=photo.name,
                size_bytes=loaded.size_bytes,
                mtime_ns=loaded.mtime_ns,
                model_sha256=self.segmenter.sha256,
                files={n: p.stat().st_size for n, p in zip(self.names(photo), paths)},
                height_px=image.shape[0],
                width_px=image.shape[1],
                coverage=result.coverage,
                mean_confidence=round(float(result.confidence.mean()), 4),
            )
        )
        return result


def _decode_ahead(
    photos: list[FoundPhoto], run: _Run
) -> Generator[tuple[FoundPhoto, _Loaded | str | None], None, None]:
    """Yield each photo with what `_Run.load` gives; the next one loads in the meantime."""
    with ThreadPoolExecutor(1, thread_name_prefix="weedseg-decode") as pool:
        coming = pool.submit(run.load, photos[0])
        for number, photo in enumerate(photos):
            loaded = coming.result()
            if number + 1 < len(photos):
                coming = pool.submit(run.load, photos[number + 1])
            yield photo, loaded


def draw_overlay(image: Image, class_map: ClassMap, classes: ClassTable) -> Image:
    """Blend class colours into a photo; background stays as it is.

    Args:
        image: uint8 (H, W, 3), RGB.
        class_map: uint8 (H, W).
        classes: The classes.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(classes), 0] = classes.colours
    colours = cv2.LUT(cv2.merge([class_map] * 3), table)
    blended = cv2.addWeighted(image, 1 - OVERLAY_SHARE, colours, OVERLAY_SHARE, 0)
    plant = np.ones(256, np.uint8)
    plant[list(classes.ids_of(Role.BACKGROUND))] = 0
    drawn = image.copy()
    cv2.copyTo(blended, cv2.LUT(class_map, plant), drawn)
    return drawn


def coverage_table(entries: list[Entry], classes: ClassTable) -> str:
    """Write the table of coverage as CSV.

    Args:
        entries: One per photo.
        classes: The classes.

    Returns:
        Columns photo, width_px, height_px, ``share_<class>`` (0-1) for every class,
        crop_percent and weed_percent (all classes of the role), mean_confidence (per cent),
        model_sha256.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    roles = [(role, [classes.names[i] for i in classes.ids_of(role)]) for role in Role][1:]
    shares = [f"share_{name}" for name in classes.names]
    percents = [f"{role.value}_percent" for role, _ in roles]
    writer.writerow(
        ["photo", "width_px", "height_px", *shares, *percents, "mean_confidence", "model_sha256"]
    )
    for entry in entries:
        writer.writerow(
            [
                entry.photo,
                entry.width_px,
                entry.height_px,
                *(f"{entry.coverage.get(name, 0.0):.6f}" for name in classes.names),
                *(
                    f"{100 * sum(entry.coverage.get(n, 0.0) for n in names):.4f}"
                    for _, names in roles
                ),
                f"{entry.mean_confidence:.2f}",
                entry.model_sha256,
            ]
        )
    return file.getvalue()


def _write_errors(path: Path, errors: dict[str, str]) -> None:
    """Write the list of bad photos, or remove an old one."""
    if not errors:
        path.unlink(missing_ok=True)
        return
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["photo", "error"])
    writer.writerows(sorted(errors.items()))
    _write_text(path, file.getvalue())


def _write_text(path: Path, text: str) -> None:
    """Write UTF-8; a path on disk may hold bytes that are none, and these are spelled out."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def _jpeg(image: Image) -> bytes:
    """Encode RGB as JPEG.

    Raises:
        OutputError: OpenCV cannot.
    """
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise OutputError(
            f"an overlay of {image.shape[1]}x{image.shape[0]} px", "a JPEG", "leave overlays out"
        )
    return bytes(data)
