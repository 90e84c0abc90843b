"""What is known of a model's accuracy, from its evaluation to the area of weeds."""

import numpy as np
import pytest

from weedseg.classes import DEFAULT_CLASSES, IGNORE_ID
from weedseg.evaluation.scores import Evaluation
from weedseg.maps.trust import UNTESTED, trust_from_dict, trust_in
from weedseg.pipeline.figures import model_metrics


def evaluated(num_photos: int, weed_rows: int = 2) -> dict:
    """Evaluate photos of 10 x 10 px whose top rows are weed; one more row is taken for it."""
    evaluation = Evaluation(DEFAULT_CLASSES)
    for number in range(num_photos):
        mask = np.zeros((10, 10), np.uint8)
        mask[:weed_rows] = 2
        mask[9, :5] = IGNORE_ID
        class_map = mask.copy()
        class_map[class_map == IGNORE_ID] = 0
        class_map[: weed_rows + 1] = 2
        evaluation.add(f"{number}.png", mask, class_map, np.full((10, 10), 90, np.uint8))
    return evaluation.to_dict()


def trust_of(evaluation: dict | None, trained_on: str, crop: str):
    return trust_in({"metrics": model_metrics(evaluation, trained_on)}, crop)


def test_bias_and_false_weed_are_those_of_the_photos():
    trust = trust_of(evaluated(6), "peanut", "Peanut")
    assert trust.evaluated
    assert trust.num_photos == 6
    assert trust.weed.bias == pytest.approx(10 / 95) == trust.weed.rmse
    assert trust.crop.bias == 0
    assert trust.false_weed_share == pytest.approx(10 / 75)
    assert trust.false_weed_basis == "ground and crop on 6 photos"
    assert trust_from_dict(trust.to_dict()) == trust


def test_photos_without_weeds_say_it_better():
    trust = trust_of(evaluated(5, weed_rows=0), "peanut", "peanut")
    assert trust.false_weed_share == pytest.approx(10 / 95)
    assert trust.false_weed_basis == "5 photos without weeds"


@pytest.mark.parametrize(
    ("evaluation", "trained_on", "crop", "why"),
    [
        (None, "peanut", "peanut", "never evaluated"),
        (evaluated(2), "peanut", "maize", "here grows maize, the model was evaluated on peanut"),
        (evaluated(2), "peanut", "", "was not said"),
        (evaluated(2), "", "peanut", "a crop that its file does not name"),
    ],
)
def test_another_crop_is_untested(evaluation, trained_on, crop, why):
    trust = trust_of(evaluation, trained_on, crop)
    assert not trust.evaluated
    assert trust.note.startswith(UNTESTED)
    assert why in trust.note
    area = trust.area(10.0, 100.0, "weed")
    assert area.predicted_m2 == 10
    assert area.corrected_m2 is None
    assert area.low_m2 is None


def test_an_area_is_corrected_by_the_bias_and_stays_on_the_ground():
    trust = trust_of(evaluated(6), "peanut", "peanut")
    assert trust.area(30.0, 100.0, "weed").corrected_m2 == pytest.approx(30 - 100 * 10 / 95)
    assert trust.area(1.0, 100.0, "weed").corrected_m2 == 0
