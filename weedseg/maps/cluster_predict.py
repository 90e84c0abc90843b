"""Segment a folder of photos on a Ray cluster; the results are those of `predict_folder`.

Photos travel to the workers and results back, so workers need neither disk nor store in common.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from weedseg.edge.manifest import Entry, Manifest, source_state
from weedseg.edge.photos import CLASS_MAP_END, CONFIDENCE_END, OVERLAY_END, FoundPhoto, find_photos
from weedseg.edge.predict import PredictReport, Progress, predict_folder
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import FieldDataError
from weedseg.imaging import write_bytes
from weedseg.maps.cluster import cluster, remote, run_each

_open_models: dict[str, Segmenter] = {}
"""The model that a worker process has open, by its checksum."""


def predict_on_cluster(
    model: Path,
    inputs: str | Path | Sequence[str | Path],
    out: Path,
    *,
    overlay: bool = True,
    workers: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> PredictReport:
    """Segment photos and write the results, as `predict_folder` does with one thread.

    Args:
        model: A model file; it travels with the run.
        inputs: A photo, a folder or a glob, or several of these, on this machine.
        out: Output folder, on this machine.
        overlay: Also draw the class colours over the photo.
        workers: Photos at a time; 0 takes all cores of the cluster.
        progress: Called after every photo that a worker has finished.

    Raises:
        ImageError: There is no photo at all.
        OutputError: The disk is full or not writable.
        RuntimeUnavailableError: Ray is not there or fails, or workers die.
    """
    segmenter = Segmenter(model, threads=1)
    photos = find_photos(inputs, out)
    ends = [CLASS_MAP_END, CONFIDENCE_END, *([OVERLAY_END] if overlay else [])]
    with closing(Manifest(out, segmenter.sha256)) as manifest:
        left = [
            photo
            for photo in photos
            if not manifest.done(photo, [photo.output + end for end in ends])
        ]
        done = len(photos) - len(left)
        for photo, made in _run(model, segmenter.sha256, left, overlay, workers):
            done += 1
            if made is not None:
                manifest.add(_keep(out, photo, *made))
            if progress is not None:
                progress(Progress(done=done, total=len(photos), photo=photo.name))
    report = predict_folder(segmenter, inputs, out, overlay=overlay)  # lists the bad ones
    segmented = len(left) - len(report.errors)
    return replace(
        report, num_segmented=segmented, num_skipped=len(photos) - segmented - len(report.errors)
    )


def _run(model: Path, sha256: str, photos: list[FoundPhoto], overlay: bool, workers: int) -> Any:
    """Yield each photo with what a worker made of it; None if it is bad."""
    if not photos:
        return
    with cluster(workers) as ray:
        shared, task = ray.put(model.read_bytes()), remote(ray, _predict)

        def submit(photo: FoundPhoto) -> Any:
            data, state = _read(photo.path)
            return task(sha256, shared, (photo.path.name, data, state), overlay)

        yield from run_each(ray, photos, submit, workers)


def _read(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Return a photo and its size and time of change before it was read; nothing if it is gone."""
    try:
        state = source_state(path)
        return path.read_bytes(), state
    except (FieldDataError, OSError):
        return b"", (0, 0)


def _predict(
    sha256: str, model: bytes, photo: tuple[str, bytes, tuple[int, int]], overlay: bool
) -> tuple[dict[str, bytes], Entry] | None:
    """Segment one photo in a worker process: its files by their ends, and its line; None if bad."""
    if sha256 not in _open_models:
        _open_models.clear()
        _open_models[sha256] = Segmenter(model, threads=1)
    name, data, (size_bytes, mtime_ns) = photo
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / name, Path(folder) / "out"
        path.write_bytes(data)
        report = predict_folder(_open_models[sha256], path, out, overlay=overlay)
        if report.errors:
            return None
        (entry,) = Manifest(out, sha256).entries
        files = {
            file.removeprefix(Path(name).stem): (out / file).read_bytes() for file in entry.files
        }
    return files, replace(entry, size_bytes=size_bytes, mtime_ns=mtime_ns)


def _keep(out: Path, photo: FoundPhoto, files: dict[str, bytes], entry: Entry) -> Entry:
    """Write the results of a photo; return its line."""
    for end, data in files.items():
        write_bytes(out / (photo.output + end), data)
    sizes = {photo.output + end: len(data) for end, data in files.items()}
    return replace(entry, photo=photo.name, files=sizes)
