"""What a photo says about itself before it is decoded, and whether it may be decoded at all."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from weedseg.imaging import Image

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")
MAX_FRAMES = 16
"""A phone's JPEG holds previews and a TIFF its smaller copies; more is a film or an attack."""
MAX_SIDE_PX = 65_500
"""JPEG cannot hold the overlay of a photo with a longer side."""
EMPTY_FROM_PX = 10_000_000
"""From this size on, where decoding may take 256 MiB, a photo must have some content."""
MAX_PX_PER_BYTE = 50
"""A photo of a field takes more than a byte for so many pixels, a bomb of zeros far less."""

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"})


class Refused(Exception):
    """A photo that is not decoded."""

    def __init__(self, status: int, sentence: str) -> None:
        """Keep the HTTP status and the sentence."""
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the first bytes say."""

    format: str
    width: int
    height: int


def is_heif(data: bytes) -> bool:
    """Tell whether data begin as a HEIC photo does."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def check_header(data: bytes, name: str, max_pixels: int) -> Header:
    """Read the header of a JPEG, PNG, TIFF or WebP photo and refuse what must not be decoded.

    Args:
        data: The bytes of the file.
        name: What messages call it.
        max_pixels: Largest height x width.

    Raises:
        Refused: Another format, too many pixels or frames, or hardly any content.
    """
    try:
        with PillowImage.open(io.BytesIO(data), formats=FORMATS) as picture:  # noqa: TID251 - header
            header = Header(format=str(picture.format), width=picture.width, height=picture.height)
            check_size(header, len(data), name, max_pixels)
            if _has_frame(picture, MAX_FRAMES):
                raise Refused(
                    422, f"{name}: a film; expected at most {MAX_FRAMES} frames; send single photos"
                )
            return header
    except PillowImage.DecompressionBombError as error:
        raise Refused(413, _too_large(name, "far too many", max_pixels)) from error
    except UnidentifiedImageError as error:
        raise Refused(
            415,
            f"{name}: no photo in it; expected a JPEG, PNG, TIFF or WebP photo; send another file",
        ) from error


def check_size(header: Header, num_bytes: int, name: str, max_pixels: int) -> None:
    """Refuse sizes that must not be decoded.

    Args:
        header: What the file says.
        num_bytes: Its length.
        name: What messages call it.
        max_pixels: Largest height x width.

    Raises:
        Refused: Too many pixels, or hardly any content.
    """
    pixels = header.width * header.height
    size = f"{header.width}x{header.height}"
    if pixels > max_pixels or max(header.width, header.height) > MAX_SIDE_PX:
        raise Refused(413, _too_large(name, size, max_pixels))
    if pixels > EMPTY_FROM_PX and pixels > MAX_PX_PER_BYTE * num_bytes:
        raise Refused(
            413,
            f"{name}: {size} px in {num_bytes} bytes; expected a photo with some content; "
            "cut it into parts",
        )


def decode_heif(data: bytes, name: str, max_pixels: int) -> Image:
    """Decode a HEIC photo; needs the extra package pi-heif.

    Args:
        data: The bytes of the file.
        name: What messages call it.
        max_pixels: Largest height x width.

    Returns:
        uint8 (H, W, 3), RGB, as a person sees it.

    Raises:
        Refused: It is too large or damaged, or this service does not read HEIC.
    """
    import numpy as np

    try:
        import pi_heif
    except ImportError as error:
        raise Refused(
            415,
            f"{name}: a HEIC photo; this service reads JPEG, PNG, TIFF and WebP; convert the photo "
            "or install the extra heic",
        ) from error
    try:
        photo = pi_heif.open_heif(io.BytesIO(data))
        header = Header(format="HEIF", width=photo.size[0], height=photo.size[1])
        check_size(header, len(data), name, max_pixels)
        pixels = np.asarray(photo)
    except (ValueError, EOFError, SyntaxError, RuntimeError, OSError) as error:
        raise Refused(
            422, f"{name} cannot be read: {error}; expected a whole HEIC photo; replace it"
        ) from error
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.dtype != np.uint8:
        raise Refused(422, f"{name}: an odd HEIC photo; expected 8 bits a channel; convert it")
    return np.ascontiguousarray(pixels[..., :3])


def _has_frame(picture: PillowImage.Image, number: int) -> bool:
    """Tell whether a picture has a frame of this number; a TIFF is walked no further than that."""
    if picture.format != "TIFF":
        return int(getattr(picture, "n_frames", 1)) > number
    try:
        picture.seek(number)
    except EOFError:
        return False
    return True


def _too_large(name: str, size: str, max_pixels: int) -> str:
    return (
        f"{name}: {size} px; expected at most {max_pixels / 1e6:g} million pixels and sides of "
        f"{MAX_SIDE_PX} px; cut it into parts"
    )
