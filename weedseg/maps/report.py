"""The report of a map: HTML and PDF, built from the files of the map's folder and nothing else.

Read: ``map.json`` and ``cells.gpkg``; ``classes.tif``, ``prescription.json`` and the mosaic itself
only if they are there. Both reports show the same `Page`; the HTML loads nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weedseg.classes import ClassTable
from weedseg.errors import ConfigError, FieldDataError
from weedseg.imaging import write_bytes
from weedseg.maps import report_sections as chapters
from weedseg.maps import report_words as words
from weedseg.maps.boundary import read_boundary
from weedseg.maps.ground import Ground
from weedseg.maps.page import Page, Section
from weedseg.maps.pdf import render_pdf
from weedseg.maps.report_sections import Sources
from weedseg.maps.trust import UNTESTED, trust_from_dict
from weedseg.maps.vectors import load_weed_map
from weedseg.maps.worst_cells import NUM_WORST, worst_cells

HTML_NAME, PDF_NAME = "report.html", "report.pdf"
MAP_NAME, PRESCRIPTION_NAME = "map.json", "prescription.json"


def write_report(folder: Path, mosaic: Path | None = None) -> list[Path]:
    """Write ``report.html`` and ``report.pdf`` into the folder of a map.

    Args:
        folder: What ``weedseg map --out`` wrote.
        mosaic: Where the mosaic lies now; by default where it was.

    Returns:
        Paths of the HTML and the PDF.

    Raises:
        FieldDataError: The folder holds no map, or one of its files is damaged.
        OutputError: The disk is full or not writable.
    """
    page = make_page(folder, mosaic)
    made = {HTML_NAME: render_html(page).encode("utf-8"), PDF_NAME: render_pdf(page)}
    for name, data in made.items():
        write_bytes(folder / name, data)
    return [folder / name for name in made]


def render_html(page: Page) -> str:
    """Return a report as one HTML file that loads nothing."""
    from jinja2 import Environment, PackageLoader

    pages = Environment(
        loader=PackageLoader("weedseg", "maps"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("map_report.html.j2").render(page=page)


def make_page(folder: Path, mosaic: Path | None = None) -> Page:
    """Collect what the report shows.

    Args:
        folder: What ``weedseg map --out`` wrote.
        mosaic: Where the mosaic lies now; by default where it was.

    Raises:
        FieldDataError: The folder holds no map, or one of its files is damaged.
    """
    sources = _read(folder, mosaic)
    worst = worst_cells(sources.weed_map, NUM_WORST)
    sections = (
        chapters.overview_section(sources, worst),
        chapters.areas_section(sources),
        chapters.distribution_section(sources),
        chapters.rows_section(sources),
        chapters.prescription_section(sources),
        chapters.worst_section(sources, worst),
        chapters.confidence_section(sources),
        Section(
            key="limits",
            title="What these figures do not say",
            points=words.limits(sources.weed_map, sources.trust),
        ),
        chapters.provenance_section(sources),
    )
    values = sources.values
    crop = f", {values['crop']}" if values.get("crop") else ""
    known = f" It was {sources.trust.note}." if sources.trust.evaluated else ""
    return Page(
        title=f"Weed map: {Path(str(values['input'])).stem}{crop}",
        subtitle=f"Made by weedseg {values['weedseg_version']} with model"
        f" {values['model']['name']}.{known}",
        warnings=_warnings(sources),
        numbers=words.headline(sources.weed_map, sources.trust),
        sections=tuple(section for section in sections if section is not None),
        footer="Made by weedseg. This file is whole: it works offline and loads nothing.",
    )


def _read(folder: Path, mosaic: Path | None) -> Sources:
    """Read the files of a map.

    Raises:
        FieldDataError: There is no map, or a file is damaged.
    """
    values = _read_object(folder / MAP_NAME)
    if not values:
        raise FieldDataError(
            f"{folder / MAP_NAME} is no map", "the output of weedseg map", "run weedseg map first"
        )
    try:
        return Sources(
            folder=folder,
            values=values,
            weed_map=load_weed_map(folder),
            trust=trust_from_dict(values["trust"]),
            classes=ClassTable.from_list(values["classes"]),
            boundary=_boundary(folder, values),
            prescription=_read_object(folder / PRESCRIPTION_NAME),
            mosaic=mosaic or Path(str(values["input"])),
        )
    except (KeyError, TypeError, ConfigError) as error:
        raise FieldDataError(
            f"{folder / MAP_NAME} is damaged: {error}",
            "the file that weedseg map wrote",
            "make the map again",
        ) from error


def _boundary(folder: Path, values: Mapping[str, Any]) -> Any:
    """Return the outline of the field in the grid's CRS; None without, or if its file is gone."""
    name = values.get("boundary")
    path = folder / str(name)  # beside the map, or wherever it was
    if not name or not path.is_file():
        return None
    return read_boundary(path, Ground(**values["ground"]))


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; {} when it is missing or broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _warnings(sources: Sources) -> tuple[str, ...]:
    """Return what must be read first; an untested model before all."""
    known = [words.sentence(str(warning)) for warning in sources.values.get("warnings") or []]
    if sources.trust.evaluated:
        return tuple(known)
    note = sources.trust.note
    first = (
        f"{note[:1].upper()}{note[1:]}. Every figure below may be far off: look at places in the"
        " field before you act on it."
    )
    return (first, *(text for text in known if UNTESTED not in text.casefold()))
