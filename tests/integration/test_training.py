"""Training that survives: resume, kills, signals, NaN, full disks, broken photos; and the modes."""

import errno
import json
import os
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from weedseg.bench.arms import ARMS
from weedseg.data.index import index_farm
from weedseg.errors import CheckpointError, FieldDataError, NonFiniteLossError, OutputError
from weedseg.finetuning import run as finetuning
from weedseg.finetuning.task import FinetuneTask
from weedseg.pretraining import run as pretraining
from weedseg.pretraining.scorer import FORWARD_SHARE, PhotoScorer
from weedseg.pretraining.task import PretrainTask
from weedseg.training import checkpoint
from weedseg.training.loop import FitOptions, fit
from weedseg.training.schedule import Schedule

LONG = ("selective", ("pretrain.steps=12", "finetune.steps=12"))
PHASES = pytest.mark.parametrize("phase", ["pretrain", "finetune"])


def metrics(folder):
    """Read all lines of metrics but for the times in them."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def weights(folder):
    return (folder / "weights.safetensors").read_bytes()


def newest(folder):
    return checkpoint.load_newest(folder / "checkpoints")


def differences(a, b, path="state"):
    """Name the places where two states differ, times left out."""
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [path]
        keys = [k for k in a if "seconds" not in str(k)]
        return [d for k in keys for d in differences(a[k], b[k], f"{path}.{k}")]
    if isinstance(a, (list, tuple)):
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{path}.{i}")]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    return [] if same else [path]


def wait_for_step(folder, step):
    path, deadline = folder / "metrics.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().count("\n") >= step:
            return
        time.sleep(0.005)
    raise TimeoutError(f"no step {step} in {path}")


@pytest.fixture(scope="module")
def whole(trainer, tmp_path_factory):
    """Train both phases without any interruption."""
    folder = tmp_path_factory.mktemp("whole")
    for phase in ("pretrain", "finetune"):
        assert trainer.run(phase, folder / phase, recipe=LONG) == 0
    return folder


# --- learning ----------------------------------------------------------------------------------


def fit_one_batch(task, tmp_path, steps):
    batch, losses = task.prepare(0, 0), []
    task.prepare = lambda step, attempt: batch

    class Losses:
        def update(self, phase, step, total, values):
            losses.append(values["loss"])

    options = FitOptions(
        phase="test",
        folder=tmp_path,
        steps=steps,
        lr=5e-3,
        schedule=Schedule((0, steps), 0.1),
        device=torch.device("cpu"),
    )
    fit(task, options, Losses())
    return losses


def test_one_labelled_batch_is_learnt_by_heart(tiny_farm, tiny_recipe, tmp_path):
    options = finetuning.FinetuneOptions(
        folder=tmp_path, device=torch.device("cpu"), seed=0, scale=1.0
    )
    recipe = tiny_recipe("default", "finetune.steps=100")
    task = finetuning.build_task(tiny_farm, (tiny_farm.labelled[:4], ()), recipe, options)
    losses = fit_one_batch(task, tmp_path, 100)
    assert np.mean(losses[-5:]) < 0.35 * losses[0]


def test_one_batch_is_reconstructed(tiny_farm, tiny_recipe, tmp_path, monkeypatch):
    options = pretraining.PretrainOptions(folder=tmp_path, device=torch.device("cpu"), seed=0)
    recipe = tiny_recipe("default", "pretrain.stages=1", "pretrain.steps=80")
    task = pretraining.build_task(tiny_farm, tiny_farm.photos, recipe, options)
    hidden = task.choose_hidden(task.prepare(0, 0), 0)
    monkeypatch.setattr(task, "choose_hidden", lambda batch, step: hidden)
    losses = fit_one_batch(task, tmp_path, 80)
    assert np.mean(losses[-5:]) < 0.6 * losses[0]


# --- resume ------------------------------------------------------------------------------------


@PHASES
def test_a_killed_run_goes_on_to_the_last_bit(trainer, whole, tmp_path, phase):
    """Kill twice: in the random stage, and with scores in the cache."""
    for step in (2, 7):
        process = trainer.start(phase, tmp_path, recipe=LONG, resume=True)
        wait_for_step(tmp_path, step)
        os.kill(process, signal.SIGKILL)
        assert trainer.wait() == -signal.SIGKILL
        assert newest(tmp_path)["step"] < 12
    assert trainer.run(phase, tmp_path, recipe=LONG, resume=True) == 0
    assert weights(tmp_path) == weights(whole / phase)
    assert metrics(tmp_path) == metrics(whole / phase)
    assert differences(newest(tmp_path), newest(whole / phase)) == []


def test_what_a_checkpoint_of_the_pretraining_holds(whole):
    state = newest(whole / "pretrain")
    assert state["step"] == 12
    assert state["task"]["cache"]["grids"]
    assert state["task"]["step_errors"]["sums"].keys() == state["task"]["cache"]["grids"].keys()
    assert state["task"]["log"]["counts"]


def test_a_killed_run_that_scores_by_a_teacher_goes_on_to_the_last_bit(trainer, tmp_path):
    name, settings = LONG
    recipe = (name, (*settings, "scoring.masks=pair"))
    assert trainer.run("pretrain", tmp_path / "whole", recipe=recipe) == 0
    process = trainer.start("pretrain", tmp_path / "killed", recipe=recipe)
    wait_for_step(tmp_path / "killed", 7)
    os.kill(process, signal.SIGKILL)
    assert trainer.wait() == -signal.SIGKILL
    assert trainer.run("pretrain", tmp_path / "killed", recipe=recipe, resume=True) == 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    state = newest(tmp_path / "killed")
    assert differences(state, newest(tmp_path / "whole")) == []
    assert state["task"]["teacher"].keys() == state["net"].keys()
    head = [state[k] if k == "net" else state["task"][k] for k in ("net", "teacher")]
    assert not torch.equal(*(part["head.weight"] for part in head))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@PHASES
def test_a_signal_saves_and_exits(trainer, whole, tmp_path, phase, number, code):
    process = trainer.start(phase, tmp_path, recipe=LONG, every=1000)
    wait_for_step(tmp_path, 3)
    os.kill(process, number)
    assert trainer.wait() == code
    assert newest(tmp_path)["step"] == len(metrics(tmp_path)) >= 3
    assert trainer.run(phase, tmp_path, recipe=LONG, resume=True) == 0
    assert weights(tmp_path) == weights(whole / phase)
    assert metrics(tmp_path) == metrics(whole / phase)


@PHASES
def test_a_damaged_checkpoint_costs_a_few_steps_only(trainer, whole, tmp_path, phase):
    shutil.copytree(whole / phase / "checkpoints", tmp_path / "checkpoints")
    shutil.copy(whole / phase / "metrics.jsonl", tmp_path)
    path = checkpoint.list_checkpoints(tmp_path / "checkpoints", checkpoint.STEP)[-1]
    path.write_bytes(path.read_bytes()[:-100])
    assert trainer.run(phase, tmp_path, recipe=LONG, resume=True) == 0
    assert weights(tmp_path) == weights(whole / phase)
    assert metrics(tmp_path) == metrics(whole / phase)


def test_damaged_checkpoints_do_not_crowd_out_new_ones(trainer, whole, tmp_path):
    """Nothing whole is left: begin anew, and what is saved now counts as the newest."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole / "pretrain" / "checkpoints", folder)
    for path in checkpoint.list_checkpoints(folder, checkpoint.STEP):
        path.write_bytes(b"broken")
    process = trainer.start("pretrain", tmp_path, recipe=LONG, resume=True)
    wait_for_step(tmp_path, 3)
    os.kill(process, signal.SIGKILL)
    trainer.wait()
    assert 0 < newest(tmp_path)["step"] < 12
    assert trainer.run("pretrain", tmp_path, recipe=LONG, resume=True) == 0
    assert weights(tmp_path) == weights(whole / "pretrain")


@PHASES
def test_a_kill_after_the_last_step_loses_nothing(trainer, whole, tmp_path, phase):
    """The last checkpoint is there, weights and summary are not yet."""
    shutil.copytree(whole / phase / "checkpoints", tmp_path / "checkpoints")
    assert trainer.run(phase, tmp_path, recipe=LONG, resume=True) == 0
    assert weights(tmp_path) == weights(whole / phase)
    assert json.loads((tmp_path / f"{phase}.json").read_text())["step_seconds"] is None


def test_the_best_weights_outlive_a_kill(whole, tmp_path, tiny_recipe, finetune_tiny):
    """Best step and weights on disk fit each other, also when newer than the checkpoint."""
    source = whole / "finetune"
    summary = json.loads((source / "finetune.json").read_text())
    shutil.copytree(source / "checkpoints", tmp_path / "checkpoints")
    recipe = tiny_recipe(LONG[0], *LONG[1])
    again = finetune_tiny(tmp_path, recipe, resume=True)
    assert (again["best_step"], again["best_score"]) == (
        summary["best_step"],
        summary["best_score"],
    )
    (best,) = checkpoint.list_checkpoints(tmp_path / "checkpoints", checkpoint.BEST)
    assert best.stem == checkpoint.checkpoint_name(checkpoint.BEST, summary["best_step"])


def test_few_validation_photos_choose_no_step(tmp_path, tiny_recipe, tiny_farm):
    """They are scored and logged, and the last step is kept."""
    recipe = tiny_recipe("default", "finetune.steps=4", "finetune.evaluations=4")
    options = finetuning.FinetuneOptions(
        folder=tmp_path, device=torch.device("cpu"), seed=0, scale=1.0
    )
    photos = tiny_farm.labelled[:4], tiny_farm.labelled[4:6]
    summary = finetuning.finetune(tiny_farm, photos, recipe, options)
    assert summary["best_step"] == summary["steps"] == 4
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if "val_miou" in x] == [1, 2, 3, 4]


def test_a_new_run_forgets_the_old_one(tmp_path, tiny_recipe, pretrain_tiny):
    recipe = tiny_recipe("default", "pretrain.stages=1", "pretrain.steps=6")
    pretrain_tiny(tmp_path, recipe, seed=1)
    shorter = tiny_recipe("default", "pretrain.stages=1", "pretrain.steps=2")
    pretrain_tiny(tmp_path, shorter, seed=2)
    assert len(metrics(tmp_path)) == 2
    found = checkpoint.list_checkpoints(tmp_path / "checkpoints", checkpoint.STEP)
    assert [path.stem[-2:] for path in found] == ["00", "02"]


def test_a_checkpoint_of_another_net_is_refused(tmp_path, tiny_recipe, pretrain_tiny):
    recipe = tiny_recipe("default", "pretrain.stages=1", "pretrain.steps=2")
    pretrain_tiny(tmp_path, recipe)
    other = replace(recipe, net=replace(recipe.net, decoder_channels=12))
    with pytest.raises(CheckpointError, match="does not fit"):
        pretrain_tiny(tmp_path, other, resume=True)


# --- numbers that are not finite ---------------------------------------------------------------


def break_loss(monkeypatch, kind, step, times, value=float("nan")):
    """Let the loss of a step be NaN for the first `times` times."""
    real, seen = kind.loss, []

    def loss(self, model, batch, at):
        total, values = real(self, model, batch, at)
        if at == step and len(seen) < times:
            seen.append(batch.names)
            total = total * value
        return total, values

    monkeypatch.setattr(kind, "loss", loss)
    return seen


@pytest.fixture
def runs(pretrain_tiny, finetune_tiny):
    return {"pretrain": pretrain_tiny, "finetune": finetune_tiny}


KINDS = {"pretrain": PretrainTask, "finetune": FinetuneTask}


@PHASES
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_nan_goes_back_and_on(runs, tiny_recipe, tmp_path, monkeypatch, phase, value):
    break_loss(monkeypatch, KINDS[phase], step=5, times=1, value=value)
    summary = runs[phase](tmp_path, tiny_recipe())
    assert summary["num_reloads"] == 1
    assert summary["steps"] == 8
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert all(np.isfinite(line["loss"]) for line in lines)
    net = newest(tmp_path)["net"]
    assert all(torch.isfinite(v).all() for v in net.values() if v.is_floating_point())


@PHASES
def test_lasting_nan_stops_and_names_the_photos(runs, tiny_recipe, tmp_path, monkeypatch, phase):
    seen = break_loss(monkeypatch, KINDS[phase], step=5, times=99)
    with pytest.raises(NonFiniteLossError) as caught:
        runs[phase](tmp_path, tiny_recipe())
    assert len(seen) == 4  # once, and three reloads
    assert all(name in caught.value.found for name in seen[-1])
    assert "step 5" in caught.value.found
    assert len({tuple(names) for names in seen}) > 1  # other batches each time
    state = newest(tmp_path)
    assert state["step"] == 4
    assert all(torch.isfinite(v).all() for v in state["net"].values() if v.is_floating_point())
    assert not (tmp_path / "weights.safetensors").exists()


def test_each_reload_halves_the_learning_rate(runs, tiny_recipe, tmp_path, monkeypatch):
    recipe = tiny_recipe()
    runs["pretrain"](tmp_path / "calm", recipe)
    break_loss(monkeypatch, PretrainTask, step=5, times=2)
    assert runs["pretrain"](tmp_path / "wild", recipe)["num_reloads"] == 2
    calm, wild = ([line["lr"] for line in metrics(tmp_path / n)] for n in ("calm", "wild"))
    assert wild[:4] == calm[:4]
    assert wild[4:] == [pytest.approx(rate / 4) for rate in calm[4:]]


# --- disks and photos --------------------------------------------------------------------------


@PHASES
def test_a_full_disk_stops_with_a_sentence_and_loses_nothing(
    runs, trainer, whole, tiny_recipe, tmp_path, phase
):
    recipe, real, calls = tiny_recipe(LONG[0], *LONG[1]), os.fsync, []

    def fills_up(descriptor):
        calls.append(descriptor)
        if len(calls) > 18:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fills_up)
        with pytest.raises(OutputError, match=r"No space left.*free some space.*--resume"):
            runs[phase](tmp_path, recipe)
    assert 0 < newest(tmp_path)["step"] < 12
    assert trainer.run(phase, tmp_path, recipe=LONG, resume=True) == 0
    assert weights(tmp_path) == weights(whole / phase)
    assert metrics(tmp_path) == metrics(whole / phase)


@pytest.fixture
def broken_farm(tiny_folder, tmp_path):
    """Break photos, or masks, after the farm was indexed and checked."""

    def make(*numbers, masks=False):
        root = tmp_path / "broken farm"
        shutil.copytree(tiny_folder, root)
        farm = index_farm(root)
        chosen = [(farm.labelled if masks else farm.photos)[i] for i in numbers]
        for photo in chosen:
            path = photo.mask if masks else photo.path
            path.write_bytes(path.read_bytes()[:200])
        return farm, [photo.name for photo in chosen]

    return make


def test_a_broken_photo_is_named_and_left_out(
    broken_farm, pretrain_tiny, tiny_recipe, tmp_path, caplog
):
    farm, names = broken_farm(3)
    summary = pretrain_tiny(tmp_path / "run", tiny_recipe(), farm=farm)
    assert summary["steps"] == 8
    assert summary["bad_photos"] == names
    assert f"left out {names[0]}" in caplog.text
    assert farm.photos[3].path.stat().st_size == 200  # a user's file is never touched


def test_a_broken_mask_is_named_and_left_out(broken_farm, finetune_tiny, tiny_recipe, tmp_path):
    farm, names = broken_farm(1, masks=True)
    summary = finetune_tiny(tmp_path / "run", tiny_recipe(), farm=farm)
    assert summary["bad_photos"] == names


def test_broken_masks_do_not_stop_a_pretraining_that_needs_none(
    broken_farm, pretrain_tiny, tiny_recipe, tmp_path
):
    farm, _ = broken_farm(0, 2, 3, masks=True)
    summary = pretrain_tiny(tmp_path / "run", tiny_recipe(), farm=farm)
    assert summary["bad_photos"] == []
    assert summary["hidden_classes"]


@PHASES
def test_too_many_broken_photos_stop_it(broken_farm, runs, tiny_recipe, tmp_path, phase):
    farm, names = broken_farm(0, 1, 2, 3, masks=phase == "finetune")
    with pytest.raises(FieldDataError, match="unreadable") as caught:
        runs[phase](tmp_path / "run", tiny_recipe(), farm=farm)
    assert any(name in caught.value.found for name in names)


# --- modes -------------------------------------------------------------------------------------

MODES = {
    "R": ("default", ("pretrain.stages=1",)),
    "P": ("random-staged", ()),
    "S+": ("selective", ()),
    "F": ("faithful", ("scoring.time_share=0.6",)),
}


@pytest.fixture(scope="module")
def modes(trainer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("modes")
    for name, recipe in MODES.items():
        assert trainer.run("pretrain", folder / name, recipe=recipe, every=100) == 0
    return folder


def summary_of(folder):
    return json.loads((folder / "pretrain.json").read_text())


def test_all_modes_take_equal_steps_on_one_code_path(modes):
    for name in MODES:
        lines = metrics(modes / name)
        assert summary_of(modes / name)["steps"] == len(lines) == 8
        assert all(np.isfinite(line["loss"]) for line in lines)
        assert (modes / name / "weights.safetensors").exists()
        stages = 1 if name == "R" else 3
        names = sorted(path.name for path in (modes / name / "pictures").glob("*.png"))
        assert names == [f"stage-{n:02d}-of-{stages:02d}.png" for n in range(1, stages + 1)]


def test_the_key_control_differs_from_random_masking_in_its_stages_alone(modes):
    assert weights(modes / "P") == weights(modes / "R")
    losses = [[line["loss"] for line in metrics(modes / name)] for name in ("P", "R")]
    assert losses[0] == losses[1]
    stages = [[line["stage"] for line in metrics(modes / n) if "stage" in line] for n in ("P", "R")]
    assert stages == [[0, 1, 2], [0]]


def test_selection_starts_after_the_random_stage(modes):
    selective, random = ([line["loss"] for line in metrics(modes / name)] for name in ("S+", "P"))
    assert selective[:2] == random[:2]
    assert selective != random
    assert weights(modes / "S+") != weights(modes / "P")


def test_only_selective_modes_score_and_all_report_it(modes):
    for name in MODES:
        summary = summary_of(modes / name)
        scores = name in ("S+", "F")
        assert (summary["scored_share"] > 0) == scores
        assert (summary["scoring_share"] > 0) == scores
        borders = [line for line in metrics(modes / name) if "gradient_correlation" in line]
        assert bool(borders) == scores
        assert all(-1 <= line["gradient_correlation"] <= 1 for line in borders)
        assert all("random_hidden_l1" in line for line in metrics(modes / name) if "stage" in line)
        # Before batch norm learns whole tiles, or the figure would be another network's.
        assert summary["random_hidden_l1"] == metrics(modes / name)[-1]["random_hidden_l1"]


def test_hidden_classes_are_reported_against_their_base_rate(modes):
    for name, num_stages in (("R", 1), ("S+", 3)):
        rows = summary_of(modes / name)["hidden_classes"]
        assert len(rows) == num_stages
        for row in rows:
            for kind in ("hidden", "base"):
                assert sum(shares[kind] for shares in row.values()) == pytest.approx(1)


def test_published_stages_see_disjoint_photos(tiny_farm, tiny_recipe, tmp_path):
    options = pretraining.PretrainOptions(folder=tmp_path, device=torch.device("cpu"), seed=0)
    task = pretraining.build_task(tiny_farm, tiny_farm.photos, tiny_recipe("faithful"), options)
    parts = [task._photos_of(stage) for stage in range(3)]
    assert sorted(n for part in parts for n in part) == list(range(8))
    drawn = {n for step in range(2) for n in task.prepare(step, 0).photos}
    assert drawn <= set(parts[0])


CONTROLS = ("Q", "G", "V", "H", "L")


@pytest.mark.parametrize("arm", CONTROLS)
def test_controls_choose_otherwise_but_take_equal_steps(pretrain_tiny, tiny_recipe, tmp_path, arm):
    """Each control leaves the random stage as it is and departs from S+ after it."""
    recipe = tiny_recipe("selective", *ARMS[arm].settings)
    pretrain_tiny(tmp_path / arm, recipe)
    pretrain_tiny(tmp_path / "S+", tiny_recipe("selective"))
    control, selective = ([line["loss"] for line in metrics(tmp_path / n)] for n in (arm, "S+"))
    assert len(control) == len(selective)
    assert control[:2] == selective[:2]
    assert control[2:] != selective[2:]


def test_the_hardest_of_several_cuts_is_taken(tiny_farm, tiny_recipe, tmp_path):
    options = pretraining.PretrainOptions(folder=tmp_path, device=torch.device("cpu"), seed=0)
    recipe = tiny_recipe("selective", "selection.cut_choices=16", "pretrain.min_cut_share=1")
    task = pretraining.build_task(tiny_farm, tiny_farm.photos, recipe, options)
    last = recipe.pretrain.steps - 1

    def left_share():
        batches = [task.prepare(last, attempt) for attempt in range(6)]
        return np.mean([batch.columns.mean((1, 2)) < 64 for batch in batches])

    assert 0.2 < left_share() < 0.8
    grid = np.zeros((6, 8), np.float32)
    grid[:, :4] = 1  # the left half of every photo is hard
    for photo in range(8):
        task.cache.put(photo, grid, stage=1)
    assert left_share() == 1
    for photo in range(8):
        task.cache.put(photo, 1 - grid, stage=task.stage_of(last))
    assert left_share() == 1  # tiles prepared ahead do not see the scores of their own stage


# --- scoring within its budget -----------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.06, 0.2, 0.5])
def test_a_stage_scores_what_it_can_afford(tiny_farm, tiny_recipe, tmp_path, share):
    options = pretraining.PretrainOptions(folder=tmp_path, device=torch.device("cpu"), seed=0)
    recipe = tiny_recipe("selective", "scoring.masks=pair", f"scoring.time_share={share}")
    task = pretraining.build_task(tiny_farm, tiny_farm.photos, recipe, options)
    order = list(range(8))
    cost = 96 * 128 / 64**2 * 2 * FORWARD_SHARE  # of a photo, in tiles of a training step
    for num_steps in (1, 3, 10, 30, 1000):
        number = task.scorer.affordable(num_steps, order)
        budget = share / (1 - share) * num_steps * recipe.pretrain.batch
        assert number * cost <= budget
        assert number == 8 or (number + 1) * cost > budget


def test_photos_beyond_the_budget_keep_random_masks(
    pretrain_tiny, tiny_recipe, tmp_path, monkeypatch
):
    scored, real = [], PhotoScorer.score_all

    def spy(self, net, photos, seed):
        scored.append(list(photos))
        return real(self, net, photos, seed)

    monkeypatch.setattr(PhotoScorer, "score_all", spy)
    recipe = tiny_recipe("selective", "scoring.masks=pair", "scoring.time_share=0.3")
    summary = pretrain_tiny(tmp_path, recipe)
    cost, batch = 96 * 128 / 64**2 * 2 * FORWARD_SHARE, recipe.pretrain.batch
    assert [len(photos) for photos in scored] == [int(0.3 / 0.7 * 3 * batch / cost)] * 2
    different = {photo for photos in scored for photo in photos}
    assert len(different) == 4  # those not scored yet come first
    assert summary["scored_share"] == len(different) / 8
    cache = newest(tmp_path)["task"]["cache"]
    assert set(cache["grids"]) == different
    assert metrics(tmp_path)[-1]["scored_share"] == summary["scored_share"]


def test_no_time_for_scoring_is_random_masking(pretrain_tiny, tiny_recipe, tmp_path):
    settings = ("scoring.masks=pair", "scoring.time_share=0.0")
    pretrain_tiny(tmp_path / "S+", tiny_recipe("selective", *settings))
    pretrain_tiny(tmp_path / "P", tiny_recipe("random-staged"))
    assert weights(tmp_path / "S+") == weights(tmp_path / "P")


# --- transfer ----------------------------------------------------------------------------------


def test_encoder_and_decoder_are_transferred_and_the_head_is_new(
    modes, tiny_farm, tiny_recipe, tmp_path
):
    from safetensors.torch import load_file

    source = load_file(modes / "S+" / "weights.safetensors")
    options = finetuning.FinetuneOptions(
        folder=tmp_path,
        device=torch.device("cpu"),
        seed=0,
        scale=1.0,
        init=str(modes / "S+" / "weights.safetensors"),
    )
    parts = (tiny_farm.labelled[:4], ())
    net = finetuning.build_task(tiny_farm, parts, tiny_recipe(), options).net
    fresh = replace(options, init="none")
    other = finetuning.build_task(tiny_farm, parts, tiny_recipe(), fresh).net.state_dict()
    for name, value in net.state_dict().items():
        if name.startswith("head."):
            assert value.shape == source[name].shape  # three colours, three classes
            assert not torch.equal(value, source[name])
            assert torch.equal(value, other[name])  # seeded
        else:
            assert torch.equal(value, source[name])


def test_batch_norm_statistics_are_those_of_whole_tiles(modes):
    """They are estimated anew, so they differ from those that saw hidden patches."""
    from safetensors.torch import load_file

    found, before = load_file(modes / "R" / "weights.safetensors"), newest(modes / "R")["net"]
    statistics = [name for name in found if "running_" in name]
    assert statistics
    assert any(not torch.equal(found[name], before[name]) for name in statistics)
    others = [n for n in found if n not in statistics and "num_batches" not in n]
    assert all(torch.equal(found[name], before[name]) for name in others)


@pytest.mark.gpu
def test_both_phases_train_and_resume_on_a_gpu(tiny_farm, tiny_recipe, tmp_path, often):
    """The teacher must follow the network to its device."""
    device, recipe = torch.device("cuda", 0), tiny_recipe()
    first = pretraining.PretrainOptions(folder=tmp_path / "a", device=device, seed=0)
    summary = pretraining.pretrain(tiny_farm, tiny_farm.photos, recipe, first)
    assert summary["scored_share"] > 0
    again = replace(first, resume=True)
    assert pretraining.pretrain(tiny_farm, tiny_farm.photos, recipe, again)["steps"] == 8
    second = finetuning.FinetuneOptions(
        folder=tmp_path / "b", device=device, seed=0, scale=1.0, init=str(tmp_path / "a")
    )
    photos = (tiny_farm.labelled[:4], tiny_farm.labelled[1:])
    assert finetuning.finetune(tiny_farm, photos, recipe, second)["best_score"] is not None
