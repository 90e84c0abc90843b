"""Pre-label photos with a model, those first that teach most.

A photo's uncertainty is the mean of 1 - confidence over its pixels. Photos are chosen one after the
other, each the one with the largest uncertainty times distance to what is labelled or chosen
already (greedy k-centre); distance is that of coarse pictures, 8 x 8 px.

Imports no torch, so that a service may use it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from weedseg.data.exporters import labelstudio
from weedseg.data.exporters.cvat import export as export_cvat
from weedseg.data.exporters.png import export as export_png
from weedseg.data.folders import check_new, new_folder
from weedseg.data.index import Farm, Photo
from weedseg.data.writing import classes_toml
from weedseg.edge.result import Result
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import FieldDataError, ImageError, OutputError
from weedseg.imaging import read_image, read_small, resize_to, write_bytes, write_png

FILE, COLUMNS = "suggestions.csv", ("rank", "photo", "uncertainty", "distance", "field", "date")
_FEATURE_PX = 8
_SMALL_PX = 64

T = TypeVar("T")
Watch = Callable[[Sequence[T]], Iterable[T]]
"""Wraps photos, to show progress."""
Features = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """One photo that is worth a look, best first."""

    photo: Photo
    uncertainty: float
    """Mean of 1 - confidence, 0-1."""
    distance: float
    """How much it differed from all labelled and chosen photos when it was chosen, 0-1."""


def uncertainty(result: Result) -> float:
    """Return the mean of 1 - confidence over a photo, 0-1."""
    return round(1 - float(result.confidence.mean(dtype=np.float64)) / 100, 6)


def model_version(segmenter: Segmenter) -> str:
    """Name a model for label tools."""
    return f"weedseg {segmenter.sha256[:12]}"


def suggest(
    farm: Farm, segmenter: Segmenter, out: Path, num: int, watch: Watch[Photo] = iter
) -> tuple[list[Suggestion], list[str]]:
    """Write labels for the unlabelled photos that teach most, for every label tool.

    Into ``cvat``, ``labelstudio`` (as predictions) and ``png`` below `out`, in the order in which
    they should be reviewed, with ``suggestions.csv``. One photo is in memory at a time.

    Args:
        farm: Photos; those with a mask are not suggested, but count as known.
        segmenter: The model; its classes name the labels.
        out: New or empty folder outside the farm.
        num: How many photos; 0 takes all.
        watch: Wraps the photos, to show progress.

    Returns:
        What was chosen, and a sentence for each photo that cannot be read.

    Raises:
        FieldDataError: All photos are labelled, or none can be read.
        OutputError: The folder is not empty, inside the farm, or cannot be written.
    """
    check_new(out)
    if farm.root.resolve() in (out.resolve(), *out.resolve().parents):
        raise OutputError(f"{out} lies in the farm folder", "another place", "choose another --out")
    if not farm.unlabelled:
        raise FieldDataError(f"all photos of {farm.root} have masks", "unlabelled ones", "add some")
    scores: dict[Photo, float] = {}
    lost = []
    for photo in watch(farm.unlabelled):
        try:
            scores[photo] = uncertainty(segmenter.segment(read_image(photo.path)))
        except ImageError as error:
            lost.append(str(error))
    if not scores:
        raise FieldDataError(f"no photo to label: {lost[0]}", "readable photos", "replace them")
    chosen = choose(scores, _features(farm.labelled), num or len(scores))
    with new_folder(out) as made:
        _write(farm, segmenter, made, chosen)
    return chosen, lost


def choose(scores: dict[Photo, float], known: Features, num: int) -> list[Suggestion]:
    """Order photos by uncertainty times distance to what is known.

    Args:
        scores: Photo -> uncertainty.
        known: Coarse pictures of the labelled photos, (n, 192), 0-1.
        num: How many to choose.

    Returns:
        At most `num` photos, the first to be labelled first.

    Raises:
        ImageError: A photo cannot be read.
    """
    photos = sorted(scores, key=lambda photo: (-scores[photo], photo.name))
    doubt = np.array([scores[photo] for photo in photos])
    features = np.stack([_feature(photo) for photo in photos])
    distance = np.ones(len(photos))
    for row in known:
        distance = np.minimum(distance, _distances(features, row))
    suggestions: list[Suggestion] = []
    left = np.ones(len(photos), bool)
    while left.any() and len(suggestions) < num:
        # Certain photos and duplicates come last; among them the uncertain ones first.
        gain = np.where(left, (doubt + 1e-6) * distance + 1e-9 * doubt, -1)
        best = int(gain.argmax())
        suggestions.append(
            Suggestion(
                photo=photos[best],
                uncertainty=float(doubt[best]),
                distance=round(float(distance[best]), 6),
            )
        )
        left[best] = False
        distance = np.minimum(distance, _distances(features, features[best]))
    return suggestions


def _features(photos: Sequence[Photo]) -> Features:
    """Return coarse pictures of the photos that can be read, (n, 192), 0-1."""
    rows = []
    for photo in photos:
        with suppress(ImageError):
            rows.append(_feature(photo))
    return np.array(rows, np.float32).reshape(-1, 3 * _FEATURE_PX**2)


def _feature(photo: Photo) -> Features:
    """Return a coarse picture, (192,), 0-1."""
    small = resize_to(read_small(photo.path, _SMALL_PX), (_FEATURE_PX, _FEATURE_PX))
    return np.asarray(small.ravel() / 255, np.float32)


def _distances(features: Features, row: Features) -> npt.NDArray[np.float64]:
    """Return root mean square differences, 0-1."""
    return np.asarray(np.sqrt(np.square(features - row).mean(axis=1, dtype=np.float64)))


def _write(farm: Farm, segmenter: Segmenter, made: Path, chosen: Sequence[Suggestion]) -> None:
    """Segment the chosen photos again and write them for each tool."""
    photos, scores = [], []
    for rank, suggestion in enumerate(chosen):
        path = made / "masks" / f"{rank}.png"
        result = segmenter.segment(read_image(suggestion.photo.path))
        write_png(path, result.class_map)
        photos.append(replace(suggestion.photo, mask=path))
        scores.append(round(1 - suggestion.uncertainty, 6))
    labelled = replace(farm, photos=tuple(photos), classes=segmenter.classes)
    by_model = labelstudio.Suggested(version=model_version(segmenter), scores=scores)
    export_cvat(labelled, made / "cvat")
    labelstudio.export(labelled, made / "labelstudio", by_model)
    export_png(labelled, made / "png")
    for tool in ("cvat", "labelstudio", "png"):
        write_bytes(made / tool / "classes.toml", classes_toml(segmenter.classes).encode())
    for photo in photos:
        (photo.mask or made).unlink()
    (made / "masks").rmdir()
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rank, found in enumerate(chosen, start=1):
        place = (found.photo.field, found.photo.date)
        writer.writerow((rank, found.photo.name, found.uncertainty, found.distance, *place))
    write_bytes(made / FILE, table.getvalue().encode("utf-8", "surrogateescape"))
