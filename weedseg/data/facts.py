"""Source, licence and citation of published data sets, from their manifests."""

from __future__ import annotations

from pathlib import Path

import weedseg
from weedseg.toml_files import read_toml

_KEYS = ("title", "source", "licence", "citation", "release_weights")


def published_facts(name: str) -> dict[str, object]:
    """Return what the manifest of a data set says of its origin.

    Args:
        name: The data set, such as ``cwfid``.

    Returns:
        title, source, licence, citation, release_weights; empty for an unknown name.

    Raises:
        ConfigError: The manifest is no TOML.
    """
    package = Path(weedseg.__file__).parent
    for folder in (package / "manifests", package.parent / "field_data" / "manifests"):
        path = folder / f"{name}.toml"
        if path.is_file():
            values = read_toml(path)
            return {key: values[key] for key in _KEYS if key in values}
    return {}
