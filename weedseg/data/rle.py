"""Run lengths: how label tools store bitmaps (COCO, CVAT, Label Studio brush)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from weedseg.errors import MaskError

Bitmap: TypeAlias = npt.NDArray[np.bool_]
"""Where something is: bool (H, W)."""

_BRUSH_SIZES = (3, 4, 8, 16)
_LONGEST_RUN = 1 << 16


def runs_of(flat: npt.NDArray[np.bool_]) -> list[int]:
    """Return the lengths of runs in bool (n,), False and True in turns, False first (maybe 0)."""
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


def from_runs(lengths: Sequence[int], size: tuple[int, int], by_column: bool = False) -> Bitmap:
    """Draw what `runs_of` describes.

    Args:
        lengths: Lengths of runs, False first.
        size: (H, W), trusted.
        by_column: Whether the runs go down the columns, as in COCO, and not along the rows.

    Returns:
        bool (H, W).

    Raises:
        MaskError: The lengths are not those of a picture of this size.
    """
    total = size[0] * size[1]
    if any(type(n) is not int or n < 0 for n in lengths) or sum(lengths) != total:
        raise MaskError(
            f"run lengths that make {sum(n for n in lengths if type(n) is int)} px",
            f"{total} px for {size[1]}x{size[0]}",
            "export the labels again",
        )
    values = np.arange(len(lengths)) % 2 == 1
    flat = np.repeat(values, np.array(lengths, np.int64))
    return flat.reshape(size[::-1]).T if by_column else flat.reshape(size)


def to_coco(bitmap: Bitmap) -> dict[str, Any]:
    """Return COCO's compressed run lengths, ``{"size": [H, W], "counts": text}``."""
    runs = runs_of(bitmap.ravel(order="F"))
    letters = []
    for i, run in enumerate(runs):
        rest = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            part = rest & 31
            rest >>= 5
            more = rest != (-1 if part & 16 else 0)
            letters.append(chr(part + 48 + (32 if more else 0)))
    return {"size": list(bitmap.shape), "counts": "".join(letters)}


def from_coco(counts: Any, size: tuple[int, int]) -> Bitmap:
    """Draw COCO run lengths, compressed (text) or not (list).

    Raises:
        MaskError: They are not those of a picture of this size.
    """
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    runs = _coco_runs(counts) if isinstance(counts, str) else list(counts)
    return from_runs(runs, size, by_column=True)


def _coco_runs(text: str) -> list[int]:
    """Undo COCO's compression.

    Raises:
        MaskError: A letter is wrong or the text ends too early.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        part = ord(letter) - 48
        if not 0 <= part < 64 or shift > 40:
            raise MaskError("run lengths with a wrong letter", "COCO counts", "export them again")
        value |= (part & 31) << shift
        shift += 5
        if part & 32:
            continue
        if part & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise MaskError("run lengths that break off", "whole COCO counts", "export them again")
    return runs


def to_brush(bitmap: Bitmap) -> list[int]:
    """Return Label Studio's brush run lengths: bytes of RGBA runs, 255 where True."""
    bits = [f"{bitmap.size * 4:032b}", f"{7:05b}", *(f"{n - 1:04b}" for n in _BRUSH_SIZES)]
    for i, run in enumerate(runs_of(bitmap.ravel())):
        value = "11111111" if i % 2 else "00000000"
        left = 4 * run
        while left:
            part = min(left, _LONGEST_RUN)
            which = next(k for k, n in enumerate(_BRUSH_SIZES) if part <= 1 << n)
            bits.append(f"1{which:02b}{part - 1:0{_BRUSH_SIZES[which]}b}{value}")
            left -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def from_brush(values: Sequence[int], size: tuple[int, int]) -> Bitmap:
    """Draw Label Studio's brush run lengths.

    Args:
        values: Bytes, 0-255.
        size: (H, W), trusted.

    Returns:
        bool (H, W), True where the brush is more than half opaque.

    Raises:
        MaskError: They are not those of a picture of this size, or break off.
    """
    reader = _Bits(bytes(values))
    total = size[0] * size[1] * 4
    if reader.take(32) != total:
        raise MaskError("a brush of another size", f"{size[1]}x{size[0]} px", "export it again")
    word = reader.take(5) + 1
    sizes = [reader.take(4) + 1 for _ in range(4)]
    flat = np.zeros(total, np.uint8)
    place = 0
    while place < total:
        same = reader.take(1)
        length = reader.take(sizes[reader.take(2)]) + 1
        if place + length > total:
            raise MaskError("a brush that overflows", f"{total // 4} px", "export it again")
        if same:
            flat[place : place + length] = reader.take(word) & 255
        else:
            flat[place : place + length] = [reader.take(word) & 255 for _ in range(length)]
        place += length
    return flat.reshape(*size, 4)[..., 3] > 127


class _Bits:
    """Reads numbers of any width from bytes."""

    def __init__(self, data: bytes) -> None:
        """Lay the bits out."""
        unpacked = np.unpackbits(np.frombuffer(data, np.uint8)) + ord("0")
        self._bits = unpacked.tobytes()
        self._place = 0

    def take(self, width: int) -> int:
        """Read the next number.

        Raises:
            MaskError: There is no more.
        """
        end = self._place + width
        if end > len(self._bits):
            raise MaskError("a brush that breaks off", "whole run lengths", "export it again")
        value = int(self._bits[self._place : end], 2)
        self._place = end
        return value
