"""The bench of the synthetic farm: what it trains on, and how plants are scored."""

from dataclasses import replace

import numpy as np
import pytest

from weedseg.bench.pretraining import Dataset
from weedseg.bench.synthetic import (
    SyntheticPlan,
    compose_farms,
    measure_synthetic,
    score_plants,
    split_farms,
)
from weedseg.config import load_recipe
from weedseg.data.index import index_farm
from weedseg.data.masks import read_mask
from weedseg.data.synthetic import write_farm
from weedseg.evaluation.baselines import exg_otsu
from weedseg.imaging import read_image

TINY = [
    "finetune.steps=2",
    "finetune.tile_px=64",
    "finetune.batch=2",
    "finetune.evaluations=1",
    "net.encoder=mobilenetv3",
    "net.decoder_channels=16",
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Stand in for the real photos."""
    root = tmp_path_factory.mktemp("field")
    write_farm(root, 9, num_photos=5, num_labelled=4, size=(96, 128), fields=1)
    farm = index_farm(root)
    return Dataset(name="peanut", farm=farm, test=(farm.labelled[0].name,))


def test_plants_are_scored_over_all_pixels(dataset):
    truth = {
        read_image(p.path).tobytes(): (read_mask(dataset.farm, p) > 0).astype(np.uint8)
        for p in dataset.farm.labelled
    }
    line = score_plants(dataset, lambda image: truth[image.tobytes()])
    assert line["plant_iou"] == {"all": 1.0, "test": 1.0}
    assert (line["num_photos"], line["num_test"], line["better_share"]) == (4, 1, 1.0)
    photo = dataset.farm.labelled[0]
    plants, found = truth[read_image(photo.path).tobytes()], exg_otsu(read_image(photo.path))
    expected = (plants & found).sum() / (plants | found).sum()
    assert line["exg_otsu_plant_iou"]["test"] == pytest.approx(expected)
    nothing = score_plants(dataset, lambda image: np.zeros(image.shape[:2], np.uint8))
    assert nothing["plant_iou"]["all"] == 0


def test_a_network_that_saw_synthetic_farms_only(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("weedseg.bench.synthetic.write_farm", small_farm)
    plan = SyntheticPlan(work=tmp_path, farms=5, photos=4, init="none")
    line = measure_synthetic(plan, dataset, load_recipe("default", TINY))
    assert (line["train_photos"], line["steps"], line["num_photos"]) == (8, 2, 4)
    assert 0 <= line["plant_iou"]["all"] < 1
    training, validation = split_farms(compose_farms(plan))
    assert {p.field for p in training} == {"farm-000", "farm-001"}
    assert {p.field for p in validation} == {"farm-002", "farm-003", "farm-004"}
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "farms").rglob("*.png")}
    compose_farms(replace(plan, init="imagenet"))
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "farms").rglob("*.png")} == before


def small_farm(out, seed, **sizes):
    write_farm(out, seed, **sizes, size=(96, 128))
