"""Read ``fields.csv``: field, date and ground resolution of photos."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from weedseg.errors import FieldDataError

COLUMNS = ("photo", "field", "date", "mm_per_px")


@dataclass(frozen=True, kw_only=True)
class FieldRow:
    """What ``fields.csv`` says of one photo; empty strings and None where it says nothing."""

    field: str
    date: str
    mm_per_px: float | None


def read_fields_csv(path: Path, names: Sequence[str]) -> tuple[dict[str, FieldRow], list[str]]:
    """Read the table; the photo column holds a relative path, a file name or a stem.

    Args:
        path: The file; comma or semicolon between columns, UTF-8.
        names: Photos of the farm, relative paths with forward slashes.

    Returns:
        Photo name -> row, and the entries for which there is no photo.

    Raises:
        FieldDataError: The table cannot be read, or a column or value is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FieldDataError(
            f"{path} cannot be read: {error}", "a table in UTF-8", "save it as CSV UTF-8"
        ) from error
    lines = text.splitlines()
    comma = ";" if lines and ";" in lines[0] and "," not in lines[0] else ","
    reader = csv.DictReader(lines, delimiter=comma, skipinitialspace=True)
    columns = [(c or "").strip().lower() for c in reader.fieldnames or []]
    reader.fieldnames = columns
    if "photo" not in columns or not set(columns) <= set(COLUMNS):
        raise FieldDataError(
            f"{path} has columns {', '.join(columns) or 'none'}",
            f"photo and any of {', '.join(COLUMNS[1:])}",
            "correct its first line",
        )
    lookup = _lookup(names)
    rows: dict[str, FieldRow] = {}
    lost = []
    for number, cells in enumerate(reader, start=2):
        where = f"{path} line {number}"
        entry = (cells.get("photo") or "").strip().replace("\\", "/").removeprefix("./")
        found = lookup.get(entry, [])
        if len(found) > 1 or any(name in rows for name in found):
            raise FieldDataError(
                f"{where}: '{entry}' fits more than one photo or appears twice",
                "one line for each photo",
                "write the path below the farm folder",
            )
        if not found:
            lost.append(entry)
        for name in found:
            rows[name] = _row(cells, where)
    return rows, lost


def _lookup(names: Sequence[str]) -> dict[str, list[str]]:
    """Map relative paths, file names and stems to photos; the fuller name wins."""
    table: dict[str, list[str]] = {}
    for name in names:
        base = name.rpartition("/")[2]
        for key in {base, base.rpartition(".")[0]} - {name}:
            table.setdefault(key, []).append(name)
    return {**table, **{name: [name] for name in names}}


def _row(cells: dict[str, str], where: str) -> FieldRow:
    text = (cells.get("mm_per_px") or "").strip()
    value = None
    if text and text.lower() != "unknown":
        try:
            value = float(text.replace(",", "."))
        except ValueError:
            value = 0.0
        if not 0 < value <= 1000:
            raise FieldDataError(
                f"{where}: mm_per_px '{text}'",
                "a number of millimetres above 0, or nothing",
                "correct the number",
            )
    field, date = ((cells.get(key) or "").strip() for key in ("field", "date"))
    return FieldRow(field=field, date=date, mm_per_px=value)
