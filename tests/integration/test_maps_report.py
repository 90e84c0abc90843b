"""The report of a map: what it says, where it draws what, and that it holds together."""

import io
import json
import re
import shutil
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pypdfium2
import pytest
import rasterio
import shapely
from PIL import Image as PillowImage

from weedseg.classes import DEFAULT_CLASSES
from weedseg.errors import FieldDataError
from weedseg.maps import field_picture as pictures
from weedseg.maps import report_words as words
from weedseg.maps.cell_photos import Place, cell_photos
from weedseg.maps.ground import Ground
from weedseg.maps.prescription import PrescriptionOptions, RateStep, prescribe
from weedseg.maps.report import write_report
from weedseg.maps.trust import UNTESTED, RoleBias, Trust
from weedseg.maps.vectors import save_weed_map
from weedseg.maps.weed_map import Grid, WeedMap
from weedseg.maps.worst_cells import apart_m, worst_cells

CRS, CORNER = "EPSG:32632", (600_000.0, 5_600_000.0)
KNOWN = Trust(
    evaluated=True,
    note="evaluated on 33 held-out photos of sugar beet (another field), never on this field",
    num_photos=33,
    weed=RoleBias(bias=0.0006, rmse=0.004),
    crop=RoleBias(bias=-0.002, rmse=0.02),
    false_weed_share=0.0004,
    false_weed_basis="12 weed-free photos",
)
UNKNOWN = Trust(evaluated=False, note=f"{UNTESTED}: here grows maize, the model knows peanut")
ROWS = {
    "reason": "",
    "direction_deg": 33.21,
    "direction_error_deg": 0.24,
    "spacing_m": 0.45,
    "spacing_error_m": 0.003,
    "clear_share": 0.93,
    "in_row_share": 0.3,
    "in_row": {"ground_share": 0.3, "weed_share": 0.012, "crop_share": 0.41},
    "between_rows": {"ground_share": 0.7, "weed_share": 0.034, "crop_share": 0.05},
    "crop_profile": [0.1, 0.4, 0.1],
    "weed_profile": [0.03, 0.01, 0.03],
}


def make_weed_map(shares, cell_m=(2.0, 2.0), heading=0.0):
    """Cells with given weed covers, (rows, columns); row 0 is the first along the heading."""
    shares = np.asarray(shares, float)
    rows, columns = (axis.ravel() for axis in np.indices(shares.shape))
    share, cell = shares.ravel(), np.full(shares.size, cell_m[0] * cell_m[1])
    grid = Grid(
        crs=CRS,
        corner=CORNER,
        heading_deg=heading,
        cell_m=cell_m,
        num_rows=shares.shape[0],
        num_columns=shares.shape[1],
    )
    patches = (share > 0).astype(np.int64)
    return WeedMap(
        grid=grid,
        rows=rows,
        columns=columns,
        ground_m2=cell,
        valid_share=np.ones(share.size),
        weed_share=share,
        crop_share=np.full(share.size, 0.2),
        weed_m2=share * cell,
        crop_m2=0.2 * cell,
        num_patches=patches,
        patch_m2=share * cell,
        confidence=np.linspace(0.5, 1, share.size),
        min_patch_m2=0.0004,
    )


def write_mosaic(folder, weed_map, px_per_m=20):
    """Soil everywhere but in cells with weeds, which are purple; the class map says weed there."""
    grid = weed_map.grid
    high, wide = grid.num_rows * grid.cell_m[0], grid.num_columns * grid.cell_m[1]
    size = round(high * px_per_m), round(wide * px_per_m)
    step = 1 / px_per_m
    transform = rasterio.Affine(step, 0, CORNER[0], 0, -step, CORNER[1] + high)
    side = round(grid.cell_m[0] * px_per_m)
    weedy = np.zeros((grid.num_rows, grid.num_columns), np.uint8)
    weedy[grid.num_rows - 1 - weed_map.rows, weed_map.columns] = weed_map.weed_share > 0
    weedy = np.kron(weedy, np.ones((side, side), np.uint8))
    image = np.stack([np.where(weedy, level, 120) for level in (160, 40, 200)]).astype(np.uint8)
    class_map = 2 * weedy
    profile = {"driver": "GTiff", "dtype": "uint8", "crs": CRS, "transform": transform}
    profile |= {"height": size[0], "width": size[1]}
    for name, bands in (("ortho.tif", image), ("classes.tif", class_map[None])):
        with rasterio.open(folder / name, "w", count=len(bands), **profile) as file:
            file.write(bands)
    crs = rasterio.crs.CRS.from_user_input(CRS).to_wkt()
    return Ground(size=size, crs=crs, transform=tuple(transform[:6]), metric_crs=CRS)


def write_map(folder, weed_map, trust=KNOWN, **changes):
    """Write what ``weedseg map`` leaves, and the report over it."""
    ground = write_mosaic(folder, weed_map)
    save_weed_map(weed_map, trust, folder)
    values = {
        "schema": 1,
        "input": str(folder / "ortho.tif"),
        "made": "2026-06-01T10:00:00Z",
        "model": {"name": "peanut-lite0", "sha256": "ab" * 32},
        "classes": DEFAULT_CLASSES.to_list(),
        "crop": "sugar beet",
        "ground": asdict(ground),
        "mm_per_px": 50.0,
        "training_mm_per_px": [1.0, 2.4],
        "resampled": True,
        "totals": weed_map.totals(),
        "trust": trust.to_dict(),
        "rows": None,
        "boundary": None,
        "warnings": ["the mosaic is dark"],
        "weedseg_version": "0.0",
        **changes,
    }
    (folder / "map.json").write_text(json.dumps(values), encoding="utf-8")
    return write_report(folder)


def pdf_pages(path):
    """Return the text of each page."""
    with pypdfium2.PdfDocument(path) as document:
        found = []
        for page in document:
            text = page.get_textpage()
            found.append(" ".join(text.get_text_range().split()))
            text.close()
            page.close()
        return found


def html_text(path):
    text = path.read_text(encoding="utf-8")
    plain = re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL))
    for entity, letter in (("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        plain = plain.replace(entity, letter)
    return " ".join(plain.split())


def pixels(png):
    return np.asarray(PillowImage.open(io.BytesIO(png)).convert("RGB"))


def rgb(colour):
    return tuple(bytes.fromhex(colour[1:]))


SHARES = [[0.0, 0.005, 0.03], [0.1, 0.3, 0.0]]


# --- pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "step"),
    [(0, 0), (1e-9, 1), (0.01, 1), (0.0101, 2), (0.05, 2), (0.2, 3), (0.2001, 4), (1, 4)],
)
def test_a_cover_on_an_edge_belongs_to_the_step_below(share, step):
    assert pictures.COVER.of(np.array([share])).tolist() == [step]


@pytest.mark.parametrize("steps", [pictures.COVER, pictures.CONFIDENCE])
def test_colours_change_in_brightness_so_that_hue_is_not_needed(steps):
    def brightness(colour):
        linear = (np.array(rgb(colour)) / 255) ** 2.2
        return float(linear @ [0.2126, 0.7152, 0.0722])

    levels = [brightness(colour) for colour in steps.colours]
    falls = [a / b for a, b in pairwise(levels)]
    if steps is pictures.CONFIDENCE:
        falls = [1 / fall for fall in falls]
    assert min(falls) > 1.25


def test_the_overview_is_north_up_and_puts_every_cell_in_its_place():
    image = pixels(pictures.overview_png(make_weed_map(SHARES, (4.0, 4.0)), dpi=100))
    assert image.shape[1] == 720
    found = {}
    for name, colour in zip(pictures.COVER.labels, pictures.COVER.colours):
        rows, columns = np.nonzero((image[:-98] == rgb(colour)).all(axis=-1))
        found[name] = (rows.mean(), columns.mean(), len(rows))
    # Row 0 of cells is the south one: below, in the lower half of the picture.
    south = [found["up to 1 %"], found["1 to 5 %"]]
    north = [found["5 to 20 %"], found["over 20 %"]]
    assert max(cell[0] for cell in north) + 100 < min(cell[0] for cell in south)
    assert found["up to 1 %"][1] + 100 < found["1 to 5 %"][1]
    assert found["5 to 20 %"][1] + 100 < found["over 20 %"][1]
    assert found["0"][2] == pytest.approx(2 * found["over 20 %"][2], rel=0.02)


def test_the_scale_bar_is_as_long_as_it_says():
    weed_map = make_weed_map(np.zeros((2, 30)), (10.0, 10.0))  # 300 m wide
    image = pixels(pictures.overview_png(weed_map, dpi=100))
    field = np.nonzero((image == rgb(pictures.COVER.colours[0])).all(axis=-1))
    metres_per_px = 300 / (field[1].max() - field[1].min() + 1)
    line = image.shape[0] - round(100 * (0.66 + 0.045))
    ink = np.nonzero(image[line, :360, 0] < 120)[0]
    drawn = (ink.max() - ink.min()) * metres_per_px
    assert drawn == pytest.approx(pictures.round_length(drawn * 1.05), rel=0.03)


@pytest.mark.parametrize(
    ("most", "length"), [(1, 1), (1.99, 1), (2, 2), (4.9, 2), (73, 50), (0.07, 0.05), (1e4, 1e4)]
)
def test_scale_bars_have_round_lengths(most, length):
    assert pictures.round_length(most) == pytest.approx(length)


def test_many_rates_share_the_colours():
    steps = pictures.rate_steps([50, 80, 80, 100, 120, 150, 200])
    assert len(steps.labels) == len(steps.colours) == len(steps.edges) + 1 == 5
    assert steps.labels == (
        "not treated",
        "50 to 80 l/ha",
        "100 to 120 l/ha",
        "150 l/ha",
        "200 l/ha",
    )
    assert steps.of(np.array([0.0, 50, 80, 100, 120, 200])).tolist() == [0, 1, 1, 2, 2, 4]


# --- worst cells ---------------------------------------------------------------------------------


def test_worst_cells_are_apart_and_hold_enough_ground():
    shares = np.zeros((1, 100))
    shares[0, [10, 11, 50, 90]] = [0.5, 0.45, 0.3, 0.9]
    weed_map = make_weed_map(shares)
    valid = np.ones(100)
    valid[90] = 0.3
    weed_map = replace(weed_map, valid_share=valid)
    assert worst_cells(weed_map, 5) == [10, 50]  # 11 lies beside 10, 90 is mostly outside
    assert 2 < apart_m(weed_map) < 80
    edge = replace(weed_map, valid_share=np.full(100, 0.1))
    assert worst_cells(edge, 1) == [90]


def test_photos_show_the_cell_and_mark_the_weeds(tmp_path):
    shares = np.zeros((3, 4))
    shares[2, 1] = 1.0
    weed_map = make_weed_map(shares)
    write_mosaic(tmp_path, weed_map)
    place = Place(tmp_path / "ortho.tif", tmp_path / "classes.tif", DEFAULT_CLASSES)
    cells = [weed_map.polygons()[i] for i in (9, 4)]
    with_weeds, without = (pixels(data) for data in cell_photos(place, cells, CRS))
    half = (with_weeds.shape[1] - 8) // 2
    plain, marked = with_weeds[:, :half], with_weeds[:, half + 8 :]
    middle = with_weeds.shape[0] // 2, half // 2
    assert np.abs(plain[middle].astype(int) - [160, 40, 200]).max() < 12
    assert np.abs(marked[middle].astype(int) - plain[middle]).max() > 30
    assert np.abs(plain[2, 2].astype(int) - 120).max() < 12  # around the cell there is soil
    other = (without.shape[1] - 8) // 2
    sides = without[20:-20, 20 : other - 20], without[20:-20, other + 28 : -20]
    assert np.abs(sides[0].astype(int) - sides[1]).mean() < 2


# --- the reports ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A map with rows and a prescription: the paths of its reports."""
    folder = tmp_path_factory.mktemp("map")
    weed_map = make_weed_map(SHARES)
    options = PrescriptionOptions(steps=(RateStep(0.02, 100.0), RateStep(0.2, 150.0)))
    prescription = prescribe(weed_map, options, KNOWN)
    (folder / "prescription.json").write_text(json.dumps(prescription.to_dict()))
    return write_map(folder, weed_map, rows=ROWS)


def both_texts(paths):
    return html_text(paths[0]), " ".join(pdf_pages(paths[1]))


def test_both_reports_say_the_same(reports):
    totals = make_weed_map(SHARES).totals()
    area = KNOWN.area(totals["weed_m2"], totals["ground_m2"], "weed")
    expected = [
        "Weed map: ortho, sugar beet",
        "The mosaic is dark.",
        words.square_metres(totals["weed_m2"]),
        words.square_metres(area.corrected_m2),
        words.digits(area.low_m2),
        "Rows run at 33.2° ± 0.2°",
        "45.0 cm ± 0.3 cm",
        "150 l/ha",
        "33.3 %",  # of the volume: 12 of 24 m2 at 100 and 150 l/ha
        "ab" * 32,
        "50.00 mm per pixel; the model learnt from 1.00 to 2.40",
        "resampled",
        "2026-06-01",
        "What these figures do not say",
        "never on this field",
    ]
    for text in both_texts(reports):
        plain = text.replace("\u00a0", " ").replace(" ", "")
        missing = [e for e in expected if e.replace("\u00a0", " ").replace(" ", "") not in plain]
        assert missing == []


def test_the_page_loads_nothing_and_holds_its_pictures(reports):
    text = reports[0].read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    addresses = re.findall(r"(?:src|href)\s*=\s*\"([^\"]{0,30})", text)
    assert len(addresses) == 5 + 4  # maps, histogram, rows; four cells have weeds
    assert all(address.startswith("data:image/") for address in addresses)
    assert "<script" not in text
    assert "url(" not in text


def test_the_same_map_gives_the_same_bytes(reports):
    before = [path.read_bytes() for path in reports]
    assert [path.read_bytes() for path in write_report(reports[0].parent)] == before


def test_an_untested_model_says_so_first_in_both(tmp_path):
    paths = write_map(tmp_path, make_weed_map(SHARES), UNKNOWN, warnings=[UNKNOWN.note])
    sentence = "Untested on this crop: here grows maize, the model knows peanut."
    for text in (html_text(paths[0]), pdf_pages(paths[1])[0]):
        assert 0 <= text.index(sentence) < text.index("Weed cover")
        assert text[: text.index("Weed cover")].count("here grows maize") == 1
        assert "error unknown" in text
    assert "no correction and no interval" in html_text(paths[0])


def test_what_is_gone_is_said(tmp_path):
    paths = write_map(tmp_path, make_weed_map(SHARES), input="/gone/field.tif")
    for text in both_texts(paths):
        assert "the mosaic field.tif is no longer where it was" in text
    (tmp_path / "ortho.tif").write_bytes(b"II*\0 no mosaic")
    paths = write_map_again(tmp_path, input=str(tmp_path / "ortho.tif"))
    assert "No photos of these cells" in html_text(paths[0])
    paths = write_map_again(tmp_path, boundary="/gone/outline.geojson")
    assert "outline.geojson (no longer there" in html_text(paths[0])


def write_map_again(folder, **changes):
    values = json.loads((folder / "map.json").read_text(encoding="utf-8")) | changes
    (folder / "map.json").write_text(json.dumps(values), encoding="utf-8")
    return write_report(folder)


def test_a_field_without_weeds_and_rows_is_reported(tmp_path):
    paths = write_map(tmp_path, make_weed_map(np.zeros((2, 3))), rows={"reason": "no crop"})
    for text in both_texts(paths):
        assert "No rows are reported: no crop." in text
        assert "The weediest cells" not in text


def test_the_boundary_is_drawn(tmp_path):
    weed_map = make_weed_map(SHARES)
    outline = shapely.union_all(weed_map.polygons()).buffer(-0.5)
    xs, ys = outline.exterior.coords.xy
    lon, lat = rasterio.warp.transform(CRS, "EPSG:4326", xs, ys)
    shape = {"type": "Polygon", "coordinates": [list(zip(lon, lat))]}
    (tmp_path / "field.geojson").write_text(json.dumps(shape))
    paths = write_map(tmp_path, weed_map, boundary=str(tmp_path / "field.geojson"))
    assert "field.geojson" in html_text(paths[0])
    with_line = pixels(pictures.overview_png(weed_map, outline, dpi=100))
    without = pixels(pictures.overview_png(weed_map, dpi=100))
    dark = [(image[:-98].max(axis=-1) < 80).sum() for image in (with_line, without)]
    assert dark[0] > dark[1] + 500


def test_names_of_others_are_only_text(tmp_path):
    paths = write_map(
        tmp_path, make_weed_map(SHARES), crop="<script>alert(1)</script>", warnings=["a <b & c"]
    )
    text = paths[0].read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert(1)" in pdf_pages(paths[1])[0]
    assert "A <b & c." in pdf_pages(paths[1])[0]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("map.json", None, "is no map"),
        ("map.json", "[]", "is no map"),
        ("map.json", "{}", "is no map"),
        ("map.json", '{"schema": 1}', "is damaged"),
        ("prescription.json", '{"savings": {}}', "the prescription beside the map is damaged"),
    ],
)
def test_a_damaged_folder_is_a_sentence(reports, tmp_path, name, content, sentence):
    folder = shutil.copytree(reports[0].parent, tmp_path / "map")
    before = [(folder / path.name).read_bytes() for path in reports]
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(FieldDataError, match=sentence):
        write_report(folder)
    assert [(folder / path.name).read_bytes() for path in reports] == before


def test_damaged_rows_are_a_sentence(reports, tmp_path):
    folder = shutil.copytree(reports[0].parent, tmp_path / "map")
    with pytest.raises(FieldDataError, match="crop rows is damaged"):
        write_map_again(folder, rows={"reason": ""})


def test_the_size_does_not_grow_with_the_cells(tmp_path):
    rng = np.random.default_rng(0)
    shares = rng.gamma(0.2, 0.1, (250, 400)).clip(0, 1) * (rng.random((250, 400)) < 0.7)
    many = make_weed_map(shares, (0.2, 0.2))
    paths = write_map(tmp_path, many)
    assert len(many.rows) == 100_000
    assert all(path.stat().st_size < 4 << 20 for path in paths)
    assert len(pdf_pages(paths[1])) <= 8


# --- words ---------------------------------------------------------------------------------------


def test_the_table_by_cover_adds_up():
    weed_map = make_weed_map(SHARES)
    table = words.cover_table(weed_map)
    counts = [int(row[1]) for row in table.rows]
    assert counts == [2, 1, 1, 1, 1, 6]
    areas = [float(row[4].split("\u00a0")[0]) for row in table.rows]
    assert areas[-1] == pytest.approx(sum(areas[:-1]), rel=0.01)
    assert areas[-1] == pytest.approx(weed_map.totals()["weed_m2"], rel=0.01)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.2345, "1.23"), (12.345, "12.3"), (1234.5, "1,234"), (0.0012345, "0.00123")],
)
def test_numbers_keep_three_digits(value, text):
    assert words.digits(value) == text


@pytest.mark.parametrize(
    ("area", "text"),
    [(0, "0 m²"), (0.5, "0.500 m²"), (20_000, "20,000 m² (2.00 ha)"), (None, "unknown")],
)
def test_areas_are_written_in_both_units_unless_tiny(area, text):
    assert words.both(area).replace("\u00a0", " ") == text
    limits = (area, area) if area is None else (area / 2, area)
    assert words.span(*limits).startswith("unknown" if area is None else words.digits(area / 2))


@pytest.mark.parametrize(
    ("crs", "name"),
    [("EPSG:32632", "EPSG:32632"), ("EPSG:4326", "EPSG:4326")],
)
def test_a_crs_is_called_by_its_code(crs, name):
    assert words.crs_name(crs) == name
    wkt = rasterio.crs.CRS.from_user_input(crs).to_wkt()
    assert words.crs_name(wkt).endswith(f"({name})")
    assert words.crs_name(wkt).startswith("WGS 84")
