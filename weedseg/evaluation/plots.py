"""Figures of an evaluation and of training, each a data URI (SVG) for a page without a network.

All colours are Okabe and Ito's, which colour-blind readers can tell apart; crop and weed differ in
marker or place as well. The input is the plain data of ``evaluation.json`` (see
`weedseg.evaluation.scores`) and of ``metrics.jsonl``, so that a figure needs files only.

``metrics.jsonl`` holds one object a line: ``step`` and any numbers by name, among them ``loss``,
``lr``, ``seconds``; ``hidden_l1``, ``random_hidden_l1``, ``stage`` (pretraining); ``val_weed_iou``,
``val_miou``, ``fold`` (fine-tuning). Keys that are absent or null are not drawn.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from weedseg.evaluation import drawing
from weedseg.evaluation.drawing import BLUE, GREEN, GREY, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]

_ROLE_COLOURS = {"background": GREY, "crop": GREEN, "weed": VERMILION}
_ROLE_MARKERS = {"background": "s", "crop": "o", "weed": "^"}
_MAX_ANNOTATED = 10


def confusion_plot(evaluation: Mapping[str, Any]) -> str | None:
    """Draw the confusion matrix as shares of each class of the mask; None without pixels."""
    counts = np.array(evaluation["confusion"]["counts"], np.float64)
    if not counts.sum():
        return None
    names = [c["name"] for c in evaluation["classes"]]
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    with drawing.style():
        side = max(3.4, min(8.0, 2.2 + 0.75 * len(names)))
        figure, axes = drawing.figure(side + 1.2, side)
        axes.grid(False)
        drawn = axes.imshow(shares * 100, cmap="Blues", vmin=0, vmax=100)
        axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 5 else 60)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="class map (predicted)", ylabel="mask (annotated)")
        if len(names) <= _MAX_ANNOTATED:
            for (row, column), share in np.ndenumerate(shares):
                text = "none" if math.isnan(share) else f"{share * 100:.1f} %"
                ink = "white" if share > 0.55 else "#222222"
                axes.text(column, row, text, ha="center", va="center", color=ink)
        bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
        bar.set_label("share of the annotated pixels, %")
        _title(axes, "Confusion matrix", evaluation)
        return _data_uri(figure)


def iou_plot(evaluation: Mapping[str, Any]) -> str | None:
    """Draw IoU per class with its 95 % interval; None when every IoU is unknown."""
    names = [c["name"] for c in evaluation["classes"]]
    roles = [c["role"] for c in evaluation["classes"]]
    values = [evaluation["iou"].get(name) for name in names]
    if all(value is None for value in values):
        return None
    intervals = evaluation.get("intervals", {}).get("iou", {})
    with drawing.style():
        figure, axes = drawing.figure(6.4, 1.3 + 0.45 * len(names))
        for row, (name, role, value) in enumerate(zip(names, roles, values)):
            if value is None:
                axes.text(1, row, "not in the test photos", va="center", color=GREY)
                continue
            axes.barh(row, value * 100, 0.62, color=_ROLE_COLOURS[role])
            low, high = intervals.get(name) or (value, value)
            if high > low:
                axes.plot([low * 100, high * 100], [row, row], color="#222222", lw=1.6)
            axes.text(max(high, value) * 100 + 1.5, row, f"{value * 100:.1f}", va="center")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlim=(0, 110), xticks=range(0, 101, 20), xlabel="IoU, % (line: 95 % interval)")
        _title(axes, "IoU per class", evaluation)
        return _data_uri(figure)


def cover_plot(evaluation: Mapping[str, Any]) -> str | None:
    """Draw predicted against true cover of crop and of weed, a point per photo; None without."""
    photos = [p for p in evaluation["photos"] if p["true_coverage"] is not None]
    present = {c["role"] for c in evaluation["classes"]}
    roles = [role for role in ("crop", "weed") if role in present]
    if not photos or not roles:
        return None
    with drawing.style():
        figure, panels = drawing.panels(len(roles))
        for axes, role in zip(panels, roles):
            names = [c["name"] for c in evaluation["classes"] if c["role"] == role]
            true = [100 * sum(p["true_coverage"][name] for name in names) for p in photos]
            predicted = [100 * sum(p["predicted_coverage"][name] for name in names) for p in photos]
            reach = max(*true, *predicted, 0.1) * 1.08
            axes.plot([0, reach], [0, reach], color=GREY, lw=1, ls="--")
            look: Any = {"c": _ROLE_COLOURS[role], "marker": _ROLE_MARKERS[role], "alpha": 0.75}
            axes.scatter(true, predicted, 34, linewidths=0, **look)
            axes.set(xlim=(-reach * 0.02, reach), ylim=(-reach * 0.02, reach), aspect="equal")
            axes.set(xlabel="true cover, % of the photo", ylabel="predicted cover, %")
            _title(axes, f"{role.capitalize()} cover", evaluation)
        return _data_uri(figure)


def reliability_plot(evaluation: Mapping[str, Any]) -> str | None:
    """Draw accuracy against stated confidence, 15 bins; None without pixels."""
    bins = [b for b in evaluation["calibration"]["bins"] if b["accuracy"] is not None]
    if not bins:
        return None
    middles = [50 * (b["low"] + b["high"]) for b in bins]
    width = 100 / len(evaluation["calibration"]["bins"]) * 0.9
    with drawing.style():
        figure, panels = drawing.panels(2)
        accuracy, share = panels
        accuracy.bar(middles, [100 * b["accuracy"] for b in bins], width, color=BLUE, alpha=0.55)
        accuracy.plot([0, 100], [0, 100], color=GREY, lw=1, ls="--")
        accuracy.scatter(
            [100 * b["confidence"] for b in bins], [100 * b["accuracy"] for b in bins], 22, BLUE
        )
        accuracy.set(xlim=(0, 100), ylim=(0, 103), aspect="equal")
        accuracy.set(xlabel="stated confidence, %", ylabel="pixels that are right, %")
        _title(accuracy, "Reliability", evaluation)
        share.bar(middles, [100 * b["share"] for b in bins], width, color=GREY)
        share.set(xlim=(0, 100), xlabel="stated confidence, %", ylabel="share of the pixels, %")
        _title(share, "How often", evaluation)
        return _data_uri(figure)


def pretraining_plot(rows: Rows) -> str | None:
    """Draw the loss of pretraining and where its stages begin; None without a line to draw."""
    if not _points(rows, "loss"):
        return None
    with drawing.style():
        figure, axes = drawing.figure(8.2, 3.2)
        _curve(axes, rows, "loss", "loss", drawing.COLOURS[0])
        _curve(axes, rows, "hidden_l1", "L1 on hidden patches", drawing.COLOURS[1])
        _curve(
            axes, rows, "random_hidden_l1", "L1 on randomly hidden patches", drawing.COLOURS[2], "o"
        )
        staged = [row for row in rows if row.get("stage") is not None and _finite(row.get("step"))]
        starts = [b["step"] for a, b in pairwise(staged) if a["stage"] != b["stage"]]
        for number, start in enumerate(starts):
            label = "" if number else "a new stage begins"
            axes.axvline(start, color=GREY, lw=1, ls=":", label=label)
        axes.set(xlabel="step", ylabel="loss (no unit)", xlim=(0, None), ylim=(0, None))
        axes.set_title("Pretraining: reconstruction of hidden patches")
        axes.legend()
        return _data_uri(figure)


def hidden_plot(pretraining: Mapping[str, Any]) -> str | None:
    """Draw how often each class was hidden against its base rate, stage by stage.

    None without labelled photos, and with one stage, which hides patches at random.

    Args:
        pretraining: ``pretrain.json``; its ``hidden_classes`` holds, per stage, ``hidden`` and
            ``base`` share of every class, counted on labelled photos for reporting only.
    """
    stages = pretraining.get("hidden_classes") or []
    if len(stages) < 2:
        return None
    with drawing.style():
        figure, axes = drawing.figure(6.4, 3.2)
        names = list(stages[0])
        others = iter(drawing.COLOURS * (len(names) // len(drawing.COLOURS) + 1))
        for name in names:
            colour = _ROLE_COLOURS.get(name) or next(others)
            ratios = [s[name]["hidden"] / s[name]["base"] if s[name]["base"] else 1 for s in stages]
            axes.plot(range(1, len(stages) + 1), ratios, marker="o", color=colour, label=name)
        axes.axhline(1, color=GREY, linewidth=0.8)
        axes.set_xticks(range(1, len(stages) + 1))
        axes.set_xlabel("stage")
        axes.set_ylabel("hidden / base rate")
        axes.set_title("How often each class was hidden (1 = as often as it occurs)")
        axes.legend(loc="best")
        return _data_uri(figure)


def finetuning_plot(rows: Rows, label: str = "") -> str | None:
    """Draw the loss of fine-tuning and the scores on the validation photos; None without a line.

    Args:
        rows: Lines of ``metrics.jsonl``; with ``fold`` in them, one thin line a fold.
        label: "within-field", or "".
    """
    scored = bool(_points(rows, "val_weed_iou") or _points(rows, "val_miou"))
    if not _points(rows, "loss") and not scored:
        return None
    folds = sorted({row.get("fold", -1) for row in rows if row.get("fold", -1) is not None})
    with drawing.style():
        figure, panels = drawing.panels(2 if scored else 1, width=4.1, height=3.2)
        for number, fold in enumerate(folds or [-1]):
            part = [row for row in rows if row.get("fold", -1) == fold]
            named = not number
            _curve(panels[0], part, "loss", "loss" if named else "", drawing.COLOURS[0])
            if scored:
                _curve(
                    panels[1],
                    part,
                    "val_weed_iou",
                    "weed IoU" if named else "",
                    drawing.COLOURS[1],
                    "^",
                )
                _curve(
                    panels[1],
                    part,
                    "val_miou",
                    "mean IoU" if named else "",
                    drawing.COLOURS[0],
                    "o",
                )
        panels[0].set(xlabel="step", ylabel="loss (no unit)", xlim=(0, None), ylim=(0, None))
        panels[0].set_title("Fine-tuning: loss")
        if scored:
            panels[1].set(xlabel="step", ylabel="IoU, %", xlim=(0, None), ylim=(0, 100))
            _title(panels[1], "Validation photos", {"label": label})
            panels[1].legend(loc="lower right")
        return _data_uri(figure)


def _curve(
    axes: Axes, rows: Rows, key: str, label: str, colour: str, marker: str | None = None
) -> None:
    """Draw one number over the steps; keys that start with ``val_`` are shares, drawn in %."""
    points = _points(rows, key)
    if points:
        scale = 100 if key.startswith("val_") else 1
        steps, values = zip(*points)
        axes.plot(
            steps, np.array(values) * scale, color=colour, label=label, marker=marker, markersize=4
        )


def _points(rows: Rows, key: str) -> list[tuple[float, float]]:
    """Return (step, value) of the rows that hold a finite number under `key`."""
    known = [row for row in rows if _finite(row.get("step")) and _finite(row.get(key))]
    return [(float(row["step"]), float(row[key])) for row in known]


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _title(axes: Axes, text: str, evaluation: Mapping[str, Any]) -> None:
    """Name a figure, with "within-field" beside it where that holds."""
    label = evaluation.get("label") or ""
    axes.set_title(f"{text} ({label})" if label else text)


def _data_uri(drawn: Figure) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(drawing.svg(drawn)).decode("ascii")
