"""Which class a label name of a label tool means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from weedseg.classes import IGNORE_ID, ClassTable, FieldClass, Role
from weedseg.data.importers.items import ImportOptions
from weedseg.errors import ConfigError
from weedseg.toml_files import read_toml

IGNORE_NAME = "ignore"
UNSPECIFIED = "UNSPECIFIED"
"""WeedCOCO's word for a species that nobody named."""
NO_PLANT = "none"
"""WeedCOCO's word for pixels without a plant."""

_SOIL = frozenset({"background", "soil", NO_PLANT, "ground", "bare soil"})
_IGNORED = frozenset({IGNORE_NAME, "ignored", "void", "dontcare", "don't care"})
_CROPS = frozenset(
    {"crop", "beta vulgaris", "sugar beet", "sugarbeet", "maize", "corn", "carrot", "wheat"}
    | {"soybean", "peanut", "potato", "cotton", "sunflower", "rice", "barley", "canola"}
    | {"rapeseed", "onion", "lettuce", "bean", "pea"}
)


def weedcoco_name(kind: FieldClass) -> str:
    """Name a class as WeedCOCO does: ``weed: UNSPECIFIED``, ``crop: beta vulgaris``."""
    plain = kind.name == kind.role.value
    return f"{kind.role.value}: {UNSPECIFIED if plain else kind.name}"


def resolve(
    names: Iterable[str], near: Path, options: ImportOptions
) -> tuple[ClassTable, dict[str, int]]:
    """Find the class id of every label name.

    A ``classes.toml`` beside the labels decides; without one, roles follow from the names or
    from the person.

    Args:
        names: Label names, in the order of the file.
        near: The labels' file or folder.
        options: Roles that a person gave.

    Returns:
        Classes, and label name -> class id or 255.

    Raises:
        ConfigError: The role of a name is unknown.
    """
    known = list(dict.fromkeys(names))
    table = (near if near.is_dir() else near.parent) / "classes.toml"
    if table.is_file():
        classes = ClassTable.from_list(read_toml(table).get("classes"))
        return classes, _by_table(known, classes, table)
    return _by_role(known, options.roles)


def _by_table(names: list[str], classes: ClassTable, table: Path) -> dict[str, int]:
    """Find names in a table of classes.

    Raises:
        ConfigError: One is not there.
    """
    ids = {weedcoco_name(c): i for i, c in enumerate(classes.classes)}
    ids |= {NO_PLANT: 0, IGNORE_NAME: IGNORE_ID}
    ids |= {name: i for i, name in enumerate(classes.names)}
    for name in names:
        if name not in ids:
            raise ConfigError(
                f"label '{name}'", f"a class of {table}", "add the class there or rename the label"
            )
    return ids


def _by_role(names: list[str], roles: Mapping[str, str]) -> tuple[ClassTable, dict[str, int]]:
    """Build a table of classes from label names: first background, then the rest in order.

    Raises:
        ConfigError: A role is unknown.
    """
    kinds = {name: _role_of(name, roles) for name in names}
    soil = next((n for n in names if kinds[n] is Role.BACKGROUND), None)
    kept = [n for n in names if n != soil and kinds[n] is not None]
    rows = [{"name": _short(soil) if soil else "background", "role": Role.BACKGROUND.value}]
    rows += [{"name": _short(n), "role": _value(kinds[n])} for n in kept]
    ids = {n: i for i, n in enumerate(kept, start=1)}
    ids |= {n: IGNORE_ID for n in names if kinds[n] is None} | ({soil: 0} if soil else {})
    return ClassTable.from_list(rows), ids


def _role_of(name: str, roles: Mapping[str, str]) -> Role | None:
    """Return the role of a label name, None for ignore.

    Raises:
        ConfigError: Neither the name nor the person says it.
    """
    plain = name.strip().lower()
    said = roles.get(name, "")
    begin = plain.partition(":")[0].strip()
    valid = {role.value: role for role in Role}
    if said == IGNORE_NAME or (not said and plain in _IGNORED):
        return None
    if (said or begin) in valid:
        return valid[said or begin]
    if not said and plain in _SOIL:
        return Role.BACKGROUND
    if not said and plain in _CROPS:
        return Role.CROP
    if not said and "weed" in plain:
        return Role.WEED
    raise ConfigError(
        f"label '{name}' with role '{said}'" if said else f"label '{name}' of unknown role",
        "background, crop, weed or ignore",
        f"add --role '{name}=weed' or what it is",
    )


def _short(name: str) -> str:
    """Return a label name without WeedCOCO's beginning; the role's name if no species is said."""
    role, colon, species = (part.strip() for part in name.partition(":"))
    if name.strip().lower() == NO_PLANT:
        return "background"
    if not colon or role.lower() not in {r.value for r in Role}:
        return name.strip()
    return role.lower() if species in ("", UNSPECIFIED) else species


def _value(role: Role | None) -> str:
    return (role or Role.BACKGROUND).value
