"""Whatever is wrong with what comes in: one sentence, the right exit code, nothing lost."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest


def fingerprint(folder):
    return {
        f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


def write(path, pixels):
    assert cv2.imwrite(str(path), np.asarray(pixels, np.uint8))


def truncate(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def colours(mask, soil=(0, 0, 0)):
    """Write a mask of ids as blue, green, red."""
    table = np.array([soil, (0, 255, 0), (0, 0, 255)], np.uint8)
    write(mask, table[cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)])


def without_weeds(masks):
    for path in masks:
        write(path, np.minimum(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), 1))


# Name -> damage to a labelled photo, its mask, another photo and all masks; words of the sentence.
FAULTS = {
    "labelled-photo-unreadable": (
        lambda photo, mask, other, masks: truncate(photo),
        ("{photo}", "truncated"),
    ),
    "labelled-photo-is-text": (
        lambda photo, mask, other, masks: photo.write_text("no photo"),
        ("{photo}",),
    ),
    "mask-unreadable": (lambda photo, mask, other, masks: truncate(mask), ("{mask}",)),
    "mask-of-another-size": (
        lambda photo, mask, other, masks: write(mask, np.zeros((90, 128))),
        ("{mask}", "128x90", "128x96"),
    ),
    "unknown-class": (
        lambda photo, mask, other, masks: write(mask, np.full((96, 128), 7)),
        ("{mask}", "7"),
    ),
    "unknown-colour": (
        lambda photo, mask, other, masks: colours(mask, (10, 20, 30)),
        ("{mask}", "#1e140a"),
    ),
    "label-without-a-photo": (
        lambda photo, mask, other, masks: mask.rename(mask.with_name("9999.png")),
        ("masks/9999.png", "no photo"),
    ),
    "one-pixel-photo": (
        lambda photo, mask, other, masks: write(other, np.zeros((1, 1, 3))),
        ("{other}", "1x1", "32 px"),
    ),
    "no-weed-in-any-mask": (
        lambda photo, mask, other, masks: without_weeds(masks),
        ("no weed pixel in any of 5 masks",),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_farm_is_refused_before_anything_is_written(cli, farm, tmp_path, tiny, fault):
    root = farm(8, 5, flat=True)
    masks = sorted((root / "masks").glob("*.png"))
    photo = root / "images" / masks[0].name
    labelled = {mask.name for mask in masks}
    other = next(f for f in sorted((root / "images").iterdir()) if f.name not in labelled)
    damage, words = FAULTS[fault]
    damage(photo, masks[0], other, masks)
    before = fingerprint(root)
    done = cli("train", "--farm-images", root, "--out", tmp_path / "run", *tiny)
    done.refused(3, *(w.format(photo=photo, mask=masks[0], other=other) for w in words))
    assert fingerprint(root) == before
    assert not (tmp_path / "run").exists()


def test_a_folder_without_photos(cli, tmp_path, tiny):
    (tmp_path / "farm").mkdir()
    (tmp_path / "farm" / "notes.txt").write_text("no photos here")
    start = ("train", "--out", tmp_path / "run", *tiny, "--farm-images")
    cli(*start, tmp_path / "farm").refused(3, "no photo below", "JPEG, PNG, TIFF or WebP")
    cli(*start, tmp_path / "none").refused(3, "none", "check the path")
    assert not (tmp_path / "run").exists()


def test_one_unreadable_unlabelled_photo_is_named_and_left_out(cli, farm, tmp_path, tiny):
    root, run = farm(8, 0, flat=True), tmp_path / "run"
    truncate(root / "images" / "0003.png")
    done = cli("pretrain", "--farm-images", root, "--out", run, *tiny).ok()
    assert "images/0003.png" in done.err
    assert "Traceback" not in done.err


def test_wrong_options(cli, farm, tmp_path, tiny):
    root = farm(4, 2)
    start = ("train", "--farm-images", root, "--out", tmp_path / "run")
    cli(*start, "--set", "finetune.stepz=3").refused(2, "did you mean 'steps'?")
    cli(*start, "--set", "export.tile_px=100").refused(2, "use 96")
    cli(*start, "--device", "tpu").refused(2, "auto, cpu or cuda")
    cli(*start, "--recipe", "defualt").refused(2, "did you mean 'default'?")
    done = cli(*start, "--minutes", "0.01", *tiny)
    assert done.code == 2
    sentence = done.err.splitlines()[-1]
    assert "--minutes 0.01 is too short" in sentence
    named = float(sentence.rsplit("give it --minutes ", 1)[1])
    assert 0.1 <= named <= 5
    assert not (tmp_path / "run").exists()
    done = cli("train", "--minutes", "soon")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1


MODELS = {
    "text": lambda model: b"not a model",
    "empty": lambda model: b"",
    "truncated": lambda model: model[: len(model) // 2],
    "of-others": lambda model: _foreign_model(),
}


def _foreign_model():
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 64, 64]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    return helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_file_that_is_not_ours(cli, trained, farm, tmp_path, kind):
    model = tmp_path / "model.onnx"
    model.write_bytes(MODELS[kind]((trained / "model.onnx").read_bytes()))
    done = cli("predict", "--model", model, farm(2, 0), "--out", tmp_path / "out")
    done.refused(8, str(model))
    assert not (tmp_path / "out").exists()


def test_one_bad_photo_never_stops_a_prediction(cli, trained, farm, tmp_path):
    root = farm(4, 0, flat=True)
    truncate(root / "images" / "0001.png")
    done = cli("predict", "--model", trained, root, "--out", tmp_path / "out")
    assert done.code == 3
    assert "3 photos segmented, 0 were done before, 1 left out" in done.out
    assert "images/0001.png" in (tmp_path / "out" / "errors.csv").read_text()
    assert len((tmp_path / "out" / "coverage.csv").read_text().splitlines()) == 4


def test_a_full_disk_loses_nothing(cli, farm, small_disk, tiny):
    """There is room for the first checkpoint, not for the next."""
    root, run = farm(8, 4), small_disk(20 << 10) / "run"
    start = ("train", "--farm-images", root, "--out", run)
    done = cli(*start, *tiny, checkpoint_every=2)
    assert done.code == 6, done.err
    sentence = done.err.splitlines()[-1]
    assert sentence.startswith("weedseg: ")
    assert "No space left" in sentence
    assert "--resume" in sentence
    assert list((run / "pretrain" / "checkpoints").glob("step-*.sha256"))
    assert not list(run.rglob("*.tmp"))
    small_disk(400 << 10)
    before = (run / "run.json").read_bytes()
    assert json.loads(before)["plan"]["pretrain_steps"] == 6
    assert cli(*start, "--resume", die="finish", checkpoint_every=2).code == -9
    assert (run / "finetune" / "weights.safetensors").is_file()


def test_a_full_disk_at_prediction_leaves_whole_files_only(cli, trained, farm, small_disk):
    root, out = farm(8, 0, size=(600, 800)), small_disk(1 << 10) / "out"
    predict = ("predict", "--model", trained, root, "--out", out)
    done = cli(*predict)
    assert done.code == 6, done.err
    assert "Traceback" not in done.err
    written = [f for f in out.rglob("*") if f.suffix in (".png", ".jpg")]
    assert written
    assert all(cv2.imread(str(f), cv2.IMREAD_UNCHANGED) is not None for f in written)
    small_disk(100 << 10)
    done = cli(*predict).ok()
    assert "0 were done before" not in done.out
    assert len(list(out.rglob("*_overlay.jpg"))) == 8


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_run_keeps_a_checkpoint(cli, farm, tmp_path, tiny, number, code):
    """The real command, stopped from outside in the middle of its training."""
    root, run = farm(8, 4), tmp_path / "run"
    start = ["train", "--farm-images", str(root), "--out", str(run)]
    command = [sys.executable, "-m", "weedseg", *start, *tiny, "--set", "pretrain.steps=100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    metrics = run / "pretrain" / "metrics.jsonl"
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None and not metrics.exists():
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=200)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "--resume" in err.splitlines()[-1]
    newest = sorted((run / "pretrain" / "checkpoints").glob("step-*.pt"))[-1]
    stopped_at = int(newest.stem.split("-")[1])
    assert stopped_at >= 10
    assert f"step {stopped_at}" in err
    assert not list(run.rglob("*.tmp"))
    again = cli(*start, "--resume", die=f"pretrain:{stopped_at + 3}")
    assert again.code == -9, again.err
