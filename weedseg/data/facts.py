"""Source, licence and citation of published data sets, from their manifests."""

from __future__ import annotations

from pathlib import Path

import weedseg
from weedseg.errors import ConfigError
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
    path = manifests().get(name)
    if path is None:
        return {}
    values = read_toml(path)
    return {key: values[key] for key in _KEYS if key in values}


def manifests() -> dict[str, Path]:
    """Return the manifests that come with weedseg, by the name of their data set."""
    package = Path(weedseg.__file__).parent
    folders = (package / "manifests", package.parent / "field_data" / "manifests")
    found = next((folder for folder in folders if folder.is_dir()), None)
    return {path.stem: path for path in sorted(found.glob("*.toml"))} if found else {}


def find_manifest(name: str) -> Path:
    """Return the manifest of a data set.

    Raises:
        ConfigError: There is none of that name.
    """
    known = manifests()
    if name not in known:
        raise ConfigError(f"data set '{name}'", f"one of {', '.join(known)}", "choose one")
    return known[name]
