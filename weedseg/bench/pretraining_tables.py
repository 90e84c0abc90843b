"""Tables of the pretraining benchmark: arms, claims with intervals, curves, other sets' photos."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from weedseg.bench.arms import ARMS
from weedseg.bench.comparison import compare, holm, interval, seeds_of
from weedseg.bench.peers_table import mean_and_range

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
    for (dataset, labels, arm), chosen in _groups(lines).items():
        rows.append(_row(f"{dataset}, {labels} labels", arm_name(arm), chosen))
    return "\n".join(rows) + "\n"


def arm_name(arm: str) -> str:
    """Name an arm for people; ``R on peanut`` is R, pretrained on the photos of another set."""
    letters, _, source = arm.partition(" on ")
    return f"{ARMS[letters].title} ({letters})" + (f", {source} photos" if source else "")


def with_source(line: dict[str, Any]) -> dict[str, Any]:
    """Name the arm of a run after the set that it was pretrained on, if that is another one."""
    source = line.get("pretrain_dataset")
    foreign = source is not None and source != line["dataset"]
    return {**line, "arm": f"{line['arm']} on {source}"} if foreign else line


def cross_tables(lines: Lines) -> str:
    """Draw runs that were pretrained on another set beside those of their own, seed by seed.

    Args:
        lines: Run lines, after `with_source`; empty without such runs.
    """
    foreign = {}
    for line in lines:
        letters, _, source = line["arm"].partition(" on ")
        if source:
            foreign[(line["dataset"], line["labels"], letters, *seeds_of(line))] = line
    own = [x for x in lines if (x["dataset"], x["labels"], x["arm"], *seeds_of(x)) in foreign]
    both = [*own, *foreign.values()]
    pairs = {(x["arm"].partition(" on ")[0], x["arm"]): None for x in foreign.values()}
    return f"{pretraining_table(both)}\n{comparison_table(both, list(pairs))}" if both else ""


def curve_lines(lines: Lines) -> list[dict[str, Any]]:
    """Choose the runs of the label-efficiency curve: arms with several numbers of labels.

    At each number an arm keeps the seeds that it has at all of its numbers, so that no point of a
    curve has pretrainings or choices of labels that another lacks.
    """
    found = _groups(lines)
    chosen = []
    for dataset, arm in dict.fromkeys((dataset, arm) for dataset, _, arm in found):
        own = {n: x for (d, n, a), x in found.items() if (d, a) == (dataset, arm)}
        shared = set.intersection(*({seeds_of(x) for x in points} for points in own.values()))
        if len(own) > 1:
            chosen += [x for points in own.values() for x in points if seeds_of(x) in shared]
    return chosen


def curve_table(lines: Lines) -> str:
    """Draw weed IoU over the number of labels, mean and 95 % interval; empty without a curve.

    Args:
        lines: Run lines; `curve_lines` chooses among them.
    """
    found = _groups(curve_lines(lines))
    counts = sorted({labels for _, labels, _ in found})
    if not found:
        return ""
    rows = [
        f"| data set | first weights | {' | '.join(f'{n} labels' for n in counts)} |",
        f"|---|---|{'---:|' * len(counts)}",
    ]
    for dataset, arm in dict.fromkeys((dataset, arm) for dataset, _, arm in found):
        points = [found.get((dataset, n, arm)) for n in counts]
        cells = [
            "{:.3f} [{:.3f}, {:.3f}]".format(*interval(x, "weed")) if x else "" for x in points
        ]
        rows.append(f"| {' | '.join([dataset, arm_name(arm), *cells])} |")
    return "\n".join(rows) + "\n"


def _groups(lines: Lines) -> dict[tuple[str, int, str], list[dict[str, Any]]]:
    """Sort runs by data set, number of labels and arm, the arms in the order of `ARMS`."""
    order = list(ARMS)

    def place(line: dict[str, Any]) -> tuple[str, int, int, str]:
        letters = line["arm"].partition(" on ")[0]
        return line["dataset"], line["labels"], order.index(letters), line["arm"]

    found: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for line in sorted(lines, key=place):
        found.setdefault((line["dataset"], line["labels"], line["arm"]), []).append(line)
    return found


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
