"""When to measure."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ib.callbacks.schedule import Schedule, log_step_after


@pytest.mark.parametrize(
    ("options", "by", "words"),
    [
        ({}, "epoch", "after every epoch"),
        ({"every_n_epochs": 3}, "epoch", "after every 3 epochs"),
        ({"epochs": [4, 2]}, "epoch", "after the epochs 2, 4"),
        ({"epochs": [4]}, "epoch", "after the epoch 4"),
        ({"every_n_train_steps": 1}, "step", "after every step"),
        ({"every_n_train_steps": 50}, "step", "after every 50 steps"),
        ({"at_steps": [7]}, "step", "after the step 7"),
        ({"at_steps": range(12)}, "step", "after the steps 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …"),
        ({"at_steps": "log"}, "step", "after the steps 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, …, ten a decade"),
    ],
)
def test_it_says_what_it_is(options, by, words):
    schedule = Schedule(**options)
    assert (schedule.by, str(schedule)) == (by, words)


@pytest.mark.slow
@given(st.integers(1, 7), st.integers(1, 40), st.lists(st.integers(1, 6), min_size=1, max_size=30))
def test_however_many_moments_are_skipped_each_is_made_up_for_once(n, first, gaps):
    for schedule in (Schedule(n), Schedule(epochs=[first, first + n]), Schedule(every_n_train_steps=n)):
        now = last = 0
        measured = []
        for gap in gaps:
            now += gap
            if schedule.is_due(now, last):
                measured.append(now)
                last = now
            assert not schedule.is_due(now, last), "never twice at one moment"
        if schedule.epochs is not None:
            assert len(measured) <= 2
            assert all(any(epoch <= moment for moment in measured) for epoch in schedule.epochs if epoch <= now)
        elif schedule.by == "epoch":
            assert all(b - a >= n for a, b in zip([0, *measured], measured))
        else:
            assert [moment // n for moment in measured] == sorted({moment // n for moment in measured})


def test_the_steps_of_log_are_powers_of_ten_in_equal_ratios():
    listed = sorted({0, *(round(10 ** (k / 10)) for k in range(91))})
    assert [log_step_after(step) for step in [-1, *listed[:-1]]] == listed
    assert all(log_step_after(step - 1) == step for step in listed)


@given(st.integers(1, 10**12))
def test_between_steps_of_log_lies_at_most_a_tenth_of_a_decade(step):
    later = log_step_after(step)
    assert step < later <= max(step + 1, math.ceil(1.26 * step) + 1)
    assert log_step_after(later - 1) == later


@given(st.sets(st.integers(0, 60), min_size=1), st.lists(st.integers(1, 7), min_size=1, max_size=20))
def test_steps_that_are_listed_are_made_up_for_once_at_the_next_that_comes(listed, gaps):
    """As where several optimizers step in one batch."""
    schedule, now, last, found = Schedule(at_steps=sorted(listed)), 0, 0, []
    for gap in gaps:
        before, now = now, now + gap
        assert schedule.is_due(now, last) == any(before < step <= now for step in listed)
        if schedule.is_due(now, last):
            found.append(now)
            last = now
    assert len(found) <= len(listed)
    assert bool(schedule.unreached(now)) == any(step > now for step in listed)


def test_steps_that_training_ended_before_are_said():
    schedule = Schedule(at_steps=[1, 10, 100, 1000])
    assert schedule.unreached(99) == "training ended at step 99, before 2 of at_steps: 100, 1000."
    assert schedule.unreached(1000) == Schedule(at_steps="log").unreached(5) == Schedule().unreached(5) == ""


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"every_n_epochs": True}, TypeError, "every_n_epochs must be an integer of at least 1, got True"),
        ({"every_n_train_steps": 0}, ValueError, "every_n_train_steps must be an integer of at least 1, got 0"),
        ({"epochs": [1, 2.5]}, TypeError, "epochs must be an integer of at least 0, got 2.5"),
        ({"epochs": []}, ValueError, r"epochs must be a list of whole numbers such as \[1, 2, 4, 8\], got \[\]."),
        ({"epochs": "12"}, TypeError, r"epochs must be a list of whole numbers such as \[1, 2, 4, 8\], got '12'."),
        (
            {"epochs": [1], "every_n_train_steps": 2},
            ValueError,
            "give one schedule, got epochs and every_n_train_steps.",
        ),
        ({"at_steps": "log", "every_n_epochs": 2}, ValueError, "give one schedule, got every_n_epochs and at_steps."),
        (
            {"at_steps": [1, 10, 5]},
            ValueError,
            r"at_steps must ascend, such as \[0, 1, 10, 100\], got 5 after 10: sort",
        ),
        ({"at_steps": [1, 1]}, ValueError, "got 1 after 1"),
        ({"at_steps": [-1, 1]}, ValueError, "at_steps must be an integer of at least 0, got -1"),
        ({"at_steps": [1, True]}, TypeError, "at_steps must be an integer of at least 0, got True"),
        ({"at_steps": []}, ValueError, r"a list of whole numbers such as \[0, 1, 10, 100\], or 'log', got \[\]."),
        ({"at_steps": "lin"}, ValueError, "or 'log', got 'lin'."),
        ({"at_steps": 3}, TypeError, "or 'log', got 3."),
    ],
)
def test_what_is_no_schedule_is_refused(options, kind, said):
    with pytest.raises(kind, match=said):
        Schedule(**options)


def test_it_is_a_value():
    assert Schedule(epochs=[2, 1]) == Schedule(epochs=(1, 2))
    with pytest.raises(AttributeError):
        Schedule().every_n_epochs = 2
