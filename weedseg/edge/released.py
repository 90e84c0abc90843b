"""Where the model lies that comes with weedseg."""

from __future__ import annotations

from pathlib import Path

import weedseg
from weedseg.errors import ModelFileError

DEFAULT_MODEL = "peanut-lite0"
"""Name of the released model that `predict` takes when none is given."""


def default_model(name: str = DEFAULT_MODEL) -> Path:
    """Find a released model: in the installed package, or in a checkout.

    Args:
        name: Folder of the model.

    Raises:
        ModelFileError: This installation has none of that name.
    """
    package = Path(weedseg.__file__).resolve().parent
    folders = (package / "released", package.parent / "models")
    for folder in folders:
        path = folder / name / "model.onnx"
        if path.is_file():
            return path
    raise ModelFileError(
        f"no released model '{name}' in this installation",
        f"{folders[0] / name / 'model.onnx'}",
        "name a model with --model, e.g. the model.onnx of a run of weedseg train",
    )
