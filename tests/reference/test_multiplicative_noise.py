"""The information that noise in a weight leaves: known values, a second way to them, and the table of the pages."""

import math
import re
import sys

import pytest
import torch
from scipy import integrate, special

from tests.helpers import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import multiplicative_noise as channel

KNOWN = {0.1: 2.942478112820399, 0.3: 1.8698926938450464, 1.0: 0.8130102745083632, math.inf: 0.42034132079949904}
"""In nats, from other grids."""


@pytest.mark.parametrize(("s", "nats"), KNOWN.items())
def test_the_truth(s, nats):
    assert channel.truth(s) == pytest.approx(nats, abs=1e-8)


def test_the_truth_of_endless_noise_from_the_density_of_a_product():
    """The product of two standard normals has the density K₀(|t|)/π."""

    def term(t):
        return 2 * special.entr(special.k0(t) / math.pi)

    h = integrate.quad(term, 0, 1, epsabs=1e-12, limit=200)[0] + integrate.quad(term, 1, 60, epsabs=1e-12)[0]
    mean_log = -(0.5772156649015329 + math.log(2)) / 2
    nats = h - math.log(2 * math.pi * math.e) / 2 - mean_log
    assert nats == pytest.approx(KNOWN[math.inf], abs=1e-8)


def test_the_truth_of_some_noise_from_the_density_of_t():
    """h(T) − h(T|X), with the density of T at each t by adaptive quadrature over X."""
    s = 1.0

    def density(t):
        def joint(log_x):
            x = math.exp(log_x)
            both = sum(math.exp(-((t - sign * x) ** 2) / (2 * s**2 * x**2)) for sign in (-1, 1))
            return math.exp(-(x**2) / 2) * both / (2 * math.pi * s)  # dx is x d(log x)

        return integrate.quad(joint, -32, 2.5, epsabs=1e-11, limit=200)[0]

    def term(log_t):
        p = density(math.exp(log_t))
        return 2 * special.entr(p) * math.exp(log_t)  # as much on either side of 0

    h, _ = integrate.quad(term, -26, 4, epsabs=1e-9, limit=100)
    mean_log = -(0.5772156649015329 + math.log(2)) / 2
    nats = h - math.log(2 * math.pi * math.e * s**2) / 2 - mean_log
    assert nats == pytest.approx(channel.truth(s), abs=1e-7)


def test_the_limits():
    assert [channel.truth(s) - channel.small(s) for s in (0.03, 0.1)] == pytest.approx(
        [0.03**2 / 2, 0.1**2 / 2], rel=0.1
    )
    assert channel.truth(1000.0) == pytest.approx(channel.truth(math.inf), abs=1e-6)
    strengths = [0.1, 0.5, 2.0, 8.0, math.inf]
    informations = [channel.truth(s) for s in strengths]
    assert informations == sorted(informations, reverse=True)
    # Noise that scales with T: the Gaussian formula is below the information that it bounds elsewhere.
    assert all(channel.gaussian(s) < nats for s, nats in zip(strengths, informations))


@pytest.mark.parametrize("s", KNOWN)
def test_nearest_neighbors_find_it(s):
    values = channel.estimates("ksg_1", s, 2000, seeds=2)
    assert values == pytest.approx([KNOWN[s]] * 2, abs=0.1)


def test_the_table_is_that_of_the_pages(capsys):
    channel.main(["--rows", "200", "--seeds", "2", "--estimators", "copula"])
    printed = capsys.readouterr().out.splitlines()
    page = (ROOT / "docs" / "theory.md").read_text().splitlines()
    first = page.index(printed[0])
    assert page[first : first + 5] == printed[:5]
    assert re.fullmatch(r"\| Gaussian copula( \| -?\d\.\d\d ± \d\.\d\d){4} \|", printed[5])
    assert [line.split(" |")[0][2:] for line in page[first + 5 : first + 13]] == [
        channel.ESTIMATORS[name].label for name in channel.SHOWN
    ]


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
