"""A synthetic mosaic from its labels to cells and files: the areas are those of the labels."""

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from weedseg.classes import DEFAULT_CLASSES
from weedseg.data.mosaics import Window
from weedseg.data.synthetic_mosaic import LABELS, write_mosaic
from weedseg.maps.boundary import read_boundary
from weedseg.maps.cells import CellCounter, CellOptions
from weedseg.maps.ground import Ground, MapPart
from weedseg.maps.trust import Trust
from weedseg.maps.vectors import load_weed_map, save_weed_map


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Labels of a mosaic as the class map of a model that errs nowhere, and its ground."""
    folder = tmp_path_factory.mktemp("mosaic")
    write_mosaic(folder, seed=3, size=(700, 900))
    with rasterio.open(folder / LABELS) as file:
        ground = Ground(
            size=file.shape,
            crs=file.crs.to_wkt(),
            transform=tuple(file.transform)[:6],
            metric_crs=file.crs.to_wkt(),
        )
        return file.read(1), ground


def count(class_map, ground, options, boundary=None):
    counter = CellCounter(ground, DEFAULT_CLASSES, options, boundary)
    height, width = class_map.shape
    for top in range(0, height, 300):
        for left in range(0, width, 400):
            part = np.ascontiguousarray(class_map[top : top + 300, left : left + 400])
            confidence = np.where(part == 255, 255, 90).astype(np.uint8)
            counter.add(MapPart(Window(top, left, *part.shape), part, confidence))
    return counter.finish()


@pytest.mark.parametrize("heading", [0.0, 57.0])
def test_areas_are_those_of_the_labels(tmp_path, labels, heading):
    class_map, ground = labels
    pixel_m2 = (ground.mm_per_px() / 1e3) ** 2
    options = CellOptions(cell_m=0.5, section_m=0.25, heading_deg=heading)
    save_weed_map(
        count(class_map, ground, options), Trust(evaluated=False, note="untested"), tmp_path
    )
    weed_map = load_weed_map(tmp_path)
    totals = weed_map.totals()
    assert totals["ground_m2"] == pytest.approx((class_map != 255).sum() * pixel_m2)
    assert totals["weed_m2"] == pytest.approx((class_map == 2).sum() * pixel_m2)
    assert totals["crop_m2"] == pytest.approx((class_map == 1).sum() * pixel_m2)
    assert totals["confidence"] == pytest.approx(0.9)
    cells = geopandas.read_file(tmp_path / "cells.gpkg", layer="cells")
    np.testing.assert_allclose(cells.area, 0.125)
    ground_m2 = (cells["valid_pct"] / 100 * cells.area).sum()
    assert ground_m2 == pytest.approx(totals["ground_m2"], rel=0.01)


def test_a_boundary_takes_its_share(tmp_path, labels):
    class_map, ground = labels
    a, _, c, _, e, f = ground.transform
    inside = shapely.Polygon(
        [(c + a * x, f + e * y) for x, y in [(99, 99), (800, 150), (300, 600)]]
    )
    path = tmp_path / "field.kml"
    geopandas.GeoDataFrame(geometry=[inside], crs=ground.crs).to_crs(4326).to_file(
        path, driver="KML"
    )
    boundary = read_boundary(path, ground)
    totals = count(class_map, ground, CellOptions(cell_m=0.5), boundary).totals()
    assert totals["ground_m2"] == pytest.approx(inside.area, rel=3e-3)
