"""The values of a replay beside those of the run."""

import math

from lightning_ib import History
from lightning_ib.cli.recorded import agreement
from lightning_ib.records import Record


def history(unit="bits", factor=1.0, **values):
    known = {"I_XT": 2.0, "n_codes": 9.0} | values
    return History(
        Record(
            1,
            5,
            "out",
            "cells",
            name,
            value if name == "n_codes" else factor * value,
            unit="" if name == "n_codes" else unit,
        )
        for name, value in known.items()
    )


def test_units_are_no_difference():
    nats = history("nats", math.log(2))
    assert agreement(nats, history()) == "All 2 values that the run recorded too are the same, to 1e-09."
    assert "I_XT of out at epoch 1: 1.386, and 0.6931 in the run" in agreement(nats, history(I_XT=1.0))


def test_agreement_needs_an_information():
    counts = History(one for one in history().records() if one.quantity == "n_codes")
    assert agreement(counts, history()) == ""


def test_the_difference_of_an_information_is_named_first():
    assert "2 of 2 values differ" in agreement(history(), history(I_XT=1.5, n_codes=30.0))
    assert "such as I_XT of out" in agreement(history(), history(I_XT=1.5, n_codes=30.0))
    assert "such as I_XT of out" in agreement(history(), history(I_XT=math.nan, n_codes=30.0))
