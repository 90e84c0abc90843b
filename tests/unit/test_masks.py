"""Masks: ids and colours become class ids; sizes and values are checked."""

import numpy as np
import pytest
from PIL import Image as PillowImage

from weedseg.config import DataConfig
from weedseg.data.index import index_farm
from weedseg.data.masks import read_mask
from weedseg.errors import MaskError
from weedseg.imaging import orient, write_png

IDS = np.arange(40 * 50).reshape(40, 50).astype(np.uint8) % 3


def read(root, mask, config=None, photo=None):
    """Write a photo of 40 x 50 px and a mask, and read the mask."""
    if photo is None:
        write_png(root / "images" / "a.png", np.zeros((40, 50, 3), np.uint8))
    (root / "masks").mkdir(exist_ok=True)
    PillowImage.fromarray(mask).save(root / "masks" / "a.png")
    farm = index_farm(root, config=config or DataConfig())
    return read_mask(farm, farm.photos[0])


def test_ids_in_8_and_16_bits(tmp_path):
    ids = IDS.copy()
    ids[0, 0] = 255
    np.testing.assert_array_equal(read(tmp_path, ids), ids)
    mask = read(tmp_path, ids.astype(np.uint16))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, ids)


def test_colours(tmp_path):
    table = np.array([(0, 0, 0), (0, 255, 0), (255, 0, 0)], np.uint8)
    np.testing.assert_array_equal(read(tmp_path, table[IDS]), IDS)
    opaque = np.dstack([table[IDS], np.full(IDS.shape, 77, np.uint8)])
    np.testing.assert_array_equal(read(tmp_path, opaque), IDS)


def test_palette_of_the_recipe(tmp_path):
    table = np.array([(10, 20, 30), (1, 2, 3), (200, 100, 0)], np.uint8)
    config = DataConfig(palette={"#0a141e": "ignore", "#010203": "weed", "#c86400": "crop"})
    mask = read(tmp_path, table[IDS], config)
    np.testing.assert_array_equal(mask, np.array([255, 2, 1], np.uint8)[IDS])


def test_unknown_values_and_colours(tmp_path):
    ids = IDS.copy()
    ids[3, :7] = 9
    with pytest.raises(MaskError, match=r"a\.png has class value 9 in 7 px; expected 0 to 2"):
        read(tmp_path, ids)
    with pytest.raises(MaskError, match="class value 300 in 2000 px"):
        read(tmp_path, np.full((40, 50), 300, np.uint16))
    colours = np.zeros((40, 50, 3), np.uint8)
    colours[0, :3] = (1, 2, 255)
    with pytest.raises(MaskError, match=r"a\.png has colour #0102ff and 0 other .* in 3 px"):
        read(tmp_path, colours)


def test_other_size(tmp_path):
    with pytest.raises(MaskError, match=r"a\.png is 49x40 px; expected 50x40 px"):
        read(tmp_path, IDS[:, :49])
    with pytest.raises(MaskError, match=r"is 40x50 px; expected 50x40 px"):
        read(tmp_path, np.ascontiguousarray(IDS.T))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_masks_lie_as_the_photo_is_seen(tmp_path, turn, suffix):
    exif = PillowImage.Exif()
    exif[274] = turn
    path = tmp_path / "images" / f"a.{suffix}"
    path.parent.mkdir()
    PillowImage.fromarray(np.zeros((40, 50, 3), np.uint8)).save(path, exif=exif)
    seen = orient(IDS, turn)
    np.testing.assert_array_equal(read(tmp_path, seen, photo=path), seen)
    if turn > 4:  # a mask that only fits the stored size is turned as the photo is
        np.testing.assert_array_equal(read(tmp_path, IDS, photo=path), seen)


def test_photo_without_mask_and_unreadable_photo(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((40, 50, 3), np.uint8))
    farm = index_farm(tmp_path)
    with pytest.raises(MaskError, match="has no mask"):
        read_mask(farm, farm.photos[0])
    rotten = tmp_path / "rotten"
    (rotten / "images").mkdir(parents=True)
    (rotten / "images" / "a.png").write_bytes(b"rubbish")
    with pytest.raises(MaskError, match="no picture in it"):
        read(rotten, IDS, photo="kept")
