"""What label tools get comes back bit for bit."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image as PillowImage

from weedseg.cli import main
from weedseg.data.exporters import EXPORTS, export_farm
from weedseg.data.importers import collect
from weedseg.data.importers.items import ImportOptions
from weedseg.data.index import index_farm
from weedseg.data.masks import read_mask
from weedseg.data.rle import from_brush, from_coco, from_runs, runs_of, to_brush, to_coco
from weedseg.data.shapes import fill_polygon
from weedseg.data.writing import write_collection
from weedseg.errors import ConfigError, MaskError, OutputError
from weedseg.imaging import write_png

CLASSES = """
[[classes]]
name = "soil"
role = "background"
[[classes]]
name = "sugar beet"
role = "crop"
[[classes]]
name = 'thistle: "big", <old> & \u00fc'
role = "weed"
[[classes]]
name = "weed"
role = "weed"
"""
sizes = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)
bitmaps = arrays.arrays(bool, sizes)
masks = arrays.arrays(np.uint8, sizes, elements=st.sampled_from([0, 0, 1, 2, 3, 255]))
quick = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def make_farm(root, drawn):
    """Write a farm whose names and folders ask for care, with one unlabelled photo."""
    for i, mask in enumerate(drawn):
        photo = np.full((*mask.shape, 3), i, np.uint8)
        folder = root / "north field" / "2026-05-03" if i % 2 else root
        write_png(folder / "images" / f"a b%20+{i}.png", photo)
        write_png(folder / "masks" / f"a b%20+{i}.png", mask)
    write_png(root / "images" / "none.png", np.zeros((5, 6, 3), np.uint8))
    (root / "classes.toml").write_text(CLASSES, encoding="utf-8")
    (root / "fields.csv").write_text("photo,field,date,mm_per_px\nnone.png,south,,0.5\n")
    return index_farm(root)


def there_and_back(farm, kind, out):
    export_farm(farm, kind, out / "labels")
    collection = collect(kind, out / "labels", ImportOptions(photos=farm.root))
    write_collection(collection, out / "back", kind)
    return index_farm(out / "back")


@pytest.mark.parametrize("kind", list(EXPORTS))
@quick
@given(st.lists(masks, min_size=1, max_size=3))
def test_import_of_export_is_the_same(kind, tmp_path_factory, drawn):
    root = tmp_path_factory.mktemp("trip")
    farm = make_farm(root / "farm", [*drawn, np.zeros((4, 7), np.uint8)])
    back = there_and_back(farm, kind, root)
    assert back.classes == farm.classes
    photos = {p.path.read_bytes(): p for p in back.photos}
    assert len(back.photos) == len(farm.photos) == len(drawn) + 2
    for photo in farm.photos:
        twin = photos[photo.path.read_bytes()]
        assert (twin.field, twin.date, twin.mm_per_px) == (
            photo.field,
            photo.date,
            photo.mm_per_px,
        )
        assert (twin.mask is None) == (photo.mask is None)
        if photo.mask is not None:
            np.testing.assert_array_equal(read_mask(back, twin), read_mask(farm, photo))


@pytest.mark.parametrize("kind", list(EXPORTS))
def test_holes_and_ignored_pixels(kind, tmp_path):
    mask = np.full((30, 40), 255, np.uint8)
    mask[5:25, 5:35] = 2
    mask[10:20, 10:30] = 0
    mask[14:16, 15:20] = 1
    farm = make_farm(tmp_path / "farm", [mask])
    back = there_and_back(farm, kind, tmp_path)
    np.testing.assert_array_equal(read_mask(back, back.labelled[0]), mask)


def test_a_photo_turned_by_exif(tmp_path):
    exif = PillowImage.Exif()
    exif[0x0112] = 8
    (tmp_path / "farm/images").mkdir(parents=True)
    photo = PillowImage.fromarray(np.zeros((20, 30, 3), np.uint8))
    photo.save(tmp_path / "farm/images/a.jpg", exif=exif)
    mask = np.random.default_rng(0).integers(0, 3, (20, 30), dtype=np.uint8)
    write_png(tmp_path / "farm/masks/a.png", mask)
    farm = index_farm(tmp_path / "farm")
    expected = read_mask(farm, farm.photos[0])
    assert expected.shape == (30, 20)
    for kind in EXPORTS:
        back = there_and_back(farm, kind, tmp_path / kind)
        np.testing.assert_array_equal(read_mask(back, back.photos[0]), expected)


@settings(max_examples=60, deadline=None)
@given(bitmaps)
def test_run_lengths(bitmap):
    size = bitmap.shape
    np.testing.assert_array_equal(from_runs(runs_of(bitmap.ravel()), size), bitmap)
    np.testing.assert_array_equal(from_coco(to_coco(bitmap)["counts"], size), bitmap)
    np.testing.assert_array_equal(from_brush(to_brush(bitmap), size), bitmap)


def test_known_run_lengths():
    """COCO counts worked out by hand, and a brush with single values."""
    bitmap = np.zeros((9, 10), bool)
    bitmap[2:7, 3:8] = True
    assert to_coco(bitmap)["counts"] == "m0540000000`0"
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}000011" + "1" * 8 * 4 + "100011" + "0" * 8
    values = int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")
    np.testing.assert_array_equal(from_brush(list(values), (1, 2)), [[True, False]])


@pytest.mark.parametrize("counts", ["", "zz", "`", [5], [-1, 26], [25, 1.0], "m055500000000a0"])
def test_wrong_run_lengths(counts):
    with pytest.raises(MaskError):
        from_coco(counts, (5, 5))


@pytest.mark.parametrize("values", [[], [0] * 8, to_brush(np.ones((5, 4), bool))[:8]])
def test_wrong_brushes(values):
    with pytest.raises(MaskError):
        from_brush(values, (5, 4))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 25)), min_size=3, max_size=7),
    st.randoms(use_true_random=False),
)
def test_polygons_by_pixel_centres(points, rng):
    """Even-odd by a ray from each centre, away from edges."""
    mask = np.zeros((20, 20), np.uint8)
    fill_polygon(mask, points, 1)
    row, column = rng.randrange(20), rng.randrange(20)
    x, y = column + 0.5, row + 0.5
    crossings = []
    for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]]):
        if (ay > y) != (by > y):
            crossings.append(ax + (y - ay) * (bx - ax) / (by - ay))
    if all(abs(c - x) > 1e-6 for c in crossings) and all(abs(q[1] - y) > 1e-6 for q in points):
        assert mask[row, column] == sum(c > x for c in crossings) % 2


@pytest.mark.parametrize(
    "points",
    [[], [(0, 0), (1, 1)], [(0, 0), (1, 1), (float("nan"), 0)], [(0, 0), (1e9, 1), (0, 1)]],
)
def test_wrong_outlines(points):
    with pytest.raises(MaskError):
        fill_polygon(np.zeros((5, 5), np.uint8), points, 1)


def test_label_tools_get_what_they_read(tmp_path):
    farm = make_farm(tmp_path / "farm", [np.array([[0, 1, 255]], np.uint8)])
    export_farm(farm, "coco", tmp_path / "coco")
    content = json.loads((tmp_path / "coco/annotations.json").read_text())
    assert [c["name"] for c in content["categories"]] == [
        "none",
        "crop: sugar beet",
        'weed: thistle: "big", <old> & \u00fc',
        "weed: UNSPECIFIED",
        "ignore",
    ]
    assert content["annotations"][0]["bbox"] == [1, 0, 1, 1]
    assert content["annotations"][0]["area"] == 1
    export_farm(farm, "labelstudio", tmp_path / "ls")
    assert "<BrushLabels" in (tmp_path / "ls/label_config.xml").read_text()
    task = json.loads((tmp_path / "ls/tasks.json").read_text())[0]
    assert task["data"]["image"] == "/data/local-files/?d=images/a%20b%2520%2B0.png"


def test_what_is_refused(tmp_path):
    farm = make_farm(tmp_path / "farm", [np.ones((4, 4), np.uint8)])
    with pytest.raises(ConfigError, match="one of coco"):
        export_farm(farm, "voc", tmp_path / "out")
    with pytest.raises(OutputError, match="lies in the farm folder"):
        export_farm(farm, "png", farm.root / "out")
    with pytest.raises(OutputError, match="is not empty"):
        export_farm(farm, "png", tmp_path)
    text = CLASSES.replace('"weed"\nrole', '"ignore"\nrole')
    (tmp_path / "farm/classes.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="called 'ignore'"):
        export_farm(index_farm(farm.root), "png", tmp_path / "out")


def test_the_command_line(tmp_path, capsys):
    make_farm(tmp_path / "farm", [np.ones((4, 4), np.uint8)])
    arguments = ["data", "export", "coco", str(tmp_path / "farm"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "1 of 2 photos have labels" in capsys.readouterr().out
    assert main(["data", "formats"]) == 0
    assert "export coco" in capsys.readouterr().out
