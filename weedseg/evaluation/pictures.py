"""Pictures for people: overlays, panels side by side, reconstruction grids.

Shapes: N tiles, T tile px, H W photo px.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from weedseg.classes import IGNORE_ID, ClassTable, Role
from weedseg.errors import FieldDataError
from weedseg.imaging import ClassMap, Image, Mask

IGNORED_COLOUR = (150, 150, 150)
ERROR_SCALE = 64
"""Reconstruction error that is drawn brightest, grey levels of 255."""
SMALLEST_PANEL_PX = 240
_GAP_PX = 8
_STRIP_PX = 34
_TEXT_PX = 20
_INK = (35, 35, 35)


def overlay(image: Image, class_map: ClassMap, classes: ClassTable, opacity: float = 0.45) -> Image:
    """Tint crop and weeds in a photo in the colours of their classes; background stays as it is.

    Args:
        image: (H, W, 3).
        class_map: Class ids, (H, W); a mask will do as well.
        classes: The classes and their colours.
        opacity: Strength of the tint, 0-1.

    Returns:
        (H, W, 3).

    Raises:
        FieldDataError: Sizes differ.
    """
    _check_size(image, class_map)
    plants = class_map != IGNORE_ID
    plants &= ~np.isin(class_map, classes.ids_of(Role.BACKGROUND))
    tinted = cv2.addWeighted(image, 1 - opacity, class_colours(class_map, classes), opacity, 0)
    return np.where(plants[..., None], tinted, image).astype(np.uint8)


def class_colours(class_map: ClassMap, classes: ClassTable) -> Image:
    """Draw class ids, (H, W), in the colours of their classes, (H, W, 3); 255 is grey."""
    table = np.full((256, 3), IGNORED_COLOUR, np.uint8)
    table[: len(classes)] = classes.colours
    return table[class_map]


def confidence_colours(confidence: npt.NDArray[np.uint8]) -> Image:
    """Draw confidence 0-100, (H, W), from dark blue (0 %) to yellow (100 %), (H, W, 3)."""
    levels = np.clip(confidence.astype(np.float32) * 2.55, 0, 255).astype(np.uint8)
    return _colour_scale(levels, cv2.COLORMAP_CIVIDIS)


def result_panels(
    image: Image,
    mask: Mask | None,
    class_map: ClassMap,
    confidence: npt.NDArray[np.uint8],
    classes: ClassTable,
) -> Image:
    """Draw image | mask | class map | confidence, with captions and a legend.

    Args:
        image: (H, W, 3).
        mask: Annotated class ids, (H, W), or None for a photo without a mask.
        class_map: Predicted class ids, (H, W).
        confidence: 0-100, (H, W).
        classes: The classes and their colours.

    Returns:
        One picture; the longer side of a panel is 240 to 400 px.

    Raises:
        FieldDataError: Sizes differ.
    """
    panels = [("image", image)]
    if mask is not None:
        _check_size(image, mask)
        panels.append(("mask (annotated)", class_colours(mask, classes)))
    _check_size(image, class_map)
    _check_size(image, confidence)
    panels.append(("class map (predicted)", class_colours(class_map, classes)))
    panels.append(("confidence", confidence_colours(confidence)))
    picture = side_by_side(panels)
    ignored = mask is not None and bool((mask == IGNORE_ID).any())
    return np.concatenate([picture, _legend(picture.shape[1], classes, ignored)])


def side_by_side(panels: Sequence[tuple[str, Image]], side_px: int = 400) -> Image:
    """Put captioned panels of one size next to each other.

    Args:
        panels: Caption and picture, (H, W, 3), each.
        side_px: Longest side of a drawn panel, px; larger ones are shrunk, and those below
            `SMALLEST_PANEL_PX` are enlarged by a whole number.

    Returns:
        (h + caption strip, w, 3) on white.
    """
    height, width = panels[0][1].shape[:2]
    longest = max(height, width)
    scale = (
        min(1.0, side_px / longest)
        if longest >= SMALLEST_PANEL_PX
        else -(-SMALLEST_PANEL_PX // longest)
    )
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    columns = []
    for number, (caption, panel) in enumerate(panels):
        if number:
            columns.append(_blank(size[1] + _STRIP_PX, _GAP_PX))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        drawn = cv2.resize(panel, size, interpolation=how).astype(np.uint8)
        columns.append(np.concatenate([_caption(caption, size[0]), drawn]))
    return np.concatenate(columns, axis=1)


def reconstruction_grid(
    images: npt.NDArray[np.uint8],
    hidden: npt.NDArray[np.bool_],
    reconstructions: npt.NDArray[np.uint8],
) -> Image:
    """Draw image | hidden patches | reconstruction | error, one row per tile.

    Args:
        images: (N, T, T, 3).
        hidden: Pixels the network did not see, (N, T, T).
        reconstructions: What it made of the rest, (N, T, T, 3).

    Returns:
        One picture with captions above the first row.

    Raises:
        FieldDataError: Shapes differ, or there is no tile.
    """
    if not len(images) or images.shape != reconstructions.shape or hidden.shape != images.shape[:3]:
        raise FieldDataError(
            f"tiles {images.shape}, hidden {hidden.shape}, reconstructions {reconstructions.shape}",
            "(N, T, T, 3), (N, T, T) and (N, T, T, 3)",
            "draw at least one tile",
        )
    rows: list[list[tuple[str, Image]]] = []
    for image, unseen, drawn in zip(images, hidden, reconstructions):
        seen = np.where(unseen[..., None], np.uint8(128), image).astype(np.uint8)
        rows.append([("image", image), ("visible patches", seen)])
        rows[-1] += [("reconstruction", drawn), ("error", _error_colours(image, drawn))]
    return grid(rows)


def grid(rows: Sequence[Sequence[tuple[str, Image]]]) -> Image:
    """Put rows of panels below each other, with captions above the first row only.

    Args:
        rows: Caption and picture, (H, W, 3), of every panel; all pictures of one size.
    """
    drawn: list[Image] = []
    for panels in rows:
        row = side_by_side(panels)
        drawn.append(row if not drawn else _with_gap(row[_STRIP_PX:]))
    return np.concatenate(drawn)


def _error_colours(image: Image, drawn: Image) -> Image:
    error = np.abs(image.astype(np.float32) - drawn).mean(axis=2)
    levels = np.clip(error * (255 / ERROR_SCALE), 0, 255).astype(np.uint8)
    return _colour_scale(levels, cv2.COLORMAP_INFERNO)


def _colour_scale(levels: npt.NDArray[np.uint8], scale: int) -> Image:
    coloured = cv2.applyColorMap(np.ascontiguousarray(levels), scale)
    return cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB).astype(np.uint8)


def _with_gap(row: Image) -> Image:
    return np.concatenate([_blank(_GAP_PX, row.shape[1]), row])


def _blank(height: int, width: int) -> Image:
    return np.full((height, width, 3), 255, np.uint8)


def _caption(text: str, width: int) -> Image:
    strip = PillowImage.new("RGB", (width, _STRIP_PX), "white")
    font = ImageFont.load_default(_TEXT_PX)
    ImageDraw.Draw(strip).text((2, _STRIP_PX // 2), text, fill=_INK, font=font, anchor="lm")
    return np.array(strip)


def _legend(width: int, classes: ClassTable, ignored: bool) -> Image:
    """Draw colour swatches with names, in as many lines as they need, then the confidence scale."""
    font = ImageFont.load_default(_TEXT_PX)
    entries = [(c.name, c.colour) for c in classes.classes]
    entries += [("ignored", IGNORED_COLOUR)] if ignored else []
    swatches: list[tuple[int, int, str, Image]] = []
    row, left = 0, 0
    scale = confidence_colours(np.linspace(0, 100, 100).astype(np.uint8)[None])
    drawn = [(name, np.array([[colour]], np.uint8), 16) for name, colour in entries]
    for name, colours, swatch_px in [*drawn, ("confidence 0 to 100 %", scale, 100)]:
        needed = swatch_px + 30 + int(font.getlength(name))
        if left and left + needed > width:
            row, left = row + 1, 0
        swatches.append((row, left, name, _swatch(colours, swatch_px)))
        left += needed
    strip = PillowImage.new("RGB", (width, (row + 1) * _STRIP_PX), "white")
    pen = ImageDraw.Draw(strip)
    for line, start, name, swatch in swatches:
        middle = line * _STRIP_PX + _STRIP_PX // 2
        strip.paste(PillowImage.fromarray(swatch), (start + 2, middle - 8))
        text_at = (start + swatch.shape[1] + 8, middle)
        pen.text(text_at, name, fill=_INK, font=font, anchor="lm")
    return np.array(strip)


def _swatch(colours: Image, width: int) -> Image:
    swatch = cv2.resize(colours, (width, 16), interpolation=cv2.INTER_NEAREST)
    return cv2.copyMakeBorder(
        swatch[1:-1, 1:-1], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(90, 90, 90)
    ).astype(np.uint8)


def _check_size(image: Image, ids: npt.NDArray[np.uint8]) -> None:
    """Check that both have the same height and width.

    Raises:
        FieldDataError: They differ.
    """
    if image.shape[:2] != ids.shape:
        raise FieldDataError(
            f"{ids.shape} px for a photo of {image.shape[:2]} px",
            "the same size",
            "resize the class map to the photo",
        )
