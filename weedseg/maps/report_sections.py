"""The chapters of the report of a map, one function each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weedseg.classes import ClassTable, FieldClass, Role
from weedseg.edge.result import percent
from weedseg.errors import FieldDataError
from weedseg.evaluation.drawing import GREEN, VERMILION
from weedseg.maps import report_words as words
from weedseg.maps.cell_photos import Place, cell_photos
from weedseg.maps.field_picture import (
    cells_png,
    confidence_png,
    histogram_png,
    overview_png,
    profile_png,
    rate_steps,
)
from weedseg.maps.page import Picture, Section, Table
from weedseg.maps.prescription import PrescriptionOptions, RateStep, prescribe
from weedseg.maps.trust import Trust
from weedseg.maps.weed_map import WeedMap
from weedseg.maps.worst_cells import apart_m, worst_rows

CLASS_MAP_NAME = "classes.tif"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What lies in the folder of a map."""

    folder: Path
    values: Mapping[str, Any]
    """``map.json``."""
    weed_map: WeedMap
    trust: Trust
    classes: ClassTable
    boundary: Any
    """Outline of the field in the grid's CRS; None is unknown."""
    prescription: Mapping[str, Any]
    """``prescription.json``; {} without."""
    mosaic: Path


def areas_section(sources: Sources) -> Section:
    """Say how large the areas of weeds and crop are, and how sure that is."""
    totals = sources.weed_map.totals()
    area = sources.trust.area(totals["weed_m2"], totals["ground_m2"], "weed")
    return Section(
        key="areas",
        title="Areas",
        table=words.area_table(totals, sources.trust),
        sentences=(words.area_sentence(area, sources.trust),),
        notes=(f"Ground with data inside the field: {words.both(totals['ground_m2'])}.",),
    )


def overview_section(sources: Sources, worst: list[int]) -> Section:
    """Show the map, with the cells numbered that are shown as photos."""
    grid = sources.weed_map.grid
    size = f"{grid.cell_m[0]:.4g} m by {grid.cell_m[1]:.4g} m"
    picture = Picture(
        data=overview_png(sources.weed_map, sources.boundary, worst),
        kind="image/png",
        caption=f"Cells of {size} (along by across the heading of {grid.heading_deg:g}°)."
        + (" Numbers: the weediest cells, shown below as photos." if worst else ""),
        text="Map of the field in cells, darker where more weeds are",
        height_mm=150,
    )
    return Section(key="map", title="Where the weeds are", pictures=(picture,))


def distribution_section(sources: Sources) -> Section:
    """Say how much of the ground has how much weed cover."""
    histogram = Picture(
        data=histogram_png(sources.weed_map),
        kind="image/png",
        caption="How many cells have how much weed cover. The steps grow to the right.",
        text="Bars: number of cells by weed cover",
    )
    return Section(
        key="cover",
        title="How much weed, on how much ground",
        table=words.cover_table(sources.weed_map),
        pictures=(histogram,),
    )


def confidence_section(sources: Sources) -> Section:
    """Show where the model is sure of itself and where not."""
    mean = percent(sources.weed_map.totals()["confidence"])
    picture = Picture(
        data=confidence_png(sources.weed_map, sources.boundary),
        kind="image/png",
        caption="Low values mark places to look at yourself.",
        text="Map of the field in cells, brighter where the model is more confident",
    )
    return Section(
        key="confidence",
        title="How confident the model is",
        sentences=(f"Mean over the ground: {mean}. This is what the model says of itself.",),
        pictures=(picture,),
    )


def worst_section(sources: Sources, worst: list[int]) -> Section | None:
    """Show the weediest cells as photos, with where they are; None without weeds."""
    if not worst:
        return None
    weed_map = sources.weed_map
    rows = [
        (
            str(number),
            row["cell_id"],
            f"{row['latitude']:.6f}, {row['longitude']:.6f}",
            percent(row["weed_share"]),
            words.square_metres(row["weed_m2"]),
            f"{row['num_patches']:,}",
            percent(row["confidence"]),
        )
        for number, row in enumerate(worst_rows(weed_map, worst), start=1)
    ]
    head = ("cell", "cell_id", "latitude, longitude", "weed cover", "weed area", "patches")
    pictures, notes = _photos(sources, worst)
    return Section(
        key="worst",
        title="The weediest cells",
        sentences=(
            (
                f"At least {words.digits(apart_m(weed_map))} m apart, so that they show several"
                " places; latitude and longitude in WGS 84. Look at these first: are they weeds?"
            ),
        ),
        table=Table(head=(*head, "confidence"), rows=tuple(rows)),
        pictures=pictures,
        notes=notes,
    )


def _photos(sources: Sources, worst: list[int]) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """Return photos of cells, or why there are none."""
    mosaic = sources.mosaic
    if not mosaic.is_file():
        return (), (
            (
                f"No photos of these cells: the mosaic {mosaic.name} is no longer where it was when"
                " the map was made."
            ),
        )
    place = Place(mosaic, sources.folder / CLASS_MAP_NAME, _role_colours(sources.classes))
    outlines = sources.weed_map.polygons()[worst]
    try:
        made = cell_photos(place, list(outlines), sources.weed_map.grid.crs)
    except FieldDataError as error:
        return (), (f"No photos of these cells: {error}.",)
    pictures = tuple(
        Picture(
            data=data,
            kind="image/jpeg",
            caption=f"Cell {number}: the mosaic, and what the model sees in it (weeds orange with"
            " a white outline, crop green).",
            text=f"Cell {number} from above, plain and with crop and weeds coloured",
            height_mm=79,
        )
        for number, data in enumerate(made, start=1)
    )
    return pictures, ()


def _role_colours(classes: ClassTable) -> ClassTable:
    """Return the classes in colours that colour-blind readers can tell apart."""
    colours = {Role.CROP: _rgb(GREEN), Role.WEED: _rgb(VERMILION)}
    return ClassTable(
        tuple(
            FieldClass(name=c.name, role=c.role, colour=colours.get(c.role, c.colour))
            for c in classes.classes
        )
    )


def _rgb(text: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


def rows_section(sources: Sources) -> Section | None:
    """Say where the crop rows run and what grows in and between them; None: nobody looked.

    Raises:
        FieldDataError: What ``map.json`` says of the rows is damaged.
    """
    rows = sources.values.get("rows")
    if not rows:
        return None
    try:
        return _rows(rows)
    except (KeyError, TypeError) as error:
        raise FieldDataError(
            f"what the map says of crop rows is damaged: {error}",
            "what weedseg map wrote",
            "make the map again",
        ) from error


def _rows(rows: Mapping[str, Any]) -> Section:
    if rows["reason"]:
        sentence = f"No rows are reported: {rows['reason']}."
        return Section(key="rows", title="Crop rows", sentences=(sentence,))
    spacing, error = 100 * rows["spacing_m"], 100 * rows["spacing_error_m"]
    turned = rows["direction_error_deg"]
    sentences = (
        (
            f"Rows run at {rows['direction_deg']:.1f}° ± {turned:.1g}° clockwise from grid north, "
            f"{spacing:.1f} cm ± {error:.1g} cm apart (95 %). They are clear for "
            f"{percent(rows['clear_share'])} of the crop; the covers below are from there."
        ),
    )
    covers = [
        (name, *(percent(rows[key][f"{kind}_share"]) for kind in ("ground", "weed", "crop")))
        for name, key in (("in the rows", "in_row"), ("between the rows", "between_rows"))
    ]
    table = Table(head=("", "share of the ground", "weed cover", "crop cover"), rows=tuple(covers))
    pictures: tuple[Picture, ...] = ()
    if rows["crop_profile"]:
        drawn = profile_png(rows["crop_profile"], rows["weed_profile"], spacing)
        text = "Cover across one row, from the middle between two rows to the next."
        pictures = (Picture(data=drawn, kind="image/png", caption=text, text=text),)
    note = (
        f"The {100 * rows['in_row_share']:g} % of the ground nearest to the rows' lines count"
        " as in the row."
    )
    return Section(
        key="rows",
        title="Crop rows",
        sentences=sentences,
        table=table,
        pictures=pictures,
        notes=(note,),
    )


def prescription_section(sources: Sources) -> Section | None:
    """Show what is treated and what that saves; None without a prescription.

    Raises:
        FieldDataError: The file of the prescription is damaged.
    """
    if not sources.prescription:
        return None
    try:
        return _prescription(sources)
    except (KeyError, TypeError, ValueError) as error:
        raise FieldDataError(
            f"the prescription beside the map is damaged: {error}",
            "what weedseg prescribe wrote",
            "run weedseg prescribe again",
        ) from error


def _prescription(sources: Sources) -> Section:
    saved, weed_map = sources.prescription["savings"], sources.weed_map
    chosen = dict(sources.prescription["options"])
    steps = tuple(RateStep(**step) for step in chosen.pop("steps"))
    options = PrescriptionOptions(**{**chosen, "steps": steps, "force": True})
    rate = prescribe(weed_map, options, sources.trust).rate
    rows = (
        *((f"from {percent(s.threshold)} weed cover", f"{s.rate:g} l/ha") for s in steps),
        ("treated ground", words.both(saved["treated_m2"])),
        ("spared ground", f"{words.both(saved['saved_m2'])}, {saved['saved_area_percent']:.1f} %"),
        (
            "treated all over",
            f"{words.digits(saved['broadcast_l'])} l at {options.full_rate:g} l/ha",
        ),
        ("by this prescription", f"{words.digits(saved['prescribed_l'])} l"),
        ("saved", f"{words.digits(saved['saved_l'])} l, {saved['saved_volume_percent']:.1f} %"),
        ("buffer", f"{options.buffer_m:g} m"),
        ("gaps closed up to", f"{options.merge_m:g} m"),
        ("smallest patch", words.square_metres(options.min_patch_m2)),
    )
    picture = Picture(
        data=cells_png(weed_map, rate, rate_steps([s.rate for s in steps]), (sources.boundary, ())),
        kind="image/png",
        caption="Rate of each cell.",
        text="Map of the field in cells by rate",
    )
    return Section(
        key="prescription",
        title="Prescription",
        sentences=tuple(
            words.sentence(str(text)) for text in sources.prescription.get("sentences") or []
        ),
        pictures=(picture,),
        table=Table(head=(), rows=rows),
    )


def provenance_section(sources: Sources) -> Section:
    """Say which model, which data and which settings made the map."""
    values, weed_map = sources.values, sources.weed_map
    grid, ground = weed_map.grid, values["ground"]
    height, width = ground["size"]
    crs = words.crs_name(ground["crs"])
    metric = words.crs_name(ground["metric_crs"])
    rows = (
        ("mosaic", f"{Path(str(values['input'])).name}, {width:,} x {height:,} px"),
        ("CRS of the mosaic", crs),
        ("areas and lengths in", "the same" if metric == crs else metric),
        ("ground resolution", words.resolution(values)),
        ("model", f"{values['model']['name']}, sha256 {values['model']['sha256']}"),
        ("classes", ", ".join(f"{c.name} ({c.role.value})" for c in sources.classes.classes)),
        ("crop on the field", str(values.get("crop") or "not said")),
        ("what is known of the model", sources.trust.note),
        ("field boundary", _boundary_name(values, sources.boundary)),
        (
            "cells",
            (
                f"{grid.cell_m[0]:.4g} m along, {grid.cell_m[1]:.4g} m across a heading of"
                f" {grid.heading_deg:g}°; {len(weed_map.rows):,} with data"
            ),
        ),
        ("smallest patch that counts", words.patch_size(weed_map.min_patch_m2)),
        ("made", str(values.get("made") or "date not kept")),
        ("weedseg", str(values["weedseg_version"])),
    )
    return Section(
        key="provenance", title="Where the figures come from", table=Table(head=(), rows=rows)
    )


def _boundary_name(values: Mapping[str, Any], boundary: Any) -> str:
    if not values.get("boundary"):
        return "none given: all ground with data counts"
    gone = "" if boundary is not None else " (no longer there, so it is not drawn)"
    return f"{Path(str(values['boundary'])).name}{gone}"
