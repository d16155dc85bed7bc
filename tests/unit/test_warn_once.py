"""Warnings that are given once, in the first process."""

import copy
import pickle
import warnings
from pathlib import Path

import pytest

from lightning_ib.warn_once import WarnOnce


@pytest.fixture
def caught():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def texts(caught):
    return [str(warning.message) for warning in caught]


def test_a_key_is_warned_of_once_whatever_the_text(caught):
    warned = WarnOnce()
    for k in range(3):
        warned.warn("a", f"a {k}")
        warned.warn(("b", 1), f"b {k}")
    assert texts(caught) == ["a 0", "b 0"]
    assert "a" in warned
    assert ("b", 1) in warned
    assert "c" not in warned


def test_after_clear_all_is_warned_of_again(caught):
    warned = WarnOnce()
    warned.warn("a", "first")
    warned.clear()
    assert "a" not in warned
    warned.warn("a", "second")
    assert texts(caught) == ["first", "second"]


def test_two_of_them_know_nothing_of_each_other(caught):
    WarnOnce().warn("a", "one")
    WarnOnce().warn("a", "other")
    assert texts(caught) == ["one", "other"]


def test_a_warning_has_its_category_and_belongs_to_the_caller_that_is_asked_for(caught):
    warned = WarnOnce()

    def within(stacklevel):
        warned.warn(stacklevel, "text", DeprecationWarning, stacklevel=stacklevel)

    within(1)
    within(2)
    lines = Path(__file__).read_text().splitlines()
    assert {warning.category for warning in caught} == {DeprecationWarning}
    assert [lines[warning.lineno - 1].strip() for warning in caught] == [
        'warned.warn(stacklevel, "text", DeprecationWarning, stacklevel=stacklevel)',
        "within(2)",
    ]


def test_a_warning_that_is_an_error_is_raised_once():
    warned = WarnOnce()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="text"):
            warned.warn("a", "text")
        warned.warn("a", "text")


def test_only_the_first_process_warns(caught, monkeypatch):
    warned = WarnOnce()
    monkeypatch.setattr("lightning_ib.warn_once.this_process", lambda: (1, 2))
    warned.warn("a", "text")
    assert texts(caught) == []
    assert "a" not in warned


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_knows_what_was_warned_of(caught, copied):
    warned = WarnOnce()
    warned.warn("a", "text")
    copied(warned).warn("a", "text")
    assert len(caught) == 1
