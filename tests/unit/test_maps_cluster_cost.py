"""The paper cluster: arithmetic on measured figures, and a page that shows nothing else."""

from pathlib import Path

import pytest

from weedseg.bench.cluster import (
    NODES,
    Machine,
    cluster_table,
    cluster_text,
    draw_cluster,
    estimate,
)
from weedseg.bench.tables import fill

ROOT = Path(__file__).parents[2]
LINE = {
    "megapixels": 100.0,
    "mosaic_bytes": 250_000_000,
    "num_shards": 16,
    "workers": 2,
    "identical": True,
    "start_seconds": 10.0,
    "processor_seconds": {"local": 20.0, "ray": 22.0},
    "overhead_share": 0.1,
    "writing_processor_seconds": 4.0,
    "finishing_processor_seconds": 2.0,
}
MACHINE = Machine(cores=10, euro_per_hour=1.0, network_bytes_s=1e9)


def test_one_field_waits_for_the_machine_that_writes():
    """100 ha at 1 mm are 10,000 times the mosaic of the line."""
    one, ten, hundred = (estimate(LINE, nodes, 1.0, MACHINE) for nodes in NODES)
    seconds = 10 + 2500 + 22e4 / 10 + 4e4 + 2
    assert one.hours == pytest.approx(seconds / 3600)
    assert one.writing_share == pytest.approx(40_002 / seconds)
    assert ten.hours == pytest.approx((10 + 2500 + 22e4 / 100 + 4e4 + 2) / 3600)
    assert one.hours > ten.hours > hundred.hours > 40_002 / 3600
    assert ten.ha_per_euro == pytest.approx(100 / (10 * ten.hours))
    assert one.ha_per_euro > ten.ha_per_euro > hundred.ha_per_euro


def test_many_fields_keep_every_core_busy():
    one, ten, hundred = (estimate(LINE, nodes, 5.0, MACHINE) for nodes in NODES)
    seconds = (22 * 400 + 4 * 400 + 2) / 10
    assert one.many_ha_per_hour == pytest.approx(100 * 3600 / seconds)
    assert ten.many_ha_per_hour == pytest.approx(10 * one.many_ha_per_hour)
    assert hundred.many_ha_per_euro == pytest.approx(one.many_ha_per_euro)


def test_a_slow_network_limits_many_fields():
    slow = Machine(cores=1000, network_bytes_s=1e6)
    fast = Machine(cores=1000)
    assert estimate(LINE, 1, 1.0, slow).many_ha_per_hour == pytest.approx(100 * 3600 / 2.5e6)
    assert estimate(LINE, 1, 1.0, fast).many_ha_per_hour > 1


def test_the_table_and_the_sentence_say_what_was_measured():
    table = cluster_table(LINE, MACHINE)
    assert len(table.splitlines()) == 2 + 2 * len(NODES)
    assert {row.count("|") for row in table.splitlines()} == {8}
    assert "e+" not in table
    text = cluster_text(LINE)
    assert "20.0 s of processor time with the local engine, 22.0 s with Ray (+10.0 %)" in text
    assert "identical" in text
    assert "DIFFERENT" in cluster_text(LINE | {"identical": False})


def test_the_page_shows_the_newest_line(tmp_path):
    assert draw_cluster(tmp_path) == ""
    page = (ROOT / "deploy" / "cluster.md").read_text(encoding="utf-8")
    drawn = draw_cluster(ROOT / "models" / "benchmarks")
    assert drawn
    assert fill(page, {"cluster": drawn}) == page, "run: weedseg bench cluster"
