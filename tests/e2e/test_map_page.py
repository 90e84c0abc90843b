"""A mosaic handed in through the web page, in a real Chromium, with the released model."""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path

import pytest
import rasterio
from rasterio.warp import transform
from serving import Server
from watched import Watched

from weedseg.data.synthetic_mosaic import ORTHO, write_mosaic

api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
expect = api.expect
KML = """<?xml version="1.0" encoding="UTF-8"?>
<kml xmlns="http://www.opengis.net/kml/2.2"><Document><Placemark>
<name>North &amp; co</name><Polygon>
<outerBoundaryIs><LinearRing><coordinates>{}</coordinates></LinearRing></outerBoundaryIs>
</Polygon></Placemark></Document></kml>"""
PICTURES = os.environ.get("WEEDSEG_TEST_PICTURES")
"""Folder for screenshots, to look at."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("page") / "data", job_worker="true") as running:
        yield running


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mosaic")
    write_mosaic(folder, 5, (1000, 1400))
    return (folder / ORTHO).rename(folder / "north field.tif")


@pytest.fixture(scope="module")
def job(browser, server, mosaic, tmp_path_factory):
    """A finished map that was handed in through the page."""
    seen = Watched(browser, server.url)
    page = seen.page
    seen.open()
    expect(page.get_by_label("Crop on the field")).to_be_hidden()
    page.get_by_label("Choose photos").set_input_files(mosaic)
    page.get_by_label("Crop on the field").fill("peanut")
    cell = page.get_by_label("Cells of the map, m")
    cell.fill("-1")
    page.get_by_role("button", name="Analyse 1").click()
    expect(page.locator("#cell-wrong")).to_contain_text("from 0.05 to 1000")
    expect(cell).to_be_focused()
    cell.fill("0.1")
    expect(page.locator("#cell-wrong")).to_be_empty()
    expect(cell).to_have_attribute("aria-invalid", "false")
    _choose_boundary(page, tmp_path_factory.mktemp("boundary"), mosaic)
    seen.check_for_all()
    _picture(page, "map-form")
    page.get_by_role("button", name="Analyse 1").click()
    page.wait_for_url("**/#/jobs/*")
    page.get_by_role("heading", name="Where the weeds are").wait_for(timeout=120_000)
    job_id = page.url.rpartition("/")[2]
    with server.client() as client:
        answer = client.get(f"/jobs/{job_id}/results").json()
    yield seen, job_id, answer
    seen.check("409")  # the prescription that is refused


def _choose_boundary(page, folder, mosaic):
    """Choose files that are no boundary, then the inner part of the mosaic as GeoJSON and KML."""
    with rasterio.open(mosaic) as file:
        box, crs = file.bounds, file.crs
    xs = [box.left + 0.1, box.right - 0.1]
    ys = [box.bottom + 0.1, box.top - 0.1]
    corners = [(xs[i], ys[j]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))]
    ring = list(zip(*transform(crs, "OGC:CRS84", *zip(*corners))))
    told, field = page.locator("#boundary-told"), page.get_by_label("Choose the field's boundary")
    files = {
        "a.kml": "<kml><Placemark>",
        "b.geojson": "no json",
        "c.geojson": json.dumps({"type": "Point", "coordinates": ring[0]}),
        "d.geojson": json.dumps({"type": "Polygon", "coordinates": [ring]}),
        "north.kml": KML.format(" ".join(f"{x:.9f},{y:.9f},0" for x, y in ring)),
    }
    sentences = (
        "no KML file",
        "no GeoJSON or KML",
        "no area",
        "one field, 5 corners",
        "North & co",
    )
    for (name, text), sentence in zip(files.items(), sentences):
        (folder / name).write_text(text, encoding="utf-8")
        field.set_input_files(folder / name)
        expect(told).to_contain_text(name)
        expect(told).to_contain_text(re.compile(sentence.replace(" ", r"\s")))
        if "no " in sentence:
            page.get_by_role("button", name="Analyse 1").click()
            expect(field).to_be_focused()
    page.get_by_role("button", name="Remove the boundary").click()
    expect(told).to_be_empty()
    field.set_input_files(folder / "north.kml")
    expect(told).to_contain_text("North & co")


def _picture(page, name):
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def test_the_page_shows_the_map(job, mosaic):
    seen, _, answer = job
    page, found = seen.page, answer["map"]
    expect(page.locator(".state")).to_have_text("Finished")
    cells = f"{found['totals']['num_cells']:,}\u00a0cells of 0.1 by 0.1 m, inside your boundary"
    with rasterio.open(mosaic) as file:
        width_m, height_m = (px * size for px, size in zip((1400, 1000), file.res))
    inside_m2 = (width_m - 0.2) * (height_m - 0.2)
    assert found["totals"]["ground_m2"] == pytest.approx(inside_m2, rel=0.01)
    expect(page.locator(".figures")).to_contain_text(cells)
    image = page.locator(".field-map")
    assert image.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 1000
    rows = page.get_by_role("region", name="The weediest cells").locator("tbody tr")
    expect(rows).to_have_count(len(found["worst"]))
    first = found["worst"][0]
    expect(rows.first).to_contain_text(first["cell_id"])
    expect(rows.first).to_contain_text(f"{first['latitude']:.6f}, {first['longitude']:.6f}")
    for sentence in found["warnings"]:
        expect(page.locator(".warning", has_text=sentence[1:40]).first).to_be_visible()
    assert "m²" in page.locator(".figures").inner_text()
    seen.check_for_all()
    _picture(page, "map-results")


def test_a_prescription_is_made(job, tmp_path):
    seen, _, _ = job
    page = seen.page
    threshold = page.get_by_label("Spray cells from this weed cover on")
    threshold.fill("101")
    page.get_by_role("button", name="Work it out").click()
    expect(page.locator("#prescription-threshold-wrong")).to_contain_text("from 0 to 100")
    expect(threshold).to_be_focused()
    threshold.fill("0.1")
    page.get_by_role("button", name="Work it out").click()
    section = page.locator("section", has=page.locator("#spray"))
    expect(section.locator(".warning")).to_contain_text("not known well enough")
    expect(section.locator(".warning")).to_contain_text("1.6")  # what it sees where no weed is
    seen.check_for_all()
    _picture(page, "map-refused")
    page.get_by_label("Make it all the same").check()
    page.get_by_role("button", name="Work it out").click()
    expect(section.locator(".cover-line")).to_contain_text("of the field is sprayed")
    expect(section.locator(".warning")).to_contain_text("forced")
    page.get_by_label("Make it all the same").uncheck()
    threshold.fill("5")
    page.get_by_role("button", name="Work it out").click()
    expect(section.locator(".cover-line")).to_contain_text("litres instead of")
    expect(section.locator(".warning")).to_have_count(0)
    seen.check_for_all()
    _picture(page, "map-prescription")
    with page.expect_download() as download:
        page.get_by_role("link", name="Prescription (zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert "prescription_shapefile.zip" in archive.namelist()


def test_the_files_are_offered(job, tmp_path):
    seen, _, answer = job
    page = seen.page
    names = {link["rel"] for link in answer["map"]["files"]}
    links = page.locator("#files-of-map ~ .buttons a[download]")
    expect(links).to_have_count(len(names))
    with page.expect_download() as download:
        page.get_by_role("link", name="Class map (GeoTIFF)").click()
    path = tmp_path / "classes.tif"
    download.value.save_as(path)
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 32632
        assert file.shape == (1000, 1400)
    with page.expect_download() as download:
        page.get_by_role("link", name="Totals and origin (JSON)").click()
    values = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert values["input"] == "north field.tif"
    with page.context.expect_page() as report:
        page.get_by_role("link", name="Report (opens").click()
    report.value.locator("h1").wait_for()
    assert report.value.title() == "Weed map: north field, peanut"
    report.value.close()


def test_it_fits_a_phone(browser, server, job):
    _, job_id, _ = job
    seen = Watched(browser, server.url, width=360, height=740)
    seen.open(f"#/jobs/{job_id}")
    seen.page.locator(".field-map").wait_for()
    assert seen.page.evaluate("document.documentElement.scrollWidth") == 360
    assert seen.page.evaluate("probes.small()") == []
    seen.check_for_all()
    _picture(seen.page, "map-phone")
    seen.check()
    seen.context.close()


def test_a_photo_beside_it_makes_it_a_photo(browser, server, mosaic, tmp_path):
    """Maps are for one file; two are photos as ever, and nothing is asked about cells."""
    seen = Watched(browser, server.url)
    page = seen.page
    seen.open()
    other = tmp_path / "photo.jpg"
    other.write_bytes(b"x")
    page.get_by_label("Choose photos").set_input_files([mosaic, other])
    expect(page.locator(".files li")).to_have_count(2)
    expect(page.get_by_label("Crop on the field")).to_be_hidden()
    page.get_by_role("button", name="Remove photo.jpg").click()
    expect(page.get_by_label("Crop on the field")).to_be_visible()
    seen.check()
    seen.context.close()
