"""Zips of photos: what is read, and what is refused before anything is read."""

import io
import stat
import struct
import warnings
import zipfile

import pytest

from weedseg.errors import FieldDataError, ImageError
from weedseg.serve import archives
from weedseg.serve.archives import is_zip, list_photos, read_member

SUFFIXES = frozenset({".jpg", ".png"})
PHOTO = bytes(range(256)) * 40


@pytest.fixture
def make_zip(tmp_path):
    def make(*members, compression=zipfile.ZIP_DEFLATED):
        path = tmp_path / "photos.zip"
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
            warnings.simplefilter("ignore")  # Python warns of the same name twice
            for member in members:
                info = member if isinstance(member, zipfile.ZipInfo) else zipfile.ZipInfo(member)
                info.compress_type = compression
                archive.writestr(info, PHOTO)
        return path

    return make


def photos_in(path, max_bytes=1 << 20):
    return list_photos(path, "photos.zip", SUFFIXES, max_bytes)


def test_photos_are_found_at_any_depth_and_other_files_left_out(make_zip):
    path = make_zip("b/2.JPG", "a/1.png", "notes.txt", ".hidden.jpg", "__MACOSX/a/1.png", "Ä/ß.jpg")
    assert is_zip(path)
    assert photos_in(path) == ["a/1.png", "b/2.JPG", "Ä/ß.jpg"]
    assert read_member(path, "b/2.JPG", 1 << 20) == PHOTO


def linked(name, kind):
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("members", "word"),
    [
        (["/etc/1.jpg"], "absolute"),
        (["C:/1.jpg"], "absolute"),
        (["C:\\1.jpg"], "absolute"),
        (["a/../../1.jpg"], "leaves its folder"),
        (["a\\..\\1.jpg"], "leaves its folder"),
        (["a/\x1b[31m.jpg"], "no text"),
        ([linked("1.jpg", stat.S_IFLNK)], "link or device"),
        ([linked("1.jpg", stat.S_IFCHR)], "link or device"),
        ([linked("1.jpg", stat.S_IFIFO)], "link or device"),
        (["1.jpg", "1.jpg"], "twice"),
        (["a/1.jpg", "A/1.JPG"], "twice"),
        (["\u00e9.jpg", "e\u0301.jpg"], "twice"),
    ],
)
def test_odd_names_and_kinds_are_refused(make_zip, members, word):
    with pytest.raises(FieldDataError, match=word):
        photos_in(make_zip(*members))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_of_unbounded_memory_are_refused(make_zip, compression):
    with pytest.raises(FieldDataError, match="uncommon compression"):
        photos_in(make_zip("1.jpg", compression=compression))


def test_a_password_is_refused(make_zip):
    path = make_zip("1.jpg")
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(FieldDataError, match="password"):
        photos_in(path)


def test_caps_on_number_total_and_expansion(make_zip, tmp_path, monkeypatch):
    path = make_zip("1.jpg", "2.jpg")
    with pytest.raises(FieldDataError, match="MB of files"):
        photos_in(path, max_bytes=2 * len(PHOTO) - 1)
    assert len(photos_in(path, max_bytes=2 * len(PHOTO))) == 2
    monkeypatch.setattr(archives, "MAX_PHOTOS", 1)
    with pytest.raises(FieldDataError, match="2 files"):
        photos_in(path)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.jpg", bytes(20 << 20))
    with pytest.raises(FieldDataError, match="grows"):
        photos_in(bomb, max_bytes=1 << 30)


def test_a_huge_table_of_contents_is_refused_unread(make_zip, monkeypatch):
    path = make_zip(*(f"{number}.jpg" for number in range(50)))
    monkeypatch.setattr(archives, "MAX_DIRECTORY_BYTES", 1000)
    with pytest.raises(FieldDataError, match="table of contents"):
        photos_in(path)


def test_a_huge_table_of_contents_of_a_zip64_is_refused_unread(make_zip):
    data = make_zip("1.jpg").read_bytes()
    end = data.rindex(b"PK\x05\x06")
    size, start = struct.unpack_from("<II", data, end + 12)
    record = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 1, 1, 1 << 40, start)
    locator = struct.pack("<IIQI", 0x07064B50, 0, end, 1)
    plain = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, size, start, 0)
    path = make_zip("1.jpg")
    path.write_bytes(data[:end] + record + locator + plain)
    with pytest.raises(FieldDataError, match="table of contents"):
        photos_in(path)


def test_a_member_that_lies_about_its_size_is_bounded(make_zip):
    path = make_zip("1.jpg", compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 100)
    path.write_bytes(data)
    assert photos_in(path) == ["1.jpg"]
    with pytest.raises(ImageError, match="damaged"):
        read_member(path, "1.jpg", 1 << 20)
    with pytest.raises(ImageError, match="MB"):
        read_member(path, "1.jpg", 50)


def test_damage_is_one_sentence(make_zip):
    data = make_zip("1.jpg", "2.jpg").read_bytes()
    for broken in (data[: len(data) // 2], b"PK\x03\x04" + bytes(100), b"PK\x05\x06"):
        path = make_zip("1.jpg")
        path.write_bytes(broken)
        with pytest.raises(FieldDataError, match="damaged zip"):
            photos_in(path)
    flipped = bytearray(data)
    flipped[len(flipped) // 4] ^= 0xFF
    path.write_bytes(flipped)
    with pytest.raises(ImageError, match="damaged"):
        read_member(path, "1.jpg", 1 << 20)


def test_a_photo_is_no_zip(tmp_path):
    path = tmp_path / "1.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    assert not is_zip(path)
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    path.write_bytes(empty.getvalue())
    assert is_zip(path)
    assert photos_in(path) == []
