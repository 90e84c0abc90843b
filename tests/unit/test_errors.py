"""The error classes: facts as attributes, one sentence, exit codes."""

import pickle

import pytest

from weedseg import errors


def test_message_is_one_sentence_of_three_facts():
    error = errors.ImageError("a.jpg is cut off", "a whole JPEG", "copy it again")
    assert str(error) == "a.jpg is cut off; expected a whole JPEG; copy it again"
    assert (error.found, error.expected, error.remedy) == (
        "a.jpg is cut off",
        "a whole JPEG",
        "copy it again",
    )


@pytest.mark.parametrize("kind", [errors.ConfigError, errors.MaskError, errors.ParityError])
def test_errors_cross_process_borders(kind):
    error = pickle.loads(pickle.dumps(kind("found", "expected", "remedy")))
    assert type(error) is kind
    assert error.remedy == "remedy"


def test_a_family_shares_its_exit_code():
    assert errors.MaskError.exit_code == errors.FieldDataError.exit_code
    assert errors.ImageError.exit_code == errors.SplitError.exit_code == 3
    assert errors.CheckpointError.exit_code == errors.TrainingError.exit_code


def test_families_differ_in_their_exit_codes():
    families = errors.WeedsegError.__subclasses__()
    codes = [family.exit_code for family in families]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
