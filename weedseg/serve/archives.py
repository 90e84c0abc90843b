"""Photos inside a zip, read in place: nothing is ever unpacked to a path that the zip chooses.

Python's own reader keeps to the size that the zip states for a member and checks its checksum, so
the caps on stated sizes hold for what is really read.
"""

from __future__ import annotations

import stat
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from weedseg.errors import FieldDataError, ImageError

MAX_PHOTOS = 10_000
"""Photos of one job."""
MAX_EXPANSION = 200
"""Largest size of a member over its size in the zip; photos hardly shrink at all."""
_SMALL_BYTES = 1 << 20
"""Members up to this size may shrink more: a grey test picture does."""
MAX_DIRECTORY_BYTES = 4 << 20
"""Largest table of contents; it is read into memory as a whole."""
_END, _END_BYTES = b"PK\x05\x06", 22
_LOCATOR, _LOCATOR_BYTES = b"PK\x06\x07", 20
_END64, _END64_BYTES = b"PK\x06\x06", 56
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,  # a password, or a compression that Python does not know
    EOFError,
    OSError,
    ValueError,
    struct.error,
)
_REMEDY = "make a plain zip of the photos again"


def is_zip(path: Path) -> bool:
    """Tell from the first bytes whether a file is a zip."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", _END)


def list_photos(path: Path, name: str, suffixes: frozenset[str], max_bytes: int) -> list[str]:
    """List the photos in a zip.

    Args:
        path: The zip.
        name: What messages call it.
        suffixes: Endings of photos, in lower case; other files and hidden ones are left out.
        max_bytes: Most bytes of all members together.

    Returns:
        Names of the photos inside, sorted.

    Raises:
        FieldDataError: It is damaged, or has odd names, links, doubles, a password, too many
            or too large members.
    """
    try:
        _check_directory(path, name)
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except _BROKEN as error:
        raise FieldDataError(
            f"{name} is a damaged zip ({error})", "a whole zip", _REMEDY
        ) from error
    _check_sizes(members, name, max_bytes)
    seen: set[str] = set()
    for member in members:
        fault = _fault(member)
        folded = unicodedata.normalize("NFC", member.filename).casefold()
        if folded in seen:
            fault = "a name that is there twice (large and small letters count as the same)"
        seen.add(folded)
        if fault:
            shown = member.filename[:80].encode("unicode_escape").decode()
            raise FieldDataError(
                f"{name} has {fault}: '{shown}'", "plain files, each name once", _REMEDY
            )
    return sorted(m.filename for m in members if _is_photo(m.filename, suffixes))


def read_member(path: Path, member: str, max_bytes: int) -> bytes:
    """Read one photo out of a zip.

    Args:
        path: The zip.
        member: Its name inside.
        max_bytes: Largest size.

    Raises:
        ImageError: It is damaged or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size_bytes = archive.getinfo(member).file_size
            if size_bytes > max_bytes:
                raise too_large(member, size_bytes, max_bytes)
            return archive.read(member)
    except (*_BROKEN, KeyError) as error:
        raise ImageError(
            f"{member} is damaged in the zip ({error})", "a whole photo", _REMEDY
        ) from error


def too_large(name: str, size_bytes: int, max_bytes: int) -> ImageError:
    """Make the error for a photo file that is too large."""
    return ImageError(
        f"{name}: {size_bytes / 1e6:.0f} MB",
        f"at most {max_bytes / 1e6:.0f} MB",
        "save it smaller, or cut it into parts",
    )


def _check_directory(path: Path, name: str) -> None:
    """Read how long the table of contents is before Python reads it into memory.

    Raises:
        FieldDataError: It is too long.
    """
    with path.open("rb") as file:
        size_bytes = _directory_bytes(file)
    if size_bytes > MAX_DIRECTORY_BYTES:
        raise FieldDataError(
            f"{name} has a table of contents of {size_bytes / 1e6:.0f} MB",
            f"at most {MAX_PHOTOS} photos in a zip",
            "send several smaller zips",
        )


def _directory_bytes(file: IO[bytes]) -> int:
    """Return the stated length of the table of contents, bytes; the format is APPNOTE 4.3."""
    end_of_file = file.seek(0, 2)
    start = file.seek(max(0, end_of_file - 0xFFFF - _END_BYTES - _LOCATOR_BYTES))
    tail = file.read()
    place = tail.rfind(_END)
    if place < 0 or len(tail) < place + _END_BYTES:
        return 0
    sizes = [int(struct.unpack_from("<I", tail, place + 12)[0])]
    locator = tail[max(0, place - _LOCATOR_BYTES) : place]
    if locator.startswith(_LOCATOR):
        stated = int(struct.unpack_from("<Q", locator, 8)[0])
        for offset in (stated, start + place - _LOCATOR_BYTES - _END64_BYTES):
            file.seek(min(max(0, offset), end_of_file))
            record = file.read(_END64_BYTES)
            if len(record) == _END64_BYTES and record.startswith(_END64):
                sizes.append(int(struct.unpack_from("<Q", record, 40)[0]))
    return max(size for size in sizes if size != 0xFFFFFFFF or len(sizes) == 1)


def _check_sizes(members: list[zipfile.ZipInfo], name: str, max_bytes: int) -> None:
    """Compare stated sizes with the caps.

    Raises:
        FieldDataError: There are too many members, or they are too large.
    """
    total = sum(member.file_size for member in members)
    if len(members) > MAX_PHOTOS:
        raise FieldDataError(
            f"{name} has {len(members)} files", f"at most {MAX_PHOTOS}", "send several smaller zips"
        )
    if total > max_bytes:
        raise FieldDataError(
            f"{name} holds {total / 1e6:.0f} MB of files",
            f"at most {max_bytes / 1e6:.0f} MB",
            "send several smaller zips",
        )
    for member in members:
        allowed = max(_SMALL_BYTES, MAX_EXPANSION * member.compress_size)
        if member.file_size > allowed:
            raise FieldDataError(
                f"{name} has a file that grows {member.file_size // max(1, member.compress_size)} "
                "times when it is unpacked",
                f"at most {MAX_EXPANSION} times",
                _REMEDY,
            )


def _fault(member: zipfile.ZipInfo) -> str:
    """Say what is wrong with a member's name or kind; empty if nothing is."""
    name = member.orig_filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or name[1:2] == ":":
        return "an absolute path"
    if ".." in parts:
        return "a path that leaves its folder"
    if not all(character.isprintable() for character in name):
        return "a name that is no text"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "a link or device"
    if member.flag_bits & 0x1:
        return "a file with a password"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "a file of an uncommon compression"  # others cannot be read in bounded memory
    return ""


def _is_photo(name: str, suffixes: frozenset[str]) -> bool:
    path = PurePosixPath(name)
    aside = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in suffixes and not aside
