"""How well samples cover symbols."""

import math
from collections import Counter

import pytest
import torch

from lightning_ib.functional import entropy, saturation, singleton_fraction, symbols


def test_every_sample_a_symbol_is_full_saturation():
    assert saturation(entropy(torch.arange(100)), n_samples=100) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_saturation_is_the_same_in_either_unit(unit):
    ids = torch.arange(1000) // 250  # two bits
    assert saturation(entropy(ids, unit=unit), n_samples=1000, unit=unit) == pytest.approx(
        2 / math.log2(1000), rel=1e-14
    )


def test_saturation_of_one_sample_is_unknown():
    assert math.isnan(saturation(0.0, n_samples=1))


def test_samples_that_saturation_asks_for():
    """As the docstring says of eight bits."""
    assert saturation(8.0, n_samples=475) < 0.9 < saturation(8.0, n_samples=474)


def test_singletons_as_counted_one_by_one():
    ids = torch.randint(200, (300,), generator=torch.Generator().manual_seed(0))
    once = sum(n == 1 for n in Counter(ids.tolist()).values())
    assert singleton_fraction(symbols(ids).counts) == once / 300
    assert singleton_fraction(torch.tensor([0, 4, 6])) == 0.0


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: saturation(-1.0, n_samples=10), ValueError, "h_t"),
        (lambda: saturation(1.0, n_samples=0), ValueError, "n_samples"),
        (lambda: saturation(1.0, n_samples=10, unit="hartleys"), ValueError, "unit"),
        (lambda: singleton_fraction(torch.tensor([0, 0])), ValueError, "at least, got none"),
        (lambda: singleton_fraction(torch.tensor([0.5])), TypeError, "frequencies"),
        (lambda: singleton_fraction(torch.tensor([3, -1])), ValueError, "must not be negative, got -1"),
    ],
)
def test_what_is_no_count_is_refused(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
