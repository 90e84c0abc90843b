"""Complete the metadata of an exported model; its graph, and so its parity, stay as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from weedseg.export.details import to_literal
from weedseg.export.onnx_graph import describe
from weedseg.imaging import write_bytes


def add_figures(path: Path, metrics: Mapping[str, Any] | None, note: str) -> None:
    """Write the figures of an evaluation into a model file.

    Args:
        path: A model that weedseg exported.
        metrics: Scores; None when accuracy is unknown.
        note: What the figures hold for.

    Raises:
        ExportError: The figures hold something that metadata cannot.
        OutputError: The disk is full; the file is as it was.
    """
    model = onnx.load_from_string(path.read_bytes())
    properties = {entry.key: entry.value for entry in model.metadata_props}
    own: dict[str, Any] = json.loads(properties["weedseg"])
    own.pop("metrics", None)
    own.update({"metrics": metrics} if metrics else {}, evaluation_note=note)
    describe(model, {**properties, "weedseg": to_literal(own)})
    write_bytes(path, model.SerializeToString())
