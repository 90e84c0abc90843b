"""Tables for people, drawn from the lines that runs wrote and from nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weedseg.bench.campaigns import campaigns_table
from weedseg.bench.comparison import compare, holm
from weedseg.bench.cost import cost_table
from weedseg.bench.edge_table import draw_edge
from weedseg.bench.lines import read_lines
from weedseg.bench.maps import maps_table
from weedseg.bench.peers_table import mean_and_range, peers_table, read_peers
from weedseg.bench.scorers import scorers_table
from weedseg.bench.serve_table import draw_serve
from weedseg.bench.trials import trials_table

ARM_NAMES = {
    "N": "scratch",
    "I": "ImageNet, no masking",
    "R": "random masking",
    "P": "random masking, staged",
    "Q": "structured noise",
    "G": "edges",
    "V": "green",
    "H": "scores shuffled",
    "L": "easiest",
    "F": "selective, as published",
    "S+": "selective, ours",
    "I+R": "ImageNet + random",
    "I+S+": "ImageNet + selective",
    "N+U": "scratch, practice on all photos",
    "I+K": "ImageNet, practice on the labelled photos",
    "I+U": "ImageNet, practice on all photos",
    "I+R+U": "ImageNet + random, practice",
    "I+S++U": "ImageNet + selective, practice",
}

Lines = Sequence[dict[str, Any]]

CLAIMS = (("S+", "P"), ("S+", "R"), ("S+", "I"), ("F", "P"), ("F", "R"), ("I+S+", "I+R"))
"""Pairs of arms that the benchmark is about; S+ against P in weed IoU is the primary one."""
PRACTICE = (("I+U", "I"), ("I+U", "I+K"), ("N+U", "N"), ("I+R+U", "I+U"), ("I+S++U", "I+R+U"))
"""Pairs about practice in fine-tuning; a family of their own."""
SCORES = ("weed", "mIoU", "worst class")


def comparison_table(lines: Lines, claims: Sequence[tuple[str, str]] = CLAIMS) -> str:
    """Draw a Markdown table of claims: mean difference, 95 % interval, p after Holm.

    Args:
        lines: Run lines of any data sets; each data set and number of labels is a family of its
            own for Holm's correction. Empty without a pair of runs.
        claims: Pairs of arms.
    """
    rows = []
    for dataset, labels in sorted({(line["dataset"], line["labels"]) for line in lines}):
        own = [x for x in lines if (x["dataset"], x["labels"]) == (dataset, labels)]
        made = [compare(own, better, worse, score) for better, worse in claims for score in SCORES]
        found = [c for c in made if c is not None]
        for c, p in zip(found, holm([c.p_value for c in found])):
            cells = (
                f"{dataset}, {labels} labels",
                f"{c.better} minus {c.worse}",
                c.score,
                f"{c.mean:+.1f} [{c.low:+.1f}, {c.high:+.1f}]",
                f"{p:.3f}",
                str(len(c.pairs)),
            )
            rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        return ""
    head = "| data set | arms | score | points [95 %] | p (Holm) | pairs |\n"
    head += "|---|---|---|---:|---:|---:|"
    return "\n".join([head, *rows]) + "\n"


def practice_tables(lines: Lines) -> str:
    """Draw the arms about practice in fine-tuning, and their differences.

    Args:
        lines: Run lines of the core.
    """
    present = {line["arm"] for line in lines}
    arms = {arm for pair in PRACTICE if present.issuperset(pair) for arm in pair}
    labels = {line["labels"] for line in lines if line["arm"] in arms - {"N", "I"}}
    own = [line for line in lines if line["arm"] in arms and line["labels"] in labels]
    return f"{pretraining_table(own)}\n{comparison_table(own, PRACTICE)}" if own else ""


def pretraining_table(lines: Lines) -> str:
    """Draw a Markdown table of the arms of each data set: means over seeds, range in brackets.

    Args:
        lines: Run lines of `weedseg.bench.pretraining`, of any data sets and arms.
    """
    rows = [
        "| data set | first weights | seeds | weed IoU | crop IoU | mIoU | minutes |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for dataset, labels in sorted({(line["dataset"], line["labels"]) for line in lines}):
        for arm, name in ARM_NAMES.items():
            chosen = [
                line
                for line in lines
                if (line["dataset"], line["labels"], line["arm"]) == (dataset, labels, arm)
            ]
            if chosen:
                rows.append(_row(f"{dataset}, {labels} labels", f"{name} ({arm})", chosen))
    return "\n".join(rows) + "\n"


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
    rows = [line for path in pretraining_files(folder) for line in read_lines(path)]
    rows = [line for line in rows if not line["arm"].endswith(("U", "K"))]
    core = [x for p in sorted(folder.glob("pretraining/*.jsonl")) for x in read_lines(p)]
    return {
        "pretraining": f"{pretraining_table(rows)}\n{verdict(rows)}" if rows else "",
        "comparison": comparison_table(rows),
        "practice": practice_tables(core),
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


def _row(dataset: str, name: str, lines: Lines) -> str:
    minutes = [(line["pretrain_seconds"] + line["finetune_seconds"]) / 60 for line in lines]
    cells = [
        dataset,
        name,
        str(len(lines)),
        mean_and_range(line["iou"]["weed"] for line in lines),
        mean_and_range(line["iou"]["crop"] for line in lines),
        mean_and_range(line["miou"] for line in lines),
        f"{statistics.mean(minutes):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def verdict(lines: Lines, better: str = "S+", worse: str = "R") -> str:
    """Say in one sentence per data set how two arms compare, pretraining by pretraining.

    Args:
        lines: Run lines.
        better: Arm that is hoped to win.
        worse: Arm it is compared with.
    """
    sentences = []
    for dataset in sorted({line["dataset"] for line in lines}):
        scores: dict[str, dict[tuple[int, int], float]] = {better: {}, worse: {}}
        for line in lines:
            if line["dataset"] == dataset and line["arm"] in scores and line["miou"] is not None:
                seeds = line["pretrain_seed"], line["finetune_seed"]
                scores[line["arm"]][seeds] = line["miou"]
        pairs: dict[int, list[float]] = {}
        for seeds in sorted(scores[better].keys() & scores[worse].keys()):
            gain = 100 * (scores[better][seeds] - scores[worse][seeds])
            pairs.setdefault(seeds[0], []).append(gain)
        if pairs:
            means = [statistics.mean(gains) for gains in pairs.values()]
            each = ", ".join(f"{mean:+.1f}" for mean in means)
            whole = statistics.mean(gain for gains in pairs.values() for gain in gains)
            sentences.append(
                f"{dataset}: mIoU of {better} minus {worse} is {whole:+.1f} points"
                f" (by pretraining: {each})."
            )
    return "\n".join(sentences) + "\n" if sentences else ""
