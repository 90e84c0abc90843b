"""Checks of single settings, each with a sentence that names the setting."""

from __future__ import annotations

import difflib

from weedseg.errors import ConfigError


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Check that a setting lies between two values, both allowed.

    Raises:
        ConfigError: It is not.
    """
    if not low <= value <= high:
        raise ConfigError(f"{name} = {value}", f"{low} to {high}", f"set {name} in that range")


def check_shares(section: str, values: object, names: str) -> None:
    """Check that settings, named in one text, lie between 0 and 1.

    Raises:
        ConfigError: It is not.
    """
    for name in names.split():
        check_range(f"{section}.{name}", getattr(values, name), 0, 1)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Check that a setting is one of some words; a near miss gets a suggestion.

    Raises:
        ConfigError: It is not.
    """
    if value not in choices:
        near = difflib.get_close_matches(value, choices, 1)
        remedy = f"did you mean '{near[0]}'?" if near else "choose one of them"
        raise ConfigError(f"{name} = '{value}'", f"one of {', '.join(choices)}", remedy)


def check_tile(name: str, value: int) -> None:
    """Check that the side of a tile is one that the networks take, px.

    Raises:
        ConfigError: It is not.
    """
    if value % 32 or not 64 <= value <= 4096:
        near = min(max(round(value / 32) * 32, 64), 4096)
        raise ConfigError(f"{name} = {value}", "a multiple of 32 from 64 to 4096", f"use {near}")
