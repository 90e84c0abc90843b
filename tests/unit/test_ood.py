"""The out-of-distribution score: what is learnt, what is stored, what a stream makes of it."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weedseg.edge import Segmenter
from weedseg.edge.ood import NUM_STATISTICS, OodReference, photo_statistics
from weedseg.errors import ConfigError, FieldDataError, ModelFileError
from weedseg.evaluation.ood import MIN_PHOTOS, auroc, fit_ood


@pytest.fixture(scope="module")
def photos():
    """Photos of one field: the same colours, plants at other places, other light."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(80):
        coarse = rng.integers(0, 3, (30, 40))
        colours = np.array([(110, 80, 50), (40, 150, 30), (90, 160, 60)]) * rng.uniform(0.8, 1.2)
        image = np.kron(colours[coarse], np.ones((6, 6, 1))) + rng.normal(0, 12, (180, 240, 3))
        found.append(np.clip(image, 0, 255).astype(np.uint8))
    return found


@pytest.fixture(scope="module")
def reference(photos):
    mean, weights = fit_ood(np.array([photo_statistics(image) for image in photos[:60]]))
    return OodReference(mean=mean, weights=weights)


SPOILT = {
    "cap": lambda image: np.full_like(image, 5),
    "night": lambda image: (0.1 * image).astype(np.uint8),
    "blur": lambda image: cv2.GaussianBlur(image, (0, 0), 5),
    "blue": lambda image: image[:, :, ::-1].copy(),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_own_photos_score_below_one_others_above(reference, photos, kind):
    own = [reference.score(image) for image in photos[60:]]
    others = [reference.score(SPOILT[kind](image)) for image in photos[60:]]
    assert np.mean(np.array(own) <= 1) >= 0.9
    assert min(others) > 1
    assert auroc(own, others) == 1


def test_the_score_is_that_of_mahalanobis(reference, photos):
    """Computed again with an inverse covariance instead of eigenvectors."""
    rows = np.array([photo_statistics(image) for image in photos[:60]])
    normal = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
    shrunk = 0.95 * normal.T @ normal / len(rows) + 0.05 * np.eye(NUM_STATISTICS)
    own = (photo_statistics(photos[70]) - rows.mean(0)) / (rows.std(0) + 1e-6)
    other = (photo_statistics(photos[71]) - rows.mean(0)) / (rows.std(0) + 1e-6)
    distances = [np.sqrt(v @ np.linalg.inv(shrunk) @ v) for v in (own, other)]
    ratio = reference.score(photos[70]) / reference.score(photos[71])
    assert ratio == pytest.approx(distances[0] / distances[1])


@given(
    height=st.integers(1, 200), width=st.integers(1, 200), value=st.sampled_from([0, 7, 128, 255])
)
def test_photos_of_any_size_have_finite_statistics(height, width, value):
    found = photo_statistics(np.full((height, width, 3), value, np.uint8))
    assert found.shape == (NUM_STATISTICS,)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:3], value)
    np.testing.assert_allclose(found[3:6], 0, atol=1e-5)


def test_a_reference_survives_its_plain_data(reference, photos):
    values = json.loads(json.dumps(reference.to_dict()))
    again = OodReference.from_dict(values)
    assert again.score(photos[70]) == pytest.approx(reference.score(photos[70]), rel=1e-3)


ODD = [
    None,
    [],
    {},
    {"mean": [0] * 10},
    {"mean": [0] * 9, "weights": [[0] * 9] * 9},
    {"mean": ["x"] * 10, "weights": [[0] * 10] * 10},
    {"mean": [0] * 10, "weights": [[0] * 10] * 9 + [[0] * 9]},
    {"mean": [0] * 10, "weights": [[1e999] * 10] * 10},
    {"mean": [10**400] * 10, "weights": [[0] * 10] * 10},
    {"mean": {"a": 1}, "weights": 3},
]


@pytest.mark.parametrize("values", ODD)
def test_odd_plain_data_are_refused(values):
    with pytest.raises(ConfigError, match="10 means"):
        OodReference.from_dict(values)


def test_a_model_gives_the_score_of_its_metadata(make_colour_model, reference, photos):
    segmenter = Segmenter(make_colour_model(ood=reference.to_dict()))
    expected = segmenter.metadata.ood.score(photos[0])
    assert segmenter.segment(photos[0]).ood_score == pytest.approx(expected)
    assert Segmenter(make_colour_model()).segment(photos[0]).ood_score is None


def test_a_model_with_odd_statistics_is_refused(make_colour_model):
    with pytest.raises(ModelFileError, match="metadata 'ood'"):
        Segmenter(make_colour_model(ood={"mean": [1.0]}))


def test_too_few_photos_teach_nothing():
    with pytest.raises(FieldDataError, match=f"at least {MIN_PHOTOS}"):
        fit_ood(np.zeros((MIN_PHOTOS - 1, 3)))


def test_photos_that_are_all_alike_are_no_fault():
    mean, weights = fit_ood(np.ones((MIN_PHOTOS, 3)))
    assert np.isfinite(mean).all()
    assert not np.isnan(weights).any()


def test_auroc_counts_ties_half():
    assert auroc([0, 1], [1, 2]) == pytest.approx(7 / 8)
    assert auroc([1], [0]) == 0
    with pytest.raises(FieldDataError, match="no score"):
        auroc([], [1])
