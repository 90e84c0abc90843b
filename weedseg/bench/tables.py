"""Tables for people, drawn from the lines that runs wrote and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weedseg.bench.campaigns import campaigns_table
from weedseg.bench.cost import cost_table
from weedseg.bench.edge_table import draw_edge
from weedseg.bench.lines import read_lines
from weedseg.bench.maps import maps_table
from weedseg.bench.peers_table import peers_table, read_peers
from weedseg.bench.pretraining_tables import (
    comparison_table,
    cross_tables,
    curve_table,
    practice_tables,
    pretraining_table,
    verdict,
    with_source,
)
from weedseg.bench.scorers import scorers_table
from weedseg.bench.serve_table import draw_serve
from weedseg.bench.trials import trials_table

Lines = Sequence[dict[str, Any]]

CORE_LABELS = 10
"""Labelled photos of the core's runs: what the claims are about."""
STAGES = {
    "pretrain": "pretrain on all photos",
    "finetune": "fine-tune on the labels",
    "export": "export and parity check",
    "total": "whole command",
}


def runs_table(lines: Lines) -> str:
    """Draw a Markdown table of recorded runs: seconds per stage and accuracy beside baselines.

    Args:
        lines: Lines of `recorded_run`; of lines with one name the last counts.
    """
    latest = {line["name"]: line for line in lines}
    rows = ["| run | stage | time | result |", "|---|---|---:|---|"]
    for name, line in latest.items():
        for key, stage in STAGES.items():
            if key in line["seconds"]:
                rows.append(
                    f"| {name} | {stage} | {line['seconds'][key]:.0f} s | {_result(line, key)} |"
                )
    return "\n".join(rows) + "\n"


def _result(line: dict[str, Any], stage: str) -> str:
    if stage in ("pretrain", "finetune"):
        return f"{line['plan'][f'{stage}_steps']} steps"
    if stage == "export":
        return f"{100 * line['parity']['equal_share']:.3f} % of pixels as in torch"
    best = max((roles["weed_iou"] or 0.0) for roles in line["baselines"].values())
    return (
        f"weed IoU {line['roles']['weed_iou']:.3f}, mIoU {line['miou']:.3f}; "
        f"best baseline: weed IoU {best:.3f}"
    )


def recorded_run(
    name: str, facts: dict[str, Any], evaluation: dict[str, Any], parity: dict[str, Any]
) -> dict[str, Any]:
    """Make the line that records a run.

    Args:
        name: What the table calls it.
        facts: What its ``run.json`` holds.
        evaluation: What its ``evaluation.json`` holds.
        parity: Parity figures of its model.
    """
    kept = ("weedseg", "torch", "machine", "threads", "minutes", "plan", "seconds", "num_photos")
    return {
        "name": name,
        **{key: facts[key] for key in (*kept, "num_labelled", "seed")},
        **{key: evaluation[key] for key in ("miou", "roles", "baselines", "label")},
        "num_test": evaluation["num_photos"],
        "parity": parity,
    }


def pretraining_files(folder: Path) -> list[Path]:
    """List one file of lines a data set: the core's once it can answer, else the first table's.

    It can when it has both arms of the claim. The files lie apart because their runs have the same
    names, another network and another size.
    """
    core = folder / "pretraining"
    files = {path.name: path for path in sorted((core / "first").glob("*.jsonl"))}
    for path in sorted(core.glob("*.jsonl")):
        if {"S+", "P"} <= {line["arm"] for line in read_lines(path)}:
            files[path.name] = path
    return list(files.values())


def draw_all(folder: Path) -> dict[str, str]:
    """Draw every table that the lines of a folder allow, by name."""
    lines = [with_source(x) for path in pretraining_files(folder) for x in read_lines(path)]
    plain = [x for x in lines if not x["arm"].endswith(("U", "K"))]
    rows = [x for x in plain if x["labels"] == CORE_LABELS and " on " not in x["arm"]]
    found = [x for p in sorted(folder.glob("pretraining/*.jsonl")) for x in read_lines(p)]
    core = [x for x in map(with_source, found) if " on " not in x["arm"]]
    return {
        "pretraining": f"{pretraining_table(rows)}\n{verdict(rows)}" if rows else "",
        "comparison": comparison_table(rows),
        "practice": practice_tables(core),
        "curves": curve_table(plain),
        "cross": cross_tables(plain),
        "trials": trials_table(
            [x for p in sorted(folder.glob("pretraining/tuning/*.jsonl")) for x in read_lines(p)]
        ),
        "runs": runs_table(read_lines(folder / "runs.jsonl")),
        "throughput": throughput_table(read_lines(folder / "throughput.jsonl")),
        "scorers": scorers_table(
            read_lines(folder / "pretraining" / "diagnosis" / "scorers.jsonl")
        ),
        "maps": maps_list(read_lines(folder / "maps.jsonl")),
        "cost": cost_table(read_lines(folder / "cost.jsonl")),
        "peers": peers_table(*read_peers(folder / "peers")),
        "edge": draw_edge(folder / "edge"),
        "synthetic": synthetic_table(read_lines(folder / "synthetic.jsonl")),
        "serve": draw_serve(folder / "serve"),
        "campaigns": campaigns_table(folder / "soak"),
    }


def synthetic_table(lines: Lines) -> str:
    """Draw a Markdown table of networks that saw only synthetic photos, on real ones."""
    rows = [
        "| first weights | photos | plants against soil, IoU | ExG + Otsu | better on |",
        "|---|---:|---:|---:|---:|",
    ]
    for line in {line["init"]: line for line in lines}.values():
        cells = (
            "ImageNet" if line["init"] == "imagenet" else "random",
            str(line["num_photos"]),
            f"{line['plant_iou']['all']:.2f}",
            f"{line['exg_otsu_plant_iou']['all']:.2f}",
            f"{100 * line['better_share']:.0f} % of them",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def maps_list(lines: Lines) -> str:
    """Draw what the newest large map showed as a Markdown list."""
    rows = maps_table(lines[-1]).splitlines() if lines else []
    return "".join(f"- {row}\n" for row in rows)


def throughput_table(lines: Lines) -> str:
    """Draw a Markdown table of the training loop against its bare step."""
    rows = [
        "| data set | bare step | loop step | throughput kept | scoring | peak memory |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for line in {line["dataset"]: line for line in lines}.values():
        cells = [
            line["dataset"],
            f"{1000 * line['bare_step_seconds']:.0f} ms",
            f"{1000 * line['loop_step_seconds']:.0f} ms",
            f"{100 * line['ratio']:.1f} %",
            f"{100 * line['scoring_share']:.1f} % of the time",
            f"{line['peak_memory_bytes'] / 2**20:.0f} MiB",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def fill(text: str, tables: dict[str, str]) -> str:
    """Replace what stands between ``<!-- table:NAME -->`` and ``<!-- end -->`` by tables.

    Args:
        text: A Markdown file.
        tables: NAME -> table; a name that the text lacks is left out.
    """
    for name, table in tables.items():
        start, end = f"<!-- table:{name} -->\n", "<!-- end -->"
        before, found, rest = text.partition(start)
        if found:
            _, _, after = rest.partition(end)
            text = f"{before}{start}\n{table}\n{end}{after}"
    return text
