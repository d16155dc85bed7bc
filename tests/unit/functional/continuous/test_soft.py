"""Soft entropy: against its definition, any batching, permutations of the labels, and rows that cannot be used."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightning_ib.functional import SoftEntropy, soft_information
from lightning_ib.functional.continuous.soft import anchors
from tests.helpers.messages import exactly
from tests.helpers.no_sync import NoSync

FIGURES = ("h_t", "i_xt", "i_ty", "i_ty_floor", "h_y")


def clusters(n=1000, d=8, classes=5, seed=0, spread=1.0):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=g)
    centers = 2 * torch.randn(classes, d, generator=g)
    return centers[y] + spread * torch.randn(n, d, generator=g), y


def zipf(n, symbols, exponent, seed):
    weights = torch.arange(1, symbols + 1, dtype=torch.float64) ** -exponent
    return torch.multinomial(weights, n, replacement=True, generator=torch.Generator().manual_seed(seed))


def assignments(t, center, n_anchors, beta=None):
    """From the definition, all rows at once."""
    z = t.double() - center
    z = z / z.norm(dim=1, keepdim=True)
    beta = 10 * math.sqrt(t.shape[1]) if beta is None else beta
    return torch.softmax(beta * z @ anchors(n_anchors, t.shape[1]).T, 1)


def h(p):
    return -float(torch.special.xlogy(p, p).sum())


def information(p, y):
    return h(p.mean(0)) - sum(float((y == c).double().mean()) * h(p[y == c].mean(0)) for c in y.unique())


def information_of_many(p, numbers, sizes):
    """The same, where there are thousands of classes."""
    of_class = p.new_zeros(len(sizes), p.shape[1]).index_add_(0, numbers, p) / sizes[:, None]
    return h(p.mean(0)) + float(torch.special.xlogy(of_class, of_class).sum(1) @ sizes.double()) / len(p)


def permuted(p, y, times, seed=12345):
    _, numbers, sizes = y.unique(return_inverse=True, return_counts=True)
    g = torch.Generator().manual_seed(seed)
    draws = [information_of_many(p, numbers[torch.randperm(len(y), generator=g)], sizes) for _ in range(times)]
    return math.fsum(draws) / times


def streamed(t, y, center, sizes, **arguments):
    soft = SoftEntropy(center, **arguments)
    for rows, labels in zip(t.split(sizes), y.split(sizes)):
        soft.update(rows, labels)
    return soft


def close(a, b, tolerance=1e-12):
    return all(getattr(a, f) == pytest.approx(getattr(b, f), abs=tolerance, nan_ok=True) for f in FIGURES)


@pytest.mark.parametrize("n_anchors", [2, 60])
@pytest.mark.parametrize("beta", [None, 3.0])
def test_is_what_the_definition_says(n_anchors, beta):
    t, y = clusters()
    center = t[:100].double().mean(0)
    p = assignments(t, center, n_anchors, beta)
    found = soft_information(t, y * 7 - 3, n_anchors=n_anchors, beta=beta, center=center, unit="nats")
    assert found.h_t == pytest.approx(h(p.mean(0)), abs=1e-10)
    assert found.i_xt == pytest.approx(h(p.mean(0)) - h(p) / len(p), abs=1e-10)
    assert found.i_ty == pytest.approx(information(p, y), abs=1e-10)
    assert found.h_y == pytest.approx(h(y.bincount() / len(y)), abs=1e-6)
    assert found[5:] == (1000, 5, "")
    bits = soft_information(t, y, n_anchors=n_anchors, beta=beta, center=center)
    assert [getattr(bits, f) * math.log(2) for f in FIGURES] == pytest.approx([getattr(found, f) for f in FIGURES])


def test_the_center_is_the_mean_unless_it_is_given():
    t, y = clusters()
    t = t + 50
    assert close(soft_information(t, y), soft_information(t, y, center=t.double().mean(0)))
    assert soft_information(t, y).i_ty > 2 * soft_information(t, y, center=torch.zeros(8)).i_ty


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=12))
def test_any_batching_says_the_same(sizes):
    t, y = clusters(n=sum(sizes), spread=0.5)
    center = t.double().mean(0)
    soft = streamed(t, y, center, sizes, n_anchors=40, max_classes=5)
    at_once = streamed(t, y, center, sum(sizes), n_anchors=40, max_classes=5).result()
    assert close(soft.result(), at_once)
    assert torch.allclose(soft.mean, center)
    if len(t) > 1:
        assert close(soft.result(), soft_information(t, y, n_anchors=40))


def test_long_batches_are_worked_on_in_blocks(monkeypatch):
    t, y = clusters()
    whole = soft_information(t, y, n_anchors=40)
    monkeypatch.setattr("lightning_ib.functional.continuous.soft._BLOCK", 40 * 7)
    assert close(soft_information(t, y, n_anchors=40), whole)


def test_the_order_of_the_data_does_not_matter():
    t, y = clusters()
    center, order = t.double().mean(0), y.argsort()
    assert close(streamed(t, y, center, 64).result(), streamed(t[order], y[order], center, 50).result())


def test_states_add_up():
    t, y = clusters()
    center = t[:64].mean(0)
    whole = streamed(t, y, center, 128, n_anchors=40, max_classes=9)
    part = streamed(t[:300], y[:300], center, 100, n_anchors=40, max_classes=9)
    rest = streamed(t[300:], y[300:], center, 100, n_anchors=40, max_classes=9)
    nothing = SoftEntropy(center, n_anchors=40, max_classes=9)
    states = [part.state(), rest.state(), nothing.state()]
    total = {name: states[0][name] + states[1][name] + states[2][name] for name in states[0]}
    nothing.merge(total)
    part.merge(rest.state())
    for merged in (nothing, part):
        assert close(merged.result(), whole.result())
        assert merged.result()[5:] == (1000, 5, "")
        assert torch.allclose(merged.mean, t.double().mean(0))


def test_a_state_is_a_copy():
    t, y = clusters()
    soft = streamed(t, y, t[0], 500)
    state, before = soft.state(), soft.result()
    for value in state.values():
        value.zero_()
    assert soft.result() == before


def test_states_of_other_shapes_are_refused():
    soft = SoftEntropy(torch.zeros(3), n_anchors=4, max_classes=2)
    with pytest.raises(ValueError, match="state must be of an estimator with the same arguments"):
        soft.merge(SoftEntropy(torch.zeros(3), n_anchors=4, max_classes=3).state())


def test_reset_forgets_the_rows_and_may_move_the_center():
    t, y = clusters()
    soft = streamed(t, y, torch.zeros(8), 500, n_anchors=40)
    soft.reset(soft.mean)
    assert soft.result()[5:] == (0, 0, "no rows were given")
    assert torch.equal(soft.mean, soft.center)
    soft.update(t, y)
    assert close(soft.result(), soft_information(t, y, n_anchors=40))
    soft.reset()
    soft.update(t, y)
    assert close(soft.result(), soft_information(t, y, n_anchors=40))
    with pytest.raises(ValueError, match=exactly("center must have shape (8,), got (3,).")):
        soft.reset(torch.zeros(3))


def test_one_anchor_knows_nothing():
    t, y = clusters()
    found = soft_information(t, y, n_anchors=1)
    assert found[:4] == (0.0, 0.0, 0.0, 0.0)
    assert found.at_chance


def test_two_clusters_far_apart_are_a_bit():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(2000) % 2
    t = torch.randn(2000, 16, generator=g) + 100 * (2 * y - 1)[:, None]
    found = soft_information(t, y)
    assert found.i_ty == pytest.approx(1.0, abs=1e-3)
    assert found.i_ty_floor < 0.01
    assert not found.at_chance


def test_one_class_shares_nothing_and_a_class_for_every_sample_shares_all():
    t, _ = clusters()
    one = soft_information(t, torch.zeros(1000, dtype=torch.int64))
    assert (one.i_ty, one.i_ty_floor, one.h_y) == (0.0, 0.0, 0.0)
    all_of_it = soft_information(t, torch.arange(1000))
    assert all_of_it.i_ty == pytest.approx(all_of_it.i_xt, abs=1e-10)
    assert all_of_it.i_ty_floor == pytest.approx(all_of_it.i_xt, abs=1e-10)
    assert all_of_it.at_chance


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 60),
    d=st.integers(1, 5),
    classes=st.integers(1, 6),
    n_anchors=st.integers(1, 20),
    beta=st.floats(1e-3, 1e3),
    seed=st.integers(0, 100),
)
@example(n=2, d=4, classes=4, n_anchors=3, beta=693.0, seed=0)  # an anchor of next to no probability
def test_bounds(n, d, classes, n_anchors, beta, seed):
    t, y = clusters(n, d, classes, seed)
    found = soft_information(t, y, n_anchors=n_anchors, beta=beta, unit="nats")
    assert 0 <= found.i_ty <= min(found.h_y, found.i_xt) + 1e-10
    assert 0 <= found.i_xt <= found.h_t + 1e-10 <= math.log(n_anchors) + 2e-10
    assert 0 <= found.i_ty_floor <= found.i_xt + 1e-10


# --- The chance floor -------------------------------------------------------------------------------------------------


def of_pairs(n):
    return zipf(n, 4000, 1.0, 2) * 50 + zipf(n, 50, 1.0, 3)


LABELS = {
    "2 classes": lambda n: torch.arange(n) % 2,
    "10 classes in order": lambda n: torch.arange(n) * 10 // n,
    "100 classes": lambda n: torch.arange(n) % 100,
    "1 in 20": lambda n: (torch.arange(n) % 20 == 0).long(),
    "Zipf": lambda n: zipf(n, 4000, 1.0, 1),
    "pairs": of_pairs,
    "mostly one of a kind": lambda n: zipf(n, 10**6, 0.7, 4),
}


@pytest.mark.parametrize("n_anchors", [50, 300])
@pytest.mark.parametrize("labels", LABELS)
def test_the_floor_is_the_mean_over_permutations(labels, n_anchors):
    t, _ = clusters(4000, 20, 12)
    y = LABELS[labels](len(t))
    found = soft_information(t, y, n_anchors=n_anchors, unit="nats")
    mean = permuted(assignments(t, t.double().mean(0), n_anchors), y, times=60 if len(y.unique()) < 20 else 2)
    assert found.i_ty_floor == pytest.approx(mean, rel=0.1)


@pytest.mark.parametrize("beta", [2.0, 5.0, 30.0])
def test_the_floor_holds_for_blunt_and_sharp_assignments(beta):
    t, _ = clusters(4000, 20, 12)
    for labels in ("10 classes in order", "100 classes", "Zipf"):
        y = LABELS[labels](len(t))
        p = assignments(t, t.double().mean(0), 100, beta * math.sqrt(20))
        found = soft_information(t, y, n_anchors=100, beta=beta * math.sqrt(20), unit="nats")
        assert found.i_ty_floor == pytest.approx(permuted(p, y, times=10), rel=0.1)


def test_value_less_floor_is_near_zero_for_independent_labels_of_zipf():
    n, unit = 26_000, math.log(100)
    t = torch.randn(n, 64, generator=torch.Generator().manual_seed(0))
    words = zipf(n + 2, 1000, 1.1, 5)
    one, two, three = words[2:], words[2:] * 1000 + words[1:-1], (words[2:] * 1000 + words[1:-1]) * 1000 + words[:-2]
    for y, at_least in ((one, 0.03), (two, 0.2), (three, 0.3)):
        found = soft_information(t, y, n_anchors=100, unit="nats")
        assert found.i_ty / unit > at_least
        assert abs(found.i_ty - found.i_ty_floor) / unit < 0.012
        assert found.at_chance


def test_independent_labels_are_at_chance_and_others_are_not():
    t, y = clusters(2000)
    other = y[torch.randperm(2000, generator=torch.Generator().manual_seed(1))]
    assert soft_information(t, other).at_chance
    assert not soft_information(t, y).at_chance


# --- Rows and labels that cannot be used ------------------------------------------------------------------------------


def test_labels_out_of_range_leave_the_rest():
    t, y = clusters()
    y[3], y[700] = -100, 5
    soft = streamed(t, y, t.mean(0), 100, n_anchors=40, max_classes=5)
    found = soft.result()
    assert found.reason == "2 of 1000 labels are outside 0 … 4: give a larger max_classes"
    assert math.isnan(found.i_ty)
    assert math.isnan(found.i_ty_floor)
    assert not found.at_chance
    without = soft_information(t, n_anchors=40, center=t.mean(0))
    assert found[:2] == pytest.approx(without[:2], abs=1e-12)


def test_without_labels():
    t, y = clusters()
    found = soft_information(t)
    assert found.reason == "no labels were given"
    assert found[:2] == pytest.approx(soft_information(t, y)[:2], abs=1e-12)
    assert math.isnan(found.i_ty)
    soft = SoftEntropy(t.mean(0))
    soft.update(t[:600], y[:600])
    soft.update(t[600:])
    assert soft.result().reason == "400 of 1000 rows came without labels"
    assert math.isnan(soft.result().i_ty)
    assert soft.result()[:2] == pytest.approx(found[:2], abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_make_all_nan(bad):
    t, y = clusters()
    center = t.double().mean(0)
    t[5, 2] = t[900, 0] = bad
    soft = streamed(t, y, center, 100)
    found = soft.result()
    assert all(math.isnan(getattr(found, f)) for f in FIGURES)
    assert found.reason == "2 of 1000 rows, less the center, are not finite"
    assert soft.mean.isfinite().all()
    with pytest.raises(ValueError, match="t has NaN or infinite values in 2 of 1000 rows"):
        soft_information(t, y)


def test_a_center_that_is_not_finite_makes_all_nan():
    t, y = clusters()
    found = streamed(t, y, torch.full((8,), math.nan), 500).result()
    assert math.isnan(found.i_xt)
    assert found.reason == "1000 of 1000 rows, less the center, are not finite"


def test_rows_at_the_center_are_assigned_to_all_alike():
    found = soft_information(torch.zeros(50, 3), torch.arange(50) % 2, n_anchors=16)
    assert found[:4] == pytest.approx((4.0, 0.0, 0.0, 0.0), abs=1e-12)
    assert found.at_chance
    half = soft_information(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), n_anchors=16, center=torch.zeros(2), beta=1e4)
    assert half.i_xt == pytest.approx(h(torch.tensor([17 / 32] + [1 / 32] * 15)) / math.log(2) - 2.0, abs=1e-4)


def test_what_rounding_leaves_of_a_constant_layer_is_no_direction():
    g = torch.Generator().manual_seed(0)
    noise = torch.randint(-1, 2, (400, 16), generator=g)
    t = torch.full((400, 16), 3.7) * (1 + noise * 2.0**-23)
    assert len(t.unique()) > 1
    assert soft_information(t, torch.arange(400) % 2).i_xt == 0.0


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_lengths_neither_overflow_nor_vanish(scale):
    t, y = clusters()
    t = t.double()
    assert close(soft_information(t * scale, y, center=torch.zeros(8)), soft_information(t, y, center=torch.zeros(8)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_precision_is_worked_on_as_float64(dtype):
    t, y = clusters()
    t = (10 * t).to(dtype)
    center = torch.zeros(8)
    expected = soft_information(t.double(), y, center=center)
    assert close(soft_information(t, y, center=center), expected)
    assert close(streamed(t, y, center, 100).result(), expected)


def test_any_width_and_booleans():
    t, y = clusters(200, 3000)
    assert soft_information(t, y > 2, n_anchors=20).i_ty > 0.5
    line = soft_information(torch.tensor([-1.0, -2.0, 1.0, 2.0]), torch.tensor([True, True, False, False]), n_anchors=9)
    assert line.i_ty == pytest.approx(1.0, abs=1e-6)


# --- Anchors, devices, modes ------------------------------------------------------------------------------------------


def test_anchors_are_fixed_and_isotropic():
    before = torch.get_rng_state()
    a = anchors(4000, 5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a[:7], anchors(7, 5))
    assert a[0].tolist() == pytest.approx(FIRST, abs=1e-14)
    assert torch.allclose(a.norm(dim=1), torch.ones(4000, dtype=torch.float64))
    assert a.mean(0).abs().max() < 0.03
    assert (a.T @ a / 4000 - torch.eye(5) / 5).abs().max() < 0.015


FIRST = [0.5379328652365165, -0.20606863969705166, 0.1289016961931839, -0.7800893059544809, -0.20738605470429947]


@pytest.mark.parametrize("labeled", [True, False])
def test_update_never_waits(labeled):
    t, y = clusters()
    y = y if labeled else None
    soft = SoftEntropy(t[:10].mean(0))
    with NoSync() as mode:
        soft.update(t.half(), y)
        soft.merge(soft.state())
        soft.reset(soft.mean)
        soft.update(t, y)
    assert mode.seen > 20
    assert soft.result().n_samples == 1000


def test_update_on_a_device_without_values():
    soft = SoftEntropy(torch.empty(6, device="meta"))
    soft.update(torch.empty(30, 6, device="meta"), torch.empty(30, dtype=torch.int64, device="meta"))
    soft.update(torch.empty(30, 6, device="meta", dtype=torch.bfloat16))
    soft.reset(soft.mean)
    assert {value.device.type for value in soft.state().values()} == {"meta"}


def test_inference_mode_and_gradients():
    t, y = clusters()
    with torch.inference_mode():
        soft = SoftEntropy(t.mean(0), n_anchors=40)
        soft.update(t[:500] + 0, y[:500])
    soft.update(t[500:].requires_grad_(), y[500:])
    with torch.inference_mode():
        soft.reset(soft.mean)
        soft.update(t, y)
    soft.merge(SoftEntropy(t.mean(0), n_anchors=40).state())
    assert close(soft.result(), soft_information(t, y, n_anchors=40))
    assert not any(value.requires_grad for value in soft.state().values())


def test_no_rows_are_rows():
    t, y = clusters()
    soft = SoftEntropy(t.mean(0))
    soft.update(t[:0], y[:0])
    assert soft.result().reason == "no rows were given"
    assert all(math.isnan(getattr(soft.result(), f)) for f in FIGURES)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: SoftEntropy(torch.zeros(3), n_anchors=0),
            ValueError,
            "n_anchors must be an integer of at least 1, got 0: give at least 1.",
        ),
        (
            lambda: SoftEntropy(torch.zeros(3), max_classes=0),
            ValueError,
            "max_classes must be an integer of at least 1, got 0: give at least 1.",
        ),
        (lambda: SoftEntropy(torch.zeros(3), beta=0.0), ValueError, "beta must be a positive finite number, got 0.0."),
        (
            lambda: SoftEntropy(torch.zeros(3, 1)),
            ValueError,
            "center must have shape (D,) with D at least 1, got (3, 1).",
        ),
        (lambda: SoftEntropy([0.0]), TypeError, "center must be a real tensor of shape (D,), got list."),
        (
            lambda: SoftEntropy(torch.zeros(3)).update(torch.zeros(2, 4)),
            ValueError,
            "t must have shape (B, 3), as center has, got (2, 4).",
        ),
        (
            lambda: SoftEntropy(torch.zeros(3)).update(torch.zeros(2, 3, dtype=torch.complex64)),
            TypeError,
            "t must be a floating-point tensor of shape (B, 3), got torch.complex64.",
        ),
        (
            lambda: SoftEntropy(torch.zeros(3)).update(torch.zeros(2, 3), torch.zeros(2)),
            TypeError,
            "y must be class labels, a tensor of integers of shape (B,), got torch.float32.",
        ),
        (
            lambda: SoftEntropy(torch.zeros(3)).update(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64)),
            ValueError,
            "y must have shape (2,), one label a row, got (3,).",
        ),
        (
            lambda: soft_information(torch.randn(9, 3), center=torch.zeros(4)),
            ValueError,
            "center must have shape (3,), as t has coordinates, got (4,).",
        ),
        (
            lambda: soft_information(torch.randn(9, 3), unit="hartleys"),
            ValueError,
            "unit must be 'bits' or 'nats', got 'hartleys'.",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=exactly(message)):
        make()
