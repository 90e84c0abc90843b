"""A report as plain data: what its HTML and its PDF both show, in the same order and words."""

from __future__ import annotations

import base64
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Number:
    """A headline figure."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with what it shows."""

    data: bytes
    kind: str
    """Media type, image/png or image/jpeg."""
    caption: str
    text: str
    """What it shows, for those who cannot see it."""
    height_mm: float = 90.0
    """Largest height on paper."""

    @property
    def is_photo(self) -> bool:
        """Whether it is a photo and no drawing."""
        return self.kind == "image/jpeg"

    @property
    def uri(self) -> str:
        """An address that holds the picture."""
        return f"data:{self.kind};base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of words; the first column names the row."""

    head: tuple[str, ...]
    """Empty: the table has no head, and its second column holds words too."""
    rows: tuple[tuple[str, ...], ...]
    swatches: tuple[str, ...] = ()
    """Colour of each row as ``#rrggbb``, or none."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One chapter; what is empty is left out."""

    key: str
    title: str
    sentences: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    table: Table | None = None
    notes: tuple[str, ...] = ()
    """Small print."""
    points: tuple[str, ...] = ()
    """A list of sentences."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The whole report."""

    title: str
    subtitle: str
    warnings: tuple[str, ...]
    numbers: tuple[Number, ...]
    sections: tuple[Section, ...]
    footer: str
