"""The bottleneck beside values of an independent solver, and beside closed forms written out here."""

import json
import math
from pathlib import Path

import pytest
import torch

from lightning_ib.bottleneck import (
    agglomerative_ib,
    critical_betas,
    distance_to_bound,
    error_exponent,
    gaussian_ib,
    ib_curve,
)

REFERENCE = json.loads((Path(__file__).parent / "bottleneck.json").read_text())
CASES = [
    (name, kind)
    for name, case in REFERENCE.items()
    if isinstance(case, dict)
    for kind in ("ib", "dual")
    if kind in case
]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def joint(name):
    case = REFERENCE[name]
    return double(case["p"])[:, None] * double(case["A"])


def column(rows, key):
    return double([row[key] for row in rows])


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_curves_and_critical_betas(name, kind):
    case = REFERENCE[name][kind]
    rows = case["rows"]
    curve = ib_curve(joint(name), column(rows, "beta"), kind=kind, unit="nats")
    onset, local = critical_betas(joint(name), kind=kind)
    assert onset == pytest.approx(case["onset"], rel=1e-6)
    assert local == pytest.approx(case["local"], abs=1e-10)
    assert (curve.gap <= 1e-8).all()
    torch.testing.assert_close(curve.objective, column(rows, "F"), rtol=0, atol=1e-8)
    far = curve.beta > 1.2 * onset
    pairs = [(curve.i_xt, "ixt"), (curve.i_ty, "ity")]
    if kind == "dual":
        pairs.append((curve.i_ty_decoder, "ity_hat"))
    for values, key in pairs:
        torch.testing.assert_close(values, column(rows, key), rtol=0, atol=1e-6)
        torch.testing.assert_close(values[far], column(rows, key)[far], rtol=0, atol=1e-8)


def test_independent_variables():
    assert critical_betas(joint("independent3x2")) == (math.inf, math.inf)
    curve = ib_curve(joint("independent3x2"), [0.5, 1e4])
    assert curve.i_xt.tolist() == curve.i_ty.tolist() == curve.objective.tolist() == [0, 0]


@pytest.mark.parametrize("name", REFERENCE["_dib"])
def test_the_best_hard_clusters(name):
    rows = REFERENCE["_dib"][name]
    curve = ib_curve(joint(name), column(rows, "beta"), kind="deterministic", unit="nats")
    torch.testing.assert_close(curve.h_t - curve.beta * curve.i_ty, column(rows, "L"), rtol=0, atol=1e-12)
    torch.testing.assert_close(curve.h_t, column(rows, "ht"), rtol=0, atol=1e-12)
    torch.testing.assert_close(curve.i_ty, column(rows, "ity"), rtol=0, atol=1e-12)
    assert curve.gap.eq(0).all()


@pytest.mark.parametrize("name", REFERENCE["_aib"])
def test_agglomerative_clusters(name):
    found = agglomerative_ib(joint(name), unit="nats")
    assert found == pytest.approx({int(k): value for k, value in REFERENCE["_aib"][name].items()}, abs=1e-12)


@pytest.mark.parametrize("name", REFERENCE["_gaussian"])
def test_gaussians_by_their_projection(name):
    """The informations of T = AX + noise, from determinants of its covariances."""
    case = REFERENCE["_gaussian"][name]
    x, xy, y = (double(case[key]) for key in ("Sx", "Sxy", "Sy"))
    beta = column(case["rows"], "beta")
    curve = gaussian_ib(x, xy, y, beta, unit="nats")
    dual = gaussian_ib(x, xy, y, beta - 1, kind="dual", unit="nats")
    rest = x - xy @ torch.linalg.solve(y, xy.T)
    noise = torch.eye(len(x), dtype=torch.float64)
    total, given_y = (torch.logdet(curve.projection @ cov @ curve.projection.mT + noise) / 2 for cov in (x, rest))
    for found, key, direct in ((curve.i_xt, "ixt", total), (curve.i_ty, "ity", total - given_y)):
        torch.testing.assert_close(found, column(case["rows"], key), rtol=0, atol=1e-12)
        torch.testing.assert_close(found, direct, rtol=0, atol=1e-12)
    torch.testing.assert_close(curve.eigenvalues, double(case["lam"]), rtol=0, atol=1e-12)
    torch.testing.assert_close(dual.i_xt, curve.i_xt)
    torch.testing.assert_close(curve.bound(curve.i_xt), curve.i_ty, rtol=0, atol=1e-12)
    assert curve.i_xy == pytest.approx(case["ixy"], abs=1e-12)


@pytest.mark.parametrize("name", REFERENCE["_layers"])
def test_layers(name):
    case = REFERENCE["_layers"][name]
    found = distance_to_bound(double(case["q"]), joint(name.split(":")[0]), unit="nats")
    for key, value in (("ixt", found.i_xt), ("ity", found.i_ty), ("kl", found.self_consistency)):
        assert value == pytest.approx(case[key], abs=1e-9)
    assert found.bound == pytest.approx(case["bound"], abs=1e-9)
    assert found.gap == pytest.approx(case["gap"], abs=1e-9)
    if name == "hier8x4:x%2":  # all clusters have the same p(y|t)
        assert math.isnan(found.beta_self_consistent)
    elif case["beta_kl"] is None:
        assert found.beta_self_consistent == math.inf
    else:
        assert found.beta_self_consistent == pytest.approx(case["beta_kl"], rel=1e-6)
    assert found.degenerate == (case["beta_kl"] is None)


def test_error_exponent():
    case = REFERENCE["_chernoff"]
    found = error_exponent(double(case["p0"]), double(case["p1"]), unit="nats")
    assert found.exponent == pytest.approx(case["C"], abs=1e-10)
    assert found.weight == pytest.approx(case["lam"], abs=1e-8)


@pytest.mark.parametrize("beta", [1.6, 2.0, 5.0])
def test_symmetric_channel_by_mrs_gerbers_lemma(beta):
    e = 0.1
    m = 0.9
    for _ in range(10_000):
        m = math.tanh(beta * (1 - 2 * e) * math.atanh((1 - 2 * e) * m))

    def h(p):
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    d = (1 - m) / 2
    curve = ib_curve(double([[1 - e, e], [e, 1 - e]]) / 2, [beta], unit="nats")
    assert float(curve.i_xt) == pytest.approx(math.log(2) - h(d), abs=1e-10)
    assert float(curve.i_ty) == pytest.approx(math.log(2) - h(d * (1 - e) + e * (1 - d)), abs=1e-10)
