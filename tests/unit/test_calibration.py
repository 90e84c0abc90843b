"""Temperature and plants: figures worked out another way."""

import numpy as np
import pytest

from weedseg.classes import DEFAULT_CLASSES
from weedseg.edge.boom import Boom
from weedseg.errors import FieldDataError
from weedseg.evaluation.plants import PlantHits
from weedseg.evaluation.temperature import RANGE, fit_temperature
from weedseg.pipeline.confidence import CELLS_A_SIDE, SprayedPlants, sprayer, treated_area


def drawn(temperature, num=40_000):
    """Draw truths from softmax(logits / temperature): that temperature is the right one."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (num, 3)).astype(np.float32)
    noise = rng.gumbel(size=logits.shape)
    return logits, (logits / temperature + noise).argmax(1).astype(np.uint8)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_drew_the_truth_is_found(temperature):
    logits, truth = drawn(temperature)
    found = fit_temperature(logits, truth)
    assert found["temperature"] == pytest.approx(temperature, rel=0.05)
    assert found["nll_after"] <= found["nll_before"] + 1e-6
    assert found["pixels"] == len(truth)


def test_extremes_stay_in_range():
    logits, truth = drawn(1.0, 500)
    assert fit_temperature(1000 * logits, truth)["temperature"] <= RANGE[1]
    right = logits.argmax(1).astype(np.uint8)
    assert fit_temperature(logits, right)["temperature"] >= RANGE[0]


@pytest.mark.parametrize(("pixels", "truths"), [(0, 0), (3, 4)])
def test_arrays_that_do_not_fit_are_refused(pixels, truths):
    with pytest.raises(FieldDataError, match="label some photos"):
        fit_temperature(np.zeros((pixels, 3), np.float32), np.zeros(truths, np.uint8))


@pytest.fixture
def mask():
    found = np.zeros((160, 160), np.uint8)
    found[0:20, 0:20] = 2  # a weed in one cell
    found[70:90, 70:90] = 2  # a weed over four cells of 80 px
    found[100:140, 100:140] = 1  # a crop plant
    found[150:154, 2:5] = 2  # too small for a plant
    found[:, 158:] = 255
    return found


def test_plants_are_hit_by_half(mask):
    hits = PlantHits(DEFAULT_CLASSES)
    treated = np.zeros(mask.shape, bool)
    treated[:80, :80] = True
    hits.add(mask, treated)
    found = hits.to_dict()
    assert (found["weeds"], found["weed_hit"]) == (2, 0.5)  # a quarter of the second is sprayed
    assert (found["crops"], found["crop_hit"]) == (1, 0)
    assert found["area_treated"] == pytest.approx(80 * 80 / (160 * 158))
    treated[80:, :] = True
    hits.add(mask, treated)
    assert hits.to_dict()["weed_hit"] == 0.75
    assert hits.to_dict()["crop_hit"] == 0.5


def test_nothing_to_hit_is_unknown():
    hits = PlantHits(DEFAULT_CLASSES)
    assert set(hits.to_dict().values()) == {0, None}
    with pytest.raises(FieldDataError, match="treated area"):
        hits.add(np.zeros((2, 2), np.uint8), np.zeros((2, 3), bool))


def test_treated_cells_are_those_of_the_boom(mask):
    boom = Boom(mm_per_px=1, nozzle_mm=80, cell_mm=80)
    area = treated_area(mask, boom, DEFAULT_CLASSES)
    assert area.shape == mask.shape
    assert [area[r, c] for r in (0, 159) for c in (0, 159)] == [True] * 4
    strict = Boom(mm_per_px=1, nozzle_mm=80, cell_mm=80, min_weed_share=0.05)
    assert treated_area(mask, strict, DEFAULT_CLASSES).mean() == 0.25


def test_cells_follow_the_ground_resolution_or_the_photo():
    assert sprayer((600, 800), 0.5).nozzle_mm == 60
    assert sprayer((600, 800), None).cell_mm == 800 / CELLS_A_SIDE
    assert sprayer((3, 5), None).cell_mm == 1
    assert sprayer((600, 800), 100.0).nozzle_mm == 100


def test_the_rule_behind_the_figures_is_told(mask):
    plants = SprayedPlants(DEFAULT_CLASSES)
    plants.add(mask, mask % 255, 1.0)
    assert plants.to_dict()["cell"] == "6 cm square"
    assert plants.to_dict()["weed_hit"] == 1
    plants.add(mask, mask % 255, None)
    assert "unknown" in plants.to_dict()["cell"]
