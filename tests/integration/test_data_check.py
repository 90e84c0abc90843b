"""``weedseg data check``: planted damage is found with its path, and nothing else."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image as PillowImage

from weedseg.cli import main
from weedseg.data.check_report import check_page, check_summary
from weedseg.data.index import index_farm
from weedseg.data.look import full_check
from weedseg.errors import FieldDataError
from weedseg.imaging import write_png

SIDE = 64


def photo_of(seed):
    """Draw soil with structure, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 210, (8, 8, 3))
    pixels = np.kron(coarse, np.ones((8, 8, 1), int)) + rng.integers(-20, 21, (SIDE, SIDE, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write_clean(root, first_seed=0):
    """Write a clean farm: two fields, four labelled photos each, and two others."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:9], mask[9:20], mask[20] = 1, 2, 255
    for field in ("north", "south"):
        for i in range(5):
            seed = first_seed + i + 10 * (field == "south")
            write_png(root / field / "images" / f"{i}.png", photo_of(seed))
            if i < 4:
                write_png(root / field / "masks" / f"{i}.png", mask)
    return root


@pytest.fixture
def root(tmp_path):
    return write_clean(tmp_path)


def change_mask(path, value):
    pixels = np.asarray(PillowImage.open(path)).copy()
    pixels[30:33] = value
    write_png(path, pixels)


def cut_short(root):
    path = root / "north/images/1.png"
    path.write_bytes(path.read_bytes()[:900])
    return "error", "north/images/1.png"


def empty(root):
    (root / "south/images/2.png").write_bytes(b"")
    return "error", "south/images/2.png"


def cut_mask(root):
    path = root / "north/masks/1.png"
    path.write_bytes(path.read_bytes()[:60])
    return "error", "north/masks/1.png"


def other_size(root):
    write_png(root / "north/masks/0.png", np.ones((SIDE, SIDE - 1), np.uint8))
    return "error", "north/masks/0.png"


def unknown_id(root):
    change_mask(root / "north/masks/2.png", 7)
    return "error", "north/masks/2.png"


def unknown_colour(root):
    write_png(root / "south/masks/3.png", np.full((SIDE, SIDE, 3), 77, np.uint8))
    return "error", "south/masks/3.png"


def lost_label(root):
    write_png(root / "south/masks/lost.png", np.ones((SIDE, SIDE), np.uint8))
    return "error", "south/masks/lost.png"


def all_ignored(root):
    write_png(root / "south/masks/1.png", np.full((SIDE, SIDE), 255, np.uint8))
    return "error", "south/masks/1.png"


def no_weed(root):
    for path in root.rglob("masks/*.png"):
        write_png(path, np.full((SIDE, SIDE), 1, np.uint8) * np.eye(SIDE, dtype=np.uint8))
    return "error", "."


def leak(root):
    parts = {"train": ["north/images/0.png"], "val": [], "test": ["north/images/1.png"]}
    values = {**parts, "basis": "field", "within_field": False, "note": ""}
    (root / "split.json").write_text(json.dumps(values))
    return "error", "north/images/1.png"


def twins(root):
    shutil.copyfile(root / "north/images/2.png", root / "north/images/4.png")
    return "warning", "north/images/2.png"


def turned(root):
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    (root / "north/images/3.png").unlink()
    picture = PillowImage.fromarray(photo_of(3)[:, :48])
    picture.save(root / "north/images/3.jpg", exif=exif, quality=95)
    write_png(root / "north/masks/3.png", np.ones((SIDE, 48), np.uint8))
    return "warning", "north/masks/3.png"


def black(root):
    write_png(root / "south/images/4.png", np.full((SIDE, SIDE, 3), 3, np.uint8))
    return "warning", "south/images/4.png"


def over_exposed(root):
    write_png(root / "south/images/4.png", np.full((SIDE, SIDE, 3), 252, np.uint8))
    return "warning", "south/images/4.png"


def blurred(root):
    slope = np.linspace(40, 200, SIDE).astype(np.uint8)
    write_png(root / "south/images/4.png", np.tile(slope[None, :, None], (SIDE, 1, 3)))
    return "warning", "south/images/4.png"


def mixed_resolution(root):
    (root / "fields.csv").write_text(
        "photo,mm_per_px\n"
        + "".join(f"north/images/{i}.png,0.5\n" for i in range(5))
        + "".join(f"south/images/{i}.png,2\n" for i in range(5))
    )
    return "warning", "."


def inverted(root):
    for path in root.rglob("masks/*.png"):
        pixels = np.full((SIDE, SIDE), 1, np.uint8)
        pixels[:2], pixels[2] = 2, 0
        write_png(path, pixels)
    return "warning", "."


def too_small(root):
    write_png(root / "south/images/4.png", photo_of(7)[:20, :20])
    return "error", "south/images/4.png"


OF_PHOTOS = [
    *(cut_short, empty, cut_mask, other_size, unknown_id, unknown_colour, lost_label, all_ignored),
    *(too_small, twins, turned, black, over_exposed, blurred),
]
DAMAGES = [*OF_PHOTOS, no_weed, leak, mixed_resolution, inverted]


def check(root):
    farm = index_farm(root)
    faults, pixels = full_check(farm)
    return farm, faults, pixels


def test_a_clean_farm_has_no_fault(root, capsys):
    assert check(root)[1] == []
    assert main(["data", "check", str(root)]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out


@pytest.mark.parametrize("plant", DAMAGES)
def test_planted_damage_is_found_with_its_path(plant, root, capsys):
    severity, path = plant(root)
    _, faults, _ = check(root)
    wanted = [f for f in faults if f.path == root / path]
    assert [f.severity for f in wanted] == [severity]
    assert str(root / path) in wanted[0].sentence
    assert all(f.severity == "warning" for f in faults if f not in wanted)
    assert main(["data", "check", str(root)]) == (3 if severity == "error" else 0)
    assert capsys.readouterr().err.count("\n") == (severity == "error")


def test_all_kinds_of_damage_are_found_at_once(tmp_path):
    assert len(OF_PHOTOS) >= 12
    planted = {}
    for number, plant in enumerate(OF_PHOTOS):
        place = write_clean(tmp_path / plant.__name__, first_seed=1000 * (number + 1))
        severity, path = plant(place)
        planted[place / path] = severity
    found = {fault.path: fault.severity for fault in check(tmp_path)[1]}
    print(f"{len(planted)} kinds of damage planted, {len(planted.keys() & found)} found by path")
    assert found == planted


def test_more_weed_than_crop_is_no_error(root):
    for path in root.rglob("masks/*.png"):
        pixels = np.zeros((SIDE, SIDE), np.uint8)
        pixels[:40], pixels[0, :3] = 2, 1
        write_png(path, pixels)
    assert check(root)[1] == []


def test_reports(root, tmp_path, capsys):
    black(root)
    unknown_id(root)
    outputs = [tmp_path / "check.json", tmp_path / "check.html"]
    arguments = ["--json", str(outputs[0]), "--html", str(outputs[1])]
    assert main(["data", "check", str(root), *arguments]) == FieldDataError.exit_code
    summary = json.loads(outputs[0].read_text())
    assert (summary["may_train"], summary["errors"], summary["warnings"]) == (False, 1, 1)
    assert [f["severity"] for f in summary["faults"]] == ["error", "warning"]
    assert summary["shares"]["weed"] > 0
    page = outputs[1].read_text()
    assert "Training must not start." in page
    assert "2.png has class value 7" in page
    assert capsys.readouterr().err.startswith("weedseg: mask")


def test_the_page_escapes_what_it_shows(root):
    farm, _, pixels = check(root)
    summary = check_summary(farm, [], pixels) | {"farm": "<script>"}
    assert "<script>" not in check_page(summary)


def test_leaks_of_a_published_split_are_warnings(root):
    leak(root)
    path = root / "split.json"
    path.write_text(path.read_text().replace('"note": ""', '"note": "published split"'))
    assert {f.severity for f in check(root)[1]} == {"warning"}
    path.write_text("{")
    (fault,) = check(root)[1]
    assert (fault.severity, fault.path) == ("error", path)
