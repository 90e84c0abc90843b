"""Benchmark tables come from run lines alone, and the README shows what the lines say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weedseg.bench.lines import append_line, read_lines
from weedseg.bench.pretraining_tables import (
    cross_tables,
    curve_table,
    pretraining_table,
    verdict,
    with_source,
)
from weedseg.bench.tables import draw_all, fill
from weedseg.serve.settings import settings_table

ROOT = Path(__file__).parents[2]


def line(arm: str, seed: int, weed: float | None, miou: float) -> dict[str, Any]:
    return {
        "arm": arm,
        "dataset": "cwfid",
        "labels": 10,
        "pretrain_seed": seed,
        "finetune_seed": seed,
        "iou": {"weed": weed, "crop": 0.5},
        "miou": miou,
        "pretrain_seconds": 60.0,
        "finetune_seconds": 120.0,
    }


def test_means_and_ranges_of_all_seeds() -> None:
    table = pretraining_table([line("R", 0, 0.5, 0.6), line("R", 1, 0.7, 0.7)])
    row = table.splitlines()[-1]
    assert "| 2 | 0.600 [0.500, 0.700] | 0.500 [0.500, 0.500] | 0.650 [0.600, 0.700] | 3 |" in row


def test_absent_class_is_left_out_of_the_mean() -> None:
    row = pretraining_table([line("N", 0, None, 0.6)]).splitlines()[-1]
    assert "| 1 | - |" in row


def counted(arm: str, labels: int, finetune_seed: int, weed: int, **more: Any) -> dict[str, Any]:
    """A run that found `weed` of 100 weed px in each of three photos."""
    return {
        **line(arm, 0, weed / 100, weed / 100),
        "labels": labels,
        "finetune_seed": finetune_seed,
        "pretrain_steps": 6,
        "counts": {f"p{i}": [[0, 0], [100 - weed, weed]] for i in range(3)},
        "iou": {"crop": 0.0, "weed": weed / 100},
        **more,
    }


def test_a_curve_compares_equal_seeds_at_all_numbers_of_labels() -> None:
    lines = [counted("R", n, seed, n) for n in (5, 20) for seed in (0, 1)]
    lines += [counted("R", 5, 2, 90), counted("I", 5, 0, 7)]  # no other number has these
    head, _, row = curve_table(lines).splitlines()
    assert "| 5 labels | 20 labels |" in head
    assert row.endswith("(R) | 0.050 [0.050, 0.050] | 0.200 [0.200, 0.200] |")
    assert curve_table(lines[:2]) == ""


def test_photos_of_another_set_are_an_arm_of_their_own() -> None:
    own = [counted("R", 10, 0, 60), counted("R", 10, 1, 60)]
    foreign = counted("R", 10, 0, 50, pretrain_dataset="peanut")
    lines = [with_source(x) for x in (*own, foreign)]
    rows = cross_tables(lines).splitlines()
    assert "| random masking (R) | 1 | 0.600" in rows[2]
    assert "| random masking (R), peanut photos | 1 | 0.500" in rows[3]
    assert "| R minus R on peanut | weed | +10.0 [+10.0, +10.0] |" in cross_tables(lines)
    assert "| 2 | 0.600" in pretraining_table(lines)
    assert cross_tables(lines[:2]) == ""


def test_verdict_compares_pretraining_by_pretraining_and_keeps_the_sign() -> None:
    lines = [line("R", 0, 0.5, 0.60), line("S+", 0, 0.5, 0.58), line("S+", 1, 0.5, 0.9)]
    assert verdict(lines) == "cwfid: mIoU of S+ minus R is -2.0 points (by pretraining: -2.0).\n"
    lines += [{**one, "finetune_seed": 5, "miou": score} for one, score in zip(lines, (0.5, 0.6))]
    assert "is +4.0 points (by pretraining: +4.0)" in verdict(lines)
    lines.append(line("R", 1, 0.5, 0.8))
    assert "is +6.0 points (by pretraining: +4.0, +10.0)" in verdict(lines)


def test_verdict_says_nothing_without_pairs() -> None:
    assert verdict([line("R", 0, 0.5, 0.6)]) == ""


def test_fill_replaces_only_the_marked_part() -> None:
    text = "a\n<!-- table:x -->\nold\n<!-- end -->\nb\n"
    assert fill(text, {"x": "new", "y": "no"}) == "a\n<!-- table:x -->\n\nnew\n<!-- end -->\nb\n"


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for number in range(3):
        append_line(path, {"n": number})
    assert [row["n"] for row in read_lines(path)] == [0, 1, 2]


def test_readme_shows_what_the_lines_say() -> None:
    pages = (ROOT / "README.md", ROOT / "models" / "benchmarks" / "README.md")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    tables = {**draw_all(ROOT / "models" / "benchmarks"), "settings": settings_table()}
    drawn = {name for name, table in tables.items() if table}
    assert {name for name in drawn if f"table:{name} -->" not in text} == set()
    for page in pages:
        shown = page.read_text(encoding="utf-8")
        assert fill(shown, tables) == shown, f"{page}; run: weedseg bench tables"
    assert "<!-- table:pretraining -->" in text
