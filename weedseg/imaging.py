"""The one place where an image is decoded, oriented, limited, converted to RGB and written.

Sizes are (height, width) in px. Every image comes back as a person sees it: EXIF orientation is
applied, 16 bit becomes 8 bit (the high byte), grey becomes RGB, transparent pixels become black.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, ImageOps, UnidentifiedImageError
from PIL import Image as PillowImage

from weedseg.errors import ImageError, MaskError, OutputError

Image: TypeAlias = npt.NDArray[np.uint8]
"""Photo: uint8 (H, W, 3), RGB."""
Mask: TypeAlias = npt.NDArray[np.uint8]
"""Annotated class ids: uint8 (H, W), 255 ignored."""
ClassMap: TypeAlias = npt.NDArray[np.uint8]
"""Predicted class ids: uint8 (H, W)."""
MaskPixels: TypeAlias = "npt.NDArray[np.uint8] | npt.NDArray[np.uint16]"
"""Mask as stored: ids (H, W), or RGB uint8 (H, W, 3)."""

Facts: TypeAlias = tuple[str, str, str]
"""What an error holds: found, expected, remedy."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"})
"""File name endings of photos, in lower case."""
MAX_PIXELS = 100_000_000
"""Photos with more pixels are refused before they are decoded."""

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")
_DEEP_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, MemoryError),
    *(struct.error, zlib.error, OverflowError),
    UserWarning,  # Pillow's word on a damaged file, where warnings are errors
)
_TRANSPOSED = (5, 6, 7, 8)
_BOMB = (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning)
_EXIF_KEYS = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})
_WANTED = "a whole JPEG, PNG, TIFF or WebP photo"
_MASK_HINT = ("a whole PNG or TIFF mask", "save it again")


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> Image:
    """Read a photo as a person sees it.

    Args:
        path: JPEG, PNG, TIFF or WebP file.
        max_pixels: Largest height x width; read from the header before decoding.

    Returns:
        The image, uint8 (H, W, 3), RGB.

    Raises:
        ImageError: The file is missing, damaged, of another format or too large.
    """
    with _picture(Path(path), str(path), max_pixels) as picture:
        return _to_rgb(ImageOps.exif_transpose(picture), str(path))


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode a photo that lies in memory; as `read_image`.

    Args:
        data: The bytes of the file.
        name: What messages call it.
        max_pixels: Largest height x width.

    Returns:
        The image, uint8 (H, W, 3), RGB.

    Raises:
        ImageError: The data are damaged, of another format or too large.
    """
    with _picture(io.BytesIO(data), name, max_pixels) as picture:
        return _to_rgb(ImageOps.exif_transpose(picture), name)


def read_small(path: Path, side_px: int, max_pixels: int = MAX_PIXELS) -> Image:
    """Read a small version of a photo, decoding JPEG at reduced size; for thumbnails and hashes.

    Args:
        path: The photo.
        side_px: The longer side wanted, px; smaller photos stay as they are.
        max_pixels: Largest height x width of the stored photo.

    Returns:
        The image, uint8 (H, W, 3), RGB, longer side <= `side_px`.

    Raises:
        ImageError: The photo cannot be read.
    """
    with _picture(path, str(path), max_pixels) as picture:
        picture.draft("RGB", (2 * side_px, 2 * side_px))
        image = _to_rgb(ImageOps.exif_transpose(picture), str(path))
    return resize_image(image, min(1.0, side_px / max(image.shape[:2])))


def image_size(path: Path) -> tuple[int, int]:
    """Read (height, width) in px as a person sees the photo, from the header only.

    Raises:
        ImageError: The header cannot be read.
    """
    with _picture(path, str(path)) as picture:
        height, width = picture.height, picture.width
        if picture.format != "TIFF" and _orientation(picture) in _TRANSPOSED:
            return width, height  # Pillow gives the sizes of TIFF turned already
        return height, width


def orientation(path: Path) -> int:
    """Read the stored EXIF orientation, 1-8; 1 when there is none.

    Raises:
        ImageError: The header cannot be read.
    """
    with _picture(path, str(path)) as picture:
        return _orientation(picture)


def orient(array: npt.NDArray[Any], value: int) -> npt.NDArray[Any]:
    """Turn and mirror an array as EXIF orientation `value` (1-8) asks; (H, W, ...)."""
    turned = np.swapaxes(array, 0, 1) if value in _TRANSPOSED else array
    if value in (3, 4, 7, 8):
        turned = turned[::-1]
    if value in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)


def capture_time(path: Path) -> datetime | None:
    """Read when a photo was taken from its EXIF data; None when it does not say."""
    try:
        with _picture(path, str(path)) as picture:
            exif = _exif(picture)
            inner = exif.get_ifd(ExifTags.IFD.Exif)
            text = inner.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
            return datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except ImageError:
        return None


def gps_tags(path: Path) -> dict[int, Any]:
    """Read the EXIF GPS tags of a photo as they are stored, tag number -> value; often none."""
    try:
        with _picture(path, str(path)) as picture:
            return dict(_exif(picture).get_ifd(ExifTags.IFD.GPSInfo))
    except ImageError:
        return {}


def mask_mode(path: Path) -> str:
    """Tell from the header how a mask is stored: 'ids', 'colours' or 'palette'.

    Raises:
        MaskError: The header cannot be read.
    """
    try:
        with _picture(path, str(path)) as picture:
            mode = picture.mode
    except ImageError as error:
        raise MaskError(f"mask {error.found}", *_MASK_HINT) from error
    if mode == "P":
        return "palette"
    return "colours" if mode.startswith(("RGB", "CMYK", "YCbCr")) else "ids"


def read_mask_pixels(
    path: Path, colours: frozenset[tuple[int, int, int]] = frozenset()
) -> MaskPixels:
    """Read a mask exactly as stored, without colour management; alpha is dropped.

    A palette PNG gives its indices, unless every colour that it uses is one of `colours`: then
    it gives RGB. The mask's own EXIF orientation is applied.

    Args:
        path: PNG, TIFF or lossless WebP file.
        colours: Known mask colours.

    Returns:
        Ids, uint8 or uint16 (H, W), or colours, uint8 (H, W, 3).

    Raises:
        MaskError: The file is missing, damaged, too large, lossy or of an odd kind.
    """
    try:
        with _picture(path, str(path), MAX_PIXELS) as picture:
            if picture.format in ("JPEG", "MPO"):
                raise MaskError(f"mask {path} is a JPEG, whose pixel values drift", *_MASK_HINT)
            return _mask_array(ImageOps.exif_transpose(picture), path, colours)
    except ImageError as error:
        raise MaskError(f"mask {error.found}", *_MASK_HINT) from error


def write_png(path: Path, array: npt.NDArray[np.uint8]) -> None:
    """Write an image (H, W, 3) or a mask or class map (H, W) as PNG, whole or not at all.

    Args:
        path: Where; the folder is made.
        array: uint8.

    Raises:
        OutputError: The array is no picture, or the disk is full or not writable.
    """
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or not array.size:
        raise OutputError(
            f"{path}: array of {array.dtype} {array.shape}", "uint8 (H, W[, 3])", "report this"
        )
    stored = cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if array.ndim == 3 else array
    done, data = cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise OutputError(f"{path}: PNG cannot be encoded", "a picture", "report this")
    write_bytes(path, data.tobytes())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: temporary file in the same folder, then rename.

    Args:
        path: Where; the folder is made.
        data: What.

    Raises:
        OutputError: The disk is full or the folder is not writable.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}",
            f"room for {len(data)} bytes" if full else "a folder that can be written",
            "free some space" if full else "choose another --out",
        ) from error


def resize_image(image: Image, scale: float) -> Image:
    """Resize by a factor; averages when shrinking.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        scale: New length of a side over the old one, > 0.

    Returns:
        uint8 (round(H * scale), round(W * scale), ...), at least 1 px a side.
    """
    height, width = image.shape[:2]
    return resize_to(image, scaled_size((height, width), scale))


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return (height, width) after resizing by `scale`, at least 1 px a side."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize_to(image: Image, size: tuple[int, int]) -> Image:
    """Resize to (height, width) px; averages when shrinking, linear when enlarging."""
    if image.shape[:2] == tuple(size):
        return image
    smaller = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    kind = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=kind), np.uint8)


def resize_class_map(class_map: ClassMap, size: tuple[int, int]) -> ClassMap:
    """Resize a class map or mask to (height, width) px by the nearest pixel centre."""
    if class_map.shape == tuple(size):
        return class_map
    kind = cv2.INTER_NEAREST_EXACT
    return np.asarray(cv2.resize(class_map, (size[1], size[0]), interpolation=kind), np.uint8)


@contextmanager
def _picture(
    source: Path | IO[bytes], name: str, max_pixels: int | None = None
) -> Iterator[PillowImage.Image]:
    """Open a picture without decoding it, and make every later fault of it an ImageError.

    Raises:
        ImageError: It is no picture, too large, or turns out damaged.
    """
    try:
        with (
            source.open("rb") if isinstance(source, Path) else source as file,
            PillowImage.open(file, formats=_FORMATS) as picture,
        ):
            if max_pixels is not None and picture.width * picture.height > max_pixels:
                raise ImageError(*_too_large(name, picture.size, max_pixels))
            yield picture
    except _BOMB as error:
        raise ImageError(*_too_large(name, None, max_pixels or MAX_PIXELS)) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: no picture in it", _WANTED, "replace or remove it") from error
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"{name} cannot be read: {reason}", _WANTED, "replace it") from error


def _to_rgb(picture: PillowImage.Image, name: str) -> Image:
    if picture.mode in _DEEP_MODES:
        grey = (np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode in ("I", "F"):
        raise ImageError(f"{name}: 32 bits a pixel", "8 or 16 bits a channel", "convert the photo")
    if picture.has_transparency_data:
        layers = np.asarray(picture.convert("RGBA"))
        if layers[..., 3].min() == 255:
            return np.ascontiguousarray(layers[..., :3])
        share = layers[..., 3:].astype(np.uint16)
        blended: Image = ((layers[..., :3] * share + 127) // 255).astype(np.uint8)
        return blended
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _mask_array(
    picture: PillowImage.Image, path: Path, colours: frozenset[tuple[int, int, int]]
) -> MaskPixels:
    if picture.mode == "P":
        ids = np.array(picture)
        table = np.zeros((256, 3), np.uint8)
        flat = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        table[: len(flat)] = flat
        used = {(int(r), int(g), int(b)) for r, g, b in table[np.unique(ids)]}
        return table[ids] if used <= colours else ids
    if picture.mode in ("RGB", "RGBA", "RGBX"):
        return np.ascontiguousarray(np.asarray(picture)[..., :3])
    if picture.mode in ("L", "1", "LA"):
        grey = np.asarray(picture)
        return np.ascontiguousarray(grey[..., 0] if grey.ndim == 3 else grey).astype(np.uint8)
    values = np.asarray(picture)
    if picture.mode in (*_DEEP_MODES, "I") and values.min() >= 0 and values.max() <= 65535:
        return values.astype(np.uint16)
    raise MaskError(
        f"{path}: mask of mode {picture.mode}", "class ids or RGB colours", "save it as 8-bit PNG"
    )


def _exif(picture: PillowImage.Image) -> PillowImage.Exif:
    """Read EXIF data; a PNG is decoded for it only if it has some, which Pillow always would."""
    if picture.format == "PNG" and not _EXIF_KEYS & picture.info.keys():
        file = getattr(picture, "fp", None)
        if file is not None and not _late_text(file):
            return PillowImage.Exif()
    return picture.getexif()


def _late_text(file: IO[bytes]) -> bool:
    """Tell whether a PNG has EXIF or text chunks behind its pixels; the position is kept."""
    place = file.tell()
    file.seek(8)
    try:
        behind = False
        while len(head := file.read(8)) == 8:
            behind = behind or head[4:] == b"IDAT"
            if behind and head[4:] in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, io.SEEK_CUR)
        return False
    finally:
        file.seek(place)


def _orientation(picture: PillowImage.Image) -> int:
    value = _exif(picture).get(ExifTags.Base.Orientation, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _too_large(name: str, size: tuple[int, int] | None, limit: int) -> Facts:
    found = f"{name}: {size[0]}x{size[1]} px" if size else f"{name}: far too many pixels"
    return found, f"at most {limit / 1e6:g} million pixels", "cut it into parts"
