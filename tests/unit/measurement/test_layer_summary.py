"""The figures of a point beside the pure functions: errors, chance, corrections, units, a discretized input."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ib import FixedBins, InformationPlane, Quantizer, UniformBins, measure
from lightning_ib.functional import (
    conditional_entropy,
    conditional_mutual_information,
    entropy,
    entropy_of_counts,
    expected_mutual_information,
    joint,
    mutual_information,
    permuted_mutual_information,
    standard_error,
    symbols,
)

WHOLE = Quantizer(bins=FixedBins([k + 0.5 for k in range(-64, 64)]))
"""Tells any two small integers apart."""
IN_CLOSED_FORM = [None, "miller_madow", "grassberger", "jackknife"]
CORRECTIONS = ["miller_madow", "grassberger", "chao_shen", "james_stein", "jackknife", "chao_wang_jost", "nsb"]
FIGURES = ("i_xt", "i_ty", "h_t", "h_x", "h_y", "h_y_given_t", "i_xt_given_y")


class Net(nn.Module):
    """A layer that puts out the input but its first coordinate, which it does not see."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x):
        return self.layer(x[:, 1:].contiguous())


def point_of(data, *, n_batches=1, **options):
    """The point of one measurement; X is of integers, T its coordinates but the first."""
    x, y = data
    plane = InformationPlane({"layer": WHOLE}, **options)
    with plane.attach(net := Net()):
        for some, labels in zip(x.chunk(n_batches), y.chunk(n_batches)):
            net(some)
            plane.update(some, labels)
    return plane.compute()[0]


def same(one, other):
    """A NaN is the same as a NaN."""
    return all(a == b or (a != a and b != b) for a, b in zip(one, other))


def ids(rows):
    """One number for every different row, as NumPy tells them apart."""
    rows = np.asarray(rows).reshape(len(rows), -1)
    return torch.from_numpy(np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64))


@pytest.fixture
def data():
    """600 samples: X of three small integers, T two of them, Y that T tells with some noise."""
    x = torch.randint(0, 4, (600, 3)).float()
    x[:, 1] *= torch.rand(600) < 0.7  # not uniform
    y = ((x[:, 1] + x[:, 2]) > 2).long() + (torch.rand(600) < 0.2)
    return x, y


@pytest.fixture
def known(data):
    """The symbols of X, T and Y."""
    x, y = data
    return symbols(ids(x)), symbols(ids(x[:, 1:])), symbols(ids(y))


# -- standard errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_the_standard_errors_are_those_of_the_function(unit, data, known):
    _, t, y = known
    point = point_of(data, unit=unit)
    ty = joint(t, y)
    expected = {
        "h_t": standard_error((1, t), unit=unit),
        "i_xt": standard_error((1, t), unit=unit),  # X is the identity of the sample: I(X;T) = H(T)
        "h_x": 0.0,
        "h_y": standard_error((1, y), unit=unit),
        "i_ty": standard_error((1, t), (1, y), (-1, ty), unit=unit),
        "h_y_given_t": standard_error((1, ty), (-1, t), unit=unit),
        "i_xt_given_y": standard_error((1, ty), (-1, y), unit=unit),
    }
    assert {name: getattr(point, f"{name}_se") for name in FIGURES} == pytest.approx(expected, abs=1e-12)
    assert all(error > 0 for name, error in expected.items() if name != "h_x")


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_the_standard_errors_with_a_discretized_input(unit, data, known):
    x, t, y = known
    point = point_of(data, input=WHOLE, unit=unit)
    xt, xy, ty = joint(t, x), joint(x, y), joint(t, y)
    expected = {
        "h_t": standard_error((1, t), unit=unit),
        "h_x": standard_error((1, x), unit=unit),
        "i_xt": standard_error((1, x), (1, t), (-1, xt), unit=unit),
        "i_ty": standard_error((1, t), (1, y), (-1, ty), unit=unit),
        "i_xt_given_y": standard_error((1, xy), (1, ty), (-1, y), (-1, joint(xy, t)), unit=unit),
    }
    assert {name: getattr(point, f"{name}_se") for name in expected} == pytest.approx(expected, abs=1e-12)


def test_the_standard_error_is_the_scatter_of_what_the_samples_contribute(data):
    """In NumPy, from the definition: the deviation of log p(t,y)/p(t)p(y) over the samples, over √N."""
    x, y = data
    rows = [tuple(map(int, row)) for row in x[:, 1:].tolist()]
    labels = y.tolist()
    share = {of: {k: list(of).count(k) / 600 for k in set(of)} for of in map(tuple, (rows, labels, zip(rows, labels)))}
    p_t, p_y, p_ty = share.values()
    contributed = [math.log2(p_ty[t, c] / p_t[t] / p_y[c]) for t, c in zip(rows, labels)]
    point = point_of(data)
    assert point.i_ty == pytest.approx(np.mean(contributed), abs=1e-10)
    assert point.i_ty_se == pytest.approx(np.std(contributed) / math.sqrt(600), abs=1e-10)


@pytest.mark.slow
def test_the_standard_errors_are_how_measurements_of_other_samples_scatter(data):
    """A bootstrap of the whole measurement."""
    x, y = data
    generator = torch.Generator().manual_seed(1)
    resampled = []
    for _ in range(200):
        some = torch.randint(600, (600,), generator=generator)
        resampled += measure(Net(), [(x[some], y[some])], {"layer": WHOLE})
    point = point_of(data)
    for name in ("h_t", "h_y", "i_ty", "h_y_given_t", "i_xt_given_y"):
        scatter = np.std([getattr(one, name) for one in resampled], ddof=1)
        assert getattr(point, f"{name}_se") == pytest.approx(scatter, rel=0.2), name


@pytest.mark.parametrize("n_batches", [2, 7, 600])
@pytest.mark.parametrize("discretized", [None, WHOLE])
def test_batches_and_order_make_no_difference(n_batches, discretized, data):
    order = torch.randperm(600)
    shuffled = tuple(of[order] for of in data)
    assert same(point_of(shuffled, n_batches=n_batches, input=discretized), point_of(data, input=discretized))


def test_without_a_target_there_is_no_error_about_it(data):
    x, _ = data
    plane = InformationPlane({"layer": WHOLE})
    with plane.attach(net := Net()):
        net(x)
        plane.update(x, None)
    (point,) = plane.compute()
    about_y = ("i_ty", "h_y", "h_y_given_t", "i_xt_given_y")
    assert all(math.isnan(getattr(point, name)) and math.isnan(getattr(point, f"{name}_se")) for name in about_y)
    assert math.isnan(point.i_ty_permuted)
    assert point.h_t_se > 0


def test_a_correction_leaves_the_errors_as_they_are(data):
    plain = point_of(data)
    for correction in CORRECTIONS:
        corrected = point_of(data, correction=correction)
        assert all(getattr(corrected, f"{name}_se") == getattr(plain, f"{name}_se") for name in FIGURES)


# -- what chance gives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["bits", "nats"])
@pytest.mark.parametrize("correction", IN_CLOSED_FORM)
def test_the_permutation_baseline_is_the_expected_information(correction, unit, data, known, monkeypatch):
    """No permutation is drawn, and no seed chooses one."""

    def refuse(*args, **kwargs):
        raise AssertionError("no permutation was asked for")

    monkeypatch.setattr("lightning_ib.measurement.layer_summary.permuted_mutual_information", refuse)
    _, t, y = known
    point = point_of(data, correction=correction, unit=unit)
    expected = expected_mutual_information(t.counts, y.counts, correction=correction, unit=unit)
    assert point.i_ty_permuted == pytest.approx(expected, abs=1e-12)
    assert math.isnan(point.i_ty_permuted_sd)


@pytest.mark.parametrize("correction", IN_CLOSED_FORM)
@pytest.mark.parametrize("n_permutations", [2, 20])
def test_shuffles_show_the_spread_and_leave_the_mean_exact(n_permutations, correction, data, known):
    _, t, y = known
    point = point_of(data, n_permutations=n_permutations, correction=correction)
    chance = permuted_mutual_information(t.counts, y.counts, n_permutations=n_permutations, correction=correction)
    assert point.i_ty_permuted == point_of(data, correction=correction).i_ty_permuted
    assert point.i_ty_permuted_sd == pytest.approx(chance.standard_deviation, abs=1e-12)
    assert abs(point.i_ty_permuted - chance.mean) < 4 * chance.standard_deviation


def test_the_baseline_is_the_mean_of_many_permutations(data, known):
    _, t, y = known
    chance = permuted_mutual_information(t.counts, y.counts, n_permutations=400)
    assert point_of(data).i_ty_permuted == pytest.approx(
        chance.mean, abs=5 * chance.standard_deviation / math.sqrt(400)
    )


@pytest.mark.parametrize("correction", ["chao_shen", "james_stein", "chao_wang_jost", "nsb"])
@pytest.mark.parametrize("n_permutations", [0, 2, 20])
def test_corrections_without_a_closed_form_still_shuffle(n_permutations, correction, data, known):
    """Five times, unless another number is asked for."""
    _, t, y = known
    point = point_of(data, n_permutations=n_permutations, correction=correction)
    chance = permuted_mutual_information(t.counts, y.counts, n_permutations=n_permutations or 5, correction=correction)
    assert (point.i_ty_permuted, point.i_ty_permuted_sd) == pytest.approx(tuple(chance), abs=1e-12)


def test_without_shuffles_only_the_spread_is_missing(data):
    point, shuffled = point_of(data), point_of(data, n_permutations=5)
    assert point.i_ty_permuted > 0
    assert math.isnan(point.i_ty_permuted_sd)
    assert same(point._replace(i_ty_permuted_sd=0.0), shuffled._replace(i_ty_permuted_sd=0.0))


def test_no_random_state_is_touched(data):
    before = torch.get_rng_state()
    point_of(data)
    point_of(data, n_permutations=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("n_permutations", [1, -1, 2.0, None, True, "5"])
def test_a_wrong_number_of_shuffles_is_refused(n_permutations):
    kind = ValueError if n_permutations in (1, -1) and not isinstance(n_permutations, bool) else TypeError
    with pytest.raises(kind, match=r"n_permutations must be an integer of at least 2, got "):
        InformationPlane({"layer": WHOLE}, n_permutations=n_permutations)


@pytest.mark.parametrize("seed", range(4))
def test_labels_that_say_nothing_give_what_chance_gives(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 8, (2000, 3), generator=generator).float()
    y = torch.randint(0, 10, (2000,), generator=generator)
    point = point_of((x, y), n_permutations=20)
    assert point.i_ty > 0.1  # the bias is no small thing
    assert abs(point.i_ty - point.i_ty_permuted) < 4 * point.i_ty_permuted_sd


def test_labels_that_are_told_stand_out(data):
    point = point_of(data, n_permutations=5)
    assert point.i_ty > point.i_ty_permuted + 20 * point.i_ty_permuted_sd


# -- corrections -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["bits", "nats"])
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_corrected_figures_are_those_of_the_functions(correction, unit, data):
    x, y = data
    t, y = ids(x[:, 1:]), ids(y)
    how = {"unit": unit, "correction": correction}
    point = point_of(data, **how)
    expected = {
        "h_t": entropy(t, **how),
        "i_xt": entropy(t, **how),
        "h_x": math.log2(600) if unit == "bits" else math.log(600),
        "h_y": entropy(y, **how),
        "i_ty": mutual_information(t, y, **how),
        "h_y_given_t": conditional_entropy(y, given=t, **how),
        "i_xt_given_y": conditional_entropy(t, given=y, **how),
    }
    assert {name: getattr(point, name) for name in FIGURES} == pytest.approx(expected, abs=1e-10)
    assert point.correction == correction


@pytest.mark.parametrize("correction", [None, *CORRECTIONS])
def test_corrected_figures_with_a_discretized_input_are_those_of_the_functions(correction, data):
    x, y = data
    x, t, y = ids(x), ids(x[:, 1:]), ids(y)
    point = point_of(data, input=WHOLE, correction=correction)
    expected = {
        "h_x": entropy(x, correction=correction),
        "i_xt": mutual_information(x, t, correction=correction),
        "i_ty": mutual_information(t, y, correction=correction),
        "i_xt_given_y": conditional_mutual_information(x, t, given=y, correction=correction),
    }
    assert {name: getattr(point, name) for name in expected} == pytest.approx(expected, abs=1e-10)


def test_without_a_correction_none_is_named(data):
    assert (point_of(data).correction, point_of(data).out_of_bounds) == ("", "")


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("discretized", [None, WHOLE])
def test_a_correction_leaves_verdict_and_saturation_as_counted(correction, discretized, data):
    x, y = data
    for few in (600, 40):  # the latter saturated
        some = x[:few] * torch.tensor([1.0, 1, 7]) + torch.rand(few, 3).round(), y[:few]
        plain, corrected = point_of(some, input=discretized), point_of(some, input=discretized, correction=correction)
        for name in ("saturation", "verdict", "singleton_fraction", "n_codes", "clipped_fraction"):
            assert getattr(corrected, name) == getattr(plain, name)
    assert corrected.h_t != plain.h_t


@pytest.mark.parametrize("correction", ["miller_madow", "chao_shen", "grassberger", "jackknife"])
def test_what_a_correction_moved_past_a_bound_is_kept_and_named(correction):
    """Nearly all symbols seen once, 58 of 60: there must be many more than were seen."""
    counts = torch.ones(59).long()
    counts[0] = 2
    t = torch.arange(59).repeat_interleave(counts)
    point = point_of((torch.stack([t, t], 1).float(), torch.arange(60) % 2), correction=correction)
    assert point.h_t == pytest.approx(entropy_of_counts(counts, correction=correction), abs=1e-10)
    assert point.h_t > math.log2(60) + 0.4
    assert point.i_xt == point.h_t
    assert point.i_xt > point.h_x
    assert {"h_t > log N", "i_xt > H(X)"} <= set(point.out_of_bounds.split(", "))
    assert point.saturation < 1


def test_chao_and_shen_in_numpy():
    """The same case in numbers: coverage 1 − f₁/N, and each symbol weighed by how likely it was to be seen at all."""
    coverage = 1 - 58 / 60
    p = coverage * np.array([2] + [1] * 58) / 60
    expected = -(p * np.log2(p) / (1 - (1 - p) ** 60)).sum()
    t = torch.tensor([0, *range(59)])
    point = point_of((torch.stack([t, t], 1).float(), torch.arange(60) % 2), correction="chao_shen")
    assert point.h_t == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("correction", "kind"), list(itertools.product(CORRECTIONS, ["scarce", "told", "untold", "plenty"]))
)
def test_beyond_names_just_the_bounds_that_are_passed(correction, kind):
    n = 2000 if kind == "plenty" else 80
    x = torch.randint(0, 3 if kind != "scarce" else 60, (n, 3)).float()
    y = x[:, 1].long() % 3 if kind == "told" else torch.arange(n) % 3
    for discretized in (None, WHOLE):
        point = point_of((x, y), correction=correction, input=discretized)
        passed = {
            "h_t > log N": point.h_t > math.log2(n),
            "i_xt > H(X)": point.i_xt > point.h_x,
            "i_xt < 0": point.i_xt < 0,
            "i_ty > H(Y)": point.i_ty > point.h_y,
            "i_ty < 0": point.i_ty < 0,
            "h_y_given_t < 0": point.h_y_given_t < 0,
            "i_xt_given_y < 0": point.i_xt_given_y < 0,
        }
        assert set(filter(None, point.out_of_bounds.split(", "))) == {
            name for name, is_passed in passed.items() if is_passed
        }


def test_an_information_below_zero_is_kept():
    """Miller and Madow take more from labels that say nothing than there is to take, half the time."""
    points = []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(0, 3, (400, 2), generator=generator).float()
        points.append(point_of((x, torch.randint(0, 3, (400,), generator=generator)), correction="miller_madow"))
    below = [point for point in points if point.i_ty < 0]
    assert 2 <= len(below) <= 11
    assert all("i_ty < 0" in point.out_of_bounds for point in below)
    assert not any("i_ty < 0" in point.out_of_bounds for point in points if point.i_ty >= 0)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_plenty_of_samples_need_no_correction(correction):
    x = torch.randint(0, 3, (20_000, 2)).float()
    data = x, (x[:, 1] > 1).long()
    plain, corrected = point_of(data), point_of(data, correction=correction)
    assert corrected.h_t == pytest.approx(plain.h_t, abs=1e-3)
    assert corrected.i_ty == pytest.approx(plain.i_ty, abs=1e-3)
    assert corrected.out_of_bounds in ("", "h_y_given_t < 0", "i_ty > H(Y)", "i_ty > H(Y), h_y_given_t < 0")


def test_an_unknown_correction_is_refused():
    with pytest.raises(ValueError, match="miller_madow"):
        InformationPlane({"layer": WHOLE}, correction="miller-madow")


# -- units, and laws between the figures -------------------------------------------------------------------------------


@pytest.mark.parametrize("discretized", [None, WHOLE])
@pytest.mark.parametrize("correction", [None, *CORRECTIONS])
def test_a_nat_is_more_than_a_bit(correction, discretized, data):
    bits, nats = (point_of(data, input=discretized, correction=correction, unit=unit) for unit in ("bits", "nats"))
    informations = (*FIGURES, *(f"{name}_se" for name in FIGURES), "i_ty_permuted", "i_ty_permuted_sd")
    for name, value in bits._asdict().items():
        if name in informations:
            assert getattr(nats, name) == pytest.approx(value * math.log(2), abs=1e-12, nan_ok=True), name
        elif name != "unit":
            alike = pytest.approx(value, abs=1e-12, nan_ok=True) if isinstance(value, float) else value
            assert getattr(nats, name) == alike, name
    assert (bits.unit, nats.unit) == ("bits", "nats")


def test_what_the_layer_knows_is_relevant_or_superfluous(data):
    """T a function of X: I(X;T) = I(T;Y) + I(X;T|Y), and what T does not tell of Y is left."""
    for discretized in (None, WHOLE):
        point = point_of(data, input=discretized)
        assert point.i_xt_given_y >= 0
        assert point.h_y == pytest.approx(point.i_ty + point.h_y_given_t, abs=1e-12)
    point = point_of(data)
    assert point.i_xt == pytest.approx(point.i_ty + point.i_xt_given_y, abs=1e-12)


def test_an_input_discretized_to_all_it_is_determines_the_layer(data):
    x, _ = data
    point = point_of(data, input=WHOLE)
    assert point.i_xt == pytest.approx(point.h_t, abs=1e-12)
    assert point.h_x == pytest.approx(entropy(ids(x)), abs=1e-12)
    assert point.h_x < math.log2(600)


def test_an_input_discretized_to_less_may_know_less_than_the_label(data):
    """I(X;T) below I(T;Y): what is discretized away of X is still in T."""
    first = Quantizer(lambda x: x[:, :1], FixedBins([0.5, 1.5, 2.5]))
    point = point_of(data, input=first)
    assert point.h_x == pytest.approx(entropy(data[0][:, 0].long()), abs=1e-12)
    assert point.i_xt < point.i_ty


@pytest.mark.parametrize("bins", [UniformBins(4), UniformBins(7, per="layer")])
def test_a_real_valued_input_is_put_into_its_bins(bins):
    x, y = torch.randn(500, 3), torch.arange(500) % 4
    plane = InformationPlane({"layer": Quantizer(bins=UniformBins(3, low=-1, high=1))}, input=Quantizer(bins=bins))
    with plane.attach(net := Net()):
        net(x)
        plane.update(x, y)
    (point,) = plane.compute()
    edges = bins.edges(x).numpy()
    per_column = edges if edges.ndim == 2 else np.broadcast_to(edges, (3, len(edges)))
    binned = np.stack([np.digitize(x[:, d].double().numpy(), per_column[d]) for d in range(3)], 1)
    t = ids(np.digitize(x[:, 1:].numpy(), [-1 / 3, 1 / 3]))
    assert point.h_x == pytest.approx(entropy(ids(binned)), abs=1e-10)
    assert point.i_xt == pytest.approx(mutual_information(ids(binned), t), abs=1e-10)
    assert point.i_xt_given_y == pytest.approx(conditional_mutual_information(ids(binned), t, given=y), abs=1e-10)
