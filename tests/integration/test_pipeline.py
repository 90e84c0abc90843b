"""The glue between the stages: settle, record, reopen, evaluate; what may see which photo."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from weedseg.config import load_recipe
from weedseg.data.synthetic import write_farm
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import CheckpointError, ConfigError, FieldDataError
from weedseg.imaging import read_image, read_mask_pixels, write_png
from weedseg.pipeline import evaluating, stages
from weedseg.pipeline.run import RunOptions, record, reopen, settle
from weedseg.pipeline.run_folder import RunFolder
from weedseg.pipeline.stages import photos_outside
from weedseg.pipeline.train import train

SETTINGS = [
    "pretrain.steps=3",
    "pretrain.tile_px=64",
    "pretrain.batch=2",
    "pretrain.stages=1",
    "finetune.steps=40",
    "finetune.lr=0.01",
    "finetune.tile_px=64",
    "finetune.consistency_min_steps=0",
    "finetune.batch=2",
    "finetune.evaluations=2",
    "net.encoder=mobilenetv3",
    "net.decoder_channels=16",
    "export.tile_px=96",
    "export.overlap_px=16",
]
RECIPE = load_recipe("default", SETTINGS)


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    """26 photos of three fields, 21 with labels; two of them lie there twice."""
    root = tmp_path_factory.mktemp("pipeline") / "farm"
    write_farm(root, seed=5, num_photos=24, num_labelled=21, size=(96, 128))
    for number, path in enumerate(sorted(root.rglob("images/*.png"))[::12]):
        (root / "copies").mkdir(exist_ok=True)
        shutil.copyfile(path, root / "copies" / f"{number}.png")
    return root


def options(farm, out, **others):
    return RunOptions(
        **{"farm_images": farm, "out": out, "recipe": RECIPE, "device": "cpu"} | others
    )


@pytest.fixture(scope="module")
def finished(farm):
    """A whole run."""
    said = []
    outcome = train(options(farm, farm.parent / "run"), said.append)
    return outcome, said


def names(photos):
    return {photo.name for photo in photos}


def content(photos):
    return {hashlib.sha256(photo.path.read_bytes()).hexdigest() for photo in photos}


def test_a_settled_run_comes_back_as_it_was(farm, tmp_path):
    chosen = options(farm, tmp_path / "run", seed=4, init="none")
    run = settle(chosen)
    assert not (tmp_path / "run").exists()
    record(run, chosen)
    again = reopen(tmp_path / "run")
    assert again.split == run.split
    assert again.recipe == run.recipe
    assert (again.seed, again.init, again.pretrain, again.scale) == (4, "none", True, run.scale)
    assert again.resume
    with pytest.raises(ConfigError, match="already holds a run"):
        settle(chosen)
    with pytest.raises(ConfigError, match="holds no run"):
        reopen(tmp_path)


def test_no_photo_of_the_test_is_pretrained_on_under_any_name(finished):
    run = finished[0].run
    assert run.split.kind == "holdout"
    assert run.split.test
    assert not content(run.split.test) & content(run.pretrain_photos)
    assert not content(run.split.test) & content((*run.split.train, *run.split.val))
    assert not run.pretraining_saw_test
    copies = {name for name in names(run.farm.photos) if name.startswith("copies/")}
    assert len(copies) == 2
    tested = names(run.split.test)
    for copy in copies:
        original = sorted(run.farm.root.rglob("images/*.png"))[12 * int(copy[7])]
        name = original.relative_to(run.farm.root).as_posix()
        assert (copy in names(run.pretrain_photos)) == (name not in tested)


def test_cross_validation_keeps_its_photos_from_pretraining_when_there_are_enough(tmp_path):
    write_farm(tmp_path / "farm", seed=6, num_photos=14, num_labelled=6, size=(96, 128))
    run = settle(options(tmp_path / "farm", tmp_path / "run"))
    assert run.split.kind == "cross-validation"
    assert names(run.pretrain_photos) == names(run.farm.unlabelled)
    assert not run.pretraining_saw_test
    for photo in run.farm.unlabelled[:4]:
        photo.path.unlink()
    run = settle(options(tmp_path / "farm", tmp_path / "run"))
    assert run.pretrain_photos == run.farm.photos
    assert run.pretraining_saw_test
    assert not settle(
        options(tmp_path / "farm", tmp_path / "run", pretrain=False)
    ).pretraining_saw_test


@pytest.mark.parametrize("number", [2, 3, 5])
def test_a_fold_tests_what_it_does_not_train_on(number):
    folds = [(f"{i}a", f"{i}b") for i in range(number)]
    everything = {photo for fold in folds for photo in fold}
    for i in range(number):
        training = photos_outside(folds, i)
        assert len(training) == len(set(training))
        assert set(training) == everything - set(folds[i])


def test_fine_tuning_practises_on_no_photo_that_measures_it(finished, tmp_path, monkeypatch):
    """Neither validation nor test photos; in a cross-validation, not the fold's own."""
    run = finished[0].run
    summary = run.folder.read("finetune/finetune.json")
    measured = names((*run.split.val, *run.split.test))
    assert summary["num_practice"] == len(names(run.split.unlabelled) - measured) > 0

    seen = []
    real = stages.finetune
    monkeypatch.setattr(
        stages, "finetune", lambda *args: (seen.append(names(args[3].practice)), real(*args))[1]
    )
    write_farm(tmp_path / "farm", seed=6, num_photos=8, num_labelled=6, size=(96, 128))
    short = load_recipe("default", [*SETTINGS, "finetune.steps=2"])
    chosen = options(tmp_path / "farm", tmp_path / "run", pretrain=False, recipe=short)
    run = settle(chosen)
    record(run, chosen)
    stages.finetune_stage(run)
    folds = [names(fold) for fold in run.split.folds]
    assert len(folds) == 5
    assert seen == [*(names(run.farm.photos) - fold for fold in folds), names(run.farm.photos)]


def test_the_model_file_carries_figures_and_parity(finished):
    run = finished[0].run
    own = Segmenter(run.folder.model).metadata.properties
    found = run.folder.read("evaluation.json")
    assert own["metrics"]["miou"] == pytest.approx(found["miou"])
    assert own["metrics"]["num_photos"] == len(run.split.test)
    assert own["evaluation_note"] == "held out by field"
    assert own["data_fingerprint"] == run.farm.fingerprint()
    assert own["parity"]["equal_share"] >= 0.9999
    assert own["parity"]["max_dlogit"] <= 1e-3
    assert own["parity"]["photos"] == 4
    assert own["mm_per_px"] if all(p.mm_per_px for p in run.farm.photos) else "mm_per_px" not in own
    golden = run.folder.path / "golden" / "in.png"
    assert own["golden_sha256"]["in"] == hashlib.sha256(golden.read_bytes()).hexdigest()


def test_the_figures_equal_a_count_by_hand(finished):
    run = finished[0].run
    found = run.folder.read("evaluation.json")
    segmenter = Segmenter(run.folder.model)
    counts = np.zeros((3, 3), np.int64)
    for photo in run.split.test:
        result = segmenter.segment(read_image(photo.path))
        mask = read_mask_pixels(photo.mask)
        np.add.at(counts, (mask.ravel(), result.class_map.ravel()), 1)
        row = next(row for row in found["photos"] if row["photo"] == photo.name)
        assert row["predicted_coverage"]["weed"] == pytest.approx(result.coverage["weed"], abs=1e-6)
        assert row["accuracy"] == pytest.approx((mask == result.class_map).mean())
    assert found["confusion"]["counts"] == counts.tolist()
    assert counts[2].any()
    iou = [counts[i, i] / (counts[i].sum() + counts[:, i].sum() - counts[i, i]) for i in range(3)]
    assert found["miou"] == pytest.approx(np.mean(iou))
    assert found["roles"]["weed_iou"] == pytest.approx(iou[2])


def test_folds_are_predicted_as_the_deployed_model_would(finished):
    """The torch predictor of a cross-validation and the edge runtime agree on one network."""
    run = finished[0].run
    segmenter = Segmenter(run.folder.model)
    net = evaluating.load_net(run, run.folder.finetune / "weights.safetensors")
    predict = evaluating.torch_predictor(net, segmenter)
    for photo in run.split.test[:2]:
        image = read_image(photo.path)
        ours, theirs = predict(image), segmenter.segment(image)
        assert (ours.class_map == theirs.class_map).mean() >= 0.9999
        assert np.abs(ours.confidence.astype(int) - theirs.confidence).max() <= 1


def test_what_a_person_hears(finished):
    outcome, said = finished
    assert any("held out by field" in sentence for sentence in said)
    assert "exporting" in said[-2]
    assert outcome.report.is_file()
    facts = outcome.run.folder.read("run.json")
    assert "scored_share" not in facts  # random masking: a share of 0 would read as a failure
    seconds = facts["seconds"]
    assert seconds["total"] >= seconds["pretrain"] + seconds["finetune"] + seconds["export"]


def test_what_cannot_be_trained_is_refused_before_pretraining(tmp_path):
    """One photo of 24 shows weeds: where it does not train, no label teaches a weed."""
    root = tmp_path / "farm"
    write_farm(root, seed=5, num_photos=24, num_labelled=24, size=(96, 128))
    masks = sorted(root.rglob("masks/*.png"))
    weedy = next(path for path in masks if (read_mask_pixels(path) == 2).any())
    for path in masks:
        if path != weedy:
            write_png(path, np.minimum(read_mask_pixels(path), 1))
    refused = set()
    for seed in range(6):
        try:
            run = settle(options(root, tmp_path / "run", seed=seed))
        except FieldDataError as error:
            refused.add(error.found)
        else:
            assert weedy in {photo.mask for photo in run.split.train}
    assert len(refused) == 1
    assert "no weed pixel in any of" in refused.pop()
    assert not (tmp_path / "run").exists()
    unlabelled = tmp_path / "unlabelled"
    write_farm(unlabelled, seed=5, num_photos=3, num_labelled=0, size=(96, 128))
    with pytest.raises(FieldDataError, match="no labelled photo"):
        settle(options(unlabelled, tmp_path / "run", pretrain=False))


def test_first_weights_are_tried_before_anything_is_written(finished, farm, tmp_path):
    run = finished[0].run
    chosen = options(farm, tmp_path / "run", init=str(run.folder.path), pretrain=False)
    assert settle(chosen).first_weights == str(run.folder.path.resolve())
    other = replace(RECIPE, net=replace(RECIPE.net, decoder_channels=24))
    with pytest.raises(CheckpointError, match="does not fit"):
        settle(replace(chosen, recipe=other))
    assert not (tmp_path / "run").exists()


def test_a_run_folder_keeps_json_whole(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.read("run.json") == {}
    folder.write("run.json", {"a": 1, "seconds": {"pretrain": 2.0}, "name": "é\udcff"})
    folder.update("run.json", {"seconds": {"finetune": 3.0}, "a": 5})
    assert folder.read("run.json") == {
        "a": 5,
        "seconds": {"pretrain": 2.0, "finetune": 3.0},
        "name": "é\udcff",
    }
    for text in ("{", "[1]"):
        (folder.path / "run.json").write_text(text)
        with pytest.raises(ConfigError, match="damaged"):
            folder.read("run.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write("x.json", {"a": float("nan")})
    assert {p.name for p in Path(folder.path).iterdir()} == {"run.json"}


def test_everything_is_json_that_others_can_read(finished):
    def refuse(text):
        raise AssertionError(text)

    for path in finished[0].run.folder.path.rglob("*.json*"):
        for text in (
            path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        ):
            json.loads(text, parse_constant=refuse)
