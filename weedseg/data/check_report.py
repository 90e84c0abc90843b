"""The faults of a farm as plain data and as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from weedseg.data.check import ERROR, Fault, Pixels
from weedseg.data.index import Farm

SCHEMA = 1
_STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:70em}td,th{padding:.3em .8em;text-align:left;"
    "vertical-align:top;border-bottom:1px solid #ccc}.error{color:#a00}.warning{color:#850}"
)


def check_summary(farm: Farm, faults: Sequence[Fault], pixels: Pixels) -> dict[str, Any]:
    """Return faults, counts and class shares.

    Args:
        farm: The farm.
        faults: What is wrong with it.
        pixels: Number of pixels of each id, int64 (256,).

    Returns:
        Plain data; ``may_train`` is True without errors.
    """
    counted = pixels[: len(farm.classes)].tolist()
    total = sum(counted) or 1
    errors = sum(fault.severity == ERROR for fault in faults)
    return {
        "schema": SCHEMA,
        "farm": str(farm.root),
        "may_train": errors == 0,
        "photos": len(farm.photos),
        "labelled": len(farm.labelled),
        "errors": errors,
        "warnings": len(faults) - errors,
        "shares": {n: round(c / total, 6) for n, c in zip(farm.classes.names, counted)},
        "notes": list(farm.notes),
        "faults": [
            {
                "severity": fault.severity,
                "path": str(fault.path),
                "found": fault.error.found,
                "expected": fault.error.expected,
                "remedy": fault.error.remedy,
            }
            for fault in faults
        ],
    }


def check_sentence(summary: dict[str, Any]) -> str:
    """Say in one line what a check found that does not stop training."""
    counts = f"data check: {summary['photos']} photos, {summary['labelled']} labelled, no error"
    warnings = summary["faults"]
    if not warnings:
        return f"{counts}, no warning"
    num = f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}"
    return (
        f"{counts}, {num}, the first: {warnings[0]['found']}; "
        f"for all: weedseg data check {summary['farm']}"
    )


def check_page(summary: dict[str, Any]) -> str:
    """Draw `check_summary` as a page of HTML without scripts or outside files."""

    def row(fault: dict[str, str]) -> str:
        cells = "".join(f"<td>{escape(fault[k])}</td>" for k in ("found", "expected", "remedy"))
        kind = escape(fault["severity"])
        return f'<tr><td class="{kind}">{kind}</td>{cells}</tr>'

    shares = ", ".join(f"{escape(n)} {100 * s:.2f} %" for n, s in summary["shares"].items())
    verdict = "Training may start." if summary["may_train"] else "Training must not start."
    rows = "\n".join(row(fault) for fault in summary["faults"])
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>Check of {escape(summary['farm'])}</title><style>{_STYLE}</style>\n"
        f"<h1>{verdict}</h1><p>{escape(summary['farm'])}: {summary['photos']} photos, "
        f"{summary['labelled']} labelled; {summary['errors']} errors, {summary['warnings']} "
        f"warnings. Labelled pixels: {shares}.</p>\n<table><tr><th></th><th>found</th>"
        f"<th>expected</th><th>what to do</th></tr>\n{rows}\n</table></html>\n"
    )
