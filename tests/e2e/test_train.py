"""The main job on a farm with enough labels for a hold-out: train, then use what it wrote."""

from __future__ import annotations

import csv
import json
import re

import cv2
import numpy as np
import pytest

RUN_FILES = {
    "recipe.json",
    "run.json",
    "split.json",
    "evaluation.json",
    "model.onnx",
    "report.html",
    "golden/in.png",
    "golden/out.png",
    "pretrain/weights.safetensors",
    "pretrain/pretrain.json",
    "pretrain/metrics.jsonl",
    "pretrain/pictures/stage-02-of-02.png",
    "pretrain/checkpoints/step-000000006.pt",
    "pretrain/checkpoints/step-000000006.sha256",
    "finetune/weights.safetensors",
    "finetune/finetune.json",
    "finetune/metrics.jsonl",
    "finetune/checkpoints/step-000000006.pt",
    "finetune/checkpoints/step-000000006.sha256",
}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def evaluation(trained):
    return read(trained / "evaluation.json")


@pytest.fixture(scope="module")
def predictions(trained, cli, holdout_farm, tmp_path_factory):
    out = tmp_path_factory.mktemp("predictions")
    done = cli("predict", "--model", trained / "model.onnx", holdout_farm, "--out", out).ok()
    assert "30 photos segmented, 0 were done before, 0 left out" in done.out
    return out


def test_the_run_folder_is_complete(trained):
    files = {f.relative_to(trained).as_posix() for f in trained.rglob("*") if f.is_file()}
    assert files >= RUN_FILES
    assert not [f for f in files if f.endswith(".tmp")]
    best = [f.suffix for f in sorted((trained / "finetune" / "checkpoints").glob("best-*"))]
    assert best[-2:] == [".pt", ".sha256"]
    assert len(list((trained / "evaluation" / "pictures").glob("*.png"))) == 6


def test_the_facts_of_the_run_are_recorded(trained, holdout_farm):
    recipe, facts = read(trained / "recipe.json"), read(trained / "run.json")
    assert recipe["pretrain"]["steps"] == 6
    assert recipe["net"]["encoder"] == "mobilenetv3"
    assert facts["seed"] == 0
    assert facts["device"] == "cpu"
    assert facts["farm_images"] == str(holdout_farm)
    assert facts["plan"] == {"pretrain_steps": 6, "finetune_steps": 6}
    assert facts["num_photos"] == 30
    assert facts["num_labelled"] == 24
    assert re.fullmatch("[0-9a-f]{64}", facts["fingerprint"])
    assert {"weedseg", "torch", "python"} <= set(facts)
    assert set(facts["seconds"]) == {"pretrain", "finetune", "export", "total"}
    assert facts["scored_share"] >= 0
    assert facts["scoring_time_share"] >= 0


def test_whole_fields_are_held_out_and_pretraining_never_sees_them(trained):
    split = read(trained / "split.json")
    assert (split["kind"], split["basis"], split["within_field"]) == ("holdout", "field", False)
    parts = [split[part] for part in ("train", "val", "test")]
    assert all(parts)
    assert sum(map(len, parts)) == len(set().union(*parts)) == 24
    fields = [{name.split("/")[0] for name in part} for part in parts]
    assert not fields[2] & (fields[0] | fields[1])
    assert not set(split["test"]) & set(split["unlabelled"])
    assert read(trained / "run.json")["pretraining_saw_test"] is False


def test_every_logged_step_is_a_line(trained):
    for phase in ("pretrain", "finetune"):
        rows = lines(trained / phase / "metrics.jsonl")
        steps = [row["step"] for row in rows]
        assert steps == sorted(set(steps))
        assert steps[-1] == 6
        assert all(np.isfinite(row["loss"]) for row in rows)
    assert "val_weed_iou" in rows[-1]


def test_the_evaluation_says_how_good_the_model_is_and_on_what(trained, evaluation):
    split = read(trained / "split.json")
    assert set(evaluation["iou"]) == {"background", "crop", "weed"}
    assert 0 <= evaluation["miou"] <= 1
    known = [value for value in evaluation["iou"].values() if value is not None]
    assert evaluation["miou"] == pytest.approx(np.mean(known))
    for name in ("miou", "weed_iou", "crop_iou"):
        low, high = evaluation["intervals"][name]
        assert 0 <= low <= high <= 1
    assert evaluation["split"] == split
    assert evaluation["photo_names"] == split["test"]
    assert [row["photo"] for row in evaluation["photos"]] == split["test"]
    assert set(evaluation["baselines"]) == {
        "exg_otsu_all_weed",
        "exg_otsu_all_crop",
        "colour_threshold",
    }


def test_the_report_loads_nothing(trained):
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") >= 12  # curves, reconstructions, results, plots
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "<script" not in page
    assert "@import" not in page


def test_the_command_says_what_it_did_and_what_is_next(trained):
    said, notes = (trained / ".out").read_text(), (trained / ".err").read_text()
    assert "this model" in said
    assert "ExG + Otsu" in said
    assert re.search(r"weed IoU, 95 % interval over photos: \d\.\d{3} to \d\.\d{3}", said)
    assert "next:   weedseg predict --model" in said
    assert "held out by field" in notes
    assert re.search(r"pretrain 6/6, .* steps/s, 0\.0 min left, loss", notes)
    assert re.search(r"fine-tune 6/6, .*val weed IoU", notes)


def test_predict_writes_class_maps_confidence_overlays_and_coverage(
    predictions, holdout_farm, size
):
    with (predictions / "coverage.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    photos = sorted(holdout_farm.rglob("images/*.png"))
    assert len(rows) == len(photos) == 30
    for row, photo in zip(rows, photos, strict=True):
        place = predictions / photo.relative_to(holdout_farm).with_suffix("")
        classes, confidence, overlay = (
            cv2.imread(f"{place}{end}", cv2.IMREAD_UNCHANGED)
            for end in ("_classes.png", "_confidence.png", "_overlay.jpg")
        )
        assert classes.shape == confidence.shape == size
        assert overlay.shape == (*size, 3)
        assert classes.max() <= 2
        assert confidence.max() <= 100
        assert confidence.min() >= 33  # the highest of three shares
        assert float(row["share_weed"]) == pytest.approx((classes == 2).mean(), abs=1e-6)
        assert float(row["weed_percent"]) == pytest.approx(100 * (classes == 2).mean(), abs=1e-4)


def test_the_figures_are_those_of_what_predict_writes(predictions, holdout_farm, evaluation):
    """Score the class maps on disk with plain numpy."""
    counts = np.zeros((3, 3), np.int64)
    for name in evaluation["split"]["test"]:
        mask = cv2.imread(
            str(holdout_farm / name.replace("/images/", "/masks/")), cv2.IMREAD_UNCHANGED
        )
        classes = cv2.imread(
            str(predictions / name.replace(".png", "_classes.png")), cv2.IMREAD_UNCHANGED
        )
        counts += np.bincount(mask.ravel() * 3 + classes.ravel(), minlength=9).reshape(3, 3)
    assert evaluation["confusion"]["counts"] == counts.tolist()
    right = np.diag(counts)
    with np.errstate(invalid="ignore"):
        iou = right / (counts.sum(0) + counts.sum(1) - right)
    for name, value in zip(("background", "crop", "weed"), iou, strict=True):
        assert evaluation["iou"][name] == pytest.approx(value)
    assert evaluation["num_pixels"] == counts.sum()


def test_a_second_predict_does_nothing_again(predictions, trained, cli, holdout_farm):
    before = {f: f.stat().st_mtime_ns for f in predictions.rglob("*.png")}
    done = cli("predict", "--model", trained, holdout_farm, "--out", predictions).ok()
    assert "0 photos segmented, 30 were done before" in done.out
    assert {f: f.stat().st_mtime_ns for f in predictions.rglob("*.png")} == before


def test_a_folder_in_use_is_refused(trained, cli, holdout_farm, tmp_path, tiny):
    before = (trained / "run.json").read_bytes()
    cli("train", "--farm-images", holdout_farm, "--out", trained, *tiny).refused(
        2, "already holds a run", "--resume"
    )
    assert (trained / "run.json").read_bytes() == before
    (tmp_path / "mine.txt").write_text("dear")
    cli("train", "--farm-images", holdout_farm, "--out", tmp_path, *tiny).refused(2, "not empty")
    inside = holdout_farm / "runs" / "1"
    cli("train", "--farm-images", holdout_farm, "--out", inside, *tiny).refused(2, "lies in")
    assert not inside.parent.exists()


def test_stages_one_by_one_with_many_species(cli, farm, tmp_path, tiny, size):
    """`classes.toml` names two weed species; every stage is a command on one run folder."""
    root, run = farm(10, 6, flat=True), tmp_path / "run"
    (root / "classes.toml").write_text(
        "".join(
            f'[[classes]]\nname = "{name}"\nrole = "{role}"\ncolour = {colour}\n'
            for name, role, colour in (
                ("soil", "background", "[0, 0, 0]"),
                ("beet", "crop", "[0, 255, 0]"),
                ("thistle", "weed", "[255, 0, 0]"),
                ("goosefoot", "weed", "[0, 0, 255]"),
            )
        )
    )
    for number, path in enumerate(sorted(root.rglob("masks/*.png"))):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mask[mask == 2] = 2 + number % 2
        mask[:5] = 255
        cv2.imwrite(str(path), mask)
    farm_options = ("--farm-images", root, "--out", run)
    done = cli("pretrain", *farm_options, *tiny, "--set", "finetune.labelled=5").ok()
    assert f"next: weedseg finetune {run}" in done.out
    assert not (run / "finetune").exists()
    cli("evaluate", run).refused(5, "finetune")
    cli("finetune", run).ok()
    assert "5 folds" in read(run / "split.json")["note"]
    done = cli("export", run).ok()
    assert re.search(r"100\.0000 % of \d+ pixels as in torch", done.out)
    assert not (run / "evaluation.json").exists()
    done = cli("evaluate", run).ok()
    assert "this model" in done.out
    assert (run / "report.html").is_file()
    found = read(run / "evaluation.json")
    assert list(found["iou"]) == ["soil", "beet", "thistle", "goosefoot"]
    assert found["num_photos"] == 5
    assert found["roles"]["weed_iou"] is not None
    assert found["num_pixels"] == 5 * (size[0] - 5) * size[1]
    cli("predict", "--model", run, root, "--out", tmp_path / "p").ok()
    header = (tmp_path / "p" / "coverage.csv").read_text().splitlines()[0]
    assert "share_thistle,share_goosefoot,crop_percent,weed_percent" in header
