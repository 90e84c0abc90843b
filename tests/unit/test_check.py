"""Checking a farm: each kind of damage is found, named, and stops training or does not."""

import numpy as np
import pytest
from PIL import Image as PillowImage

from weedseg.config import DataConfig
from weedseg.data.check import check_farm, raise_on_errors
from weedseg.data.index import index_farm
from weedseg.errors import FieldDataError, ImageError, MaskError
from weedseg.imaging import write_png

MASK = np.zeros((40, 50), np.uint8)
MASK[:5], MASK[5:9] = 1, 2


@pytest.fixture
def farm(tmp_path):
    """Write a sound farm: three labelled photos and three others."""
    for i in range(6):
        image = np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        write_png(tmp_path / "images" / f"{i}.png", image)
        if i < 3:
            write_png(tmp_path / "masks" / f"{i}.png", MASK)
    return tmp_path


def faults_of(root, **options):
    return check_farm(index_farm(root, config=DataConfig(mm_per_px=1)), **options)


def test_a_sound_farm_has_no_fault(farm):
    assert faults_of(farm) == []
    raise_on_errors([])


def cut_short(root, number):
    path = root / "images" / f"{number}.png"
    path.write_bytes(path.read_bytes()[:500])


def empty(root, number):
    (root / "images" / f"{number}.png").write_bytes(b"")


def rubbish(root, number):
    (root / "images" / f"{number}.png").write_bytes(b"no photo at all")


def one_pixel(root, number):
    write_png(root / "images" / f"{number}.png", np.zeros((1, 1, 3), np.uint8))


@pytest.mark.parametrize("damage", [cut_short, empty, rubbish])
def test_unreadable_photos(farm, damage):
    damage(farm, 4)
    (fault,) = faults_of(farm)
    assert (fault.severity, fault.path.name) == ("warning", "4.png")
    assert "4.png" in fault.sentence
    raise_on_errors([fault])
    damage(farm, 1)
    damage(farm, 5)
    found = faults_of(farm)
    assert [(f.severity, f.path.name) for f in found] == [
        ("error", "1.png"),
        ("error", "4.png"),
        ("error", "5.png"),
    ]
    with pytest.raises(ImageError, match=r"3 faults in .*1\.png, .*4\.png, .*5\.png, the first"):
        raise_on_errors(found)


def test_the_share_of_bad_photos_decides(farm):
    cut_short(farm, 4)
    cut_short(farm, 5)
    assert {f.severity for f in faults_of(farm)} == {"error"}
    assert {f.severity for f in faults_of(farm, bad_photo_share=0.4)} == {"warning"}
    assert {f.severity for f in faults_of(farm, bad_photo_share=0)} == {"error"}


def test_a_photo_of_one_pixel(farm):
    one_pixel(farm, 4)
    with pytest.raises(ImageError, match=r"4\.png is 1x1 px; expected at least 32 px a side"):
        raise_on_errors(faults_of(farm))


def test_faulty_masks(farm):
    write_png(farm / "masks" / "0.png", MASK[:, :40])
    write_png(farm / "masks" / "1.png", MASK + 2)
    (farm / "masks" / "2.png").write_bytes(b"rubbish")
    found = faults_of(farm)
    for fault, words in zip(found, ("is 40x40 px", "class value 3", "no picture in it")):
        assert fault.severity == "error"
        assert words in fault.sentence
    with pytest.raises(MaskError, match="3 faults"):
        raise_on_errors(found)


def test_unknown_colour(farm):
    write_png(farm / "masks" / "0.png", np.full((40, 50, 3), 7, np.uint8))
    with pytest.raises(MaskError, match="colour #070707"):
        raise_on_errors(faults_of(farm))


def test_label_for_a_missing_photo(farm):
    write_png(farm / "masks" / "gone.png", MASK)
    with pytest.raises(MaskError, match=r"gone\.png has no photo"):
        raise_on_errors(faults_of(farm))


def test_no_weed_in_any_label(farm):
    for i in range(3):
        write_png(farm / "masks" / f"{i}.png", np.minimum(MASK, 1))
    with pytest.raises(FieldDataError, match="no weed pixel in any of 3 masks"):
        raise_on_errors(faults_of(farm))


def test_a_mask_that_ignores_everything_is_an_error(farm):
    write_png(farm / "masks" / "0.png", np.full_like(MASK, 255))
    (fault,) = faults_of(farm)
    assert (fault.severity, fault.path.name) == ("error", "0.png")
    assert "ignores every pixel" in fault.sentence


def test_faults_of_several_kinds_and_many(farm):
    one_pixel(farm, 3)
    one_pixel(farm, 4)
    one_pixel(farm, 5)
    write_png(farm / "masks" / "gone.png", MASK)
    with pytest.raises(FieldDataError, match=r"4 faults in .* and 1 more") as caught:
        raise_on_errors(faults_of(farm))
    assert type(caught.value) is FieldDataError
    assert str(caught.value).count("\n") == 0


def test_a_broken_link_is_a_fault(farm):
    (farm / "images" / "lost.jpg").symlink_to(farm / "nowhere.jpg")
    (fault,) = faults_of(farm)
    assert fault.path.name == "lost.jpg"


def test_user_files_are_left_alone(farm):
    PillowImage.fromarray(MASK).save(farm / "images" / "grey.png")
    before = {f: f.read_bytes() for f in farm.rglob("*") if f.is_file()}
    faults_of(farm)
    assert {f: f.read_bytes() for f in farm.rglob("*") if f.is_file()} == before
