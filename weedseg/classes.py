"""Class ids, names, colours and roles: what the pixels mean to a grower."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from weedseg.errors import ConfigError

IGNORE_ID = 255
"""Pixels with this id in a mask count for nothing."""


class Role(str, Enum):
    """What a class means to the grower; many species may share one role."""

    BACKGROUND = "background"
    CROP = "crop"
    WEED = "weed"


ROLE_COLOURS: dict[Role, tuple[int, int, int]] = {
    Role.BACKGROUND: (0, 0, 0),
    Role.CROP: (0, 255, 0),
    Role.WEED: (255, 0, 0),
}


@dataclass(frozen=True, kw_only=True)
class FieldClass:
    """One class of a segmenter."""

    name: str
    role: Role
    colour: tuple[int, int, int]
    """RGB, 0-255: how overlays and colour masks draw the class."""


@dataclass(frozen=True)
class ClassTable:
    """The classes of a farm; the position is the class id, and id 0 is background."""

    classes: tuple[FieldClass, ...]

    def __post_init__(self) -> None:
        """Check the table.

        Raises:
            ConfigError: The table is too small, too large, or names or roles do not fit.
        """
        if not 2 <= len(self.classes) < IGNORE_ID:
            raise ConfigError(
                f"{len(self.classes)} classes", f"2 to {IGNORE_ID - 1}", "correct classes.toml"
            )
        if self.classes[0].role is not Role.BACKGROUND:
            raise ConfigError(
                f"class 0 '{self.classes[0].name}' has role {self.classes[0].role.value}",
                "class 0 to be background",
                "put the background class first in classes.toml",
            )
        if len(set(self.names)) != len(self.names):
            raise ConfigError(
                f"class names {list(self.names)}", "each name once", "rename one in classes.toml"
            )

    def __len__(self) -> int:
        """Count the classes."""
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of their ids."""
        return tuple(c.name for c in self.classes)

    @property
    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """RGB colours in the order of the ids."""
        return tuple(c.colour for c in self.classes)

    def ids_of(self, role: Role) -> tuple[int, ...]:
        """Return the ids of all classes that have a role."""
        return tuple(i for i, c in enumerate(self.classes) if c.role is role)

    def to_list(self) -> list[dict[str, Any]]:
        """Return plain data for JSON and model metadata."""
        return [
            {"name": c.name, "role": c.role.value, "colour": list(c.colour)} for c in self.classes
        ]

    @classmethod
    def from_list(cls, rows: Any) -> ClassTable:
        """Read what `to_list` or ``[[classes]]`` tables hold: name, role, colour.

        Raises:
            ConfigError: A row lacks a name, or a role or colour is unknown.
        """
        if not isinstance(rows, list):
            raise ConfigError(
                "no list of classes", "[[classes]] tables with name and role", "see the README"
            )
        return cls(tuple(_read_class(row, number) for number, row in enumerate(rows)))


def _read_class(row: Any, number: int) -> FieldClass:
    if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not row["name"].strip():
        raise ConfigError(f"class {number} without a name", "a name and a role", "add name = '...'")
    unknown = sorted(set(row) - {"name", "role", "colour"})
    if unknown:
        raise ConfigError(
            f"class '{row['name']}' has unknown key '{unknown[0]}'",
            "name, role, colour",
            "remove the key",
        )
    roles = [role.value for role in Role]
    if row.get("role") not in roles:
        raise ConfigError(
            f"class '{row['name']}' has role {row.get('role')!r}", f"one of {roles}", "correct it"
        )
    role = Role(row["role"])
    colour = row.get("colour", _default_colour(role, number))
    fits = isinstance(colour, (list, tuple)) and len(colour) == 3
    if not fits or not all(type(v) is int and 0 <= v <= 255 for v in colour):
        raise ConfigError(
            f"class '{row['name']}' has colour {colour!r}",
            "[red, green, blue], 0-255",
            "correct it",
        )
    return FieldClass(name=row["name"].strip(), role=role, colour=(colour[0], colour[1], colour[2]))


def _default_colour(role: Role, number: int) -> tuple[int, int, int]:
    """Shift the role's colour a little per id, so that species can be told apart."""
    base = ROLE_COLOURS[role]
    if number <= 2 or role is Role.BACKGROUND:
        return base
    shift = (number * 67) % 200
    red, green, blue = base
    return (red or shift, green or (shift * 3) % 200, blue or (shift * 5) % 255)


DEFAULT_CLASSES = ClassTable(
    tuple(
        FieldClass(name=role.value, role=role, colour=colour)
        for role, colour in ROLE_COLOURS.items()
    )
)
"""background, crop, weed."""
