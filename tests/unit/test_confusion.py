"""The confusion matrix adds over tiles and agrees with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import confusion_matrix, jaccard_score, precision_score, recall_score

from weedseg.classes import DEFAULT_CLASSES, ClassTable
from weedseg.errors import FieldDataError
from weedseg.evaluation.confusion import ConfusionMatrix, role_scores

SIZE = (8, 10)
MASKS = hnp.arrays(np.uint8, SIZE, elements=st.sampled_from([0, 1, 2, 255]))
CLASS_MAPS = hnp.arrays(np.uint8, SIZE, elements=st.integers(0, 2))


def matrix_of(mask: np.ndarray, class_map: np.ndarray, num_classes: int = 3) -> ConfusionMatrix:
    matrix = ConfusionMatrix(num_classes)
    matrix.add(mask, class_map)
    return matrix


@settings(max_examples=60, deadline=None)
@given(MASKS, CLASS_MAPS, st.integers(0, 8), st.integers(0, 10))
def test_adds_over_tiles(mask: np.ndarray, class_map: np.ndarray, row: int, column: int) -> None:
    whole = matrix_of(mask, class_map)
    tiles = [(slice(None, row), slice(None, column)), (slice(None, row), slice(column, None))]
    tiles += [(slice(row, None), slice(None, column)), (slice(row, None), slice(column, None))]
    parts = [matrix_of(mask[tile], class_map[tile]) for tile in tiles]
    summed = parts[0] + parts[1] + parts[2] + parts[3]
    assert np.array_equal(summed.counts, whole.counts)
    assert whole.total == (mask != 255).sum()


@settings(max_examples=60, deadline=None)
@given(MASKS, CLASS_MAPS)
def test_agrees_with_scikit_learn(mask: np.ndarray, class_map: np.ndarray) -> None:
    matrix = matrix_of(mask, class_map)
    truth, found = mask[mask != 255], class_map[mask != 255]
    present = [i for i in range(3) if (truth == i).any()]
    if not present:
        assert matrix.iou() == matrix.recall() == matrix.precision() == [None] * 3
        assert matrix.miou() is None
        assert matrix.accuracy is None
        return
    assert np.array_equal(matrix.counts, confusion_matrix(truth, found, labels=[0, 1, 2]))
    options = {"labels": present, "average": None, "zero_division": 0}
    for ours, theirs in [
        (matrix.iou(), jaccard_score(truth, found, **options)),
        (matrix.precision(), precision_score(truth, found, **options)),
        (matrix.recall(), recall_score(truth, found, **options)),
    ]:
        assert [ours[i] for i in present] == pytest.approx(list(theirs))
        assert all(ours[i] is None for i in range(3) if i not in present)
    mean = np.mean([score for score in matrix.iou() if score is not None])
    assert matrix.miou() == pytest.approx(mean)


def test_scores_by_hand() -> None:
    matrix = matrix_of(
        np.array([[0, 0, 1, 1, 255]], np.uint8), np.array([[0, 1, 1, 0, 2]], np.uint8)
    )
    assert matrix.iou() == [pytest.approx(1 / 3), pytest.approx(1 / 3), None]
    assert matrix.f1() == [pytest.approx(0.5), pytest.approx(0.5), None]
    assert matrix.accuracy == 0.5
    assert matrix.true_coverage() == [0.5, 0.5, 0]


def test_class_predicted_but_absent_from_truth_is_none() -> None:
    matrix = matrix_of(np.zeros((2, 2), np.uint8), np.full((2, 2), 2, np.uint8))
    assert matrix.iou() == [0.0, None, None]
    assert matrix.miou() == 0.0


def test_species_of_one_role_are_merged() -> None:
    species = ClassTable.from_list(
        [
            {"name": "soil", "role": "background"},
            {"name": "beet", "role": "crop"},
            {"name": "thistle", "role": "weed"},
            {"name": "grass", "role": "weed"},
        ]
    )
    matrix = matrix_of(np.array([[2, 3, 1]], np.uint8), np.array([[3, 2, 1]], np.uint8), 4)
    assert matrix.iou() == [None, 1.0, 0.0, 0.0]
    scores = role_scores(matrix, species)
    assert scores.weed_iou == 1.0
    assert scores.crop_iou == 1.0
    assert scores.background_iou is None
    assert scores.weed_precision == scores.weed_recall == 1.0


def test_roles_equal_classes_when_each_role_has_one() -> None:
    rng = np.random.default_rng(0)
    matrix = matrix_of(
        rng.integers(0, 3, (9, 9)).astype(np.uint8), rng.integers(0, 3, (9, 9)).astype(np.uint8)
    )
    scores = role_scores(matrix, DEFAULT_CLASSES)
    assert [scores.background_iou, scores.crop_iou, scores.weed_iou] == matrix.iou()
    assert scores.miou == matrix.miou()


@pytest.mark.parametrize(
    ("mask", "class_map"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8)),
        (np.full((2, 2), 3, np.uint8), np.zeros((2, 2), np.uint8)),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 7, np.uint8)),
    ],
)
def test_refuses_what_does_not_fit(mask: np.ndarray, class_map: np.ndarray) -> None:
    with pytest.raises(FieldDataError):
        matrix_of(mask, class_map)
    with pytest.raises(FieldDataError):
        ConfusionMatrix(3, np.zeros((2, 2), np.int64))
