"""Checks of ISO 11783-10 task data with a prescription grid, read with plain parsers.

What the terminal of a sprayer trips over: names, versions, references, the grid's place and size,
units, the order of rows, and what happens where the grid says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt
import shapely

from weedseg.errors import FieldDataError
from weedseg.maps.check_vectors import Polygon
from weedseg.maps.checks import AGAIN, MAX_RATE, Record, read_xml, reading

RAW_PER_RATE = 10_000
"""1 l/ha = 100 mm3/m2; data dictionary entry 0001 counts 0.01 mm3/m2."""

VOLUME = "0001"
_LEAST_RATE = 1.0
_MOST_CELLS = 50_000
_LEFT_OUT = 0.25
_SPECIAL = {
    "H": "the default treatment zone",
    "I": "the treatment zone without a position",
    "J": "the treatment zone outside the field",
}
_UNTOUCHED = "0 l/ha wherever the grid does not say otherwise"
Rates = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Grid:
    south: float
    west: float
    north_deg: float
    east_deg: float
    columns: int
    rows: int
    filename: str
    length: int | None
    kind: str
    treatment: str | None


def check_isoxml(
    members: dict[str, bytes], record: Record, prescribed: list[tuple[Polygon, float]]
) -> Iterable[FieldDataError]:
    """Check task data.

    Args:
        members: Name, from the folder TASKDATA on -> content.
        record: What is known of the prescription.
        prescribed: Polygons with their rates, which the grid should repeat; may be empty.

    Raises:
        FieldDataError: They are too damaged to go on.
    """
    inner = {name.removeprefix("TASKDATA/"): data for name, data in members.items()}
    if "TASKDATA/TASKDATA.XML" not in members:
        raise FieldDataError(
            f"no TASKDATA/TASKDATA.XML among {', '.join(sorted(members)[:3]) or 'nothing'}",
            "that name, in capitals, where terminals look",
            AGAIN,
        )
    root = read_xml(inner["TASKDATA.XML"], "TASKDATA.XML")
    yield from _check_head(root)
    tasks = root.findall("TSK")
    if len(tasks) != 1 or len(tasks[0].findall("GRD")) != 1:
        raise FieldDataError(f"{len(tasks)} tasks", "one task with one grid", AGAIN)
    yield from _check_treatments(tasks[0])
    grid = _read_grid(tasks[0])
    yield from _check_unit(root, tasks[0], grid)
    rates = _read_rates(grid, inner)
    wrong = [*_check_place(grid, record), *_check_values(rates, record)]
    yield from wrong
    if not wrong and prescribed:
        yield from _check_rows(grid, rates, prescribed)


def _check_head(root: Element) -> Iterable[FieldDataError]:
    if root.tag != "ISO11783_TaskData":
        raise FieldDataError(
            f"TASKDATA.XML begins with {root.tag[:60]}", "ISO11783_TaskData", AGAIN
        )
    if root.get("VersionMajor") not in ("3", "4"):
        found = f"version {root.get('VersionMajor')}"
        yield FieldDataError(found, "version 3 or 4 of ISO 11783-10", AGAIN)
    if root.get("DataTransferOrigin") != "1":
        found = f"data transfer origin {root.get('DataTransferOrigin')}"
        yield FieldDataError(found, "1, farm software", AGAIN)


def _check_treatments(task: Element) -> Iterable[FieldDataError]:
    """Check that nothing is sprayed by default, without a position and outside the field."""
    known = {e.get("A"): e for e in task.findall("TZN")}
    for key, words in _SPECIAL.items():
        chosen = known.get(task.get(key))
        if chosen is None:
            yield FieldDataError(f"{words} is not set", _UNTOUCHED, AGAIN)
            continue
        values = [e.get("B") for e in chosen.findall("PDV")]
        if not values or any(value != "0" for value in values):
            found = f"{words} has the raw rate {values[0] if values else None}"
            yield FieldDataError(found, _UNTOUCHED, AGAIN)


def _read_grid(task: Element) -> _Grid:
    """Read the grid's attributes.

    Raises:
        FieldDataError: One is missing or no number, or the grid has no size.
    """
    element = task.findall("GRD")[0]
    with reading("the grid in TASKDATA.XML"):
        length = element.get("H")
        grid = _Grid(
            south=float(element.attrib["A"]),
            west=float(element.attrib["B"]),
            north_deg=float(element.attrib["C"]),
            east_deg=float(element.attrib["D"]),
            columns=int(element.attrib["E"]),
            rows=int(element.attrib["F"]),
            filename=element.attrib["G"],
            length=None if length is None else int(length),
            kind=element.attrib["I"],
            treatment=element.get("J"),
        )
    sizes = grid.north_deg, grid.east_deg
    if not all(0 < size <= 1 for size in sizes) or min(grid.rows, grid.columns) < 1:
        raise FieldDataError(
            f"{grid.rows} x {grid.columns} cells of {sizes[0]:g} x {sizes[1]:g} degrees",
            "cells with a size of at most 1 degree",
            AGAIN,
        )
    return grid


def _check_unit(root: Element, task: Element, grid: _Grid) -> Iterable[FieldDataError]:
    """Check grid type, data dictionary entry and the unit that is shown.

    Raises:
        FieldDataError: The grid is not one of values.
    """
    if grid.kind != "2":
        raise FieldDataError(f"a grid of type {grid.kind}", "type 2, which holds rates", AGAIN)
    template = [e for e in task.findall("TZN") if e.get("A") == grid.treatment]
    entries = [e for element in template for e in element.findall("PDV")]
    if [e.get("A") for e in entries] != [VOLUME]:
        found = ", ".join(str(e.get("A")) for e in entries) or "none"
        raise FieldDataError(
            f"the data dictionary entries {found}", f"{VOLUME}, volume per area", AGAIN
        )
    shown = {e.get("A"): e for e in root.findall("VPN")}.get(entries[0].get("E"))
    if shown is None:
        return
    with reading("the value presentation in TASKDATA.XML"):
        scale, unit = float(shown.attrib["C"]), shown.get("E")
    if unit == "l/ha" and abs(scale * RAW_PER_RATE - 1) > 1e-6:
        yield FieldDataError(
            f"a scale of {scale:g} to l/ha", f"{1 / RAW_PER_RATE:g}, as entry {VOLUME} has", AGAIN
        )


def _check_place(grid: _Grid, record: Record) -> Iterable[FieldDataError]:
    """Check where the grid lies."""
    if not (-90 <= grid.south <= 90 and -180 <= grid.west <= 180):
        found = f"the south-west corner at ({grid.west:g}, {grid.south:g})"
        yield FieldDataError(found, "longitude and latitude in degrees", AGAIN)
    elif record.bounds is not None:
        found_box = np.array([grid.west, grid.south, *_north_east(grid)])
        slack = 1e-6 + np.array([0, 0, grid.east_deg, grid.north_deg])
        if (np.abs(found_box - record.bounds) > slack).any():
            place = ", ".join(f"{value:.6f}" for value in record.bounds)
            yield FieldDataError(
                f"a grid from ({grid.west:.6f}, {grid.south:.6f}) that does not cover the field",
                f"the place that prescription.json states (west, south, east, north: {place})",
                AGAIN,
            )


def _north_east(grid: _Grid) -> tuple[float, float]:
    return grid.west + grid.columns * grid.east_deg, grid.south + grid.rows * grid.north_deg


def _read_rates(grid: _Grid, inner: dict[str, bytes]) -> Rates:
    """Read the binary, l/ha, (rows, columns), row 0 in the south.

    Raises:
        FieldDataError: It is missing or has another size.
    """
    name = f"{grid.filename}.bin"
    if not re.fullmatch(r"GRD\d{5}", grid.filename) or name not in inner:
        raise FieldDataError(f"no file {name[:40]}", "GRD00000.bin beside TASKDATA.XML", AGAIN)
    data = inner[name]
    wanted = 4 * grid.rows * grid.columns
    if len(data) != wanted or grid.length not in (None, wanted):
        raise FieldDataError(
            f"{len(data)} bytes in {name}, {grid.length} announced",
            f"{wanted}: 4 for each of {grid.rows} x {grid.columns} cells",
            AGAIN,
        )
    raw = np.frombuffer(data, "<i4").reshape(grid.rows, grid.columns)
    return raw / RAW_PER_RATE


def _check_values(rates: Rates, record: Record) -> Iterable[FieldDataError]:
    """Check that raw values are 0.01 mm3/m2, little-endian, of the prescribed rates."""
    unit = f"rates of 0 to {MAX_RATE:g} l/ha, 10,000 raw units for each"
    low, high = float(rates.min()), float(rates.max())
    if low < 0 or high > MAX_RATE:
        wrong = low if low < 0 else high
        yield FieldDataError(f"a raw value of {wrong * RAW_PER_RATE:.0f}", unit, AGAIN)
    elif 0 < high < _LEAST_RATE:
        yield FieldDataError(
            f"a highest raw value of {high * RAW_PER_RATE:.0f}, only {high:g} l/ha", unit, AGAIN
        )
    elif record.rates:
        known = np.array(record.rates)
        used = np.unique(rates)
        odd = used[np.abs(used[:, None] - known).min(axis=1) > 1e-3]
        if len(odd):
            listed = ", ".join(f"{rate:g}" for rate in record.rates)
            yield FieldDataError(
                f"a rate of {odd[0]:g} l/ha", f"one that prescription.json states ({listed})", AGAIN
            )


def _check_rows(
    grid: _Grid, rates: Rates, prescribed: list[tuple[Polygon, float]]
) -> Iterable[FieldDataError]:
    """Compare the grid with the polygons: is another order of rows or columns the right one?"""
    chosen = np.unique(np.linspace(0, rates.size - 1, min(rates.size, _MOST_CELLS)).astype(int))
    treated = [polygon for polygon, rate in prescribed if rate > 0]
    covered = _covered(grid, chosen, treated)

    def wrong(ordered: Rates) -> int:
        """Count cells that treat what no polygon treats, or leave out what polygons treat."""
        treats = ordered.ravel()[chosen] > 0
        return int((treats & (covered <= 0)).sum() + (~treats & (covered > _LEFT_OUT)).sum())

    found = wrong(rates)
    if not found:
        return
    if wrong(rates[::-1]) < found / 4:
        yield FieldDataError(
            "the first row of the grid is the northern one", "row 0 in the south", AGAIN
        )
    elif wrong(rates[:, ::-1]) < found / 4:
        yield FieldDataError(
            "the first column of the grid is the eastern one", "column 0 in the west", AGAIN
        )
    else:
        yield FieldDataError(
            f"{found} of {len(chosen)} cells treat other places than prescription.geojson",
            "the same places",
            AGAIN,
        )


def _covered(
    grid: _Grid, chosen: npt.NDArray[np.int64], treated: list[Polygon]
) -> npt.NDArray[np.float64]:
    """Return which share of some cells the treated polygons cover."""
    row, column = np.divmod(chosen, grid.columns)
    west, south = grid.west + column * grid.east_deg, grid.south + row * grid.north_deg
    cells = shapely.box(west, south, west + grid.east_deg, south + grid.north_deg)
    polygons = np.array([shapely.Polygon(rings[0], rings[1:]) for rings in treated], object)
    cell, polygon = shapely.STRtree(polygons).query(cells, predicate="intersects")
    areas = shapely.area(shapely.intersection(cells[cell], polygons[polygon]))
    summed: npt.NDArray[np.float64] = np.zeros(len(chosen))
    np.add.at(summed, cell, areas)
    return summed / (grid.north_deg * grid.east_deg)
