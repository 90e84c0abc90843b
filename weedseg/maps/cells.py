"""Cells of the weed map: cover, confidence and patches, counted part by part.

A part is cut into runs: pixels side by side in one row that fall into one cell. Runs follow any
heading exactly, by the centres of pixels, and are summed without an index for each pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine

from weedseg.classes import ClassTable, Role
from weedseg.errors import ConfigError, FieldDataError, TileError
from weedseg.maps.boundary import FieldCutter, footprint
from weedseg.maps.ground import NO_DATA, Ground, MapPart, apply_affine
from weedseg.maps.patches import Integers, Patches, PatchFinder
from weedseg.maps.weed_map import Grid, WeedMap

MAX_CELLS = 500_000
"""Most cells of a grid: keeps memory and files small."""
_LEAST_PX = 4
_WEED, _CROP, _VALID, _CONFIDENCE = range(4)
_KNOWN = np.ones(256, np.uint8)
_CONFIDENCES = np.arange(256, dtype=np.uint8)
_KNOWN[NO_DATA] = _CONFIDENCES[NO_DATA] = 0


@dataclass(frozen=True, kw_only=True)
class CellOptions:
    """How the field is cut into cells."""

    cell_m: float = 5.0
    """Length of a cell along the heading, m; its width too unless `section_m` is given."""
    section_m: float | None = None
    """Width of a section of the boom: width of a cell across the heading, m."""
    heading_deg: float = 0.0
    """Direction of travel, degrees clockwise from grid north."""
    min_patch_m2: float = 0.0004
    """Smallest weed patch that is counted, m2; 4 cm2 is a young seedling."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: One makes no sense.
        """
        lengths = {"--cell": self.cell_m, "--section": self.size_m[1]}
        for name, length in lengths.items():
            if not (math.isfinite(length) and 0 < length <= 1000):
                raise ConfigError(
                    f"{name} {length:g}", "more than 0 and at most 1000 m", "change it"
                )
        if not math.isfinite(self.heading_deg):
            raise ConfigError(
                f"heading {self.heading_deg}", "degrees from north", "change --heading"
            )
        if not 0 <= self.min_patch_m2 < math.inf:
            raise ConfigError(f"patches of {self.min_patch_m2} m2", "0 or more", "change it")

    @property
    def size_m(self) -> tuple[float, float]:
        """Size of a cell (along the heading, across it), m."""
        return self.cell_m, self.cell_m if self.section_m is None else self.section_m


class _Runs(NamedTuple):
    """Runs of pixels, (n,) each, in the order of the pixels."""

    starts: Integers
    """Number of the first pixel, counted row by row."""
    rows: Integers
    """Row of cells."""
    columns: Integers


def make_grid(ground: Ground, options: CellOptions, boundary: shapely.Geometry | None) -> Grid:
    """Lay a grid over the part of a mosaic that lies inside the boundary.

    Cells are counted from the origin of the metric CRS: the same options give the same cells in
    every mosaic of a UTM zone.

    Args:
        ground: The mosaic.
        options: Size and direction of the cells.
        boundary: Polygons in ``ground.metric_crs``; None is the whole mosaic.

    Returns:
        A grid with one spare cell all around.

    Raises:
        ConfigError: The cells are too small for the pixels, or too many.
        FieldDataError: The boundary lies outside the mosaic.
    """
    pixel_m = ground.mm_per_px() / 1e3
    if min(options.size_m) < _LEAST_PX * pixel_m:
        raise ConfigError(
            f"cells of {min(options.size_m):g} m on pixels of {pixel_m:g} m",
            f"cells of at least {_LEAST_PX * pixel_m:g} m",
            "choose larger cells",
        )
    area = footprint(ground)
    if boundary is not None:
        area = shapely.intersection(area, boundary)
    if area.is_empty:
        raise FieldDataError(
            "the boundary lies outside the mosaic", "one that overlaps it", "check both"
        )
    heading = options.heading_deg % 180.0
    world = Grid(
        crs=ground.metric_crs,
        corner=(0.0, 0.0),
        heading_deg=heading if heading < 180.0 else 0.0,
        cell_m=options.size_m,
        num_rows=0,
        num_columns=0,
    )
    points = shapely.get_coordinates(area)
    columns, rows = apply_affine(~world.affine(), points[:, 0], points[:, 1])
    first = (math.floor(rows.min()) - 1, math.floor(columns.min()) - 1)
    last = (math.floor(rows.max()) + 1, math.floor(columns.max()) + 1)
    size = (last[0] - first[0] + 1, last[1] - first[1] + 1)
    if size[0] * size[1] > MAX_CELLS:
        raise ConfigError(
            f"a grid of {size[0]} x {size[1]} cells",
            f"at most {MAX_CELLS} cells",
            "choose larger cells or give the field's boundary",
        )
    return _part_of(replace(world, num_rows=size[0], num_columns=size[1]), first, size)


def world_cell(grid: Grid) -> tuple[int, int]:
    """Return (row, column) of a grid's first cell, counted from the origin of the CRS."""
    column, row = ~replace(grid, corner=(0.0, 0.0)).affine() @ grid.corner
    return round(row), round(column)


class CellCounter:
    """Sums the parts of a class map up by cells; memory grows with cells and width, not area."""

    def __init__(
        self,
        ground: Ground,
        classes: ClassTable,
        options: CellOptions,
        boundary: shapely.Geometry | None = None,
    ) -> None:
        """Lay the grid.

        Args:
            ground: The mosaic.
            classes: What the class ids mean.
            options: The cells.
            boundary: Polygons in ``ground.metric_crs``; pixels whose centre is outside do not
                count. None counts all.

        Raises:
            ConfigError: The cells are too small for the pixels, or too many.
            FieldDataError: The boundary lies outside the mosaic.
        """
        self._ground, self._options = ground, options
        self._grid = make_grid(ground, options, boundary)
        self._cutter = FieldCutter(ground, boundary)
        self._tables = [_table(classes.ids_of(role)) for role in (Role.WEED, Role.CROP)]
        shape = (self._grid.num_rows, self._grid.num_columns)
        self._sums = np.zeros((4, *shape), np.int64)
        self._m2 = np.zeros(shape)
        self._num_patches = np.zeros(shape, np.int64)
        self._patch_px = np.zeros(shape, np.int64)
        self._finder = PatchFinder(ground.size[1])
        self._least_px = 1
        self._seen_px = 0

    def add(self, part: MapPart) -> None:
        """Count a part.

        Args:
            part: The next one, row by row.

        Raises:
            TileError: It is out of order.
        """
        window = part.window
        self._seen_px += window.height * window.width
        part = self._cutter.cut(part)
        to_metric = self._ground.metric_affine(window)
        pixel_m2 = abs(to_metric.determinant)
        self._least_px = max(1, math.ceil(self._options.min_patch_m2 / pixel_m2 - 1e-6))
        weed, crop = (_look_up(part.class_map, table) for table in self._tables)
        self._count_patches(self._finder.add(window, weed, self._least_px))
        runs = _runs(~self._grid.affine() @ to_metric, (window.height, window.width))
        sums = [_run_sums(layer, runs.starts) for layer in (weed, crop)]
        if (part.class_map == NO_DATA).any():
            layers = (_look_up(part.class_map, _KNOWN), _look_up(part.confidence, _CONFIDENCES))
            sums += [_run_sums(layer, runs.starts) for layer in layers]
        else:
            sums.append(np.diff(runs.starts, append=window.height * window.width))
            sums.append(_run_sums(np.ascontiguousarray(part.confidence), runs.starts))
        self._add_runs(runs, np.stack(sums), pixel_m2)

    def finish(self) -> WeedMap:
        """Return the map of all cells with any valid pixel.

        Raises:
            TileError: Parts are missing.
            FieldDataError: No pixel has data.
        """
        height, width = self._ground.size
        if self._seen_px != height * width:
            raise TileError(
                f"parts of {self._seen_px} px", f"all {height * width} px", "report this"
            )
        self._count_patches(self._finder.finish(self._least_px))
        rows, columns = np.nonzero(self._sums[_VALID])
        if not len(rows):
            raise FieldDataError(
                "no pixel of the mosaic has data inside the field",
                "a photo of the field",
                "check the mosaic's alpha, its nodata value and the boundary",
            )
        self._keep_stray_patches(rows, columns)
        return self._weed_map(rows, columns)

    def _weed_map(self, rows: Integers, columns: Integers) -> WeedMap:
        """Return the map of some cells of the grid, (n,)."""
        first = int(rows.min()), int(columns.min())
        size = int(rows.max()) - first[0] + 1, int(columns.max()) - first[1] + 1
        grid, where = _part_of(self._grid, first, size), (rows, columns)
        weed, crop, valid, confidence = (layer[where] for layer in self._sums)
        pixel_m2 = self._m2[where] / valid
        if self._ground.metric_crs == self._ground.crs:  # the same everywhere, to the last bit
            pixel_m2[:] = abs(Affine(*self._ground.transform).determinant)
        patches, ground_m2 = self._num_patches[where], valid * pixel_m2
        cell_m2 = grid.cell_m[0] * grid.cell_m[1]
        return WeedMap(
            grid=grid,
            rows=rows - first[0],
            columns=columns - first[1],
            ground_m2=ground_m2,
            # A cell may hold one row of pixel centres more than its size says.
            valid_share=np.minimum(ground_m2 / cell_m2, 1.0),
            weed_share=weed / valid,
            crop_share=crop / valid,
            weed_m2=weed * pixel_m2,
            crop_m2=crop * pixel_m2,
            num_patches=patches,
            patch_m2=self._patch_px[where] * pixel_m2 / np.maximum(patches, 1),
            confidence=confidence / valid / 100,
            min_patch_m2=self._options.min_patch_m2,
        )

    def _add_runs(self, runs: _Runs, sums: Integers, pixel_m2: float) -> None:
        """Add the sums of runs, (4, n), to their cells."""
        known = sums[_VALID] > 0
        if not known.any():
            return
        rows, columns, sums = runs.rows[known], runs.columns[known], sums[:, known]
        top, left = rows.min(), columns.min()
        height, width = rows.max() - top + 1, columns.max() - left + 1
        cells = (rows - top) * width + columns - left
        where = np.s_[top : top + height, left : left + width]
        for layer, values in zip(self._sums, sums):
            added = np.bincount(cells, values, height * width)  # exact: below 2**53
            layer[where] += added.astype(np.int64).reshape(height, width)
        area = np.bincount(cells, sums[_VALID], height * width).reshape(height, width)
        self._m2[where] += area * pixel_m2

    def _count_patches(self, patches: Patches) -> None:
        """Add whole patches to the cells of their centres."""
        if not len(patches.num_px):
            return
        xs, ys = apply_affine(Affine(*self._ground.transform), patches.columns, patches.rows)
        moved = self._ground.to_metric(xs.tolist(), ys.tolist())
        columns, rows = apply_affine(~self._grid.affine(), *moved)
        where = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
        np.add.at(self._num_patches, where, 1)
        np.add.at(self._patch_px, where, patches.num_px)

    def _keep_stray_patches(self, rows: Integers, columns: Integers) -> None:
        """Move patches whose centre fell into a cell without data to the nearest one with data."""
        for row, column in np.argwhere((self._num_patches > 0) & (self._sums[_VALID] == 0)):
            nearest = int(np.argmin((rows - row) ** 2 + (columns - column) ** 2))
            for layer in (self._num_patches, self._patch_px):
                layer[rows[nearest], columns[nearest]] += layer[row, column]


def _part_of(grid: Grid, first: tuple[int, int], size: tuple[int, int]) -> Grid:
    """Return a part of a grid that begins at cell (row, column) and has (rows, columns)."""
    row, column = (a + b for a, b in zip(first, world_cell(grid)))
    corner = replace(grid, corner=(0.0, 0.0)).affine() @ (column, row)
    return replace(grid, corner=corner, num_rows=size[0], num_columns=size[1])


def _table(ids: Iterable[int]) -> npt.NDArray[np.uint8]:
    """Return 1 for some ids and 0 for the rest, uint8 (256,)."""
    table = np.zeros(256, np.uint8)
    table[list(ids)] = 1
    return table


def _look_up(layer: npt.NDArray[np.uint8], table: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.LUT(layer, table), np.uint8)


def _runs(to_cells: Affine, size: tuple[int, int]) -> _Runs:
    """Cut a part into runs.

    Args:
        to_cells: Pixel (column, row) of the part to (column, row) of the grid.
        size: (height, width) of the part, px.
    """
    height, width = size
    lines = np.arange(height)
    columns0, rows0 = apply_affine(to_cells, 0.5, lines + 0.5)
    begins = np.zeros(height * width, np.bool_)
    begins[::width] = True
    begins[_borders(to_cells.a, columns0, width)] = True
    begins[_borders(to_cells.d, rows0, width)] = True
    starts = np.flatnonzero(begins)
    line, column = np.divmod(starts, width)
    middle = column + np.diff(starts, append=height * width) / 2
    columns, rows = apply_affine(to_cells, middle, line + 0.5)
    return _Runs(starts, np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64))


def _borders(step: float, first: npt.NDArray[np.float64], width: int) -> Integers:
    """Return the numbers of the pixels that begin a new cell within a line.

    Args:
        step: How far a pixel goes, in cells; may be negative or 0.
        first: Where the middle of each line's first pixel lies, in cells, (H,).
        width: Pixels in a line.
    """
    last = first + step * (width - 1)
    low = np.floor(np.minimum(first, last))
    most = int((np.floor(np.maximum(first, last)) - low).max())
    if most == 0:
        return np.zeros(0, np.int64)
    levels = low[:, None] + 1 + np.arange(most)
    crossing = (levels - first[:, None]) / step
    columns = np.ceil(crossing) if step > 0 else np.floor(crossing) + 1
    within = (columns > 0) & (columns < width)
    numbers = np.arange(len(first))[:, None] * width + np.where(within, columns, 0)
    borders: Integers = numbers[within].astype(np.int64)
    return borders


def _run_sums(layer: npt.NDArray[np.uint8], starts: Integers) -> Integers:
    """Return the sum of each run, (n,)."""
    sums: Integers = np.add.reduceat(layer.reshape(-1), starts, dtype=np.int32).astype(np.int64)
    return sums
