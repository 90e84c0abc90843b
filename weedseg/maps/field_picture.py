"""The weed map as a picture: cells on white, north up, with scale bar, north arrow and legend.

Colours rise in darkness, so that colour-blind readers and grey printers see the same order.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import shapely
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch, Polygon

from weedseg.evaluation import drawing
from weedseg.maps.weed_map import Floats, WeedMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Steps(NamedTuple):
    """A scale of a few colours."""

    title: str
    edges: tuple[float, ...]
    """Upper ends of all steps but the last; a value on an edge belongs to the step below."""
    labels: tuple[str, ...]
    colours: tuple[str, ...]

    def of(self, values: Floats) -> npt.NDArray[np.int64]:
        """Return the number of the step of each value, (n,)."""
        return np.searchsorted(np.array(self.edges), values, side="left").astype(np.int64)


COVER = Steps(
    "Weed cover of a cell",
    (0.0, 0.01, 0.05, 0.2),
    ("0", "up to 1 %", "1 to 5 %", "5 to 20 %", "over 20 %"),
    ("#e3ecf0", "#fdc95c", "#f5862f", "#c43c02", "#5c1a02"),
)
CONFIDENCE = Steps(
    "Mean confidence of a cell",
    (0.6, 0.7, 0.8, 0.9),
    ("up to 60 %", "60 to 70 %", "70 to 80 %", "80 to 90 %", "over 90 %"),
    ("#00224e", "#434e6c", "#7d7c78", "#bcae6c", "#fee838"),
)

_UNTREATED, _RATES = "#e6e6e6", ("#c6dbef", "#6baed6", "#2171b5", "#08306b")

_WIDTH_IN, _TALLEST_IN, _MARGIN_IN = 7.2, 6.6, 0.08
_FOOT_IN, _LEGEND_IN = 0.98, 0.54
"""Height of what lies below the map, and of the legend in it."""
_DPI = 200
_VISIBLE_CELL_IN = 0.09
"""Cells at least this large on paper get an outline."""
_INK = "#333333"
_LINE = 0.8


def overview_png(
    weed_map: WeedMap,
    boundary: Any = None,
    marks: Sequence[int] = (),
    dpi: int = _DPI,
    legend: bool = True,
) -> bytes:
    """Draw weed cover by cell.

    Args:
        weed_map: The cells.
        boundary: Outline of the field, a shapely geometry in the grid's CRS; None is unknown.
        marks: Cells that get a number, in order from 1.
        dpi: Dots per inch; the picture is 7.2 inches wide.
        legend: False leaves the legend to the page that shows the picture.

    Returns:
        A PNG file.
    """
    return cells_png(weed_map, weed_map.weed_share, COVER, (boundary, marks), dpi, legend)


def confidence_png(weed_map: WeedMap, boundary: Any = None) -> bytes:
    """Draw the model's confidence by cell, as a PNG file; arguments as in `overview_png`."""
    return cells_png(weed_map, weed_map.confidence, CONFIDENCE, (boundary, ()))


def cells_png(
    weed_map: WeedMap,
    values: Floats,
    steps: Steps,
    extras: tuple[Any, Sequence[int]],
    dpi: int = _DPI,
    legend: bool = True,
) -> bytes:
    """Draw one value per cell.

    Args:
        weed_map: The cells.
        values: (n,).
        steps: How values are coloured.
        extras: Boundary and marked cells, as in `overview_png`.
        dpi: Dots per inch.
        legend: Whether to draw one.

    Returns:
        A PNG file.
    """
    boundary, marks = extras
    outlines = weed_map.polygons()
    bounds = _bounds(outlines, boundary)
    with drawing.style():
        figure, axes, foot, inches = _sheet(bounds, 0.0 if legend else _LEGEND_IN)
        corners = shapely.get_coordinates(outlines).reshape(-1, 5, 2)[:, :4]
        visible = min(weed_map.grid.cell_m) * inches >= _VISIBLE_CELL_IN
        axes.add_collection(
            PolyCollection(
                corners,
                facecolors=[steps.colours[i] for i in steps.of(values)],
                edgecolors="white" if visible else "none",
                linewidths=0.4 if visible else 0,
                antialiased=visible,
            )
        )
        if boundary is not None:
            _draw_boundary(axes, boundary)
        for number, cell in enumerate(marks, start=1):
            x, y = corners[cell].mean(axis=0)
            box = {"boxstyle": "circle,pad=0.25", "fc": "white", "ec": _INK, "lw": _LINE}
            axes.text(x, y, str(number), ha="center", va="center", size=7.5, bbox=box)
        _draw_foot(foot, inches)
        if legend:
            _draw_legend(figure, steps, boundary is not None)
        return _png(figure, dpi)


def rate_steps(rates: Sequence[float]) -> Steps:
    """Return a scale for rates, litres per hectare, the lowest first.

    Args:
        rates: Rates above 0; neighbours share a colour where there are more than four.
    """
    known = sorted(set(rates))
    groups = [list(part) for part in np.array_split(known, min(len(known), len(_RATES)))]
    names = [f"{g[0]:g}" + (f" to {g[-1]:g}" if len(g) > 1 else "") + " l/ha" for g in groups]
    shades = np.linspace(0, len(_RATES) - 1, len(groups) + 1).round().astype(int)[1:]
    return Steps(
        "Rate",
        (0.0, *(float(group[-1]) for group in groups[:-1])),
        ("not treated", *names),
        (_UNTREATED, *(_RATES[shade] for shade in shades)),
    )


def histogram_png(weed_map: WeedMap) -> bytes:
    """Draw how many cells have how much weed cover; steps grow, as covers do.

    Returns:
        A PNG file.
    """
    ends = np.array([0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]) / 100
    counts = np.bincount(np.searchsorted(ends, weed_map.weed_share, side="left"), minlength=11)
    counts = counts[: len(ends)]
    names = ["0", *(f"{100 * a:g}-{100 * b:g}" for a, b in pairwise(ends))]
    colours = [COVER.colours[i] for i in COVER.of(ends)]
    with drawing.style():
        figure, axes = drawing.figure(_WIDTH_IN, 2.7)
        bars = axes.bar(range(len(names)), counts, 0.82, color=colours, ec="#8a8a8a", lw=0.5)
        axes.bar_label(bars, [f"{n:,}" if n else "" for n in counts], padding=2, fontsize=8.5)
        axes.set_xticks(range(len(names)), names, fontsize=9)
        axes.margins(x=0.01, y=0.12)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="x", visible=False)
        axes.set(xlabel="weed cover of a cell, %", ylabel="cells")
        return _png(figure, _DPI)


def profile_png(crop: Sequence[float], weed: Sequence[float], spacing_cm: float) -> bytes:
    """Draw crop and weed cover across a row.

    Args:
        crop: Cover from the middle between two rows to the next, shares 0-1.
        weed: The same.
        spacing_cm: Distance of the rows.

    Returns:
        A PNG file.
    """
    places = (np.arange(len(crop)) + 0.5) / len(crop) * spacing_cm - spacing_cm / 2
    with drawing.style():
        figure, axes = drawing.figure(_WIDTH_IN, 2.4)
        axes.plot(places, 100 * np.array(crop), color=drawing.GREEN, label="crop")
        axes.plot(places, 100 * np.array(weed), color=drawing.VERMILION, ls="--", label="weeds")
        axes.set(xlim=(-spacing_cm / 2, spacing_cm / 2), xlabel="distance from the row, cm")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("cover, %")
        axes.legend(loc="upper right")
        return _png(figure, _DPI)


def _bounds(outlines: npt.NDArray[np.object_], boundary: Any) -> tuple[float, float, float, float]:
    """Return what is drawn: left, bottom, right, top, m."""
    shapes = list(outlines) if boundary is None else [*outlines, boundary]
    left, bottom, right, top = map(float, shapely.total_bounds(shapes))
    edge = 0.005 * max(right - left, top - bottom)
    return left - edge, bottom - edge, right + edge, top + edge


def _sheet(
    bounds: tuple[float, float, float, float], without_in: float
) -> tuple[Figure, Axes, Axes, float]:
    """Make a figure with room for the map and, below, for what explains it.

    Args:
        bounds: Of the map, metres.
        without_in: Height that is left out at the bottom, inches.

    Returns:
        Figure, axes of the map in metres, axes of the foot in inches, and inches per metre.
    """
    from matplotlib.figure import Figure

    left, bottom, right, top = bounds
    across, up = right - left, top - bottom
    inches = min((_WIDTH_IN - 2 * _MARGIN_IN) / across, _TALLEST_IN / up)
    foot_in = _FOOT_IN - without_in
    height = inches * up + foot_in + 2 * _MARGIN_IN
    figure = Figure(figsize=(_WIDTH_IN, height))
    wide, high = inches * across / _WIDTH_IN, inches * up / height
    axes = figure.add_axes(((1 - wide) / 2, 1 - high - _MARGIN_IN / height, wide, high))
    axes.set(xlim=(left, right), ylim=(bottom, top))
    foot = figure.add_axes((0, 0, 1, foot_in / height))
    foot.set(xlim=(0, _WIDTH_IN), ylim=(without_in, _FOOT_IN))
    for panel in (axes, foot):
        panel.set_axis_off()
    return figure, axes, foot, inches


def _draw_boundary(axes: Axes, boundary: Any) -> None:
    for part in shapely.get_parts(boundary):
        for ring in (part.exterior, *part.interiors):
            axes.add_patch(
                Polygon(shapely.get_coordinates(ring), fill=False, ec=_INK, lw=1.2, ls="--")
            )


def _draw_foot(foot: Axes, inches: float) -> None:
    """Draw the scale bar, half of it filled, and the north arrow."""
    metres = round_length(1.9 / inches)
    width, left, low = metres * inches, 0.12, 0.66
    for number, colour in enumerate((_INK, "white")):
        foot.add_patch(
            Polygon(
                [
                    (left + (number + across) * width / 2, low + up * 0.09)
                    for across, up in ((0, 0), (1, 0), (1, 1), (0, 1))
                ],
                fc=colour,
                ec=_INK,
                lw=_LINE,
            )
        )
    for share in (0.0, 0.5, 1.0):
        text = f"{share * metres:g}" + (" m" if share == 1 else "")
        foot.text(left + share * width, low + 0.13, text, ha="center", va="bottom", size=8.5)
    x = _WIDTH_IN - 0.3
    foot.add_patch(
        Polygon([(x, 0.9), (x - 0.09, 0.56), (x, 0.63), (x + 0.09, 0.56)], fc=_INK, ec=_INK, lw=0.5)
    )
    foot.text(x - 0.14, 0.72, "N", ha="right", va="center", size=11, weight="bold")


def round_length(most: float) -> float:
    """Return the largest of 1, 2 or 5 times a power of ten that is at most `most`, > 0."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def _draw_legend(figure: Figure, steps: Steps, has_boundary: bool) -> None:
    keys: list[Any] = [
        Patch(fc=colour, ec="#8a8a8a", lw=0.5, label=label)
        for colour, label in zip(steps.colours, steps.labels)
    ]
    if has_boundary:
        keys.append(Patch(fill=False, ec=_INK, ls="--", lw=1.2, label="field boundary"))
    legend = figure.legend(
        handles=keys,
        title=f"{steps.title}:",
        loc="lower left",
        bbox_to_anchor=(0.005, 0.0),
        ncols=len(keys),
        fontsize=9,
        title_fontsize=9,
        handlelength=1.3,
        handletextpad=0.5,
        columnspacing=1.4,
        borderaxespad=0.1,
        alignment="left",
    )
    legend.get_title().set_fontweight("bold")


def _png(figure: Figure, dpi: int) -> bytes:
    """Encode a figure in a palette of 256 colours: a quarter of the size, no visible loss."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image as PillowImage

    figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    picture = PillowImage.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    small = io.BytesIO()
    picture.quantize(256, dither=PillowImage.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()
