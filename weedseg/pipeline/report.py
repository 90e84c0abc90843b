"""The report of a run: one HTML file, built from the files of the run folder and nothing else.

Read, each only if it is there: ``recipe.json``, ``run.json``, ``split.json``, ``evaluation.json``,
``pretrain/metrics.jsonl``, ``finetune/metrics.jsonl``, ``pretrain/pictures/*.png`` (image, hidden
patches, reconstruction), ``evaluation/pictures/*.png`` (image, mask, class map, confidence) and
``label_first.csv`` (any columns; ``photo`` names the photo, ``thumbnail`` a picture by its path in
the run folder). The page loads nothing: pictures lie in it, and its policy forbids the rest.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2

from weedseg.errors import ImageError, OutputError
from weedseg.evaluation import plots
from weedseg.evaluation.scores import SCHEMA
from weedseg.imaging import decode_image, write_bytes
from weedseg.pipeline import report_words as words
from weedseg.pipeline.report_split import describe_split, split_rows

MAX_PICTURES = 8
MAX_ROWS = 300
_LARGE_BYTES = 200_000
_JPEG_QUALITY = 88
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
_PACKAGES = ("weedseg", "python", "torch", "torchvision", "timm", "onnx", "onnxruntime", "numpy")


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run folder; sections whose files are missing are left out.

    Args:
        run: The run folder.

    Returns:
        The path of the report.

    Raises:
        OutputError: The run folder is missing, or the report cannot be written.
    """
    if not run.is_dir():
        raise OutputError(f"{run} is no folder", "a run folder", "give the folder of a run")
    path = run / "report.html"
    write_bytes(path, render_report(run).encode("utf-8"))
    return path


def render_report(run: Path) -> str:
    """Return the report of a run folder as HTML."""
    from jinja2 import Environment, PackageLoader

    pages = Environment(
        loader=PackageLoader("weedseg", "pipeline"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"percent": words.percent, "duration": words.duration}
    return pages.get_template("report.html.j2").render(_content(run))


def _content(run: Path) -> dict[str, Any]:
    """Return everything the template shows; an empty value leaves its section out."""
    evaluation = _read_object(run / "evaluation.json")
    if evaluation.get("schema") != SCHEMA:
        evaluation = {}
    about, split = _read_object(run / "run.json"), _read_object(run / "split.json")
    split = split or evaluation.get("split", {})
    label = str(evaluation.get("label", ""))
    pretrained = (run / "pretrain" / "metrics.jsonl").is_file()
    return {
        "name": run.resolve().name,
        "label": label,
        "tested": bool(evaluation.get("num_photos")),
        "evaluation": _evaluation_content(evaluation) if evaluation else {},
        "results": _pictures(run / "evaluation" / "pictures"),
        "reconstructions": _first_and_last(_pictures(run / "pretrain" / "pictures")),
        "practice": _pictures(run / "finetune" / "pictures"),
        "label_first": _label_first(run),
        "training": _training(run, label),
        "split": {
            "sentences": describe_split(
                split,
                pretrained,
                _read_object(run / "finetune" / "finetune.json").get("num_practice", 0),
            ),
            "rows": split_rows(split),
        },
        "about": _about(about),
        "recipe": _recipe_rows(_read_object(run / "recipe.json")),
    }


def _evaluation_content(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers, sentences, tables and figures of an evaluation."""
    photos = words.photo_rows(evaluation)
    return {
        "num_photos": evaluation["num_photos"],
        "note": evaluation["note"],
        "out_of_fold": evaluation["split"].get("kind") == "cross-validation",
        "sentence": words.grower_sentence(evaluation),
        "headline": words.headline(evaluation),
        "classes": words.class_rows(evaluation),
        "baselines": words.baseline_rows(evaluation),
        "photos": photos[:MAX_ROWS],
        "num_more_photos": max(0, len(photos) - MAX_ROWS),
        "accuracy": words.percent(evaluation["accuracy"]),
        "weed_free": words.weed_free_sentence(evaluation),
        "calibration": words.calibration_sentence(evaluation),
        "plants": words.plants_sentence(evaluation),
        "iou_plot": plots.iou_plot(evaluation),
        "confusion_plot": plots.confusion_plot(evaluation),
        "cover_plot": plots.cover_plot(evaluation),
        "reliability_plot": plots.reliability_plot(evaluation),
    }


def _training(run: Path, label: str) -> list[dict[str, str]]:
    """Return the curves of both phases, with what they show."""
    pretraining = plots.pretraining_plot(_read_lines(run / "pretrain" / "metrics.jsonl"))
    finetuning = plots.finetuning_plot(_read_lines(run / "finetune" / "metrics.jsonl"), label)
    curves = [
        ("How well hidden patches of unlabelled photos are drawn; lower is better.", pretraining),
        (
            "What selection hid; 1 is as often as the class occurs. Only this figure reads masks.",
            plots.hidden_plot(_read_object(run / "pretrain" / "pretrain.json")),
        ),
        ("Learning from the labels; validation photos choose the step that is kept.", finetuning),
    ]
    return [{"text": text, "plot": plot} for text, plot in curves if plot]


def _about(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) rows on versions, seed, device, plan and times."""
    rows = [(name, about[name]) for name in _PACKAGES if name in about]
    simple = {"seed": "seed", "device": "device", "started": "started", "fingerprint": "data"}
    rows += [(name, about[key]) for key, name in simple.items() if key in about]
    for key, value in _object(about.get("plan")).items():
        rows.append((f"planned {str(key).replace('_', ' ')}", value))
    for key, value in _object(about.get("seconds")).items():
        rows.append((f"time: {key}", words.duration(value)))
    if "scored_share" in about:
        rows.append(("photos whose patches were scored", words.percent(about["scored_share"])))
    if "scoring_time_share" in about:
        rows.append(("time spent scoring", words.percent(about["scoring_time_share"])))
    return [(name, str(value)) for name, value in rows if value is not None]


def _recipe_rows(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (f"{section}.{key}", json.dumps(value, ensure_ascii=False))
        for section, values in recipe.items()
        for key, value in _object(values).items()
    ]


def _label_first(run: Path) -> dict[str, Any]:
    """Return columns and rows of ``label_first.csv`` with their thumbnails; {} without it."""
    try:
        text = (run / "label_first.csv").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    lines = csv.DictReader(io.StringIO(text))
    columns = [name for name in lines.fieldnames or [] if name != "thumbnail"]
    rows = []
    for line in list(lines)[:MAX_ROWS]:
        cells = [line.get(name) or "" for name in columns]
        picture = _thumbnail(run, line.get("thumbnail") or "")
        rows.append({"cells": cells, "photo": line.get("photo") or "", "picture": picture})
    return {"columns": columns, "rows": rows} if rows else {}


def _thumbnail(run: Path, name: str) -> str:
    """Return a picture of the run folder as a data URI; "" when it lies elsewhere."""
    path = (run / name).resolve()
    return _picture(path) if name and path.is_relative_to(run.resolve()) else ""


def _pictures(folder: Path) -> list[dict[str, str]]:
    """Return the first pictures of a folder as data URIs, in the order of their names."""
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.glob("*.png")):
        picture = _picture(path)
        if picture:
            found.append({"name": _caption(path.stem), "picture": picture})
    return found[:MAX_PICTURES]


def _caption(stem: str) -> str:
    """Turn the name of a picture into words: the rank goes, one of several stages is counted."""
    stage = re.fullmatch(r"stage-(\d+)-of-(\d+)", stem)
    if stage and int(stage[2]) == 1:
        return "at the end"
    if stage:
        return f"after stage {int(stage[1])} of {int(stage[2])}"
    return re.sub(r"^\d+-", "", stem)


def _first_and_last(pictures: list[dict[str, str]]) -> list[dict[str, str]]:
    """Keep what shows the change: the first picture and the last."""
    return [*pictures[:1], *pictures[1:][-1:]]


def _picture(path: Path) -> str:
    """Return a picture as a data URI, large ones as JPEG; "" when it cannot be read."""
    kind = _TYPES.get(path.suffix.lower())
    try:
        if kind is None:
            return ""
        data = path.read_bytes()
        if len(data) > _LARGE_BYTES and kind == "image/png":
            pixels = cv2.cvtColor(decode_image(data, str(path)), cv2.COLOR_RGB2BGR)
            quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
            data, kind = cv2.imencode(".jpg", pixels, quality)[1].tobytes(), "image/jpeg"
    except (OSError, ImageError):
        return ""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; {} when it is missing or broken."""
    try:
        return _object(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; broken ones, as a killed run leaves them, are left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return []
    rows = []
    for line in text.splitlines():
        try:
            row = _object(json.loads(line))
        except ValueError:
            continue
        rows.append(row)
    return [row for row in rows if row]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
