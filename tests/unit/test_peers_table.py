"""The table and the plot of the comparison with other networks come from lines alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weedseg.bench.lines import append_line
from weedseg.bench.peers_table import PLOT, TIMING, draw_peers_plot, peers_table, read_peers
from weedseg.imaging import read_image


def line(network: str, seed: int, weed: float | None, miou: float, init: str) -> dict[str, Any]:
    return {
        "network": network,
        "init": init,
        "seed": seed,
        "iou": {"weed": weed, "crop": 0.5},
        "miou": miou,
    }


def size(ms: float) -> dict[str, Any]:
    return {"ms": ms, "parameters": 3_000_000, "macs": 2_000_000_000, "file_bytes": 12_000_000}


LINES = [
    line("ours", 0, 0.40, 0.70, "none"),
    line("ours", 1, 0.44, 0.72, "none"),
    line("unet", 0, 0.41, 0.69, "none"),
    line("unet", 1, 0.40, 0.70, "none"),
    line("ours", 0, 0.60, 0.80, "imagenet"),
]
TIMES = {
    "tile_px": 512,
    "threads": 1,
    "networks": {"ours": size(10.0), "ours, as shipped": size(11.0), "unet": size(40.0)},
}


def test_rows_hold_means_and_ranges_of_each_start() -> None:
    table = peers_table(LINES, TIMES)
    assert (
        "| weedseg lite0 | scratch | 3.00 M | 2.00 G | 12.0 MB | 10.0 ms | 2 "
        "| 0.420 [0.400, 0.440] | 0.500 [0.500, 0.500] | 0.710 [0.700, 0.720] |"
    ) in table
    assert "| weedseg lite0 | ImageNet | 3.00 M |" in table


def test_sentences_compare_time_and_each_seed_and_keep_the_sign() -> None:
    table = peers_table(LINES, TIMES)
    assert "ours takes 0.25 x the time of U-Net lite0 (SMP)" in table
    assert "weed IoU +1.5 (-1.0, +4.0); mIoU +1.5 (+1.0, +2.0)" in table
    assert "SMP), ImageNet, points" not in table


def test_without_timing_the_sizes_are_left_open() -> None:
    assert "| weedseg lite0 | scratch | - | - | - | - | 2 |" in peers_table(LINES, {})
    assert "takes" not in peers_table(LINES, {})


def test_absent_weed_is_no_gain_and_no_lines_give_no_table() -> None:
    lines = [line("ours", 0, None, 0.7, "none"), line("unet", 0, None, 0.6, "none")]
    assert "Ours minus" not in peers_table(lines, {})
    assert peers_table([], TIMES) == ""


def test_plot_is_written_once_runs_and_times_are_there(tmp_path: Path) -> None:
    for one in LINES:
        append_line(tmp_path / "peanut.jsonl", one)
    assert draw_peers_plot(tmp_path) is None
    append_line(tmp_path / TIMING, {**TIMES, "tile_px": 256})
    append_line(tmp_path / TIMING, TIMES)
    lines, timing = read_peers(tmp_path)
    assert (len(lines), timing["tile_px"]) == (5, 512)
    assert draw_peers_plot(tmp_path) == tmp_path / PLOT
    image = read_image(tmp_path / PLOT)
    assert image.shape[1] > image.shape[0] > 300
    assert image.std() > 5
