"""Classes of a farm, and what the colours of its colour masks mean."""

from __future__ import annotations

import re
from pathlib import Path

from weedseg.classes import DEFAULT_CLASSES, IGNORE_ID, ROLE_COLOURS, ClassTable, Role
from weedseg.config import DataConfig
from weedseg.errors import ConfigError
from weedseg.toml_files import read_toml

Palette = dict[tuple[int, int, int], int]
"""Mask colour (red, green, blue), 0-255 -> class id, or 255 for ignore."""

_COLOUR_NAMES = {Role.BACKGROUND: "black", Role.CROP: "green", Role.WEED: "red"}


def read_classes(root: Path, config: DataConfig) -> tuple[ClassTable, Palette, list[str]]:
    """Read classes (recipe first, then ``classes.toml``) and the palette of colour masks.

    Args:
        root: The farm folder.
        config: Classes and palette of the recipe, perhaps empty.

    Returns:
        Classes, palette, and sentences to announce.

    Raises:
        ConfigError: A class or colour is wrong.
    """
    path = root / "classes.toml"
    classes, notes = DEFAULT_CLASSES, []
    if config.classes:
        classes = ClassTable.from_list(config.classes)
        if path.is_file():
            notes.append(f"the recipe names the classes; {path} is not used")
    elif path.is_file():
        classes = ClassTable.from_list(read_toml(path).get("classes"))
    return classes, _palette(classes, config), notes


def _palette(classes: ClassTable, config: DataConfig) -> Palette:
    """Read ``[data.palette]``, or else take black, green and red where one class has the role.

    Raises:
        ConfigError: A colour is no ``#rrggbb`` or its class is unknown.
    """
    if not config.palette:
        by_role = {role: classes.ids_of(role) for role in Role}
        return {ROLE_COLOURS[role]: ids[0] for role, ids in by_role.items() if len(ids) == 1}
    palette: Palette = {}
    for text, name in config.palette.items():
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
            raise ConfigError(
                f"data.palette: colour '{text}'", "'#rrggbb'", "write e.g. '#ff0000' = 'weed'"
            )
        if name != "ignore" and name not in classes.names:
            raise ConfigError(
                f"data.palette: class '{name}' for colour {text}",
                f"'ignore' or one of {', '.join(classes.names)}",
                "correct the name",
            )
        colour = (int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16))
        palette[colour] = IGNORE_ID if name == "ignore" else classes.names.index(name)
    return palette


def palette_sentence(classes: ClassTable, palette: Palette, chosen: bool) -> str:
    """Say how colour masks are read.

    Args:
        classes: The classes of the farm.
        palette: Mask colours.
        chosen: Whether a person gave the palette.

    Returns:
        One sentence without a full stop.
    """
    meaning = {c: "ignore" if i == IGNORE_ID else classes.names[i] for c, i in palette.items()}
    if chosen:
        listed = ", ".join(f"{colour_text(c)} = {name}" for c, name in meaning.items())
        return f"colour masks are read by data.palette: {listed}"
    plain = {ROLE_COLOURS[role]: name for role, name in _COLOUR_NAMES.items()}
    listed = ", ".join(f"{plain[c]} = {name}" for c, name in meaning.items())
    return f"masks are colours, read as {listed}; give data.palette if that is wrong"


def colour_text(colour: tuple[int, int, int]) -> str:
    """Write a colour as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
