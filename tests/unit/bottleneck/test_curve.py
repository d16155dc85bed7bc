"""Curves: what holds for every distribution."""

import functools
import math

import pytest
import torch

from lightning_ib.bottleneck import critical_betas, geometric_decoder, ib_curve, solver
from lightning_ib.bottleneck.joint import divergence
from tests.unit.bottleneck.distributions import ASYMMETRIC, ERASURE, HARD, INDEPENDENT, random_joint

KINDS = ("ib", "dual")
RANDOM = [(5, 3, 1), (9, 4, 2), (6, 6, 3), (12, 2, 4)]


def informations(p_xy, encoder):
    """I(X;T) and I(T;Y) of an encoder, from their definitions."""
    p_x = p_xy.sum(1)
    w = p_x @ encoder
    p_ty = encoder.T @ p_xy
    p_y = p_xy.sum(0)
    terms = torch.xlogy(p_x[:, None] * encoder, encoder / w).sum()
    return float(terms), float(torch.xlogy(p_ty, p_ty / (w[:, None] * p_y)).sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("x", "y", "seed"), RANDOM)
def test_the_slope_of_the_objective_is_the_distortion(x, y, seed, kind):
    """dF/dβ = E d, by five points."""
    p = random_joint(x, y, seed)
    onset = critical_betas(p, kind=kind).onset
    for beta in (1.3 * onset, 4 * onset):
        step = 1e-3 * beta
        curve = ib_curve(p, [beta + k * step for k in (-2, -1, 0, 1, 2)], kind=kind, unit="nats")
        f = curve.objective
        slope = float(f[0] - 8 * f[1] + 8 * f[3] - f[4]) / (12 * step)
        distortion = float((f[2] - curve.i_xt[2]) / beta)
        assert slope == pytest.approx(distortion, abs=1e-7)
        if kind == "ib":
            assert distortion == pytest.approx(curve.i_xy - float(curve.i_ty[2]), abs=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("x", "y", "seed"), RANDOM)
def test_every_point_is_certified_and_obeys_data_processing(x, y, seed, kind):
    p = random_joint(x, y, seed)
    onset = critical_betas(p, kind=kind).onset
    curve = ib_curve(p, onset * torch.logspace(-0.2, 2, 30, dtype=torch.float64), kind=kind, unit="nats")
    assert (curve.gap <= 1e-10).all()
    assert (curve.i_ty <= curve.i_xt).all()
    assert (curve.i_ty <= curve.i_xy + 1e-12).all()
    assert (curve.i_xt <= curve.h_t + 1e-12).all()
    assert (curve.i_xt.diff() >= -1e-10).all()
    slopes = curve.objective.diff() / curve.beta.diff()
    assert (slopes.diff() <= 1e-9).all()  # F is concave


@pytest.mark.parametrize("kind", KINDS)
def test_no_encoder_of_a_thousand_is_below_the_optimum(kind):
    p = random_joint(5, 3, 7)
    beta = 2 * critical_betas(p, kind=kind).onset
    f = float(ib_curve(p, [beta], kind=kind, unit="nats").objective)
    generator = torch.Generator().manual_seed(0)
    for i in range(1000):
        encoder = (0.1 * i**0.6 * torch.randn(5, 4, generator=generator, dtype=torch.float64)).softmax(1)
        i_xt, i_ty = informations(p, encoder)
        if kind == "ib":
            value = i_xt + beta * (float(ib_curve_information(p)) - i_ty)
        else:
            rows, s = p / p.sum(1, keepdim=True), geometric_decoder(encoder, p)
            d = divergence(s[None], rows[:, None])
            value = i_xt + beta * float((p.sum(1)[:, None] * encoder * d).sum())
        assert value >= f - 1e-10


def ib_curve_information(p):
    return torch.xlogy(p, p / (p.sum(1, keepdim=True) * p.sum(0))).sum()


@pytest.mark.parametrize("kind", ["ib", "dual", "deterministic"])
def test_the_encoder_has_the_values_of_the_curve(kind):
    p = random_joint(7, 4, 5)
    curve = ib_curve(p, [critical_betas(p, kind="dual" if kind == "dual" else "ib").onset * 3], kind=kind, unit="nats")
    i_xt, i_ty = informations(p, curve.encoder(0))
    assert i_xt == pytest.approx(float(curve.i_xt), abs=1e-9)
    assert i_ty == pytest.approx(float(curve.i_ty), abs=1e-9)


@pytest.mark.parametrize("kind", ["ib", "dual", "deterministic"])
def test_names_of_symbols_change_nothing(kind):
    p = random_joint(6, 4, 3)
    beta = [3.0, 8.0, 30.0]
    generator = torch.Generator().manual_seed(0)
    shuffled = p[torch.randperm(6, generator=generator)][:, torch.randperm(4, generator=generator)]
    a, b = ib_curve(p, beta, kind=kind), ib_curve(shuffled, beta, kind=kind)
    for name in ("i_xt", "i_ty", "h_t", "objective"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["ib", "dual", "deterministic"])
def test_equal_rows_are_one_symbol(kind):
    p = random_joint(6, 4, 3)
    parts = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    split = (p[:, None, :] * parts[:, None]).reshape(18, 4)
    beta = [3.0, 8.0, 30.0]
    a, b = ib_curve(p, beta, kind=kind), ib_curve(split, beta, kind=kind)
    for name in ("i_xt", "i_ty", "h_t", "objective"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=1e-9)
    torch.testing.assert_close(b.encoder(2)[::3].sum(1), torch.ones(6, dtype=torch.float64))


def test_units_scale_everything_but_beta():
    p = random_joint(5, 3)
    bits, nats = ib_curve(p, [4.0, 9.0]), ib_curve(p, [4.0, 9.0], unit="nats")
    for name in ("i_xt", "i_ty", "h_t", "objective"):
        torch.testing.assert_close(getattr(bits, name) * math.log(2), getattr(nats, name))
    torch.testing.assert_close(bits.bound(0.3) * math.log(2), nats.bound(0.3 * math.log(2)))


def test_below_the_onset_the_curve_is_at_the_origin():
    curve = ib_curve(ASYMMETRIC, [1.0, 0.999 * critical_betas(ASYMMETRIC).onset])
    assert curve.i_xt.tolist() == curve.i_ty.tolist() == [0, 0]
    assert curve.n_clusters.tolist() == [1, 1]
    torch.testing.assert_close(curve.objective, curve.beta * curve.i_xy)


def test_between_onset_and_local_beta_the_optimum_is_found():
    """Annealing from one cluster stays at the origin here."""
    onset, local = critical_betas(ASYMMETRIC)
    curve = ib_curve(ASYMMETRIC, [(onset + local) / 2])
    assert onset < local
    assert float(curve.i_xt) > 0.01
    assert float(curve.gap) < 1e-10


# -- the bound ---------------------------------------------------------------------------------------------------------


@functools.cache
def fine_curve(x, y, seed):
    return ib_curve(random_joint(x, y, seed), unit="nats")


@pytest.mark.parametrize(("x", "y", "seed"), RANDOM)
@pytest.mark.parametrize("betas", [None, [3.0], [2.0, 50.0]])
def test_no_encoder_is_above_the_bound(x, y, seed, betas):
    p = random_joint(x, y, seed)
    fine = fine_curve(x, y, seed)
    curve = ib_curve(p, betas, unit="nats") if betas else fine
    generator = torch.Generator().manual_seed(seed)
    for i in range(50):
        encoder = (0.2 * i * torch.randn(x, x, generator=generator, dtype=torch.float64)).softmax(1)
        i_xt, i_ty = informations(p, encoder)
        assert i_ty <= float(curve.bound(i_xt)) + 1e-10
    assert (fine.i_ty <= curve.bound(fine.i_xt) + 1e-10).all()


def test_the_bound_touches_the_curve_at_its_own_points():
    curve = ib_curve(random_joint(6, 3))
    torch.testing.assert_close(curve.bound(curve.i_xt), curve.i_ty, rtol=0, atol=1e-9)
    assert float(curve.bound(0.0)) == 0
    assert float(curve.bound(100.0)) == pytest.approx(curve.i_xy)
    assert curve.bound(torch.zeros(2, 3)).shape == (2, 3)


@pytest.mark.slow
def test_straight_segments_are_part_of_the_bound():
    """No β reaches the inside of the erasure channel's segment, nor of hard labels'."""
    r = torch.linspace(0, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(ib_curve(ERASURE).bound(r), 0.6 * r, rtol=0, atol=1e-9)
    h_y = float(-(torch.xlogy(HARD.sum(0), HARD.sum(0))).sum()) / math.log(2)
    r = torch.linspace(0, 2, 9, dtype=torch.float64)
    torch.testing.assert_close(ib_curve(HARD).bound(r), r.clamp_max(h_y), rtol=0, atol=1e-9)


# -- forms of arguments ------------------------------------------------------------------------------------------------


def test_default_betas_begin_at_the_onset():
    curve = ib_curve(ASYMMETRIC)
    assert len(curve) == 64
    assert curve.onset < float(curve.beta[0]) < 1.01 * curve.onset


def test_single_precision_is_solved_in_double():
    curve = ib_curve(random_joint(4, 3).float(), [5.0])
    assert curve.i_xt.dtype == torch.float64
    assert float(curve.gap) < 1e-10


def test_extreme_betas():
    curve = ib_curve(random_joint(4, 3), [1e-9, 1e6, 1e9], unit="nats")
    assert float(curve.i_xt[0]) == 0
    torch.testing.assert_close(curve.i_ty[1:], torch.full((2,), curve.i_xy, dtype=torch.float64), rtol=0, atol=1e-9)
    assert curve.objective.isfinite().all()


def test_hard_labels_in_the_dual_are_smoothed_on_request():
    curve = ib_curve(HARD, [1.0, 5.0], kind="dual", smoothing=0.01)
    assert (curve.gap < 1e-10).all()
    assert (curve.i_ty <= curve.i_xt).all()


def test_pictures():
    pytest.importorskip("matplotlib")
    p = random_joint(6, 3)
    for kind in ("ib", "dual", "deterministic"):
        curve = ib_curve(p, [3.0, 10.0, 40.0], kind=kind)
        assert curve.plot().get_xlabel() == "I(X;T) [bits]"
        assert curve.plot_bifurcations(label=1).get_xscale() == "log"


def test_independent_variables_give_the_origin_at_every_beta():
    for kind in ("ib", "dual", "deterministic"):
        curve = ib_curve(INDEPENDENT, [1.0, 1e5], kind=kind)
        assert curve.i_xt.abs().max() == 0
        assert curve.objective.abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_betas_have_the_values_of_all_at_once(kind, monkeypatch):
    p = random_joint(9, 4, 2)
    beta = critical_betas(p, kind=kind).onset * torch.logspace(-0.2, 2, 11, dtype=torch.float64)
    whole = ib_curve(p, beta, kind=kind)
    solved, solve = [], solver._solve_batch
    monkeypatch.setattr(
        solver, "_solve_batch", lambda problem, part, *more: solved.append(part) or solve(problem, part, *more)
    )
    monkeypatch.setattr(solver, "_BATCH", 2000)
    parts = ib_curve(p, beta, kind=kind)
    assert len(solved) > 2
    for name in ("i_xt", "i_ty", "h_t", "objective"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=0, atol=1e-9)
    assert torch.equal(parts.n_clusters, whole.n_clusters)
    for k in range(len(beta)):
        torch.testing.assert_close(parts.encoder(k).square().sum(), whole.encoder(k).square().sum(), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rows"), [("ib", 128), ("dual", 64)])
def test_thirteen_betas_in_two_decades_of_many_rows_and_10_labels(kind, rows):
    p = random_joint(rows, 10, spread=1.5)
    onset = critical_betas(p, kind=kind).onset
    curve = ib_curve(p, onset * torch.logspace(0.01, 2, 13, dtype=torch.float64), kind=kind)
    assert (curve.gap <= 1e-8).all()


def test_less_than_rounding_of_information_is_independence():
    """As of float32 numbers whose rows should be equal; a distribution with some information keeps its onset."""
    product = (torch.tensor([0.3, 0.7])[:, None] * torch.tensor([0.2, 0.5, 0.3])).float()
    assert critical_betas(product / product.sum()).onset == math.inf
    weak = torch.tensor([[0.25 + 1e-3, 0.25 - 1e-3], [0.25 - 1e-3, 0.25 + 1e-3]], dtype=torch.float64)
    assert critical_betas(weak).onset == pytest.approx(1 / (4e-3) ** 2, rel=1e-3)


def test_the_bound_of_infinite_information_is_all_there_is():
    curve = ib_curve(random_joint(4, 3))
    assert float(curve.bound(math.inf)) == curve.i_xy
    assert float(ib_curve(INDEPENDENT, [1.0]).bound(math.inf)) == 0
    with pytest.raises(TypeError, match="i_xt must be informations, a number or a tensor, got 'much'"):
        curve.bound("much")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_the_default_dtype_of_torch_changes_nothing(dtype):
    p = random_joint(5, 3)
    expected = ib_curve(p).i_ty
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(ib_curve(p).i_ty, expected)
    finally:
        torch.set_default_dtype(torch.float32)
