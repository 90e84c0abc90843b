"""A run that is killed goes on, and ends in the same weights as one that never was."""

from __future__ import annotations

import json
import shutil

import pytest

WEIGHTS = ("pretrain/weights.safetensors", "finetune/weights.safetensors")
KILLED = -9


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def without_times(path):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


@pytest.fixture(scope="module")
def resumed(cli, trained, holdout_farm, tmp_path_factory, tiny):
    """A run like `trained`, killed in both phases, between them and before the export."""
    run = tmp_path_factory.mktemp("resumed") / "run"
    command = ("train", "--farm-images", holdout_farm, "--out", run)

    def go(*options, die=""):
        return cli(*command, *options, die=die, checkpoint_every=2)

    assert go(*tiny, die="pretrain:5").code == KILLED
    assert not (run / "pretrain" / "weights.safetensors").exists()
    go(*tiny).refused(2, "already holds a run", "--resume")
    assert go("--resume", die="finetune_stage").code == KILLED
    assert (run / "pretrain" / "weights.safetensors").exists()
    assert go("--resume", die="fine-tune:3").code == KILLED
    assert not (run / "finetune" / "weights.safetensors").exists()
    assert go("--resume", die="finish").code == KILLED
    assert not (run / "model.onnx").exists()
    go("--resume").ok()
    return run


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_byte_equal(resumed, trained, name):
    assert (resumed / name).read_bytes() == (trained / name).read_bytes()


def test_all_else_is_equal_too(resumed, trained):
    for name in ("split.json", "recipe.json", "evaluation.json"):
        assert read(resumed / name) == read(trained / name), name
    for phase in ("pretrain", "finetune"):
        name = f"{phase}/metrics.jsonl"
        assert without_times(resumed / name) == without_times(trained / name)
    assert not list(resumed.rglob("*.tmp"))


def test_the_recipe_of_the_run_counts_at_resume(resumed, cli, holdout_farm):
    """A finished run resumes too: it exports and measures again, and trains nothing."""
    before = {name: (resumed / name).stat().st_mtime_ns for name in WEIGHTS}
    options = ("--resume", "--set", "finetune.steps=99")
    cli("train", "--farm-images", holdout_farm, "--out", resumed, *options).ok()
    assert {name: (resumed / name).stat().st_mtime_ns for name in WEIGHTS} == before
    assert read(resumed / "recipe.json")["finetune"]["steps"] == 6


def test_resume_needs_a_run(cli, holdout_farm, tmp_path):
    start = ("train", "--farm-images", holdout_farm, "--resume")
    cli(*start, cwd=tmp_path).refused(2, "--resume without --out")
    cli(*start, "--out", tmp_path / "none").refused(2, "holds no run")
    assert not list(tmp_path.iterdir())


def test_a_run_killed_at_its_very_start_leaves_a_usable_folder(cli, holdout_farm, tmp_path, tiny):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("recipe.json", ".run.json.tmp"):
        (run / name).write_text("{}")
    cli("pretrain", "--farm-images", holdout_farm, "--out", run, *tiny).ok()
    assert read(run / "recipe.json")["pretrain"]["steps"] == 6


def test_changed_photos_are_noticed(cli, farm, tmp_path, tiny):
    root, run = farm(6, 2), tmp_path / "run"
    start = ("train", "--farm-images", root, "--out", run)
    assert cli(*start, *tiny, die="pretrain:2").code == KILLED
    photo = sorted(root.rglob("images/*.png"))[0]
    original = photo.read_bytes()
    shutil.copyfile(sorted(root.rglob("images/*.png"))[1], photo)
    cli(*start, "--resume").refused(2, "changed since the run began", "start a new run")
    photo.write_bytes(original)
    assert cli(*start, "--resume", die="finetune_stage").code == KILLED
    assert (run / "pretrain" / "pretrain.json").exists()
