"""The learning rate over the steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weedseg.training.schedule import FLOOR, Schedule


@given(steps=st.integers(1, 400), warmup=st.floats(0, 1))
def test_factors_are_positive_and_at_most_one(steps, warmup):
    factors = [Schedule((0, steps), warmup).factor(step) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)


def test_it_rises_then_falls_to_one_per_cent():
    factors = [Schedule((0, 200), 0.05).factor(step) for step in range(200)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == 1
    assert factors[-1] == pytest.approx(FLOOR, abs=1e-3)


def test_each_cycle_is_the_same():
    schedule = Schedule((0, 50, 100, 150), 0.1)
    cycles = [[schedule.factor(start + i) for i in range(50)] for start in (0, 50, 100)]
    assert cycles[0] == cycles[1] == cycles[2]
    assert cycles[0][-1] < 0.05
    assert cycles[0][0] > 0.15


def test_empty_stages_do_no_harm():
    schedule = Schedule((0, 0, 3, 3, 5), 0.1)
    assert [schedule.factor(step) for step in range(5)] == [0.5, 1, *[pytest.approx(0.505)], 0.5, 1]
    assert Schedule((0, 0), 0.1).factor(0) > 0


def test_past_the_end_it_stays_low():
    assert Schedule((0, 100), 0.05).factor(120) == pytest.approx(FLOOR)
