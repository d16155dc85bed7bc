"""The deterministic and the agglomerative bottleneck."""

import math

import pytest
import torch

from lightning_ib.bottleneck import agglomerative_ib, deterministic, ib_curve
from tests.unit.bottleneck.distributions import HARD, random_joint


def partitions(n):
    """All partitions of n symbols, as labels."""
    if n == 0:
        yield []
        return
    for rest in partitions(n - 1):
        for label in range(max(rest, default=-1) + 2):
            yield [*rest, label]


def value(p, labels, beta):
    p_ty = torch.zeros(max(labels) + 1, p.shape[1], dtype=p.dtype).index_add_(0, torch.tensor(labels), p)
    w = p_ty.sum(1, keepdim=True)
    return float(-torch.xlogy(w, w).sum() - beta * torch.xlogy(p_ty, p_ty / (w * p.sum(0))).sum())


@pytest.mark.parametrize("beta", [1.5, 4.0, 12.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_partition_is_better(seed, beta):
    p = random_joint(7, 3, seed, spread=2)
    curve = ib_curve(p, [beta], kind="deterministic", unit="nats")
    best = min(value(p, labels, beta) for labels in partitions(7))
    assert float(curve.h_t - beta * curve.i_ty) == pytest.approx(best, abs=1e-12)
    assert float(curve.objective) == pytest.approx(best + beta * curve.i_xy, abs=1e-12)


def test_the_local_search_is_certified_by_the_soft_bottleneck(monkeypatch):
    p, beta = random_joint(9, 3, 1, spread=2), [2.0, 4.0, 9.0, 30.0]
    exact = ib_curve(p, beta, kind="deterministic")
    monkeypatch.setattr(deterministic, "EXACT", 0)
    searched = ib_curve(p, beta, kind="deterministic")
    assert (searched.objective >= exact.objective - 1e-12).all()
    assert (searched.objective - searched.gap <= exact.objective + 1e-12).all()
    torch.testing.assert_close(searched.objective, exact.objective, rtol=0, atol=0.02)


def test_a_deterministic_label_is_kept_whole_or_not_at_all():
    curve = ib_curve(HARD, [0.9, 1.1], kind="deterministic", unit="nats")
    h_y = -float(torch.xlogy(HARD.sum(0), HARD.sum(0)).sum())
    assert curve.i_ty.tolist() == pytest.approx([0, h_y])
    assert curve.n_clusters.tolist() == [1, 3]


def test_its_bound_holds_for_hard_encoders():
    p = random_joint(6, 3, 4, spread=2)
    curve = ib_curve(p, kind="deterministic", unit="nats")
    for labels in partitions(6):
        h_t, i_ty = value(p, labels, 0.0), value(p, labels, 0.0) - value(p, labels, 1.0)
        assert i_ty <= float(curve.bound(h_t)) + 1e-10


def test_agglomeration_ends_at_the_whole_and_at_nothing():
    p = random_joint(9, 4)
    found = agglomerative_ib(p)
    assert list(found) == list(range(9, 0, -1))
    assert found[9] == pytest.approx(ib_curve(p, [1.0]).i_xy)
    assert found[1] == 0
    assert all(found[k] >= found[k - 1] for k in range(2, 10))


def test_agglomeration_merges_the_pair_that_loses_least():
    p = random_joint(5, 3, 2)
    found = agglomerative_ib(p, unit="nats")
    pairs = [labels for labels in partitions(5) if max(labels) == 3]
    best = max(value(p, labels, 0.0) - value(p, labels, 1.0) for labels in pairs)
    assert found[4] == pytest.approx(best, abs=1e-12)


def test_equal_rows_lose_nothing():
    found = agglomerative_ib(HARD)
    assert found[4] == found[3] == pytest.approx(-float(torch.xlogy(HARD.sum(0), HARD.sum(0)).sum()) / math.log(2))
