"""One style for every figure: Okabe and Ito's colours, thin axes, plain words."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREEN, VERMILION, BLUE, GREY = "#009e73", "#d55e00", "#0072b2", "#6b6b6b"
COLOURS = (BLUE, VERMILION, GREEN, "#cc79a7", "#e69f00", "#56b4e9")
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "weedseg",
    "text.parse_math": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in one style; a letter that the font lacks is drawn as a box, without a warning."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure of one panel; sizes in inches."""
    drawn, axes = panels(1, width, height)
    return drawn, axes[0]


def panels(num: int, width: float = 4.0, height: float = 3.7) -> tuple[Figure, list[Axes]]:
    """Make a figure of `num` panels side by side; sizes in inches, each panel `width` wide."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width * num, height), layout="constrained")
    return drawn, list(drawn.subplots(1, num, squeeze=False)[0])


def svg(drawn: Figure) -> bytes:
    """Return a figure as SVG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    drawn.savefig(buffer, format="svg", metadata=nothing, bbox_inches="tight", pad_inches=0.06)
    return buffer.getvalue()
