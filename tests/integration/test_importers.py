"""The contract of all importers, on small data sets in the published layouts."""

import importlib.util
import json
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from weedseg.cli import main
from weedseg.data.check import check_farm
from weedseg.data.importers import FORMATS, collect
from weedseg.data.importers.items import ImportOptions, Item
from weedseg.data.importers.nassar2020 import PARTS
from weedseg.data.index import index_farm
from weedseg.data.masks import read_mask
from weedseg.data.nir import nir_twin, read_with_nir
from weedseg.data.splits import Split
from weedseg.data.writing import safe_stem, write_collection
from weedseg.errors import (
    ConfigError,
    FieldDataError,
    ImageError,
    MaskError,
    OutputError,
    WeedsegError,
)
from weedseg.imaging import image_size, read_image, read_mask_pixels, write_png

_SPEC = importlib.util.spec_from_file_location(
    "published_layouts", Path(__file__).with_name("published_layouts.py")
)
layouts = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = layouts
_SPEC.loader.exec_module(layouts)


def kind_of(layout):
    return layout.partition("_")[0]


@pytest.fixture(params=list(layouts.LAYOUTS))
def layout(request):
    return request.param


def imported(layout, root, out, **options):
    fixture = layouts.LAYOUTS[layout](root)
    kind = kind_of(layout)
    collection = collect(kind, fixture.src, replace(fixture.options, **options))
    return fixture, write_collection(collection, out, kind)


def test_every_format_has_a_fixture():
    assert {kind_of(name) for name in layouts.LAYOUTS} == set(FORMATS)


def test_masks_are_those_of_the_source(layout, tmp_path):
    fixture, manifest = imported(layout, tmp_path / "in", tmp_path / "out")
    farm = index_farm(tmp_path / "out")
    found = {p.path.stem: p for p in farm.photos}
    assert set(found) == set(fixture.expected)
    assert manifest["photos"] == len(fixture.expected)
    assert manifest["labelled"] == sum(m is not None for m in fixture.expected.values())
    for stem, mask in fixture.expected.items():
        if mask is None:
            assert found[stem].mask is None
            continue
        np.testing.assert_array_equal(read_mask(farm, found[stem]), mask, err_msg=stem)
        assert read_mask_pixels(found[stem].mask).shape == image_size(found[stem].path)
        assert found[stem].mask == tmp_path / "out" / found[stem].name.replace("images", "masks")
    assert next(c["role"] for c in manifest["classes"]) == "background"
    assert {c["role"] for c in manifest["classes"]} == {"background", "crop", "weed"}
    assert sum(manifest["shares"].values()) == pytest.approx(1, abs=1e-4)
    assert manifest["fingerprint"] == farm.fingerprint()
    assert {"source", "licence", "citation", "split"} <= set(manifest)
    assert [f for f in check_farm(farm) if f.severity == "error"] == []


def test_twice_gives_the_same_bytes(layout, tmp_path):
    _, first = imported(layout, tmp_path / "in", tmp_path / "one")
    shutil.rmtree(tmp_path / "in")
    _, second = imported(layout, tmp_path / "in", tmp_path / "two")
    assert first == second
    files = sorted(f.relative_to(tmp_path / "one") for f in (tmp_path / "one").rglob("*.*"))
    for name in files:
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        assert one.is_dir() or one.read_bytes() == two.read_bytes()


def test_nothing_is_overwritten(layout, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        imported(layout, tmp_path / "in", tmp_path / "out")
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["notes.txt"]


def damage(root, rng):
    """Damage one file that is no photo, or remove any."""
    files = sorted(f for f in root.rglob("*.*") if f.is_file())
    labels = [f for f in files if f.suffix in (".json", ".xml", ".txt", ".yaml")]
    path = rng.choice(labels or files) if rng.random() < 0.7 else rng.choice(files)
    data = bytearray(path.read_bytes())
    kind = rng.choice(["cut", "flip", "empty", "remove", "swap"])
    if kind == "remove":
        path.unlink()
        return
    if kind == "cut":
        data = data[: rng.randrange(len(data) + 1)]
    elif kind == "empty":
        data = bytearray()
    elif kind == "flip":
        for _ in range(rng.randrange(1, 5)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
    else:
        digits = [i for i, b in enumerate(data) if chr(b).isdigit()]
        for i in rng.sample(digits, min(len(digits), 3)):
            data[i] = rng.choice(b"-9e.0]x")
    path.write_bytes(bytes(data))


def test_damaged_sources_end_in_one_sentence(layout, tmp_path, soak_share):
    sound = layouts.LAYOUTS[layout](tmp_path / "sound")
    rounds = max(8, int(600 * soak_share))
    refused = 0
    for seed in range(rounds):
        root, out = tmp_path / "in", tmp_path / "out"
        shutil.copytree(tmp_path / "sound", root)
        damage(root, random.Random(seed))
        moved = {
            k: root / v.relative_to(tmp_path / "sound")
            for k, v in {"src": sound.src, "photos": sound.options.photos}.items()
            if v
        }
        options = replace(sound.options, photos=moved.get("photos"))
        kind = kind_of(layout)
        try:
            write_collection(collect(kind, moved["src"], options), out, kind)
        except WeedsegError as error:
            refused += 1
            said = str(error)
        else:
            said = ""
        assert "\n" not in said
        assert bool(said) != out.exists()
        assert {f.name for f in tmp_path.iterdir()} <= {"sound", "in", "out"}
        shutil.rmtree(root)
        shutil.rmtree(out, ignore_errors=True)
    assert refused


def test_the_command_line(layout, tmp_path, capsys):
    fixture = layouts.LAYOUTS[layout](tmp_path / "in")
    arguments = ["data", "import", kind_of(layout), str(fixture.src), "--out"]
    if fixture.options.photos:
        arguments += [str(tmp_path / "out"), "--photos", str(fixture.options.photos)]
    else:
        arguments += [str(tmp_path / "out")]
    if fixture.options.window_px:
        arguments += ["--window", str(fixture.options.window_px)]
    for colour, name in fixture.options.palette.items():
        arguments += ["--palette", f"{colour}={name}"]
    assert main(arguments) == 0
    assert f"{len(fixture.expected)} photos" in capsys.readouterr().out
    assert main(arguments) == OutputError.exit_code
    assert capsys.readouterr().err.count("\n") == 1


# --- one format each -----------------------------------------------------------------------------


def names(split, part):
    return [name.rpartition("/")[2] for name in split[part]]


def split_of(out):
    values = json.loads((out / "split.json").read_text())
    Split.from_dict(values, index_farm(out))
    return values


def test_cwfid_keeps_the_published_test(tmp_path):
    _, manifest = imported("cwfid", tmp_path / "in", tmp_path / "out")
    assert names(split_of(tmp_path / "out"), "test") == ["002_image.png"]
    assert (tmp_path / "out" / "test.txt").read_text() == "images/002_image.png\n"
    assert any("2 is in both lists" in note for note in manifest["notes"])
    assert manifest["licence"].startswith("non-commercial")


def test_sugarbeets_recordings_and_incomplete_frames(tmp_path):
    _, manifest = imported("sugarbeets2016", tmp_path / "in", tmp_path / "out", nir=True)
    assert manifest["notes"] == ["1 incomplete frames left out"]
    assert manifest["visits"] == 3
    assert manifest["split"]["basis"] == "date"
    assert {p.date for p in index_farm(tmp_path / "out").photos} == {
        "2016-05-23-10-37-10_0",
        "2016-05-23-10-38-10_0",
        "2016-05-23-10-39-10_0",
    }
    twins = sorted((tmp_path / "out" / "nir").rglob("*.png"))
    assert len(twins) == 3
    assert read_mask_pixels(twins[0]).ndim == 2


def test_sugarbeets_as_in_the_paper(tmp_path):
    root = tmp_path / "in"
    fixture = layouts.sugarbeets2016(root)
    for path in root.rglob("colorCleaned/*.png"):
        path.unlink()
    collection = collect("sugarbeets2016", fixture.src, ImportOptions(mapping="paper"))
    manifest = write_collection(collection, tmp_path / "out", "sugarbeets2016")
    assert manifest["labelled"] == 2
    farm = index_farm(tmp_path / "out")
    photo = farm.labelled[0]
    source = next(root.rglob(f"iMapCleaned/{photo.path.stem}.png"))
    ids, mask = read_mask_pixels(source), read_mask(farm, photo)
    for value, wanted in ((10000, 1), (10001, 2), (10002, 2), (2, 0), (20003, 2), (97, 0)):
        assert set(np.unique(mask[ids == value])) == {wanted}
    assert any("leaks" in note for note in manifest["notes"])


def test_sugarbeets_with_an_unknown_id(tmp_path):
    layouts.sugarbeets2016(tmp_path / "in")
    path = next((tmp_path / "in").rglob("iMapCleaned/*.png"))
    ids = read_mask_pixels(path)
    ids[3, 3] = 777
    layouts.save(path, ids)
    collection = collect("sugarbeets2016", tmp_path / "in", ImportOptions())
    with pytest.raises(MaskError, match="has id 777"):
        write_collection(collection, tmp_path / "out", "sugarbeets2016")


def test_near_infrared_is_a_fourth_channel(tmp_path):
    imported("sugarbeets2016", tmp_path / "in", tmp_path / "out", nir=True)
    farm = index_farm(tmp_path / "out")
    assert len(farm.photos) == 3
    for photo in farm.photos:
        number = layouts.SUGARBEET_NAMES.index(photo.path.stem)
        four = read_with_nir(farm, photo)
        np.testing.assert_array_equal(four[..., :3], layouts.photo_of(number))
        np.testing.assert_array_equal(four[..., 3], layouts.photo_of(number)[..., 0])
    twin = nir_twin(farm, farm.photos[0])
    write_png(twin, np.zeros((3, 3), np.uint8))
    with pytest.raises(ImageError, match="3x3 px"):
        read_with_nir(farm, farm.photos[0])
    twin.unlink()
    with pytest.raises(ImageError, match="import the set with --nir"):
        read_with_nir(farm, farm.photos[0])


def test_nassar_orthomosaic(tmp_path):
    """Without the unlabelled tiles the orthomosaic is cut into them: 256 px, smaller at edges."""
    root = tmp_path / "in"
    layouts.nassar2020(root)
    shutil.rmtree(root / "ortho_tiles")
    pixels = np.random.default_rng(5).integers(0, 256, (300, 600, 3), dtype=np.uint8)
    layouts.write_mosaic(root / "ortho.tif", pixels)
    manifest = write_collection(collect("nassar2020", root, ImportOptions()), tmp_path / "o", "n")
    assert (manifest["photos"], manifest["labelled"]) == (3 + 6, 3)
    assert manifest["fields"]["nassar-ortho"] == 6
    last = read_image(tmp_path / "o/images/ortho/nassar_00005.png")
    np.testing.assert_array_equal(last, pixels[256:, 512:])
    layouts.write_mosaic(root / "second.tif", pixels)
    with pytest.raises(FieldDataError, match="2 GeoTIFFs"):
        collect("nassar2020", root, ImportOptions())


def test_nassar_splits(tmp_path):
    imported("nassar2020", tmp_path / "in", tmp_path / "out")
    split = split_of(tmp_path / "out")
    assert [names(split, part) for part in PARTS] == [["a_1.png", "a_2.png"], [], ["b_1.png"]]
    assert split["basis"] == "field"
    lines = "\n".join(["a_1", *["a_2"] * 9])
    (tmp_path / "in/tiled_dataset/train/data_list/train.txt").write_text(lines)
    kept = collect("nassar2020", tmp_path / "in", ImportOptions(mapping="paper")).items
    assert [i.name for i in kept if i.part == "train"] == ["labelled/a_1", "labelled/a_2"]


def test_phenobench_partial_plants(tmp_path):
    imported("phenobench", tmp_path / "in", tmp_path / "out", mapping="ignore-partial")
    farm = index_farm(tmp_path / "out")
    mask = read_mask(farm, farm.labelled[0])
    expected = layouts.mask_of(0)
    expected[:, 1::2] = np.where(expected[:, 1::2] > 0, 255, 0)
    np.testing.assert_array_equal(mask, expected)


def test_empty_annotations_may_mean_bare_soil(tmp_path):
    _, manifest = imported("coco", tmp_path / "one", tmp_path / "out", empty=True)
    assert manifest["labelled"] == 3
    _, manifest = imported("cvat", tmp_path / "two", tmp_path / "more", empty=True)
    assert manifest["labelled"] == 3
    assert manifest["notes"] == []


def test_holes_of_polygons(tmp_path):
    fixture = layouts.supervisely(tmp_path / "in")
    sheet = tmp_path / "in/ann/b.png.json"
    content = json.loads(sheet.read_text())
    content["objects"][0]["points"]["interior"] = [layouts.corners((10, 2, 20, 6))]
    sheet.write_text(json.dumps(content))
    collection = collect("supervisely", fixture.src, ImportOptions())
    write_collection(collection, tmp_path / "out", "supervisely")
    expected = fixture.expected["b"]
    expected[2:6, 10:20] = 0
    farm = index_farm(tmp_path / "out")
    photo = next(p for p in farm.photos if p.path.stem == "b")
    np.testing.assert_array_equal(read_mask(farm, photo), expected)


@pytest.mark.parametrize(
    ("kind", "old", "new", "words"),
    [
        ("coco", '"segmentation": [', '"segmentation": [], "x": [', "box without outline"),
        ("cvat", "<polygon", '<box label="crop"/><polygon', "a.png has a box"),
        ("labelme", '"polygon"', '"rectangle"', "shape of type rectangle"),
        ("labelstudio", '"c.png"', '"../../c.png"', "a path inside the folder"),
        ("coco", '"a.png"', '"../../../../etc/passwd"', "a path inside the folder"),
        ("coco", '"a.png"', '"/etc/passwd"', "a path inside the folder"),
        ("cvat", 'name="a.png"', 'name="C:\\\\a.png"', "a path inside the folder"),
        ("coco", '"height": 40', '"height": 4000000', "are for 50x4000000 px"),
        ("coco", '"weed: UNSPECIFIED"', '"thistle"', "--role 'thistle=weed'"),
        ("cvat", "<annotations>", "<!DOCTYPE x [<!ENTITY a 'b'>]><annotations>", "document type"),
    ],
)
def test_what_is_refused(kind, old, new, words, tmp_path):
    fixture = layouts.LAYOUTS[kind](tmp_path / "in")
    for path in fixture.src.rglob("*.*"):
        if path.suffix in (".json", ".xml"):
            text = path.read_text()
            path.write_text(text.replace(old, new, 1) if old in text else text)
    with pytest.raises(WeedsegError, match=words.replace("[", r"\[")):
        write_collection(collect(kind, fixture.src, fixture.options), tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


def test_roles_that_a_person_gives(tmp_path):
    fixture = layouts.coco(tmp_path / "in")
    path = tmp_path / "in/labels.json"
    path.write_text(path.read_text().replace("weed: UNSPECIFIED", "thistle"))
    options = ImportOptions(roles={"thistle": "weed"})
    classes = collect("coco", fixture.src, options).classes
    assert [(c.name, c.role.value) for c in classes.classes] == [
        ("background", "background"),
        ("beta vulgaris", "crop"),
        ("thistle", "weed"),
    ]
    options = ImportOptions(roles={"thistle": "ignore"})
    manifest = write_collection(collect("coco", fixture.src, options), tmp_path / "out", "coco")
    assert manifest["pixels"]["ignore"] == 300 + 400
    with pytest.raises(ConfigError, match="with role 'tree'"):
        collect("coco", fixture.src, ImportOptions(roles={"thistle": "tree"}))


def test_unknown_formats_and_mappings(tmp_path):
    with pytest.raises(ConfigError, match="one of cwfid"):
        collect("pascal", tmp_path, ImportOptions())
    with pytest.raises(ConfigError, match="--mapping paper for coco"):
        collect("coco", tmp_path, ImportOptions(mapping="paper"))
    with pytest.raises(FieldDataError, match="is not there"):
        collect("coco", tmp_path / "x", ImportOptions())


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("north/2026-05-03/images/a", "north/2026-05-03/a"),
        ("../../x", "x"),
        ("a:b*c", "a_b_c"),
        (".hidden/a", "hidden/a"),
        ("a_mask", "a_mask_"),
        ("images/masks", "photo"),
        ("/etc/x\ny", "etc/x_y"),
    ],
)
def test_names_become_safe(name, stem):
    assert safe_stem(name) == stem


def test_names_that_collide(tmp_path):
    fixture = layouts.png(tmp_path / "in")
    collection = collect("png", fixture.src, ImportOptions())
    twice = [*collection.items, Item(name="images/A", photo=layouts.photo_of(9))]
    with pytest.raises(FieldDataError, match=r"'images/a' and 'images/A' have one name"):
        write_collection(replace(collection, items=twice), tmp_path / "out", "png")


def test_turned_photos(tmp_path):
    """A photo that its EXIF data turn, and a mask as stored and one as seen."""
    root = tmp_path / "in"
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    mask = layouts.mask_of(0)
    for stem, stored in (("a", mask), ("b", np.rot90(mask, -1))):
        (root / "images").mkdir(parents=True, exist_ok=True)
        photo = PillowImage.fromarray(layouts.photo_of(0))
        photo.save(root / "images" / f"{stem}.jpg", exif=exif)
        write_png(root / "masks" / f"{stem}.png", np.ascontiguousarray(stored))
    write_collection(collect("png", root, ImportOptions()), tmp_path / "out", "png")
    farm = index_farm(tmp_path / "out")
    for photo in farm.photos:
        assert read_image(photo.path).shape[:2] == (50, 40)
        np.testing.assert_array_equal(read_mask_pixels(photo.mask), np.rot90(mask, -1))
