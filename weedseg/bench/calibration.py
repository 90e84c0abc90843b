"""Is confidence honest, and does the model notice a foreign field? In its field and in others.

Every set is segmented as a robot would. Classes of other farms are matched by role.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from weedseg import __version__
from weedseg.bench.lines import commit
from weedseg.classes import IGNORE_ID, ClassTable
from weedseg.data.index import Farm, Photo, index_farm
from weedseg.data.masks import read_mask
from weedseg.edge.result import Result
from weedseg.edge.segmenter import Segmenter
from weedseg.edge.watch import DEFAULT_LIMITS
from weedseg.errors import FieldDataError
from weedseg.evaluation.confusion import ConfusionMatrix, role_scores
from weedseg.evaluation.ood import auroc
from weedseg.evaluation.scores import Calibration
from weedseg.export.details import to_literal
from weedseg.export.onnx_graph import describe
from weedseg.imaging import Image, Mask, read_image

IN_DOMAIN = "in-domain"
Corruption = Callable[[Image, np.random.Generator], Image]


def _clip(values: npt.NDArray[Any]) -> Image:
    return np.asarray(np.clip(values, 0, 255), np.uint8)


CORRUPTIONS: dict[str, Corruption] = {
    "lens cap": lambda image, rng: _clip(rng.normal(6, 4, image.shape)),
    "night": lambda image, rng: _clip(0.12 * image + rng.normal(0, 6, image.shape)),
    "glare": lambda image, rng: _clip(0.5 * image + 140),
    "blur": lambda image, rng: np.asarray(cv2.GaussianBlur(image, (0, 0), 4), np.uint8),
    "noise": lambda image, rng: _clip(image + rng.normal(0, 40, image.shape)),
    "wrong white balance": lambda image, rng: _clip(image * np.array([1.3, 0.8, 0.5])),
}
"""What can go wrong with a camera, done to photos of the model's own field."""


@dataclass(frozen=True, kw_only=True)
class CalibrationPlan:
    """What is measured."""

    model: Path
    in_domain: Path
    """Farm folder of the model's own field."""
    test: Path | None = None
    """File with the names of its test photos, one a line; None: all labelled ones."""
    others: tuple[Path, ...] = ()
    """Farm folders of other fields."""
    most: int = 60
    """At most so many photos of each."""


def measure_calibration(plan: CalibrationPlan) -> dict[str, Any]:
    """Measure calibration error and out-of-distribution scores over fields.

    Args:
        plan: What is measured.

    Returns:
        One line. ``sets``: per farm photos, ece (with the temperature) and ece_before (without),
        accuracy, weed_iou, ok_share (photos whose `ood_score` a stream accepts) and, for other
        fields, auroc against the own one by score. ``corruptions``: ok_share and auroc.

    Raises:
        ModelFileError: The model cannot be run.
        FieldDataError: A farm folder has no labelled photos.
    """
    shipped, plain = Segmenter(plan.model), Segmenter(without_temperature(plan.model))
    own, names = index_farm(plan.in_domain), _names(plan.test)
    photos = _choose(own, plan.most, names)
    sets = {IN_DOMAIN: _measure_set(shipped, plain, own, photos)}
    for folder in plan.others:
        farm = index_farm(folder)
        sets[folder.name] = _measure_set(shipped, plain, farm, _choose(farm, plan.most))
    images = [read_image(photo.path) for photo in photos]
    spoiled = {
        name: {"scores": _columns([_scores(shipped.segment(image)) for image in spoilt])}
        for name, spoilt in _spoil(images)
    }
    base = sets[IN_DOMAIN]["scores"]
    for found in (*list(sets.values())[1:], *spoiled.values()):
        found["auroc"] = {key: auroc(base[key], found["scores"][key]) for key in base if base[key]}
    for found in (*sets.values(), *spoiled.values()):
        found["ok_share"] = _ok_share(found.pop("scores")["ood_score"])
    return {
        "bench": "calibration",
        "model_sha256": shipped.sha256,
        "temperature": shipped.metadata.temperature,
        "sets": sets,
        "corruptions": spoiled,
        "version": __version__,
        "commit": commit(),
    }


def without_temperature(model: Path) -> bytes:
    """Return a model whose confidence is as the network gave it.

    Args:
        model: A file that weedseg exported.
    """
    graph = onnx.load_from_string(model.read_bytes())
    for initializer in graph.graph.initializer:
        if initializer.name == "tail_temperature":
            initializer.CopyFrom(
                numpy_helper.from_array(np.array(1, np.float32), "tail_temperature")
            )
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    own = {**json.loads(properties["weedseg"]), "temperature": 1.0}
    describe(graph, {**properties, "weedseg": to_literal(own)})
    return bytes(graph.SerializeToString())


def _names(file: Path | None) -> set[str]:
    return set() if file is None else set(file.read_text(encoding="utf-8").split())


def _choose(farm: Farm, most: int, names: set[str] | None = None) -> Sequence[Photo]:
    """Return labelled photos, evenly chosen.

    Raises:
        FieldDataError: There is none.
    """
    photos = [photo for photo in farm.labelled if not names or photo.name in names]
    if not photos:
        raise FieldDataError(f"no such labelled photo in {farm.root}", "at least one", "add masks")
    return photos[:: max(-(-len(photos) // most), 1)]


def _measure_set(
    shipped: Segmenter, plain: Segmenter, farm: Farm, photos: Sequence[Photo]
) -> dict[str, Any]:
    """Measure one farm."""
    table = match_roles(farm.classes, shipped.classes)
    matrix = ConfusionMatrix(len(shipped.classes))
    after, before = Calibration(), Calibration()
    scores = []
    for photo in photos:
        image, mask = read_image(photo.path), table[read_mask(farm, photo)]
        result = shipped.segment(image)
        matrix.add(mask, result.class_map)
        after.add(mask, result.class_map, result.confidence)
        before.add(mask, result.class_map, plain.segment(image).confidence)
        scores.append(_scores(result))
    return {
        "photos": len(photos),
        "ece": after.to_dict()["ece"],
        "ece_before": before.to_dict()["ece"],
        "accuracy": matrix.accuracy,
        "weed_iou": role_scores(matrix, shipped.classes).weed_iou,
        "scores": _columns(scores),
    }


def match_roles(found: ClassTable, wanted: ClassTable) -> Mask:
    """Return a table of 256 from the ids of one farm to those of a model, by role.

    A role that the model does not know, and 255, become 255.

    Args:
        found: The farm's classes.
        wanted: The model's classes; the first of a role stands for it.
    """
    table = np.full(256, IGNORE_ID, np.uint8)
    for number, entry in enumerate(found.classes):
        table[number] = next(iter(wanted.ids_of(entry.role)), IGNORE_ID)
    return table


def _scores(result: Result) -> dict[str, float | None]:
    """Return candidates for the out-of-distribution score; more is stranger."""
    plants = result.confidence[result.class_map > 0]
    return {
        "ood_score": result.ood_score,
        "low_confidence": 1 - float(result.confidence.mean()) / 100,
        "low_plant_confidence": 1 - float(plants.mean()) / 100 if plants.size else 0.0,
    }


def _columns(rows: Sequence[Mapping[str, float | None]]) -> dict[str, list[float]]:
    """Turn scores per photo into lists; one is empty where the model gives no such score."""
    return {key: [v for row in rows if (v := row[key]) is not None] for key in rows[0]}


def _ok_share(scores: Sequence[float]) -> float | None:
    if not scores:
        return None
    return float(np.mean(np.asarray(scores) <= DEFAULT_LIMITS.max_ood_score))


def _spoil(images: Sequence[Image]) -> Iterator[tuple[str, Iterator[Image]]]:
    """Yield every corruption with all photos spoilt by it."""
    for name, corrupt in CORRUPTIONS.items():
        rng = np.random.default_rng(0)
        yield name, (corrupt(image, rng) for image in images)


def calibration_table(line: Mapping[str, Any]) -> str:
    """Word a line as a table.

    Args:
        line: What `measure_calibration` gave.
    """
    rows = [
        f"temperature {line['temperature']:g}",
        f"{'set':22s} photos    ECE  before     OK  AUROC",
    ]
    for name, found in {**line["sets"], **line["corruptions"]}.items():
        shares = [found.get(key) for key in ("ece", "ece_before", "ok_share")]
        cells = [f"{value:7.3f}" if value is not None else " " * 7 for value in shares]
        of_score = found.get("auroc", {}).get("ood_score")
        cells.append("" if of_score is None else f"{of_score:6.3f}")
        rows.append(f"{name:22s} {found.get('photos', ''):>6} {' '.join(cells)}".rstrip())
    return "\n".join(rows)
