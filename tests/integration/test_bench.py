"""The pretraining benchmark on a tiny farm: fields of a line, going on after a stop, sharing."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from weedseg.bench.lines import read_lines
from weedseg.bench.pretraining import Dataset, Plan, development_photos, label_counts, run_plan
from weedseg.bench.throughput import measure_throughput, with_few_steps
from weedseg.cli import main
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
    assert first["random_hidden_l1"] == second["random_hidden_l1"] > 0


def test_unknown_arm_is_a_sentence(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="arm 'X'; expected one of N, I, R"):
        run_plan(plan(dataset, tmp_path, ("X",)))


def test_numbers_of_labels_are_read_and_checked(dataset: Dataset) -> None:
    split = dataset.split(0, 0)
    most = len(split.train) + len(split.val)
    assert label_counts(dataset, "5,2,all") == (5, 2, most)
    for wrong in ("1", str(most + 1), "", "ten", "5,-3"):
        with pytest.raises(ConfigError, match=f"labelled photos of tiny; expected 2 to {most}, or"):
            label_counts(dataset, wrong)


def test_equal_pretraining_is_done_once_and_its_line_says_so(
    dataset: Dataset, tmp_path: Path
) -> None:
    """Random masking inside the stage loop is random masking, to the byte: see test_training."""
    run_plan(plan(dataset, tmp_path, ("R", "P", "S+")))
    random, staged, selective = read_lines(tmp_path / "tiny.jsonl")
    assert (staged["arm"], staged["same_as"]) == ("P", "R")
    assert staged["counts"] == random["counts"]
    assert "same_as" not in selective
    assert [line["key"].split("/")[1] for line in (random, staged, selective)] == ["R", "P", "S+"]
    assert run_plan(plan(dataset, tmp_path, ("R", "P", "S+"))) == 0
    folders = list((tmp_path / "work").glob("*/pretrain.json"))
    assert len(folders) == 2


def test_every_pretraining_meets_every_fine_tuning(dataset: Dataset, tmp_path: Path) -> None:
    whole = replace(plan(dataset, tmp_path, ("N", "S+")), pretrain_seeds=2, finetune_seeds=3)
    runs = list(whole.runs())
    assert len(runs) == len(set(runs)) == 3 + 6
    assert {(p, f) for arm, p, f in runs if arm == "S+"} == set(product(range(2), range(3)))


def test_development_photos_are_never_test_photos_nor_labels(dataset: Dataset) -> None:
    split = dataset.split(0, 6)
    found = {photo.name for photo in development_photos(split)}
    assert found
    assert not found & set(dataset.test)
    assert not found & {photo.name for photo in (*split.train, *split.val)}


def test_ideas_are_read_on_development_photos(dataset: Dataset, tmp_path: Path) -> None:
    run_plan(replace(plan(dataset, tmp_path, ("N",)), read="development"))
    (line,) = read_lines(tmp_path / "tiny.jsonl")
    assert line["read"] == "development"
    assert not set(line["counts"]) & set(dataset.test)
    with pytest.raises(ConfigError, match="read 'training'; expected test or development"):
        run_plan(replace(plan(dataset, tmp_path, ("N",)), read="training"))


def test_pretraining_on_another_set_sees_that_set(
    dataset: Dataset, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("other")
    write_farm(folder, seed=2, num_photos=8, num_labelled=8, size=(96, 128), fields=2)
    other = Dataset(name="other", farm=index_farm(folder), test=())
    chosen = plan(dataset, tmp_path, ("N", "S+"))
    run_plan(chosen)
    run_plan(replace(chosen, pretrain_on=other, arms=("S+",)))
    _, own, cross = read_lines(tmp_path / "tiny.jsonl")
    assert (own["pretrain_dataset"], cross["pretrain_dataset"]) == ("tiny", "other")
    assert set(own["counts"]) == set(cross["counts"])
    assert own["random_hidden_l1"] != cross["random_hidden_l1"]


@pytest.mark.real_data
def test_the_quick_benchmark_runs_from_the_command_line(field_data: Path, tmp_path: Path) -> None:
    arguments = ["bench", "pretraining", "--data", str(field_data), "--arms", "N,R,P,S+", "--quick"]
    assert main([*arguments, "--out", str(tmp_path), "--work", str(tmp_path / "work")]) == 0
    lines = read_lines(tmp_path / "cwfid.jsonl")
    assert [line["arm"] for line in lines] == ["N", "R", "P", "S+"]
    assert {line["num_test"] for line in lines} == {21}
    assert lines[2]["same_as"] == "R"
    assert len({line["pretrain_steps"] for line in lines[1:]}) == 1


def test_throughput_line_compares_loop_and_bare_step(dataset: Dataset) -> None:
    recipe = with_few_steps(load_recipe("default", list(SETTINGS)), 20)
    line = measure_throughput(dataset, recipe, rounds=1)
    assert line["steps"] == 20
    assert line["ratio"] == pytest.approx(line["bare_step_seconds"] / line["loop_step_seconds"])
    assert line["peak_memory_bytes"] > 50 << 20
