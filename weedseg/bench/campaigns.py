"""What the campaigns of ``make soak`` went through, as a table drawn from the lines they wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from weedseg.bench.lines import read_lines

Line = dict[str, Any]


def campaigns_table(folder: Path) -> str:
    """Draw a Markdown table of the newest full campaign of each kind; empty when there is none."""
    rows = []
    for name in ("job_kills", "service"):
        newest = {
            (x["what"], x.get("database", "")): x for x in read_lines(folder / f"{name}.jsonl")
        }
        rows += [_WORDS[line["what"]](line) for line in newest.values()]
    memory = read_lines(folder / "serve_memory.jsonl")
    rows += [_memory(line) for line in memory[-1:]]
    rows += [_map(line) for line in read_lines(folder / "map_kills.jsonl")[-1:]]
    training = read_lines(folder / "checkpoint_kills.jsonl")
    rows += [_training(training)] if training else []
    if not rows:
        return ""
    head = "| campaign | done to it | what came of it |\n|---|---|---|"
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _kills(line: Line) -> tuple[str, str, str]:
    in_step = f", {line['kills_in_step']} of them in a step" if "kills_in_step" in line else ""
    told = f"{line['jobs']:,} jobs, all done once, byte for byte as when undisturbed; "
    told += f"{line['steps_again']} of {line['steps']:,} steps done again"
    return (
        f"jobs, {line['what']} on {_DATABASES[line['database']]}",
        f"{line['kills']} kills{in_step}",
        told,
    )


def _mutated(line: Line) -> tuple[str, str, str]:
    told = f"answers: {_codes(line)}; peak memory {line['growth_mib']:.0f} MiB above idle"
    return "service, damaged uploads", f"{line['uploads']:,} mutated photos", told


def _stops(line: Line) -> tuple[str, str, str]:
    told = f"answers: {_codes(line)}; 0 accepted photos without an answer"
    return "service, stops under load", f"{line['stops']} stops", told


def _schema(line: Line) -> tuple[str, str, str]:
    return "service, schemathesis over the OpenAPI", f"{line['cases']:,} requests", "0 failures"


def _memory(line: Line) -> tuple[str, str, str]:
    told = f"answers: {_codes(line)}; memory {line['growth_mib']:+.0f} MiB"
    return "service, mixed photos", f"{line['requests']:,} requests", told


def _map(line: Line) -> tuple[str, str, str]:
    return "map of a gigapixel", f"{line['kills']} kills", "resumed each time, byte-identical"


def _training(lines: list[Line]) -> tuple[str, str, str]:
    good = sum(line["resumed"] and line["same_bytes"] for line in lines)
    kills = sum(line["killed"] for line in lines)
    return "training", f"{kills} kills", f"{good} of {len(lines)} runs ended in the same bytes"


def _codes(line: Line) -> str:
    return ", ".join(f"{times:,} x {code}" for code, times in line["codes"].items())


_DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
_WORDS: dict[str, Callable[[Line], tuple[str, str, str]]] = {
    "workers": _kills,
    "servers": _kills,
    "mutated uploads": _mutated,
    "stops under load": _stops,
    "schemathesis": _schema,
}
