"""The main job on real photos, small: through the command line to a working model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from weedseg.cli import main
from weedseg.edge.segmenter import Segmenter
from weedseg.imaging import read_image

pytestmark = pytest.mark.real_data

SETTINGS = (
    "data.scale=0.25",
    "pretrain.steps=30",
    "pretrain.tile_px=128",
    "pretrain.batch=4",
    "finetune.steps=80",
    "finetune.lr=5e-3",
    "finetune.tile_px=128",
    "finetune.batch=4",
    "finetune.evaluations=2",
    "net.encoder=mobilenetv3",
    "net.decoder_channels=24",
    "export.tile_px=128",
    "export.overlap_px=16",
)


def link(photos: list[Path], folder: Path, ending: str = "") -> None:
    """Link photos into a folder, without an ending of their stem."""
    folder.mkdir(parents=True)
    for photo in photos:
        (folder / photo.name.replace(ending, "")).symlink_to(photo)


def learn(farm: Path, run: Path, *options: str) -> dict:
    """Train, then look at what every such run must hold."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    arguments = ["train", "--farm-images", str(farm), "--out", str(run), *settings, *options]
    assert main([*arguments, "--device", "cpu"]) == 0
    found = json.loads((run / "evaluation.json").read_text())
    parity = Segmenter(run / "model.onnx").metadata.properties["parity"]
    assert parity["equal_share"] >= 0.9999
    assert parity["max_dlogit"] <= 1e-3
    assert parity["weed_photos"] >= 1
    assert found["num_photos"] == len(found["split"]["test"]) >= 4
    assert found["label"] == "within-field"
    assert found["iou"]["background"] > 0.6
    assert found["roles"]["weed_iou"] > 0.05
    assert set(found["split"]["test"]).isdisjoint(found["split"]["unlabelled"])
    return found


def test_cwfid_with_labels_in_a_folder_of_their_own(field_data, tmp_path, capfd):
    photos = sorted((field_data / "cwfid" / "images").glob("*.png"))[:24]
    link(photos, tmp_path / "farm", "_image")
    masks = [
        field_data / "cwfid" / "annotations" / p.name.replace("image", "annotation") for p in photos
    ]
    link(masks, tmp_path / "labels", "_annotation")
    run = tmp_path / "run"
    found = learn(tmp_path / "farm", run, "--labels", str(tmp_path / "labels"))
    said = capfd.readouterr()
    assert "this model" in said.out
    assert "green = crop, red = weed" in said.err
    assert found["weed_free"]["num_photos"] < 24
    out = tmp_path / "out"
    chosen = tmp_path / "farm" / photos[0].name.replace("_image", "")
    assert main(["predict", "--model", str(run), str(chosen), "--out", str(out)]) == 0
    with (out / "coverage.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["width_px"], row["height_px"]) == ("1296", "966")
    (classes,) = out.glob("*_classes.png")
    shares = np.bincount(read_image(classes)[..., 0].ravel(), minlength=3) / (1296 * 966)
    assert float(row["share_weed"]) == pytest.approx(shares[2], abs=1e-6)


def test_peanut_with_copies_and_photos_without_labels(field_data, tmp_path):
    """Photos 28 and 29 are the same; a third of the photos has no mask."""
    photos = sorted((field_data / "peanut" / "images").glob("*.jpg"))
    twins = [p for p in photos if p.stem.lstrip("0") in ("28", "29")]
    others = [p for p in photos if p not in twins][:30]
    link([*twins, *others], tmp_path / "farm" / "images")
    masks = [field_data / "peanut" / "masks" / f"{p.stem}.png" for p in [*twins, *others[:20]]]
    link(masks, tmp_path / "farm" / "masks")
    more = ("--set", "finetune.steps=160")
    found = learn(tmp_path / "farm", tmp_path / "run", *more)
    split = found["split"]
    assert split["kind"] == "holdout"
    homes = [
        {name for name in split[part] if Path(name).stem in {p.stem for p in twins}}
        for part in ("train", "val", "test")
    ]
    assert len(twins) == 2
    assert sorted(map(len, homes)) == [0, 0, 2]
