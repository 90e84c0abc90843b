"""A finished run becomes a released model folder; a changed byte in it is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from weedseg.edge import Segmenter
from weedseg.errors import ModelFileError

FILES = {
    "model.onnx",
    "model_config.json",
    "inference_config.json",
    "class_names.txt",
    "card.md",
    "golden/in.png",
    "golden/out.png",
    "SHA256SUMS",
    "LICENSE",
}
DATA = "Drawn photos; nobody's; cite nothing"


@pytest.fixture(scope="module")
def released(trained, cli, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    (folder / "licence.txt").write_text("Do what you like.", encoding="utf-8")
    out = folder / "tiny"
    flags = ("--license", "CC0-1.0", "--license-text", folder / "licence.txt")
    cli("release", trained, "--out", out, *flags, "--data", DATA, "--failures", "all weeds.").ok()
    return out


def test_all_files_of_a_released_model_are_there_and_sum_up(released):
    files = {f.relative_to(released).as_posix() for f in released.rglob("*") if f.is_file()}
    assert files >= FILES
    rows = dict(
        reversed(line.split("  ", 1))
        for line in (released / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    )
    assert set(rows) == files - {"SHA256SUMS"}
    for name, expected in rows.items():
        assert hashlib.sha256((released / name).read_bytes()).hexdigest() == expected


def test_the_card_says_what_the_evaluation_found(released, trained):
    card = (released / "card.md").read_text(encoding="utf-8")
    evaluation = json.loads((trained / "evaluation.json").read_text(encoding="utf-8"))
    assert f"mIoU {evaluation['miou']:.3f}" in card
    assert f"{evaluation['num_photos']} held-out photos" in card
    for said in (DATA, "CC0-1.0", "Seen to go wrong: all weeds."):
        assert said in card


def test_variants_go_along_with_their_golden_samples(trained, cli, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(trained, run)
    cli("export", run, "--format", "onnx-fp16", "--force").ok()
    (tmp_path / "licence.txt").write_text("Do what you like.", encoding="utf-8")
    flags = ("--license", "CC0-1.0", "--license-text", tmp_path / "licence.txt")
    flags = (*flags, "--data", DATA, "--failures", "all weeds.")
    out.mkdir()
    (out / "model.int8.onnx").write_bytes(b"of an older release")
    cli("release", run, "--out", out, *flags).ok()
    files = {f.relative_to(out).as_posix() for f in out.rglob("*") if f.is_file()}
    assert files >= FILES | {"model.fp16.onnx", "golden/out.fp16.png"}
    assert not files & {"model.int8.onnx", "golden/in.fp16.png"}
    assert Segmenter(out / "model.fp16.onnx").self_test().passed
    assert "| `model.fp16.onnx` |" in (out / "card.md").read_text(encoding="utf-8")
    (run / "golden" / "out.fp16.png").unlink()
    cli("release", run, "--out", out, *flags).refused(7, "out.fp16.png is missing", "expected")


def test_a_changed_model_is_refused(released, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(released, copy)
    Segmenter(copy / "model.onnx")
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(data)
    with pytest.raises(ModelFileError):
        Segmenter(copy / "model.onnx")


def test_a_folder_without_a_run_is_a_sentence(cli, tmp_path):
    flags = ("--license", "x", "--license-text", tmp_path / "no", "--data", "x", "--failures", "x")
    cli("release", tmp_path, "--out", tmp_path / "out", *flags).refused(2, "no model", "expected")
    assert not (tmp_path / "out").exists()
