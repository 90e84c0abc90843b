"""A prescription as ISO 11783-10 task data, which the terminal of a sprayer reads.

Version 3.3, which terminals of version 4 read too: one task with a grid of type 2 over latitude
and longitude. The binary holds one little-endian int32 per cell, row 0 in the south, columns from
west to east. Data dictionary entry 0001 is the setpoint of volume per area in units of 0.01
mm3/m2, so 1 l/ha = 100 mm3/m2 = 10,000. Treatment zone 0 has the rate 0; it is also where the
terminal goes by default, without a position and outside the field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import isoxml.models.base.v3 as iso
import numpy as np
import numpy.typing as npt
import shapely
from isoxml.converter.np_grid import from_numpy_array_to_type_2
from isoxml.converter.shapely_geom import ShapelyConverterV3
from isoxml.util.isoxml_io import isoxml_to_dir

from weedseg import __version__
from weedseg.errors import ConfigError
from weedseg.maps.ground import to_lonlat
from weedseg.maps.prescription import M2_PER_HA, Prescription
from weedseg.maps.weed_map import Floats, Grid

RAW_PER_RATE = 10_000
"""Units of data dictionary entry 0001 in one litre per hectare."""

VOLUME_PER_AREA = bytes((0, 1))
COVERED_SHARE = 0.1
"""Share of a cell, of the grid or of the weed map if those are smaller, that treated ground has to
cover for the cell to be treated."""

MAX_CELLS = 20_000_000
_SLACK = 1e-3
_POINTS_PER_SIDE = 8
_POINTS_AT_ONCE = 2_000_000


@dataclass(frozen=True, kw_only=True)
class RateGrid:
    """Rates on a grid over latitude and longitude, WGS 84."""

    south: float
    west: float
    cell_deg: tuple[float, float]
    """Size of a cell (to the north, to the east), degrees."""
    cell_m: float
    """Side of a cell, m of the weed map."""
    rate: Floats
    """Litres per hectare, (rows, columns), row 0 in the south."""

    def to_dict(self) -> dict[str, Any]:
        """Return size, place and sums as JSON holds them."""
        area = self.cell_m**2
        return {
            "rows": self.rate.shape[0],
            "columns": self.rate.shape[1],
            "south": self.south,
            "west": self.west,
            "cell_north_deg": self.cell_deg[0],
            "cell_east_deg": self.cell_deg[1],
            "cell_m": self.cell_m,
            "treated_m2": float((self.rate > 0).sum()) * area,
            "prescribed_l": float(self.rate.sum()) * area / M2_PER_HA,
        }


def rate_grid(prescription: Prescription) -> RateGrid:
    """Lay a prescription on a grid over latitude and longitude.

    A cell of the grid gets the highest rate that covers `COVERED_SHARE` of it, so that no treated
    cell of the weed map is lost, however they are turned against each other.

    Raises:
        ConfigError: The cells are too small for the field.
    """
    weed_map = prescription.weed_map
    corners, edges = _cells_in_lonlat(prescription)
    ends = np.concatenate([corners, corners + edges[:, 0], corners + edges[:, 1]])
    ends = np.concatenate([ends, corners + edges.sum(axis=1)])
    (west, south), (east, north) = ends.min(axis=0), ends.max(axis=0)
    cell_m = prescription.options.isoxml_cell_m or weed_map.grid.cell_m[1]
    size = _degrees(cell_m, weed_map.grid)
    shape = tuple(
        max(1, math.ceil(length / side - _SLACK))
        for length, side in zip((north - south, east - west), size)
    )
    if shape[0] * shape[1] > MAX_CELLS:
        raise ConfigError(
            f"{shape[0]} x {shape[1]} cells of {cell_m:g} m in the ISOXML grid",
            f"at most {MAX_CELLS}",
            "choose a larger ISOXML cell",
        )
    treat = prescription.treat
    scale = np.array([size[1], size[0]])
    along, across = weed_map.grid.cell_m
    rate = _rasterised(
        (corners[treat] - (west, south)) / scale,
        edges[treat] / scale,
        prescription.rate[treat],
        np.zeros((shape[0], shape[1])),
        COVERED_SHARE * min(1.0, along * across / cell_m**2),
    )
    return RateGrid(south=south, west=west, cell_deg=size, cell_m=cell_m, rate=rate)


def write_isoxml(prescription: Prescription, folder: Path) -> RateGrid:
    """Write ``TASKDATA.XML`` and ``GRD00000.bin``.

    Args:
        prescription: What to write.
        folder: An existing, empty folder, which should be called TASKDATA.

    Returns:
        The grid as written.

    Raises:
        ConfigError: The cells are too small for the field.
    """
    placed = rate_grid(prescription)
    raw = np.rint(placed.rate * RAW_PER_RATE).astype("<i4")
    grid = iso.Grid(
        minimum_north_position=round(Decimal(placed.south), 9),
        minimum_east_position=round(Decimal(placed.west), 9),
        cell_north_size=placed.cell_deg[0],
        cell_east_size=placed.cell_deg[1],
        maximum_column=raw.shape[1],
        maximum_row=raw.shape[0],
        filename="GRD00000",
        filelength=raw.nbytes,
        type=iso.GridType.GridType2,
        treatment_zone_code=0,
    )
    values = from_numpy_array_to_type_2(raw, grid)
    isoxml_to_dir(folder, _task_data(prescription, grid), {"GRD00000": values})
    text = prescription.note.replace("--", "- -")
    with (folder / "TASKDATA.XML").open("a", encoding="utf-8") as file:
        file.write(f"<!-- {text} -->\n")
    return placed


def _task_data(prescription: Prescription, grid: iso.Grid) -> iso.Iso11783TaskData:
    """Describe customer, farm, field and the one task; some terminals list tasks by customer."""
    field = prescription.weed_map
    points = to_lonlat(field.grid.crs, shapely.get_coordinates(field.polygons()))
    hull = shapely.convex_hull(shapely.multipoints(points))
    outline = ShapelyConverterV3().to_iso_polygon(hull, iso.PolygonType.PartfieldBoundary)
    customer = iso.Customer(id="CTR1", designator="weedseg")
    farm = iso.Farm(id="FRM1", designator="weedseg", customer_id_ref="CTR1")
    area = round(float(field.ground_m2.sum()))
    owner = {"customer_id_ref": "CTR1", "farm_id_ref": "FRM1"}
    partfield = iso.Partfield(id="PFD1", designator="field", area=area, polygons=[outline], **owner)
    unit = iso.ValuePresentation(
        id="VPN1",
        offset=0,
        scale=Decimal(1) / RAW_PER_RATE,
        number_of_decimals=1,
        unit_designator="l/ha",
    )
    nothing = iso.ProcessDataVariable(
        process_data_ddi=VOLUME_PER_AREA, process_data_value=0, value_presentation_id_ref="VPN1"
    )
    untreated = iso.TreatmentZone(code=0, designator="0 l/ha", process_data_variables=[nothing])
    task = iso.Task(
        id="TSK1",
        designator="FORCED weedseg prescription" if prescription.forced else "weedseg prescription",
        status=iso.TaskStatus.Initial,
        grids=[grid],
        treatment_zones=[untreated],
        partfield_id_ref="PFD1",
        default_treatment_zone_code=0,
        position_lost_treatment_zone_code=0,
        out_of_field_treatment_zone_code=0,
        **owner,
    )
    return iso.Iso11783TaskData(
        management_software_manufacturer="weedseg",
        management_software_version=__version__,
        data_transfer_origin=iso.Iso11783TaskDataDataTransferOrigin.FMIS,
        customers=[customer],
        farms=[farm],
        partfields=[partfield],
        tasks=[task],
        value_presentations=[unit],
    )


def _cells_in_lonlat(prescription: Prescription) -> tuple[Floats, Floats]:
    """Return first corners, (n, 2), and the two edges from there, (n, 2, 2), (lon, lat) degrees."""
    rings = shapely.get_coordinates(prescription.weed_map.polygons()).reshape(-1, 5, 2)
    used = np.ascontiguousarray(rings[:, [0, 1, 3]]).reshape(-1, 2)
    points = to_lonlat(prescription.weed_map.grid.crs, used).reshape(-1, 3, 2)
    return points[:, 0], points[:, 1:] - points[:, :1]


def _degrees(length_m: float, grid: Grid) -> tuple[float, float]:
    """Turn a length of the weed map into degrees (to the north, to the east) at its middle."""
    middle = grid.affine() @ (grid.num_columns / 2, grid.num_rows / 2)
    steps = np.array([(0, 0), (1, 0), (0, 1)], np.float64)
    here, right, up = to_lonlat(grid.crs, middle + steps)
    metres_per_degree = np.linalg.inv(np.column_stack([right - here, up - here]))
    to_east, to_north = np.linalg.norm(metres_per_degree, axis=0)
    return length_m / float(to_north), length_m / float(to_east)


def _rasterised(
    corners: Floats, edges: Floats, rates: Floats, rate: Floats, least: float
) -> Floats:
    """Give each cell of a grid the highest rate that covers enough of it.

    Args:
        corners: First corners of the treated cells, (n, 2), (x, y) in cells of the grid.
        edges: Their two edges, (n, 2, 2), in cells of the grid.
        rates: Their rates, (n,).
        rate: The grid, all 0; filled in place.
        least: Share of a cell that is enough.
    """
    covered = np.zeros(rate.shape)
    for value in np.unique(rates)[::-1]:
        chosen = rates == value
        covered += _covered(corners[chosen], edges[chosen], (rate.shape[0], rate.shape[1]))
        rate[(rate == 0) & (covered >= least)] = value
    return rate


def _covered(corners: Floats, edges: Floats, shape: tuple[int, int]) -> Floats:
    """Return which share of each cell of a grid parallelograms cover, counted over points."""
    covered = np.zeros(shape[0] * shape[1])
    if not len(corners):
        return covered.reshape(shape)
    lengths = np.hypot(edges[..., 0], edges[..., 1]).max(axis=0)
    first, second = (math.ceil(_POINTS_PER_SIDE * max(1.0, length)) for length in lengths)
    u, v = np.meshgrid((np.arange(first) + 0.5) / first, (np.arange(second) + 0.5) / second)
    steps: npt.NDArray[np.float64] = np.stack([u.ravel(), v.ravel()], axis=1)
    areas = np.abs(np.linalg.det(edges)) / len(steps)
    at_once = max(1, _POINTS_AT_ONCE // len(steps))
    for start in range(0, len(corners), at_once):
        part = slice(start, start + at_once)
        points = corners[part, None] + steps @ edges[part]
        place = np.clip(np.floor(points).astype(np.int64), 0, (shape[1] - 1, shape[0] - 1))
        index = place[..., 1] * shape[1] + place[..., 0]
        weights = np.repeat(areas[part], len(steps))
        covered += np.bincount(index.ravel(), weights=weights, minlength=len(covered))
    return covered.reshape(shape)
