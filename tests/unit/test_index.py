"""Farm folders: which files are photos and masks, fields, dates, classes, notes."""

import numpy as np
import pytest

from weedseg.config import DataConfig
from weedseg.data.index import index_farm
from weedseg.errors import ConfigError, FieldDataError, MaskError
from weedseg.imaging import write_png


@pytest.fixture
def farm(tmp_path):
    root = tmp_path / "farm"
    root.mkdir()

    def add(*names, value=0):
        for name in names:
            is_mask = "mask" in name
            shape = (40, 50) if is_mask else (40, 50, 3)
            write_png(root / name, np.full(shape, value, np.uint8))
        return root

    return add


def masks_of(found):
    return {p.name: p.mask and p.mask.name for p in found.photos}


def test_folders_give_field_and_date(farm):
    root = farm(
        *("images/a.png", "masks/a.png"),
        *("north/images/b.png", "north/masks/b.png"),
        *("south/2024-05/images/c.PNG", "south/2024-05/masks/c.png"),
        *("loose/d.png", "south/2024-05/images/deep/e.png", "south/2024-05/masks/deep/e.png"),
    )
    found = index_farm(root)
    assert [(p.name, p.field, p.date, p.mask is not None) for p in found.photos] == [
        ("images/a.png", "", "", True),
        ("loose/d.png", "loose", "", False),
        ("north/images/b.png", "north", "", True),
        ("south/2024-05/images/c.PNG", "south", "2024-05", True),
        ("south/2024-05/images/deep/e.png", "south", "2024-05", True),
    ]
    assert len(found.labelled) == 4
    assert [p.name for p in found.unlabelled] == ["loose/d.png"]
    assert all(p.mm_per_px is None for p in found.photos)
    assert found.unmatched == found.notes == ()


def test_masks_beside_photos_and_in_a_second_folder(farm, tmp_path):
    root = farm("a.png", "a_mask.png", "sub/b.png", "sub/c.png", "images/d.png")
    labels = tmp_path / "labels"
    for name in ("sub/b.png", "c.png", "d_mask.png"):
        write_png(labels / name, np.zeros((40, 50), np.uint8))
    found = index_farm(root, labels)
    assert masks_of(found) == {
        "a.png": "a_mask.png",
        "images/d.png": "d_mask.png",
        "sub/b.png": "b.png",
        "sub/c.png": "c.png",
    }


def test_labels_inside_the_farm_are_no_photos(farm):
    root = farm("images/a.png", "truth/a.png")
    assert masks_of(index_farm(root, root / "truth")) == {"images/a.png": "a.png"}
    assert len(index_farm(root).photos) == 2


def test_hidden_files_and_loops_are_left_out(farm, tmp_path):
    root = farm("images/a.png", "images/._a.png", ".cache/b.png", "__MACOSX/c.png")
    (root / "images" / ".DS_Store").write_bytes(b"x")
    (root / "images" / "Thumbs.db").write_bytes(b"x")
    (root / "images" / "again").symlink_to(root)
    (root / "images" / "self.png").symlink_to(root / "images" / "self.png")
    (root / "other").symlink_to(tmp_path / "outside")
    write_png(tmp_path / "outside" / "d.png", np.zeros((40, 50, 3), np.uint8))
    names = [p.name for p in index_farm(root).photos]
    assert names == ["images/a.png", "images/self.png", "other/d.png"]


def test_ambiguous_names_are_errors(farm):
    root = farm("images/a.png", "masks/a.png")
    (root / "images" / "a.jpg").write_bytes(b"x")
    with pytest.raises(MaskError, match=r"a\.png fits .*a\.jpg and .*a\.png"):
        index_farm(root)
    (root / "images" / "a.jpg").unlink()
    farm("images/a_mask.png")
    with pytest.raises(MaskError, match="has two masks"):
        index_farm(root)


def test_two_photos_of_one_stem_without_mask_are_fine(farm):
    root = farm("images/a.png")
    (root / "images" / "a.jpg").write_bytes(b"x")
    assert len(index_farm(root).photos) == 2


def test_one_label_for_two_photos_of_one_stem(farm, tmp_path):
    root = farm("x/a.png", "y/a.png")
    write_png(tmp_path / "labels" / "a.png", np.zeros((40, 50), np.uint8))
    with pytest.raises(MaskError, match="fits"):
        index_farm(root, tmp_path / "labels")


def test_masks_without_photo_are_listed(farm):
    root = farm("images/a.png", "masks/a.png", "masks/b.png", "c_mask.png")
    assert sorted(m.name for m in index_farm(root).unmatched) == ["b.png", "c_mask.png"]


@pytest.mark.parametrize("fill", [[], ["masks/a.png"], ["images/notes.txt"]])
def test_folders_without_photos(tmp_path, fill):
    for name in fill:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FieldDataError, match="no photo below"):
        index_farm(tmp_path)


def test_folders_that_are_none(farm, tmp_path):
    root = farm("a.png")
    for folders in ((tmp_path / "none",), (root / "a.png",), (root, tmp_path / "none")):
        with pytest.raises(FieldDataError, match="is no folder"):
            index_farm(*folders)


def test_fields_csv(farm):
    root = farm("images/a.png", "images/b.png", "x/c.png")
    (root / "fields.csv").write_text(
        "\ufeffphoto,field,mm_per_px,date\nimages/a.png,north,0.5,2024-05-01\nb,south,,\n"
        "gone.png,,,\n",
        encoding="utf-8",
    )
    found = index_farm(root, config=DataConfig(mm_per_px=2.0))
    assert [(p.field, p.date, p.mm_per_px) for p in found.photos] == [
        ("north", "2024-05-01", 0.5),
        ("south", "", 2.0),
        ("x", "", 2.0),
    ]
    assert "1 photos that are not there, e.g. 'gone.png'" in found.notes[0]


def test_fields_csv_as_european_tables_write_it(farm):
    root = farm("a.png")
    (root / "fields.csv").write_text("photo;mm_per_px\na.png;0,7\n")
    assert index_farm(root).photos[0].mm_per_px == 0.7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("field\nx\n", "has columns field"),
        ("photo,hue\na.png,1\n", "has columns photo, hue"),
        ("photo,mm_per_px\na.png,wide\n", "line 2: mm_per_px 'wide'"),
        ("photo,mm_per_px\na.png,-1\n", "line 2: mm_per_px '-1'"),
        ("photo\na.png\na\n", "line 3: 'a' fits more than one photo or appears twice"),
        ("", "has columns none"),
    ],
)
def test_faulty_fields_csv(farm, text, message):
    root = farm("a.png")
    (root / "fields.csv").write_text(text)
    with pytest.raises(FieldDataError, match=message):
        index_farm(root)


def test_classes_from_file_and_recipe(farm):
    root = farm("a.png")
    rows = "".join(
        f'[[classes]]\nname = "{n}"\nrole = "{r}"\n'
        for n, r in (("soil", "background"), ("maize", "crop"), ("dock", "weed"), ("oat", "weed"))
    )
    (root / "classes.toml").write_text(rows)
    found = index_farm(root)
    assert found.classes.names == ("soil", "maize", "dock", "oat")
    assert found.palette == {(0, 0, 0): 0, (0, 255, 0): 1}
    chosen = DataConfig(
        classes=[{"name": "soil", "role": "background"}, {"name": "any", "role": "weed"}]
    )
    found = index_farm(root, config=chosen)
    assert found.classes.names == ("soil", "any")
    assert "the recipe names the classes" in found.notes[0]


def test_palette(farm):
    root = farm("images/a.png")
    write_png(root / "masks" / "a.png", np.zeros((40, 50, 3), np.uint8))
    found = index_farm(root)
    assert found.palette == {(0, 0, 0): 0, (0, 255, 0): 1, (255, 0, 0): 2}
    assert found.notes[0].startswith("masks are colours, read as black = background, green = crop")
    chosen = DataConfig(palette={"#FF8000": "weed", "#ffffff": "ignore"})
    found = index_farm(root, config=chosen)
    assert found.palette == {(255, 128, 0): 2, (255, 255, 255): 255}
    assert "#ff8000 = weed, #ffffff = ignore" in found.notes[0]
    for wrong, message in (({"red": "weed"}, "colour 'red'"), ({"#ff0000": "wed"}, "class 'wed'")):
        with pytest.raises(ConfigError, match=message):
            index_farm(root, config=DataConfig(palette=wrong))


def test_fingerprint_follows_contents_not_places(farm, tmp_path):
    root = farm("images/a.png", "masks/a.png", "b.png")
    first = index_farm(root).fingerprint()
    moved = root.rename(tmp_path / "moved")
    assert index_farm(moved).fingerprint() == first
    write_png(moved / "masks" / "a.png", np.ones((40, 50), np.uint8))
    second = index_farm(moved).fingerprint()
    assert second != first
    (moved / "b.png").rename(moved / "c.png")
    assert index_farm(moved).fingerprint() not in (first, second)


def test_unread_formats_are_announced(farm):
    root = farm("a.png")
    (root / "b.HEIC").write_bytes(b"x")
    assert index_farm(root).notes == ("1 files such as b.HEIC are left out; convert them to JPEG",)
