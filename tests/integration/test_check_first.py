"""Training begins with the whole data check, and a split that leaks is told to the end."""

import json
from pathlib import Path

import numpy as np
import pytest

from weedseg.cli import main
from weedseg.config import load_recipe
from weedseg.data.synthetic import write_farm
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import ConfigError, FieldDataError, MaskError, SplitError
from weedseg.imaging import write_png
from weedseg.pipeline import run as runs
from weedseg.pipeline.run import RunOptions, record, reopen, settle
from weedseg.pipeline.train import train

SETTINGS = [
    "pretrain.steps=0",
    "finetune.steps=12",
    "finetune.lr=0.01",
    "finetune.tile_px=64",
    "finetune.batch=2",
    "finetune.evaluations=1",
    "net.encoder=mobilenetv3",
    "net.decoder_channels=16",
    "export.tile_px=96",
    "export.overlap_px=16",
]
LEAKS = "test photos share known fields or visits with training photos: figures are too high"


@pytest.fixture
def root(tmp_path) -> Path:
    write_farm(tmp_path / "farm", 5, num_photos=15, num_labelled=12, size=(96, 128))
    return tmp_path / "farm"


def options(root, *settings):
    recipe = load_recipe("default", [*SETTINGS, *settings])
    return RunOptions(
        farm_images=root, out=root.parent / "run", recipe=recipe, device="cpu", init="none"
    )


def damage(root):
    """Plant one error that only the mask shows, and two warnings."""
    masks = sorted(root.rglob("masks/*.png"))
    write_png(masks[0], np.full((96, 128), 9, np.uint8))
    return masks[0]


def darken(root):
    bare = [p for p in sorted(root.rglob("images/*.png")) if not mask_of(p).exists()][:2]
    for level, photo in enumerate(bare):
        noise = np.random.default_rng(level).integers(0, 4, (96, 128, 3))
        write_png(photo, noise.astype(np.uint8))
    return bare


def mask_of(photo):
    return photo.parent.parent / "masks" / photo.name


def test_errors_block_with_the_exit_code_of_the_check(root, capsys):
    path = damage(root)
    with pytest.raises(MaskError, match=f"{path.name} has class value 9"):
        settle(options(root))
    flags = ["--farm-images", str(root), "--out", str(root.parent / "run"), "--device", "cpu"]
    assert main(["data", "check", str(root)]) == FieldDataError.exit_code
    assert main(["train", *flags]) == FieldDataError.exit_code
    assert capsys.readouterr().err.count(f"{path.name} has class value 9") == 2
    assert not (root.parent / "run").exists()


def test_leaks_of_a_split_in_the_farm_block_too(root):
    assert main(["data", "split", str(root), "--force-random"]) == 0
    settle(options(root))  # forced, so its leaks are warnings
    document = json.loads((root / "split.json").read_text())
    claim = {"leaks": False, "basis": "field", "within_field": False}
    (root / "split.json").write_text(json.dumps(document | claim))
    with pytest.raises(SplitError, match="place of it in one part"):
        settle(options(root))


def test_warnings_are_one_line_and_all_are_kept(root):
    bare = darken(root)
    chosen = options(root)
    run = settle(chosen)
    (line,) = [note for note in run.notes if note.startswith("data check")]
    assert line.startswith("data check: 15 photos, 12 labelled, no error, 2 warnings, the first: ")
    assert "\n" not in line
    record(run, chosen)
    kept = json.loads((root.parent / "run" / "check.json").read_text())
    assert (kept["may_train"], kept["errors"], kept["warnings"]) == (True, 0, 2)
    assert {fault["path"] for fault in kept["faults"]} == {str(photo) for photo in bare}


def test_a_run_that_goes_on_is_not_checked_again(root, monkeypatch):
    chosen = options(root)
    record(settle(chosen), chosen)
    checked = []
    monkeypatch.setattr(runs, "full_check", lambda *_: checked.append(1))
    assert reopen(chosen.out).split.train
    assert not checked
    sorted(root.rglob("images/*.png"))[0].unlink()
    with pytest.raises(ConfigError, match="changed since the run began"):
        reopen(chosen.out)


def test_a_forced_random_split_is_told_to_the_end(root):
    assert main(["data", "split", str(root), "--random"]) == FieldDataError.exit_code
    assert main(["data", "split", str(root), "--force-random"]) == 0
    said = []
    outcome = train(options(root, f"data.test_photos={root / 'test.txt'}"), said.append)
    run = outcome.run
    assert run.split.leaks
    assert any(LEAKS in sentence for sentence in said)
    assert json.loads((run.folder.path / "split.json").read_text())["leaks"] is True
    assert run.folder.read("evaluation.json")["split"]["leaks"] is True
    assert Segmenter(run.folder.model).metadata.properties["evaluation_note"] == LEAKS
    assert "every figure is too high" in outcome.report.read_text(encoding="utf-8")
    assert reopen(run.folder.path).split == run.split


def test_a_test_that_keeps_visits_whole_does_not_leak(root):
    photos = sorted((root / "field-1").rglob("images/*.png"))
    names = [p.relative_to(root).as_posix() for p in photos if mask_of(p).exists()]
    (root / "test.txt").write_text("\n".join(names))
    split = settle(options(root, f"data.test_photos={root / 'test.txt'}")).split
    assert (split.leaks, split.basis) == (False, "field")
