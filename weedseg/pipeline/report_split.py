"""The split in plain words, from ``split.json`` (see `weedseg.data.splits.Split.to_dict`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_APART = {
    "field": "Whole fields were kept apart: the model is tested on fields it did not learn from.",
    "date": "Whole visits were kept apart: the model is tested on dates it did not learn from.",
    "field/date": "Whole visits were kept apart: the model is tested on visits (a field on a date)"
    " it did not learn from.",
}
_WITHIN_FIELD = (
    "All photos may come from one field and visit, so every figure is a within-field figure: on"
    " another field, crop or date expect less. Photos that show the same spot were kept together."
)
_LEAKS = (
    "The test photos were given or drawn at random though fields or visits are known, so some of"
    " those lie on both sides of the split: every figure is too high."
)


def describe_split(
    split: Mapping[str, Any], pretrained: bool = True, num_practice: int = 0
) -> list[str]:
    """Say which photos did what, and how far the figures can be trusted.

    Args:
        split: Plain data of the split; {} when unknown.
        pretrained: Whether pretraining took place.
        num_practice: Photos that fine-tuning practised on without their labels.

    Returns:
        Sentences; none for an unknown split.
    """
    kind = split.get("kind")
    if kind == "holdout":
        sentences = _holdout(split)
    elif kind == "cross-validation":
        sentences = _cross_validation(split)
    elif kind == "untested":
        sentences = [
            (
                f"{_photos(split, 'train')} with labels: all of them trained the model and none was"
                " left to test it, so its accuracy is unknown. Label three or more for an estimate."
            )
        ]
    elif kind == "unlabelled":
        sentences = ["No photo has a label, so the model was pretrained only."]
    else:
        return []
    if kind in ("holdout", "cross-validation"):
        if split.get("leaks"):
            sentences.append(_LEAKS)
        within = split.get("within_field", True)
        sentences.append(_WITHIN_FIELD if within else _APART.get(str(split.get("basis")), ""))
    sentences.append(
        _pretraining(split) if pretrained else "This run did no pretraining of its own."
    )
    if num_practice:
        sentences.append(
            f"While it learned the labels, the model also practised on {num_practice} photos"
            " without looking at labels. No model practised on the photos that tested it."
        )
    return [sentence for sentence in sentences if sentence]


def split_rows(split: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the name of each part of the split and the names of its photos."""
    parts = [("Training photos", "train"), ("Validation photos", "val"), ("Test photos", "test")]
    rows = [{"name": name, "photos": _names(split, key)} for name, key in parts]
    for number, fold in enumerate(split.get("folds") or [], start=1):
        rows.append({"name": f"Fold {number}", "photos": list(fold)})
    rows.append({"name": "Photos for pretraining", "photos": _names(split, "unlabelled")})
    return [row for row in rows if row["photos"]]


def _holdout(split: Mapping[str, Any]) -> list[str]:
    return [
        (
            f"{_photos(split, 'train')} trained the model, {_photos(split, 'val')} chose its best"
            f" state, and {_photos(split, 'test')} tested it. The test photos were set aside before"
            " anything was trained."
        )
    ]


def _cross_validation(split: Mapping[str, Any]) -> list[str]:
    num_folds = len(split.get("folds") or [])
    return [
        (
            f"Cross-validation: {_photos(split, 'train')} with labels in {num_folds} folds. Every"
            " figure is out-of-fold: each photo was predicted by a model that had not learned from"
            " its label."
        ),
        (
            "The model in this folder was then trained on all of them, for as many steps as the"
            " folds found best. That model was not itself tested: it has seen every label."
        ),
    ]


def _pretraining(split: Mapping[str, Any]) -> str:
    seen = set(_names(split, "unlabelled"))
    tested = {name for fold in split.get("folds") or [] for name in fold}
    tested |= set(_names(split, "test"))
    sentence = f"Pretraining saw {_photos(split, 'unlabelled')}, without labels"
    if not tested:
        return sentence + "."
    if tested & seen:
        return sentence + (
            "; the photos that test the model were among them, so on photos that it has never seen"
            " it may do slightly worse."
        )
    return sentence + "; no test photo was among them."


def _names(split: Mapping[str, Any], key: str) -> list[str]:
    return [str(name) for name in split.get(key) or []]


def _photos(split: Mapping[str, Any], key: str) -> str:
    num = len(_names(split, key))
    return f"{num} photo" if num == 1 else f"{num} photos"
