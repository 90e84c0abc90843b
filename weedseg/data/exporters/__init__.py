"""Hand the masks of a farm to label tools; `weedseg.data.importers` reads every pixel back.

A photo that shows only background is told from an unlabelled one. Each export has its own
``classes.toml``.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from weedseg.data.importers.naming import IGNORE_NAME
from weedseg.data.index import Farm
from weedseg.data.writing import classes_toml
from weedseg.errors import ConfigError, OutputError
from weedseg.imaging import write_bytes

EXPORTS: dict[str, str] = {
    "coco": "annotations.json, compressed run lengths",
    "cvat": "annotations.xml, CVAT for images 1.1, masks",
    "labelstudio": "tasks.json and label_config.xml, brush",
    "png": "masks of class ids",
}
"""Format -> what it writes."""


def export_farm(farm: Farm, kind: str, out: Path) -> None:
    """Write the masks of a farm.

    Args:
        farm: The farm; photos are named by their path below it, and not copied.
        kind: A key of `EXPORTS`.
        out: New or empty folder.

    Raises:
        ConfigError: The format is unknown, or a class is called "ignore".
        MaskError: A mask is faulty.
        OutputError: The folder is not empty, inside the farm, or cannot be written.
    """
    if kind not in EXPORTS:
        raise ConfigError(f"format '{kind}'", f"one of {', '.join(EXPORTS)}", "choose one")
    if IGNORE_NAME in farm.classes.names:
        raise ConfigError(
            f"a class called '{IGNORE_NAME}'", "another name: it stands for 255", "rename it"
        )
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out} is not empty", "a new or empty folder", "choose another --out")
    if farm.root.resolve() in (out.resolve(), *out.resolve().parents):
        raise OutputError(f"{out} lies in the farm folder", "another place", "choose another --out")
    importlib.import_module(f"weedseg.data.exporters.{kind}").export(farm, out)
    write_bytes(out / "classes.toml", classes_toml(farm.classes).encode())
