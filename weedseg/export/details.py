"""What is written into a model file beside the network, as interfaces.md section 1 says."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import weedseg
from weedseg.classes import ClassTable, Role
from weedseg.config import ExportConfig
from weedseg.edge.metadata import MAX_SCALE, MIN_SCALE, SCHEMA
from weedseg.errors import ExportError

STRIDE_PX = 32


@dataclass(frozen=True, kw_only=True)
class ModelDetails:
    """All that a model file tells about its network."""

    tile_px: int = ExportConfig.tile_px
    """Side of the input, px, a multiple of 32."""
    overlap_px: int = ExportConfig.overlap_px
    """Smallest overlap of neighbouring tiles, px."""
    scale: float = 1.0
    """Photos are resized by this factor before they are cut into tiles."""
    temperature: float = 1.0
    """Logits are divided by it, > 0: calibrates the confidence, never changes the class."""
    ood: Mapping[str, Any] | None = None
    """What the photos of training look like, as `weedseg.edge.ood.OodReference` gives it; None:
    the model gives no `ood_score`."""
    mm_per_px: tuple[float, float] | None = None
    """Range of ground resolution in training, mm per px of the photo; None is unknown."""
    data_fingerprint: str = ""
    """Fingerprint of the farm folder."""
    metrics: Mapping[str, Any] | None = None
    """Figures of the evaluation."""
    evaluation_note: str = ""
    """What the figures hold for: 'within-field', 'across fields', 'accuracy unknown'."""
    quantisation: str = "none"
    """'none', 'fp16', 'int8' or 'int8-trt'."""
    forced: str = ""
    """Which gate the file did not pass and was written nevertheless; empty: none."""
    description: str = "Weed segmentation: background, crop and weed per pixel"
    author: str = "weedseg"
    version: str = "1"
    license: str = "unspecified"
    docs: str = "README.md"
    date: str = field(default_factory=lambda: date.today().isoformat())
    """Day of the export, ISO 8601."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ExportError: The temperature or the scale is out of range.
        """
        ExportConfig(tile_px=self.tile_px, overlap_px=self.overlap_px)
        for name, low, high in (("temperature", 1e-3, 1e3), ("scale", MIN_SCALE, MAX_SCALE)):
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise ExportError(f"{name} {value}", f"{low:g} to {high:g}", "correct it")


def model_properties(
    classes: ClassTable,
    details: ModelDetails,
    parity: Mapping[str, Any] | None = None,
    golden_sha256: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Word the ``metadata_props`` of a model file.

    Args:
        classes: The classes.
        details: The rest.
        parity: Figures of the parity check.
        golden_sha256: Checksums of the golden photo ('in') and class map ('out').

    Returns:
        Key -> value, each value JSON and Python literal at once.

    Raises:
        ExportError: A value is neither text, number, list nor mapping.
    """
    names = {str(number): name for number, name in enumerate(classes.names)}
    values: dict[str, Any] = {
        "names": names,
        "class_names": names,
        "task": "semantic",
        "stride": STRIDE_PX,
        "imgsz": [details.tile_px, details.tile_px],
        "batch": 1,
        "channels": 3,
        "description": details.description,
        "author": details.author,
        "date": details.date,
        "version": details.version,
        "license": details.license,
        "docs": details.docs,
        "model_type": "Segmentor",
        "resolution": _resolution_cm(details),
        "tile_size": details.tile_px,
        "tiles_size": details.tile_px,
        "tiles_overlap": round(100 * details.overlap_px / details.tile_px),
        "standardization_mean": [0.0, 0.0, 0.0],
        "standardization_std": [1.0, 1.0, 1.0],
        "seg_thresh": 0.5,
        "seg_small_segment": 0,
        "weedseg": _own(classes, details) | {"parity": parity, "golden_sha256": golden_sha256},
    }
    return {key: to_literal(value) for key, value in values.items() if value is not None}


def _own(classes: ClassTable, details: ModelDetails) -> dict[str, Any]:
    """Return what the edge runtime reads."""
    return {
        "schema": SCHEMA,
        "classes": classes.to_list(),
        "roles": {role.value: list(classes.ids_of(role)) for role in Role},
        "resize": {"kind": "scale", "scale": details.scale},
        "overlap_px": details.overlap_px,
        "temperature": details.temperature,
        "ood": details.ood,
        "mm_per_px": details.mm_per_px,
        "data_fingerprint": details.data_fingerprint,
        "metrics": details.metrics,
        "evaluation_note": details.evaluation_note,
        "quantisation": details.quantisation,
        "forced": details.forced or None,
        "weedseg_version": weedseg.__version__,
    }


def _resolution_cm(details: ModelDetails) -> float | None:
    """Return the ground resolution of the input, cm per px, as QGIS Deepness wants it."""
    if details.mm_per_px is None:
        return None
    return round(sum(details.mm_per_px) / 2 / details.scale / 10, 4)


def to_literal(value: Any) -> str:
    """Write a value as text that is both JSON and a Python literal.

    None is left out of mappings, true and false become 1 and 0.

    Raises:
        ExportError: There is no such text.
    """
    try:
        text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)
        same = ast.literal_eval(text) == json.loads(text)
    except (TypeError, ValueError, SyntaxError, RecursionError) as error:
        raise _no_literal(value) from error
    if not same:
        raise _no_literal(value)
    return text


def _no_literal(value: Any) -> ExportError:
    return ExportError(
        f"metadata {repr(value)[:80]}", "finite numbers, texts, lists and mappings", "correct it"
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value if v is not None]
    return int(value) if isinstance(value, bool) else value
