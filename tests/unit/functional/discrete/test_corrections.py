"""Corrected entropies: the papers' formulas written out, known answers, and laws that hold for any counts."""

import math
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_ib.functional.discrete import corrections
from lightning_ib.functional.discrete.corrections import (
    Correction,
    chao_shen,
    chao_wang_jost,
    checked_correction,
    corrected,
    grassberger,
    jackknife,
    james_stein,
    miller_madow,
    nsb,
)
from lightning_ib.functional.discrete.counting import (
    Symbols,
    conditional_entropy,
    conditional_mutual_information,
    entropy,
    entropy_of_counts,
    joint,
    joint_counts,
    mutual_information,
    symbols,
)
from lightning_ib.functional.discrete.multiplicities import counts_of_counts
from tests.helpers.counting import ints, law
from tests.helpers.samples import generator

NAMES = get_args(Correction)
EULER = 0.5772156649015329

positive_counts = st.lists(st.integers(1, 12) | st.integers(1, 10**6), min_size=1, max_size=40)
corrections_named = st.sampled_from(NAMES)


# --- The papers' formulas, in NumPy ----------------------------------------------------------------------------------


def numpy_miller_madow(n):
    return scipy.stats.entropy(n) + (len(n) - 1) / (2 * n.sum())


def numpy_grassberger(n):
    psi = scipy.special.digamma
    g = psi(n) + (-1.0) ** n / 2 * (psi((n + 1) / 2) - psi(n / 2))
    return np.log(n.sum()) - (n * g).sum() / n.sum()


def numpy_chao_shen(n):
    size, singles = n.sum(), (n == 1).sum()
    p = (1 - min(singles, size - 1) / size) * n / size
    with np.errstate(divide="ignore"):
        return -np.where(p == 1, 0, p * np.log(p) / (1 - (1 - p) ** size)).sum()


def numpy_james_stein(n):
    size, p, target = n.sum(), n / n.sum(), 1 / len(n)
    distance = ((target - p) ** 2).sum()
    shrinkage = (1 - (p**2).sum()) / ((size - 1) * distance) if distance > 1e-15 else 1
    shrinkage = min(max(shrinkage, 0), 1)
    return scipy.stats.entropy(shrinkage * target + (1 - shrinkage) * p)


def numpy_jackknife(n):
    size = n.sum()
    without_one = np.array([scipy.stats.entropy(n - np.eye(len(n), dtype=n.dtype)[k]) for k in range(len(n))])
    return size * scipy.stats.entropy(n) - (size - 1) / size * (n * without_one).sum()


def numpy_chao_wang_jost(n):
    """The brace as the series that its sum leaves over, term by term."""
    size, once, twice = n.sum(), (n == 1).sum(), (n == 2).sum()
    psi = scipy.special.digamma
    seen = (n * (psi(size) - psi(n))).sum() / size
    rare = 2 * twice / ((size - 1) * once + 2 * twice) if twice else 2 / ((size - 1) * max(once - 1, 0) + 2)
    if rare == 1:
        return seen
    j = np.arange(int(45 / rare))
    return seen + once / size * (np.exp((j + 1) * np.log1p(-rare)) / (size + j)).sum()


def numpy_nsb(n):
    """K by Chao's bound, and log beta in steps that are fine enough for the narrowest posterior."""
    size, once, twice = int(n.sum()), int((n == 1).sum()), int((n == 2).sum())
    unseen = Fraction(size - 1, size) * (Fraction(once**2, 2 * twice) if twice else Fraction(once * (once - 1), 2))
    k = len(n) + math.ceil(unseen)
    if k == 1:
        return 0.0
    log_beta = np.arange(-math.log(k) - 45, 2 * math.log(size) + 45, min(0.1, 0.25 / math.sqrt(len(n))))
    b, log_gamma, psi = np.exp(log_beta), scipy.special.gammaln, scipy.special.digamma
    values, times = np.unique(n, return_counts=True)
    log_p = log_gamma(k * b) - log_gamma(size + k * b)
    for c, m in zip(values, times):
        log_p += m * (log_gamma(c + b) - log_gamma(b))
    exact = k * scipy.special.polygamma(1, k * b + 1) - scipy.special.polygamma(1, b + 1)
    series = (1 - 1 / k) / 2 - (1 - 1 / k**2) / (6 * b) + (1 - 1 / k**4) / (30 * b**3)  # times b^-2
    # Log-gamma loses its digits for large beta, where the probability of the counts no longer depends on it.
    log_p = np.where(b < 1e9, log_p, log_p[b < 1e9][-1]) + log_beta
    log_p += np.where(b < 1e3, np.log(exact.clip(min=1e-300)), np.log(series) - 2 * log_beta)
    own = sum(m * (c + b) * psi(c + b + 1) for c, m in zip(values, times)) + (k - len(n)) * b * psi(b + 1)
    p = np.exp(log_p - log_p.max())
    return (p * (psi(size + k * b + 1) - own / (size + k * b))).sum() / p.sum()


REFERENCES = {
    "miller_madow": numpy_miller_madow,
    "grassberger": numpy_grassberger,
    "chao_shen": numpy_chao_shen,
    "james_stein": numpy_james_stein,
    "jackknife": numpy_jackknife,
    "chao_wang_jost": numpy_chao_wang_jost,
    "nsb": numpy_nsb,
}

COUNTS = {
    "three": [1, 1, 2],
    "even": [4, 4, 4, 4],
    "nearly even": [1000, 1001],
    "single symbol": [17],
    "coin": [900, 100],
    "few singles": [1, 1, 5, 80, 300],
    "all singles": [1] * 50,
    "skewed": (1 + 10_000 / np.arange(1, 301) ** 1.5).astype(int).tolist(),
    "random": np.bincount(ints(400, 2000).numpy()).tolist(),
}


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_papers_formula(name, counts):
    n = np.array([c for c in counts if c])
    figure = corrected(torch.tensor(counts), name, unit="nats")
    assert type(figure) is float
    assert figure == pytest.approx(REFERENCES[name](n), abs=1e-10)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "jackknife"])
def test_agrees_with_the_papers_formula_on_many_symbols(name):
    counts = torch.bincount((20_000 * torch.rand(60_000, generator=generator()) ** 2).long())
    n = counts[counts > 0].numpy()
    assert corrected(counts, name, unit="nats") == pytest.approx(REFERENCES[name](n), abs=1e-8)


@law
@given(st.lists(st.integers(1, 30), min_size=2, max_size=25), corrections_named)
def test_agrees_with_the_papers_formula_on_any_counts(counts, name):
    expected = REFERENCES[name](np.array(counts))
    assert corrected(torch.tensor(counts), name, unit="nats") == pytest.approx(expected, abs=1e-10)


# --- Known answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("miller_madow", 0.07),
        ("grassberger", 0.02),
        ("chao_shen", 0.25),
        ("james_stein", 0.15),
        ("jackknife", 0.05),
        ("chao_wang_jost", 0.01),
        ("nsb", 0.03),
    ],
)
def test_twelve_fair_bits_are_nearer_to_twelve(name, off, seed):
    ids = ints(2**12, 10_000, seed)
    assert entropy(ids) == pytest.approx(11.67, abs=0.01)
    assert entropy(ids, correction=name) == pytest.approx(12, abs=off)


@pytest.mark.parametrize("name", NAMES)
def test_eight_fair_bits_are_well_seen(name):
    assert entropy(ints(2**8, 10_000), correction=name) == pytest.approx(8, abs=0.02)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [300, 1000])
def test_the_bias_is_smaller_on_skewed_symbols(name, n):
    p = 1 / torch.arange(1, 1001, dtype=torch.float64)
    truth = scipy.stats.entropy(p.numpy(), base=2)
    drawn = [torch.multinomial(p, n, replacement=True, generator=generator(seed)) for seed in range(20)]
    plug_in_bias = abs(np.mean([entropy(ids) for ids in drawn]) - truth)
    assert abs(np.mean([entropy(ids, correction=name) for ids in drawn]) - truth) < 0.9 * plug_in_bias


@pytest.mark.parametrize("m", [1, 2, 7, 100])
def test_evenly_seen_symbols(m):
    # n of each: the corrections' own closed forms.
    n, size = 6, 6 * m
    counts = torch.full((m,), n)
    assert james_stein(counts, unit="nats") == pytest.approx(math.log(m), abs=1e-12)
    assert miller_madow(counts, unit="nats") == pytest.approx(math.log(m) + (m - 1) / (2 * size), abs=1e-12)
    g = 2 * (1 + 1 / 3 + 1 / 5) - EULER - math.log(2)  # G(6), by its recurrence
    assert grassberger(counts, unit="nats") == pytest.approx(math.log(size) - g, abs=1e-12)
    p = 1 / m
    expected = math.log(m) / (1 - (1 - p) ** size)
    assert chao_shen(counts, unit="nats") == pytest.approx(expected, abs=1e-12)


def test_a_symbol_for_every_sample_says_what_each_correction_assumes():
    n = 1000
    singles = torch.ones(n, dtype=torch.int64)
    log_n = math.log(n)
    assert miller_madow(singles, unit="nats") == pytest.approx(log_n + (n - 1) / (2 * n), abs=1e-12)
    assert grassberger(singles, unit="nats") == pytest.approx(log_n + EULER + math.log(2), abs=1e-12)
    assert james_stein(singles, unit="nats") == pytest.approx(log_n, abs=1e-12)
    assert jackknife(singles, unit="nats") == pytest.approx(log_n + (n - 1) * math.log(n / (n - 1)), abs=1e-12)
    # One of the singles is left out of f1, as the docstring says: the coverage is 1 / N.
    assert chao_shen(singles, unit="nats") == pytest.approx(2 * log_n / n / (1 - (1 - 1 / n**2) ** n), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_single_sample(name):
    expected = EULER + math.log(2) if name == "grassberger" else 0.0
    assert corrected(torch.tensor([1]), name, unit="nats") == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "grassberger"])
def test_a_single_symbol_has_no_entropy(name):
    figure = corrected(torch.tensor([0, 1000]), name)
    assert figure == pytest.approx(0.0, abs=1e-12)
    assert math.copysign(1, figure) == 1


def test_counts_beyond_float32_are_counted_exactly():
    counts = torch.tensor([2**40, 1])
    for name in NAMES:
        assert corrected(counts, name) == pytest.approx(entropy_of_counts(counts), abs=1e-10)
    # Nearly equal counts: the differences James and Stein divide by are lost in float64, and kept in integers.
    assert james_stein(torch.tensor([10**9 + 1, 10**9])) == pytest.approx(1.0, abs=1e-15)


# --- Laws ------------------------------------------------------------------------------------------------------------


@law
@given(positive_counts, corrections_named, st.randoms(use_true_random=False), st.integers(0, 5))
def test_order_and_zeros_change_not_one_bit(counts, name, shuffler, zeros):
    mixed = [*counts, *[0] * zeros]
    shuffler.shuffle(mixed)
    assert corrected(torch.tensor(mixed), name) == corrected(torch.tensor(counts), name)


@law
@given(positive_counts, corrections_named)
def test_nats_are_bits_times_ln_2(counts, name):
    n = torch.tensor(counts)
    assert corrected(n, name, unit="nats") == pytest.approx(corrected(n, name) * math.log(2), rel=1e-14)


@law
@given(positive_counts)
def test_bounds(counts):
    n, plug_in, log_k = torch.tensor(counts), entropy_of_counts(torch.tensor(counts)), math.log2(len(counts))
    assert plug_in - 1e-12 <= james_stein(n) <= log_k + 1e-12
    assert miller_madow(n) >= plug_in - 1e-12
    assert jackknife(n) >= plug_in - 1e-12
    assert chao_shen(n) >= 0.0
    assert chao_wang_jost(n) >= 0.0
    assert nsb(n) >= 0.0


@law
@given(st.lists(st.integers(0, 9) | st.integers(0, 10**9), min_size=1, max_size=60).filter(any))
def test_counts_of_counts_are_counted(counts):
    table = counts_of_counts(torch.tensor(counts))
    assert table == {c: counts.count(c) for c in sorted(set(counts)) if c}
    assert list(table) == sorted(table)


@law
@given(st.lists(st.integers(0, 9) | st.integers(0, 10**9), min_size=1, max_size=60).filter(any), st.booleans())
def test_without_a_correction_nothing_changed_by_one_bit(counts, bits):
    # As it was computed before there were corrections.
    log, unit = (math.log2, "bits") if bits else (math.log, "nats")
    n = sum(counts)
    expected = math.fsum(counts.count(c) * c * log(n / c) for c in set(counts) if c) / n
    assert entropy_of_counts(torch.tensor(counts), unit=unit, correction=None) == expected


# --- In the figures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["bits", "nats"])
@pytest.mark.parametrize("name", NAMES)
def test_every_entropy_of_a_figure_is_corrected(name, unit):
    a, b = ints(30, 500), ints(4, 500, seed=1)
    c = (a + b + ints(2, 500, seed=2)) % 3
    same = {"unit": unit, "correction": name}

    def h(*variables):
        _, counts = np.unique(torch.stack(variables).numpy(), axis=1, return_counts=True)
        return REFERENCES[name](counts) / (math.log(2) if unit == "bits" else 1)

    assert entropy(a, **same) == pytest.approx(h(a), abs=1e-10)
    assert entropy_of_counts(symbols(a).counts, **same) == pytest.approx(h(a), abs=1e-10)
    assert mutual_information(a, b, **same) == pytest.approx(h(a) + h(b) - h(a, b), abs=1e-10)
    assert conditional_entropy(a, given=b, **same) == pytest.approx(h(a, b) - h(b), abs=1e-10)
    expected = h(a, c) + h(b, c) - h(c) - h(a, b, c)
    assert conditional_mutual_information(a, b, given=c, **same) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("name", ["miller_madow", "grassberger", "jackknife"])
def test_the_information_of_independent_variables_is_near_zero_and_may_be_negative(name):
    figures, plug_in = [], []
    for seed in range(40):
        a, b = ints(10, 2000, seed), ints(10, 2000, 1000 + seed)
        figures.append(mutual_information(a, b, correction=name, unit="nats"))
        plug_in.append(mutual_information(a, b, unit="nats"))
    assert np.mean(plug_in) == pytest.approx(81 / 4000, rel=0.1)
    assert np.mean(figures) == pytest.approx(0.0, abs=0.002)
    assert min(figures) < 0 < max(figures)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "james_stein"])
def test_entropies_are_not_clipped_at_log_n(name):
    assert entropy(torch.arange(300), correction=name) > math.log2(300)


@law
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), corrections_named, st.randoms(use_true_random=False))
def test_order_and_names_of_the_samples_change_not_one_bit(values, name, shuffler):
    a, b = torch.tensor(values), torch.tensor(values[::-1])
    order = list(range(len(values)))
    shuffler.shuffle(order)
    figure = mutual_information(a, b, correction=name)
    assert mutual_information(a[order], b[order], correction=name) == figure
    assert mutual_information(-7 * a + 3, b, correction=name) == figure
    assert mutual_information(b, a, correction=name) == figure


# --- The joint by a table --------------------------------------------------------------------------------------------


@law
@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 80), st.integers(0, 9))
def test_the_joint_by_a_table_is_the_joint_by_sorting(k_a, k_b, n, seed):
    a, b = symbols(ints(k_a, n, seed)), symbols(ints(k_b, n, seed + 100))
    _, numbers, counts = torch.unique(a.numbers * len(b.counts) + b.numbers, return_inverse=True, return_counts=True)
    both = joint(a, b)
    assert torch.equal(both.numbers, numbers)
    assert torch.equal(both.counts, counts)
    assert both.numbers.dtype == both.counts.dtype == torch.int64
    assert torch.equal(joint_counts(a, b), counts)


@pytest.mark.parametrize(("k_a", "k_b", "n"), [(300, 10, 3000), (301, 10, 3000), (1, 1, 1), (2, 1, 2)])
def test_the_joint_is_the_same_on_either_side_of_the_limit(k_a, k_b, n):
    a, b = symbols(torch.arange(n) % k_a), symbols(torch.arange(n) * 7 % k_b)
    before = [t.clone() for t in (*a, *b)]
    _, numbers, counts = torch.unique(a.numbers * len(b.counts) + b.numbers, return_inverse=True, return_counts=True)
    assert all(torch.equal(got, expected) for got, expected in zip(joint(a, b), (numbers, counts)))
    assert all(torch.equal(now, then) for now, then in zip((*a, *b), before))


def test_a_joint_by_a_table_needs_the_same_samples():
    with pytest.raises(ValueError, match="same samples of both variables, got 4 of one and 3 of the other"):
        joint(symbols(torch.zeros(4, dtype=torch.int64)), symbols(torch.zeros(3, dtype=torch.int64)))


# --- What is taken in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_every_integer_dtype_gives_the_same_figure(dtype, name):
    counts = torch.tensor([100, 7, 1, 0, 1, 120])
    assert corrected(counts.to(dtype), name) == corrected(counts, name)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_left_as_they_are(name):
    counts = torch.tensor([[3, 9], [1, 9], [2, 9]])[:, 0]
    before = counts.clone()
    with torch.inference_mode():
        inside = corrected(counts, name)
    assert inside == corrected(counts.contiguous(), name)
    assert torch.equal(counts, before)


@pytest.mark.parametrize("name", NAMES)
def test_a_correction_by_name_is_the_function_of_that_name(name):
    counts = torch.tensor([5, 3, 1])
    assert corrected(counts, name) == getattr(corrections, name)(counts) == entropy_of_counts(counts, correction=name)
    assert checked_correction(name) == name


LISTED = "None, 'miller_madow', 'grassberger', 'chao_shen', 'james_stein', 'jackknife', 'chao_wang_jost' or 'nsb'"


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("miller-madow", "miller_madow"),
        ("Grassberger", "grassberger"),
        ("jacknife", "jackknife"),
        ("chao", "chao_shen"),
    ],
)
def test_an_unknown_correction_is_told_the_nearest(given, nearest):
    ids = torch.arange(4)
    sentence = f"correction must be {LISTED}, got '{given}': did you mean '{nearest}'\\?$"
    for figure in (entropy, lambda *a, **k: mutual_information(ids, *a, **k)):
        with pytest.raises(ValueError, match=sentence):
            figure(ids, correction=given)
    with pytest.raises(ValueError, match=sentence):
        entropy_of_counts(ids, correction=given)


@pytest.mark.parametrize("given", ["", "bayes", 3, True])
def test_an_unknown_correction_like_no_other(given):
    with pytest.raises((ValueError, TypeError), match=rf"correction must be {LISTED}, got {given!r}\.$"):
        conditional_entropy(torch.arange(4), given=torch.arange(4), correction=given)


ALL = [*(getattr(corrections, name) for name in NAMES), entropy_of_counts]


@pytest.mark.parametrize("figure", ALL)
def test_shares_are_no_counts(figure):
    with pytest.raises(
        TypeError,
        match=r"counts must be frequencies, a tensor of integers .*, got torch.float32: give how often each symbol was",
    ):
        figure(torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("figure", ALL)
def test_negative_counts_are_refused(figure):
    with pytest.raises(ValueError, match="counts must be 0 or more, got -2"):
        figure(torch.tensor([3, -2]))


@pytest.mark.parametrize("figure", ALL)
@pytest.mark.parametrize("counts", [[], [0, 0]])
def test_counts_of_nothing_have_no_entropy(figure, counts):
    with pytest.raises(ValueError, match="an entropy needs at least one sample, got counts that add up to none"):
        figure(torch.tensor(counts, dtype=torch.int64))


@pytest.mark.parametrize("figure", ALL)
def test_an_unknown_unit_is_refused(figure):
    with pytest.raises(ValueError, match="unit must be 'bits' or 'nats', got 'bit'"):
        figure(torch.tensor([1, 2]), unit="bit")


def test_symbols_made_by_hand_may_have_unseen_ones():
    a = Symbols(torch.tensor([0, 2, 2, 2]), torch.tensor([1, 0, 3]))
    b = symbols(torch.tensor([0, 1, 1, 1]))
    assert joint(a, b).counts.tolist() == [1, 3]
