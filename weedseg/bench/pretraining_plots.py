"""Pictures of the pretraining benchmark, drawn from its lines and from nothing else.

Label efficiency (mIoU over the number of labels), gain per class, and what a point costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weedseg.bench.arms import ARMS
from weedseg.bench.comparison import compare, interval
from weedseg.bench.pretraining_tables import arm_name, curve_lines, with_source
from weedseg.evaluation import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Lines = Sequence[dict[str, Any]]

_ORDER = "S+ R I F P I+S+ N I+R I+U N+U I+K I+R+U I+S++U Q G V H L"
_OTHERS = "#1a1a1a #999999 #7a4a1e #5e3c99 #b2abd2 #a6d854 "
_OTHERS += "#f0e442 #c51b7d #35978f #8c510a #4d4d4d #bdbdbd"
_COLOURS = dict(zip(_ORDER.split(), (*drawing.COLOURS, *_OTHERS.split())))
"""An arm has one colour in all plots."""


def draw_plots(lines: Lines, folder: Path) -> list[Path]:
    """Write ``<data set>-labels.svg``, ``-classes.svg`` and ``-cost.svg``; returns their paths.

    A plot for which the lines hold too little is left out.

    Args:
        lines: Run lines that read the test photos.
        folder: Where the plots go.
    """
    written = []
    known = [line for line in map(with_source, lines) if line["arm"] in ARMS]
    for dataset in sorted({line["dataset"] for line in known}):
        own = [line for line in known if line["dataset"] == dataset]
        drawn = {
            "labels": label_plot(own, dataset),
            "classes": class_plot(own, dataset),
            "cost": cost_plot(own, dataset),
        }
        for name, svg in drawn.items():
            if svg is not None:
                written.append(folder / f"{dataset}-{name}.svg")
                written[-1].write_bytes(svg)
    return written


def label_plot(lines: Lines, dataset: str) -> bytes | None:
    """Draw mIoU over the number of labels, mean and 95 % interval; None with one number."""
    chosen = curve_lines(lines)
    if not chosen:
        return None
    with drawing.style():
        figure, axes = drawing.figure(8.6, 4.4)
        arms = _arms(chosen)
        for i, arm in enumerate(arms):
            own = [line for line in chosen if line["arm"] == arm]
            places = sorted({line["labels"] for line in own})
            points = [interval([x for x in own if x["labels"] == n], "mIoU") for n in places]
            middle = [mean for mean, _, _ in points]
            errors = [
                [max(mean - low, 0) for mean, low, _ in points],
                [max(high - mean, 0) for mean, _, high in points],
            ]
            beside = [n * 1.02 ** (i - (len(arms) - 1) / 2) for n in places]
            axes.errorbar(
                beside, middle, errors, color=_COLOURS[arm], marker="o", label=arm_name(arm)
            )
        axes.set_xscale("log")
        counts = sorted({line["labels"] for line in chosen})
        axes.set_xticks(counts, [str(n) for n in counts])
        axes.minorticks_off()
        axes.set_xlabel("labelled photos")
        axes.set_ylabel("mIoU on held-out photos")
        axes.set_title(f"{dataset}: accuracy at few labels (95 % intervals)")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return drawing.svg(figure)


def class_plot(lines: Lines, dataset: str, against: str = "N", labels: int = 10) -> bytes | None:
    """Draw the gain over scratch with 95 % intervals, a panel per class; None without."""
    own = [line for line in lines if line["labels"] == labels]
    arms = [arm for arm in _arms(own) if arm != against]
    classes = list(own[0]["iou"]) if own else []
    found = {(a, c): compare(own, a, against, c) for a in arms for c in classes}
    if not any(found.values()):
        return None
    with drawing.style():
        figure, panels = drawing.panels(len(classes), 3.0, 0.9 + 0.26 * len(arms))
        for axes, name in zip(panels, classes):
            if axes is not panels[0]:
                axes.sharex(panels[0])
            known = [(i, found[arm, name]) for i, arm in enumerate(arms)]
            for i, c in known:
                if c is not None:
                    errors = [[max(c.mean - c.low, 0)], [max(c.high - c.mean, 0)]]
                    axes.barh(
                        i, c.mean, 0.72, xerr=errors, color=_COLOURS[arms[i]], ecolor=drawing.GREY
                    )
            axes.axvline(0, color=drawing.GREY, linewidth=0.8)
            axes.set_title(name)
            axes.set_yticks(range(len(arms)), [])
            axes.set_ylim(len(arms) - 0.5, -0.5)
            axes.grid(visible=False, axis="y")
        panels[0].set_yticks(range(len(arms)), [arm_name(arm) for arm in arms])
        figure.suptitle(f"{dataset}: gain per class over scratch at {labels} labels")
        figure.supxlabel("IoU gain, points (95 % intervals)", fontsize="medium")
        return drawing.svg(figure)


def cost_plot(lines: Lines, dataset: str, labels: int = 10) -> bytes | None:
    """Draw mIoU against minutes of training, a point per run; None with one arm."""
    own = [line for line in lines if line["labels"] == labels]
    arms = _arms(own)
    if len(arms) < 2:
        return None
    with drawing.style():
        figure, axes = drawing.figure(8.6, 4.4)
        for arm in arms:
            _points(axes, [line for line in own if line["arm"] == arm], arm)
        axes.set_xlabel("minutes of pretraining and fine-tuning (busy machine)")
        axes.set_ylabel("mIoU on held-out photos")
        axes.set_title(f"{dataset}: what a point costs at {labels} labels")
        axes.set_xlim(left=0)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return drawing.svg(figure)


def _points(axes: Axes, lines: Lines, arm: str) -> None:
    minutes = [(x["pretrain_seconds"] + x["finetune_seconds"]) / 60 for x in lines]
    axes.scatter(minutes, [x["miou"] for x in lines], color=_COLOURS[arm], label=arm_name(arm))


def _arms(lines: Lines) -> list[str]:
    present = {line["arm"] for line in lines}
    return [arm for arm in ARMS if arm in present]
