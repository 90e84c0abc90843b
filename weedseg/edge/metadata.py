"""What a model file says about itself: classes, tile size, resize policy, calibration, figures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from weedseg.classes import ClassTable
from weedseg.edge.ood import OodReference
from weedseg.errors import ConfigError, ModelFileError

SCHEMA = 1
"""Major version of the ``weedseg`` metadata that this code reads and writes."""
MIN_TILE_PX, MAX_TILE_PX = 32, 4096
MIN_SCALE, MAX_SCALE = 0.01, 4.0
MAX_NAME_LENGTH = 100


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """The ``weedseg`` metadata of a model."""

    classes: ClassTable
    tile_px: int
    """Side of the input, px."""
    overlap_px: int
    """Smallest overlap of neighbouring tiles, px."""
    scale: float
    """A photo is resized by this factor before it is cut into tiles."""
    temperature: float
    """Logits are divided by it inside the graph."""
    mm_per_px: tuple[float, float] | None = None
    """Range of ground resolution in training, mm per px of the photo; None is unknown."""
    ood: OodReference | None = None
    """What the photos of training looked like; None is unknown."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """The whole ``weedseg`` object, decoded."""


def parse_metadata(entries: Mapping[str, str], name: str) -> ModelMetadata:
    """Read the metadata of a model file.

    Args:
        entries: ``metadata_props`` of the file.
        name: What messages call the file.

    Raises:
        ModelFileError: The file is not a weedseg model, of a newer schema, or says odd things.
    """
    if "weedseg" not in entries:
        raise ModelFileError(
            f"{name} is not a weedseg model",
            "an ONNX file with 'weedseg' metadata",
            "export one with weedseg export",
        )
    reader = _Reader(name, _decode(entries, "weedseg", name))
    reader.schema()
    size = _decode(entries, "imgsz", name)
    fits = isinstance(size, list) and len(size) == 2 and size[0] == size[1]
    if not fits or type(size[0]) is not int or not MIN_TILE_PX <= size[0] <= MAX_TILE_PX:
        reader.refuse("imgsz", size, f"[T, T] with T from {MIN_TILE_PX} to {MAX_TILE_PX}")
    tile_px: int = size[0]
    return ModelMetadata(
        classes=reader.classes(),
        tile_px=tile_px,
        overlap_px=int(reader.number("overlap_px", 0, tile_px // 2)),
        scale=reader.scale(),
        temperature=reader.number("temperature", 1e-3, 1e3),
        mm_per_px=reader.ground_range(),
        ood=reader.ood(),
        properties=reader.values,
    )


def _decode(entries: Mapping[str, str], key: str, name: str) -> Any:
    """Decode one JSON value.

    Raises:
        ModelFileError: It is missing or no JSON.
    """
    try:
        return json.loads(entries[key], parse_constant=_no_constant)
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{name}: metadata '{key}' is missing or no JSON",
            "valid JSON",
            "export the model again",
        ) from error


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


class _Reader:
    """Take checked values out of the decoded object."""

    def __init__(self, name: str, values: Any) -> None:
        self.name = name
        if not isinstance(values, dict):
            self.refuse("weedseg", values, "an object")
        self.values: dict[str, Any] = values

    def refuse(self, key: str, value: Any, expected: str) -> NoReturn:
        """Say which value is odd.

        Raises:
            ModelFileError: Always.
        """
        flat = not isinstance(value, (list, dict)) or not any(
            isinstance(inner, (list, dict)) for inner in value
        )
        shown = repr(value)[:80] if flat else f"a nested {type(value).__name__}"
        raise ModelFileError(
            f"{self.name}: metadata '{key}' is {shown}", expected, "export the model again"
        )

    def schema(self) -> None:
        """Check the schema version; a newer minor one (1.2) is fine.

        Raises:
            ModelFileError: The major version is not known.
        """
        found = self.number("schema", 0, 1e6)
        if int(found) != SCHEMA:
            raise ModelFileError(
                f"{self.name}: schema version {found:g}",
                f"version {SCHEMA}",
                "update weedseg" if found > SCHEMA else "export the model again",
            )

    def number(self, key: str, low: float, high: float, within: Any = None) -> float:
        """Return a number in a range.

        Raises:
            ModelFileError: It is missing, no number, or out of range.
        """
        value = (self.values if within is None else within).get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.refuse(key, value, f"a number from {low:g} to {high:g}")
        if not low <= value <= high:
            self.refuse(key, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def scale(self) -> float:
        """Return the factor of the resize policy.

        Raises:
            ModelFileError: The policy is unknown or the factor out of range.
        """
        resize = self.values.get("resize")
        if not isinstance(resize, dict) or resize.get("kind") != "scale":
            self.refuse("resize", resize, 'an object of kind "scale"')
        return self.number("scale", MIN_SCALE, MAX_SCALE, within=resize)

    def classes(self) -> ClassTable:
        """Return the classes.

        Raises:
            ModelFileError: The table is wrong.
        """
        try:
            table = ClassTable.from_list(self.values.get("classes"))
        except ConfigError as error:
            raise ModelFileError(
                f"{self.name}: {error.found}", error.expected, "export the model again"
            ) from error
        for class_name in table.names:
            if not class_name.isprintable() or len(class_name) > MAX_NAME_LENGTH:
                self.refuse("classes", class_name, f"printable names up to {MAX_NAME_LENGTH} long")
        return table

    def ground_range(self) -> tuple[float, float] | None:
        """Return (lowest, highest) mm per px, or None.

        Raises:
            ModelFileError: It is no range.
        """
        value = self.values.get("mm_per_px")
        if value is None:
            return None
        numbers = isinstance(value, list) and len(value) == 2
        if not numbers or not all(type(v) in (int, float) and 0 < v < math.inf for v in value):
            self.refuse("mm_per_px", value, "[low, high]")
        return float(value[0]), float(value[1])

    def ood(self) -> OodReference | None:
        """Return what the photos of training looked like, or None.

        Raises:
            ModelFileError: It is no such thing.
        """
        value = self.values.get("ood")
        if value is None:
            return None
        try:
            return OodReference.from_dict(value)
        except ConfigError as error:
            self.refuse("ood", value, error.expected)
