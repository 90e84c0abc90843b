"""Decoding: orientation, depth, alpha, limits, damage; writing: whole or not at all."""

import errno
import io
import os
import struct
import zlib
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

from weedseg.errors import ImageError, MaskError, OutputError
from weedseg.imaging import (
    capture_time,
    decode_image,
    image_size,
    mask_mode,
    orient,
    orientation,
    read_image,
    read_mask_pixels,
    read_small,
    resize_class_map,
    resize_image,
    resize_to,
    write_png,
)

FORMATS = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "webp": "WEBP"}
EXACT = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}


def blocks(height=8, width=16):
    coarse = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((4, 4, 1), np.uint8))


def save(path, array, turn=1, **options):
    exif = PillowImage.Exif()
    exif[274] = turn
    exif[306] = "2024:05:06 07:08:09"
    suffix = path.suffix[1:]
    options = {**EXACT.get(suffix, {}), **options}
    PillowImage.fromarray(array).save(path, FORMATS[suffix], exif=exif, **options)
    return path


def png(width, height, chunks=b"", data=b""):
    """Write a PNG by hand, true or lying."""

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", data) + chunks + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("turn", range(1, 9))
def test_photos_come_back_as_a_person_sees_them(tmp_path, suffix, turn):
    array = blocks()
    path = save(tmp_path / f"a.{suffix}", array, turn)
    image = read_image(path)
    expected = orient(array, turn)
    assert image.shape == expected.shape
    assert image_size(path) == expected.shape[:2]
    assert orientation(path) == turn
    tolerance = 3 if suffix == "jpg" else 0
    assert np.abs(image.astype(int) - expected).mean() <= tolerance
    np.testing.assert_array_equal(decode_image(path.read_bytes(), "memory"), image)


def test_orientation_behind_the_pixels_of_a_png_is_found(tmp_path):
    array = blocks()
    body = b"".join(b"\0" + row.tobytes() for row in array)
    exif = PillowImage.Exif()
    exif[274] = 6
    text = exif.tobytes()[6:]
    late = struct.pack(">I", len(text)) + b"eXIf" + text
    late += struct.pack(">I", zlib.crc32(b"eXIf" + text))
    path = tmp_path / "late.png"
    path.write_bytes(png(array.shape[1], array.shape[0], late, zlib.compress(body)))
    assert image_size(path) == (array.shape[1], array.shape[0])
    np.testing.assert_array_equal(read_image(path), orient(array, 6))


@given(turn=st.integers(1, 8), height=st.integers(1, 5), width=st.integers(1, 5))
def test_orient_agrees_with_pillow(turn, height, width):
    array = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    file = io.BytesIO()
    exif = PillowImage.Exif()
    exif[274] = turn
    rgb = np.repeat(array[:, :, None], 3, axis=2)
    PillowImage.fromarray(rgb).save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(file.getvalue(), "a")[..., 0], orient(array, turn))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_become_the_high_byte(tmp_path, suffix):
    deep = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40) * 33
    path = tmp_path / f"deep.{suffix}"
    PillowImage.fromarray(deep).save(path)
    image = read_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.repeat((deep >> 8)[..., None], 3, axis=2))


def test_grey_becomes_rgb_and_transparent_becomes_black(tmp_path):
    grey = np.arange(40 * 40, dtype=np.uint8).reshape(40, 40)
    PillowImage.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.dstack([grey] * 3))
    layers = np.full((4, 6, 4), 200, np.uint8)
    layers[:2, :, 3] = 0
    layers[2:, :, 3] = 255
    PillowImage.fromarray(layers).save(tmp_path / "alpha.png")
    image = read_image(tmp_path / "alpha.png")
    assert (image[:2] == 0).all()
    assert (image[2:] == 200).all()


def test_float_pictures_are_refused(tmp_path):
    PillowImage.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ImageError, match="32 bits a pixel"):
        read_image(tmp_path / "f.tif")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_truncated_photos_name_their_path(tmp_path, suffix, share):
    array = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"short.{suffix}", array)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=f"short.{suffix}"):
        read_image(path)


@given(
    data=st.binary(max_size=200), kind=st.sampled_from([b"", b"\xff\xd8\xff", b"II*\0", b"RIFF"])
)
def test_rubbish_is_an_image_error(data, kind):
    with pytest.raises(ImageError, match="rubbish"):
        decode_image(kind + data, "rubbish")


@pytest.mark.parametrize("suffix", FORMATS)
def test_flipped_bytes_never_raise_anything_else(tmp_path, suffix):
    whole = bytearray(save(tmp_path / f"a.{suffix}", blocks()).read_bytes())
    rng = np.random.default_rng(3)
    for _ in range(40):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 4):
            data[place] = int(rng.integers(0, 256))
        try:
            image = decode_image(bytes(data), "flipped", 10_000)
        except ImageError:
            continue
        assert image.ndim == 3


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_before_decoding():
    bomb = png(13_000, 13_000, data=zlib.compress(b"\0" * 1000))
    with pytest.raises(ImageError, match="at most 50 million"):
        decode_image(bomb, "bomb", 50_000_000)
    with pytest.raises(ImageError, match="too many pixels"):
        decode_image(png(60_000, 60_000), "bomb")
    small = io.BytesIO()
    PillowImage.fromarray(blocks()).save(small, "PNG")
    with pytest.raises(ImageError, match="64x32 px"):
        decode_image(small.getvalue(), "small", 64 * 32 - 1)
    assert decode_image(small.getvalue(), "small", 64 * 32).shape == (32, 64, 3)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.jpg", tmp_path):
        with pytest.raises(ImageError, match="cannot be read"):
            read_image(path)


def test_capture_time(tmp_path):
    assert capture_time(save(tmp_path / "a.jpg", blocks())) == datetime(2024, 5, 6, 7, 8, 9)
    PillowImage.fromarray(blocks()).save(tmp_path / "b.png")
    assert capture_time(tmp_path / "b.png") is None
    (tmp_path / "c.jpg").write_bytes(b"no photo")
    assert capture_time(tmp_path / "c.jpg") is None


def test_small_reading_keeps_the_shape(tmp_path):
    path = save(tmp_path / "a.jpg", blocks(100, 200), 6)
    small = read_small(path, 128)
    assert small.shape == (128, 64, 3)
    full = resize_to(read_image(path), (128, 64))
    assert np.abs(small.astype(int) - full).mean() < 25
    assert read_small(save(tmp_path / "b.png", blocks()), 128).shape == (32, 64, 3)


def test_masks_come_back_exactly(tmp_path):
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    for name, array in (("ids.png", ids), ("deep.png", ids.astype(np.uint16) * 100)):
        PillowImage.fromarray(array).save(tmp_path / name)
        np.testing.assert_array_equal(read_mask_pixels(tmp_path / name), array)
    PillowImage.fromarray(ids > 0).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_mask_pixels(tmp_path / "bits.png"), ids > 0)
    colours = np.dstack([ids, ids, ids * 0])
    PillowImage.fromarray(colours).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_mask_pixels(tmp_path / "rgb.png"), colours)
    assert mask_mode(tmp_path / "rgb.png") == "colours"
    assert mask_mode(tmp_path / "deep.png") == "ids"


def test_palette_masks_are_ids_unless_all_colours_are_known(tmp_path):
    ids = np.array([[0, 1], [1, 0]], np.uint8)
    picture = PillowImage.fromarray(ids)
    picture.putpalette([255, 0, 0, 0, 0, 0])
    picture.save(tmp_path / "p.png")
    assert mask_mode(tmp_path / "p.png") == "palette"
    np.testing.assert_array_equal(read_mask_pixels(tmp_path / "p.png"), ids)
    known = frozenset({(0, 0, 0), (0, 255, 0), (255, 0, 0)})
    colours = read_mask_pixels(tmp_path / "p.png", known)
    assert colours.tolist() == [[[255, 0, 0], [0, 0, 0]], [[0, 0, 0], [255, 0, 0]]]


def test_faulty_masks(tmp_path):
    PillowImage.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.jpg")
    with pytest.raises(MaskError, match="is a JPEG"):
        read_mask_pixels(tmp_path / "a.jpg")
    (tmp_path / "b.png").write_bytes(b"rubbish")
    for read in (read_mask_pixels, mask_mode):
        with pytest.raises(MaskError, match=r"b\.png"):
            read(tmp_path / "b.png")
    PillowImage.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(MaskError, match="mode F"):
        read_mask_pixels(tmp_path / "f.tif")


@given(height=st.integers(1, 20), width=st.integers(1, 20), colour=st.booleans())
def test_png_round_trip(tmp_path_factory, height, width, colour):
    path = tmp_path_factory.mktemp("png") / "deep" / "a.png"
    shape = (height, width, 3) if colour else (height, width)
    array = np.random.default_rng(height).integers(0, 256, shape, dtype=np.uint8)
    write_png(path, array)
    back = read_image(path) if colour else read_mask_pixels(path)
    np.testing.assert_array_equal(back, array)
    assert [f.name for f in path.parent.iterdir()] == ["a.png"]


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_png(path, np.zeros((2, 2), np.uint8))
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"No space left.*free some space"):
        write_png(path, np.ones((2, 2), np.uint8))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_output_that_is_no_picture_or_no_folder(tmp_path):
    with pytest.raises(OutputError, match="float64"):
        write_png(tmp_path / "a.png", np.zeros((2, 2)))
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="choose another"):
        write_png(tmp_path / "file" / "a.png", np.zeros((2, 2), np.uint8))


def test_resizing():
    image = blocks()
    assert resize_image(image, 0.25).shape == (8, 16, 3)
    np.testing.assert_array_equal(resize_image(image, 0.25), image[::4, ::4])
    assert resize_image(image, 1e-6).shape == (1, 1, 3)
    assert resize_image(image, 1.0) is image
    ids = np.array([[0, 7], [255, 1]], np.uint8)
    large = resize_class_map(ids, (6, 10))
    np.testing.assert_array_equal(large, np.kron(ids, np.ones((3, 5), np.uint8)))
    np.testing.assert_array_equal(resize_class_map(large, (2, 2)), ids)
