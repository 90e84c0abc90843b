"""The pretraining benchmark on a tiny farm: fields of a line, going on after a stop, sharing."""

from __future__ import annotations

from pathlib import Path

import pytest

from weedseg.bench.lines import read_lines
from weedseg.bench.pretraining import Dataset, Plan, run_plan
from weedseg.bench.throughput import measure_throughput, with_few_steps
from weedseg.config import load_recipe
from weedseg.data.index import index_farm
from weedseg.data.splits import make_split
from weedseg.data.synthetic import write_farm
from weedseg.errors import ConfigError

SETTINGS = (
    "net.encoder=mobilenetv3",
    "net.decoder_channels=16",
    "pretrain.steps=6",
    "pretrain.tile_px=64",
    "pretrain.batch=2",
    "finetune.steps=4",
    "finetune.tile_px=64",
    "finetune.batch=4",
    "finetune.evaluations=1",
    "export.tile_px=128",
    "export.overlap_px=16",
    "scoring.time_share=0.9",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("farm")
    write_farm(folder, seed=1, num_photos=24, num_labelled=24, size=(96, 128), fields=3)
    farm = index_farm(folder)
    test = tuple(photo.name for photo in make_split(farm, 0).test)
    return Dataset(name="tiny", farm=farm, test=test)


def plan(dataset: Dataset, folder: Path, arms: tuple[str, ...]) -> Plan:
    return Plan(
        dataset=dataset,
        arms=arms,
        pretrain_seeds=1,
        finetune_seeds=1,
        labels=6,
        settings=SETTINGS,
        lines=folder / "tiny.jsonl",
        work=folder / "work",
    )


def test_arms_write_one_line_each_and_are_not_done_twice(dataset: Dataset, tmp_path: Path) -> None:
    assert run_plan(plan(dataset, tmp_path, ("N", "R"))) == 2
    assert run_plan(plan(dataset, tmp_path, ("N", "R", "S+"))) == 1
    lines = read_lines(tmp_path / "tiny.jsonl")
    assert [line["arm"] for line in lines] == ["N", "R", "S+"]
    assert [line["pretrain_steps"] for line in lines] == [0, 6, 6]
    assert {line["finetune_steps"] for line in lines} == {4}
    assert all(set(line["counts"]) == set(dataset.test) for line in lines)
    assert lines[1]["scored_share"] == 0
    assert lines[2]["scored_share"] > 0


def test_same_arm_gives_the_same_line(dataset: Dataset, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_plan(plan(dataset, tmp_path / name, ("S+",)))
    first, second = (read_lines(tmp_path / name / "tiny.jsonl")[0] for name in ("a", "b"))
    assert first["counts"] == second["counts"]


def test_unknown_arm_is_a_sentence(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="arm 'X'; expected one of N, I, R"):
        run_plan(plan(dataset, tmp_path, ("X",)))


def test_throughput_line_compares_loop_and_bare_step(dataset: Dataset) -> None:
    recipe = with_few_steps(load_recipe("default", list(SETTINGS)), 20)
    line = measure_throughput(dataset, recipe, rounds=1)
    assert line["steps"] == 20
    assert line["ratio"] == pytest.approx(line["bare_step_seconds"] / line["loop_step_seconds"])
    assert line["peak_memory_bytes"] > 50 << 20
