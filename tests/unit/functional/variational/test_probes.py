"""Probes: closed forms, what is held out, and surroundings left as they were."""

import inspect
import math
import random
import re

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from lightning_ib.functional.variational import dealing, probes
from lightning_ib.functional.variational.probes import ProbeResult, probe_information, usable_information
from tests.helpers.probes import blobs, labels
from tests.helpers.samples import generator, normal

pytestmark = pytest.mark.slow

law = settings(derandomize=True, database=None, deadline=None, max_examples=10)
BOTH = pytest.mark.parametrize("probe", ["linear", "mlp"])


# -- Closed forms ------------------------------------------------------------------------------------------------------


def two_normals(a):
    """I(T;Y) in bits of a fair class label and a normal of variance 1 around ±a, by quadrature."""

    def density(t):
        return (scipy.stats.norm.pdf(t - a) + scipy.stats.norm.pdf(t + a)) / 2

    h_t = scipy.integrate.quad(lambda t: -density(t) * np.log2(density(t)), -a - 12, a + 12)[0]
    return h_t - 0.5 * math.log2(2 * math.pi * math.e)


@BOTH
@pytest.mark.parametrize("a", [0.3, 1.0, 2.0])
def test_two_normals_are_read_in_full(probe, a):
    y = torch.arange(4000) % 2
    d = probe_information(normal(4000, 1) + a * (2 * y.unsqueeze(1) - 1), y, probe=probe)
    assert d.h_y == 1
    assert abs(d.information - two_normals(a)) < 3 * d.standard_error
    assert d.accuracy == pytest.approx(scipy.stats.norm.cdf(a), abs=0.02)


def test_a_linear_probe_reads_nothing_of_an_exclusive_or_and_a_network_all():
    bits = torch.randint(2, (2000, 2), generator=generator())
    y, t = bits[:, 0] ^ bits[:, 1], bits + 0.1 * normal(2000, 2)
    assert abs(usable_information(t, y)) < 0.01
    assert usable_information(t, y, probe="mlp") > 0.97


@BOTH
def test_classes_far_apart_are_told_apart(probe):
    t, y = blobs(500, 5, 4, apart=20.0)
    d = probe_information(t, y, probe=probe)
    assert d.accuracy == 1
    assert 0 <= d.cross_entropy < 0.02
    assert d.information == pytest.approx(d.h_y - d.cross_entropy)


def test_the_standard_error_is_the_spread_over_samples():
    a, n = 0.7, 400
    found = []
    for seed in range(40):
        y = labels(n, 2, seed)
        found.append(probe_information(normal(n, 1, seed=seed) + a * (2 * y.unsqueeze(1) - 1), y))
    spread = np.std([d.information for d in found])
    assert np.mean([d.standard_error for d in found]) == pytest.approx(spread, rel=0.35)


def test_units_and_fields_fit_each_other():
    t, y = blobs()
    bits, nats = probe_information(t, y), probe_information(t, y, unit="nats")
    for field in ("information", "standard_error", "cross_entropy", "h_y"):
        assert getattr(bits, field) == pytest.approx(getattr(nats, field) / math.log(2), rel=1e-12)
    assert bits.h_y == pytest.approx(scipy.stats.entropy(np.bincount(y), base=2), abs=1e-12)
    assert bits.n_held_out == 300
    assert usable_information(t, y) == bits.information
    assert [type(v) for v in bits] == [float] * 5 + [int]
    assert (
        inspect.signature(probe_information).parameters.keys()
        == inspect.signature(usable_information).parameters.keys()
    )


# -- Nothing where there is nothing ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("seed", [0, 1])
def test_ten_independent_coordinates_read_nothing(probe, seed):
    assert abs(usable_information(normal(2000, 10, seed=seed), labels(2000, 10, seed), probe=probe)) < 0.02


@BOTH
@pytest.mark.parametrize("classes", [2, 10])
def test_wide_independent_coordinates_read_nothing(probe, classes):
    assert abs(usable_information(normal(500, 2000), labels(500, classes), probe=probe)) < 0.05


@BOTH
def test_constant_coordinates_read_nothing(probe):
    y = labels(200, 3)
    for t in (torch.ones(200, 3), torch.full((200, 300), 0.1)):
        assert usable_information(t, y, probe=probe) == pytest.approx(0, abs=0.02)


@BOTH
def test_constant_coordinates_change_nothing(probe):
    t, y = blobs(d=3)
    with_constant = torch.cat([torch.full((300, 1), 1 / 3), t], 1)
    if probe == "linear":
        assert usable_information(with_constant, y) == pytest.approx(usable_information(t, y), abs=1e-9)
    else:  # other first weights
        expected = usable_information(t, y, probe=probe)
        assert usable_information(with_constant, y, probe=probe) == pytest.approx(expected, abs=0.1)


@BOTH
def test_a_coordinate_that_varies_in_one_sample_only_does_no_harm(probe):
    t, y = blobs(d=3)
    rare = torch.zeros(300, 1, dtype=t.dtype)
    rare[7] = 1e6
    expected = usable_information(t, y, probe=probe)
    assert usable_information(torch.cat([t, rare], 1), y, probe=probe) == pytest.approx(expected, abs=0.1)


# -- What is held out --------------------------------------------------------------------------------------------------


def log_probabilities(t, y, probe):
    """Of all samples, each by its own probe; and the folds."""
    gen = generator()
    y = dealing.by_first_appearance(y, int(y.max()) + 1)
    fold = dealing.dealt(y, 5, gen)
    order = fold.argsort(stable=True)
    data = probes._Folds(t[order], y[order], torch.bincount(fold).tolist())
    log_q = probes._linear(data) if probe == "linear" else probes._mlp(data, gen)
    return log_q[order.argsort()], fold


@BOTH
def test_held_out_samples_do_not_reach_their_probe(probe):
    t, y = blobs(200, 4, 3)
    before, fold = log_probabilities(t, y, probe)
    for k in range(5) if probe == "linear" else (0, 3):
        one = (fold == k).nonzero()[0]
        changed = t.clone()
        changed[(fold == k) & (torch.arange(200) != one)] *= 1000  # all others held out with it
        after, _ = log_probabilities(changed, y, probe)
        assert torch.allclose(after[one], before[one], rtol=0, atol=1e-6 if probe == "mlp" else 1e-10)
        assert not torch.allclose(after[fold == (k + 1) % 5], before[fold == (k + 1) % 5], atol=1e-3)


@BOTH
def test_held_out_labels_do_not_reach_their_probe(probe):
    t, y = blobs(200, 4, 3)
    y[:3] = torch.arange(3)  # the names of the classes go by their first appearance
    before, fold = log_probabilities(t, y, probe)
    for k in range(5) if probe == "linear" else (0, 3):
        held_out = (fold == k) & (torch.arange(200) > 2)
        # Two samples change labels: the counts and the split stay, whatever the probe.
        a, b = (held_out & (y == 0)).nonzero()[0], (held_out & (y == 1)).nonzero()[0]
        other = y.clone()
        other[a], other[b] = 1, 0
        order = fold.argsort(stable=True)
        data = probes._Folds(t[order], other[order], torch.bincount(fold).tolist())
        gen = generator()
        dealing.dealt(y, 5, gen)
        after = (probes._linear(data) if probe == "linear" else probes._mlp(data, gen))[order.argsort()]
        assert torch.equal(after[fold == k], before[fold == k])
        assert not torch.equal(after[fold != k], before[fold != k])


@BOTH
@pytest.mark.parametrize("n", [60, 200])
def test_a_name_of_its_own_for_every_row_reads_nothing(probe, n):
    assert usable_information(torch.eye(n), labels(n, 4), probe=probe) < 0.05
    assert usable_information(torch.arange(float(n)) * 7 % n, labels(n, 4), probe=probe) < 0.05


@pytest.mark.parametrize("d", [100, 400])
def test_many_coordinates_that_could_learn_all_labels_by_heart_read_nothing(d):
    for seed in range(3):
        assert -0.03 < usable_information(normal(300, d, seed=seed), labels(300, 5, seed)) < 0.05


@law
@given(st.integers(0, 10**6), st.integers(3, 7), st.integers(2, 9))
def test_every_class_is_dealt_evenly(seed, folds, classes):
    y = labels(150, classes, seed)
    fold = dealing.dealt(y, folds, generator(seed))
    assert np.ptp(np.bincount(fold, minlength=folds)) <= 1
    for k in y.unique():
        assert np.ptp(np.bincount(fold[y == k], minlength=folds)) <= 1


def test_a_label_is_not_read_by_its_place():
    y = torch.arange(300) % 3  # sorted, or in turn: the place says all
    for order in (y, y.sort().values):
        assert abs(usable_information(normal(300, 5), order)) < 0.05


# -- Rare classes ------------------------------------------------------------------------------------------------------


@BOTH
def test_labels_all_different_give_no_information(probe):
    d = probe_information(normal(100, 3), torch.arange(100), probe=probe, unit="nats")
    assert d.cross_entropy == pytest.approx(math.log(100))
    assert d.information == pytest.approx(0, abs=1e-6)
    assert d.accuracy < 0.1


@BOTH
@pytest.mark.parametrize("n_rare", [1, 2, 4])
def test_a_rare_class_costs_little(probe, n_rare):
    t, y = blobs(300, 4, 3)
    common = probe_information(t, y, probe=probe, unit="nats")
    t, y = torch.cat([t, normal(n_rare, 4, seed=9)]), torch.cat([y, torch.full((n_rare,), 7)])
    d = probe_information(t, y, probe=probe, unit="nats")
    assert d.information == pytest.approx(common.information, abs=0.05 + n_rare / 300 * math.log(300))
    assert d.n_held_out == 300 + n_rare


def test_a_class_of_one_is_as_probable_as_one_training_sample():
    y = torch.cat([torch.arange(199) % 2, torch.tensor([2])])
    d = probe_information(torch.zeros(200, 1), y, unit="nats")
    # The others' probabilities are their shares among 159 to 161 training samples, less that of the unseen class.
    assert d.cross_entropy == pytest.approx((199 * math.log(2) + math.log(161)) / 200, abs=0.01)
    known, _ = probe_information(torch.zeros(200, 1), torch.cat([y[:198], torch.tensor([2, 2])]), unit="nats")[:2]
    assert -0.02 < known < 0.02


@BOTH
def test_probabilities_with_an_unseen_class_add_up_to_one(probe):
    t, y = blobs(100, 3, 3)
    y[:3] = torch.tensor([3, 4, 5])
    log_q, fold = log_probabilities(t, y, probe)
    order = fold.argsort(stable=True)
    data = probes._Folds(t[order], dealing.by_first_appearance(y, 6)[order], torch.bincount(fold).tolist())
    for k, part in enumerate(log_q[order].split(data.sizes)):
        q = probes._with_unseen(part, data, data.others(k)).double().exp()
        assert q.min() > 0
        np.testing.assert_allclose(q.sum(1), 1, atol=1e-6)
        unseen = data.counts[data.others(k)].sum(0) == 0
        expected = torch.tensor(1 / (80 + int(unseen.sum())), dtype=q.dtype).expand_as(q[:, unseen])
        torch.testing.assert_close(q[:, unseen], expected)


def test_one_class_may_be_all_but_one_sample():
    y = torch.zeros(50, dtype=torch.int64)
    y[3] = 1
    for probe in ("linear", "mlp"):
        d = probe_information(normal(50, 2), y, probe=probe, unit="nats")
        assert -0.05 < d.information <= 0.02
        assert d.accuracy == 0.98


# -- Laws --------------------------------------------------------------------------------------------------------------


@BOTH
def test_the_names_of_the_classes_change_nothing(probe):
    t, y = blobs(150, 3, 3)
    names = torch.tensor([7, -5, 0])[y]
    assert probe_information(t, names, probe=probe) == probe_information(t, y, probe=probe)
    assert probe_information(t, (y == 1), probe=probe) == probe_information(t, (y != 1).to(torch.uint8), probe=probe)


@law
@given(st.integers(0, 10**6))
def test_scales_and_shifts_of_coordinates_change_nothing(seed):
    t, y = blobs(120, 3, 3, seed=seed)
    moved = t * 2.0 ** torch.randint(-20, 20, (3,), generator=generator(seed)) + 3
    assert usable_information(moved, y) == pytest.approx(usable_information(t, y), abs=1e-4)


def test_other_affine_maps_change_little():
    t, y = blobs(600, 4, 3)
    expected = usable_information(t, y)
    for seed in range(3):
        assert usable_information(t @ normal(4, 4, seed=seed) + 1, y) == pytest.approx(expected, abs=0.03)


def test_turning_a_wide_representation_changes_nothing():
    t, y = blobs(80, 120, 2, apart=0.3)
    turn = torch.linalg.qr(normal(120, 120)).Q
    assert usable_information(3 * t @ turn + 2, y) == pytest.approx(usable_information(t, y), abs=1e-4)


@BOTH
def test_seeds_and_folds_change_the_split_and_little_else(probe):
    t, y = blobs(600, 4, 3)
    first = probe_information(t, y, probe=probe)
    for other in (probe_information(t, y, probe=probe, seed=1), probe_information(t, y, probe=probe, folds=3)):
        assert other != first
        assert other.information == pytest.approx(first.information, abs=0.06)
        assert other.n_held_out == 600


@BOTH
def test_precision_and_shape_hardly_matter(probe):
    t, y = blobs(200, 6, 3)
    expected = usable_information(t, y, probe=probe)
    for same in (t.float(), t.view(200, 2, 3)):
        assert usable_information(same, y, probe=probe) == pytest.approx(expected, abs=1e-4)
    assert usable_information(t.half(), y, probe=probe) == pytest.approx(expected, abs=0.02)
    assert usable_information(t[:, 0], y) == usable_information(t[:, :1], y)


# -- Its surroundings --------------------------------------------------------------------------------------------------


@BOTH
def test_it_gives_the_same_figures_wherever_it_is_called(probe):
    t, y = blobs(100, 3, 2)
    t = t.float()
    expected = probe_information(t, y, probe=probe)
    assert probe_information(t, y, probe=probe) == expected
    with torch.no_grad():
        assert probe_information(t, y, probe=probe) == expected
    with torch.inference_mode():
        assert probe_information(t.clone(), y.clone(), probe=probe) == expected  # inference tensors
        assert not torch.is_grad_enabled()
    inference = t.clone().requires_grad_()
    assert probe_information(inference, y, probe=probe) == expected
    assert inference.grad is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert probe_information(t, y, probe=probe) == expected
    torch.set_default_dtype(torch.float64)
    try:
        assert probe_information(t, y, probe=probe) == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_linear_probe_gives_the_same_bits_again():
    for t, y in (blobs(300, 20, 4), blobs(80, 120, 3), blobs(200, 1, 2)):
        first = probe_information(t, y)
        probe_information(t + 1, y, seed=5)  # nothing stays from one call to the next
        assert probe_information(t.clone(), y.clone()) == first


@BOTH
def test_it_leaves_random_states_and_its_input_as_they_were(probe):
    t, y = blobs(100, 3, 2)
    kept = t.clone(), y.clone()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    probe_information(t, y, probe=probe)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert torch.equal(t, kept[0])
    assert torch.equal(y, kept[1])


def test_hooks_on_all_modules_and_optimizers_see_nothing():
    seen = []
    handles = [
        register_module_forward_hook(lambda *a: seen.append("module")),
        register_optimizer_step_post_hook(lambda *a: seen.append("step")),
    ]
    try:
        probe_information(*blobs(60, 2, 2), probe="mlp")
    finally:
        for handle in handles:
            handle.remove()
    assert not seen


GOOD = torch.arange(20) % 2


@pytest.mark.parametrize(
    ("t", "y", "arguments", "error", "words"),
    [
        (torch.zeros(20, 2), GOOD * 0, {}, ValueError, "y must have at least two classes, got one: there is nothing"),
        (
            torch.zeros(20, 2),
            GOOD,
            {"folds": 11},
            ValueError,
            "t needs at least 22 rows, two for each of 11 folds, got 20: give more rows or fewer folds.",
        ),
        (torch.full((20, 2), math.nan), GOOD, {}, ValueError, "t has NaN or infinite values in 20 of 20 rows: leave"),
        (torch.zeros(20, 2), GOOD.float(), {}, TypeError, "y must be class labels, a tensor of integers of shape (N,)"),
        (torch.zeros(20, 2), GOOD[:9], {}, ValueError, "t and y must be of the same samples, got 20 of one and 9 of"),
        (torch.zeros(20, 2), GOOD, {"probe": "knn"}, ValueError, "probe must be 'linear' or 'mlp', got 'knn'."),
        (
            torch.zeros(20, 2),
            GOOD,
            {"folds": 2},
            ValueError,
            "folds must be an integer of at least 3, got 2: one to predict, one to ",
        ),
        (
            torch.zeros(20, 2),
            GOOD,
            {"folds": 5.0},
            TypeError,
            "folds must be an integer of at least 3, got 5.0: give a whole number such as 3.",
        ),
        (
            torch.zeros(20, 2),
            GOOD,
            {"unit": "bit"},
            ValueError,
            "unit must be 'bits' or 'nats', got 'bit': did you mean 'bits'?",
        ),
    ],
)
def test_what_cannot_be_decoded_is_named(t, y, arguments, error, words):
    for estimate in (probe_information, usable_information):
        with pytest.raises(error, match="^" + re.escape(words)):
            estimate(t, y, **arguments)


def test_the_fewest_samples_are_enough():
    assert isinstance(
        probe_information(torch.tensor([[0.0], [1.0]] * 3), torch.tensor([0, 1] * 3), folds=3), ProbeResult
    )
    assert isinstance(
        probe_information(torch.tensor([[0.0], [1.0]] * 3), torch.tensor([0, 1] * 3), folds=3, probe="mlp"), ProbeResult
    )
