"""The linear probe gives scikit-learn's figures, and chooses its ridge."""

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.metrics
import torch

from lightning_ib.functional.variational import dealing, probes
from lightning_ib.functional.variational import softmax_regression as softmax
from lightning_ib.functional.variational.probes import probe_information
from lightning_ib.functional.variational.softmax_regression import Rows, class_means, softmax_regression
from tests.helpers.probes import blobs, labels
from tests.helpers.samples import generator, normal


def one_ridge(monkeypatch, ridge):
    """The linear probe with one ridge to choose from, and fitted to the end."""
    monkeypatch.setattr(probes, "_RIDGES", (ridge,))
    monkeypatch.setattr(probes, "_FINAL_TOLERANCE", 1e-15)
    monkeypatch.setattr(probes, "_FIT_STEPS", 2000)


def by_scikit_learn(t, y, ridge, seed=0, folds=5):
    """Held-out log-probabilities in the same folds, with the scales taken and the fit made by others."""
    t, y = t.numpy(), y.numpy()
    n, d = t.shape
    _, first, numbers = np.unique(y, return_index=True, return_inverse=True)
    numbers = first.argsort().argsort()[numbers]
    fold = dealing.dealt(torch.tensor(numbers), folds, generator(seed)).numpy()
    log_q = np.empty((n, numbers.max() + 1))
    for k in range(folds):
        known = fold != k
        if d > n:
            size, scale = n, np.sqrt(t[known].var(0).sum() / n)
        else:
            size, scale = (t[known].var(0) > 0).sum(), np.where(t[known].var(0) > 0, t[known].std(0), 1)
        z = (t - t[known].mean(0)) / scale
        z[:, (t[known] == t[known][0]).all(0)] = 0
        model = sklearn.linear_model.LogisticRegression(C=1 / (ridge * size * known.sum()), tol=1e-10, max_iter=10_000)
        log_q[~known] = model.fit(z[known], numbers[known]).predict_log_proba(z[~known])
    return log_q, numbers


@pytest.mark.parametrize("ridge", [1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("d", [1, 7])
def test_the_held_out_cross_entropy_is_scikit_learns(monkeypatch, ridge, d):
    t, y = blobs(200, d, 4)
    t = t * torch.logspace(-3, 3, d, dtype=t.dtype) + 5
    log_q, numbers = by_scikit_learn(t, y, ridge)
    one_ridge(monkeypatch, ridge)
    found = probe_information(t, y, unit="nats")
    assert found.cross_entropy == pytest.approx(sklearn.metrics.log_loss(numbers, np.exp(log_q)), abs=1e-6)
    assert found.accuracy == (log_q.argmax(1) == numbers).mean()


def test_more_coordinates_than_samples_give_scikit_learns_cross_entropy_too(monkeypatch):
    t, y = blobs(90, 300, 3, apart=0.3)
    t = t * (1 + torch.rand(300, generator=generator(), dtype=t.dtype)) + 5
    log_q, numbers = by_scikit_learn(t, y, 1e-3)
    one_ridge(monkeypatch, 1e-3)
    expected = sklearn.metrics.log_loss(numbers, np.exp(log_q))
    assert probe_information(t, y, unit="nats").cross_entropy == pytest.approx(expected, abs=1e-6)


def test_it_chooses_a_ridge_hardly_worse_than_the_best():
    t, y = blobs(400, 30, 3, apart=0.4)
    fixed = [sklearn.metrics.log_loss(n, np.exp(q)) for q, n in (by_scikit_learn(t, y, r) for r in probes._RIDGES)]
    assert probe_information(t, y, unit="nats").cross_entropy < min(fixed) + 0.01
    assert max(fixed) > min(fixed) + 0.1


def fit_rows(t, y, classes, preconditioned=True):
    """All rows, in their own scales."""
    mean, scale = t.mean(0), t.std(0, correction=0)
    covariance = torch.cov(((t - mean) / scale).t(), correction=0).view(t.shape[1], -1) if preconditioned else None
    features = torch.cat([t, torch.ones(len(t), 1, dtype=t.dtype)], 1)
    return Rows(features, class_means(features, y, classes), mean, scale, covariance)


@pytest.mark.parametrize("newton", [0, 1, 12, 1000])
@pytest.mark.parametrize("preconditioned", [True, False])
@pytest.mark.parametrize("ridge", [1e-3, 0.02, 3.0])
def test_a_fit_is_scikit_learns(monkeypatch, ridge, preconditioned, newton):
    """By Newton's method from some step on: from the first, in between, or never."""
    monkeypatch.setattr(softmax, "_LBFGS_STEPS", newton)
    t, y = blobs(120, 5, 4)
    t = t * torch.logspace(-3, 3, 5, dtype=t.dtype) + 5
    start = torch.zeros(4, 6, dtype=t.dtype)
    rows = fit_rows(t, y, 4, preconditioned)
    weights = softmax_regression(rows, ridge, start, tolerance=1e-15, steps=1000)
    assert not start.any()
    z = ((t - rows.mean) / rows.scale).numpy()
    model = sklearn.linear_model.LogisticRegression(C=1 / (ridge * len(t)), tol=1e-12, max_iter=9999).fit(z, y.numpy())
    np.testing.assert_allclose(weights[:, :-1] * rows.scale, model.coef_, atol=1e-5)
    log_q = (rows.features @ weights.t() + rows.target[:, -1].log()).log_softmax(1)
    np.testing.assert_allclose(log_q, model.predict_log_proba(z), atol=1e-5)


def test_many_classes_that_overlap_along_a_line_take_few_steps(monkeypatch):
    y = labels(1500, 20)
    t = y.double().unsqueeze(1) + 2 * torch.rand(1500, 1, generator=generator(), dtype=torch.float64)
    rows, moves = fit_rows(t, y, 20), []
    move_to = softmax.SoftmaxRegression._move_to
    monkeypatch.setattr(softmax.SoftmaxRegression, "_move_to", lambda *args: (moves.append(1), move_to(*args)))
    found = softmax_regression(rows, 1e-5, torch.zeros(20, 2).double(), tolerance=1e-9, steps=1000)
    assert len(moves) < 30
    z = ((t - rows.mean) / rows.scale).numpy()
    model = sklearn.linear_model.LogisticRegression(C=1 / (1e-5 * 1500), tol=1e-9, max_iter=9999, solver="newton-cg")
    model.fit(z, y.numpy())
    expected = sklearn.metrics.log_loss(y.numpy(), model.predict_proba(z))
    log_q = (rows.features @ found.t() + rows.target[:, -1].log()).log_softmax(1)
    assert -float(log_q.gather(1, y.unsqueeze(1)).mean()) == pytest.approx(expected, abs=1e-4)


def test_the_fits_of_one_path_are_those_of_each_ridge():
    t, y = blobs(120, 5, 4)
    rows, start = fit_rows(t, y, 4), torch.zeros(4, 6, dtype=t.dtype)
    path = softmax.SoftmaxRegression(rows, start)
    for ridge in (3.0, 0.02, 1e-3):
        one = softmax_regression(rows, ridge, start, tolerance=1e-15, steps=1000)
        found = path.fit(ridge, tolerance=1e-15, steps=1000)
        torch.testing.assert_close(found[:, :-1], one[:, :-1], atol=1e-6, rtol=0)


def test_a_fit_ends_the_same_wherever_it_starts():
    t, y = blobs(120, 5, 4)
    rows = fit_rows(t, y, 4)
    far = softmax_regression(rows, 3.0, normal(4, 6), tolerance=1e-15, steps=1000)
    near = softmax_regression(rows, 3.0, torch.zeros(4, 6, dtype=t.dtype), tolerance=1e-15, steps=1000)
    far, near = ((rows.features @ w.t() + rows.target[:, -1].log()).log_softmax(1) for w in (far, near))
    torch.testing.assert_close(far, near, atol=1e-6, rtol=0)


def test_a_class_without_rows_gets_no_weight():
    t, y = blobs(60, 3, 2)
    weights = softmax_regression(fit_rows(t, 2 * y, 4), 1e-3, torch.zeros(4, 4).double(), tolerance=1e-9, steps=100)
    assert not weights[[1, 3]].any()
    expected = softmax_regression(fit_rows(t, y, 2), 1e-3, torch.zeros(2, 4).double(), tolerance=1e-9, steps=100)
    torch.testing.assert_close(weights[[0, 2]].diff(dim=0), expected.diff(dim=0), atol=1e-3, rtol=1e-3)


def test_a_coordinate_left_out_gets_no_weight():
    t, y = blobs(60, 3, 2)
    rows = fit_rows(t, y, 2)
    scale, covariance = rows.scale.clone(), rows.covariance.clone()
    scale[1], covariance[1], covariance[:, 1] = 0, 0, 0
    for c in (covariance, None):
        left = rows._replace(scale=scale, covariance=c)
        weights = softmax_regression(left, 1e-3, torch.zeros(2, 4).double(), tolerance=1e-9, steps=100)
        assert weights[:, [0, 2]].all()
        assert not weights[:, 1].any()


def test_a_fit_that_cannot_get_better_ends():
    t, y = blobs(60, 3, 2)
    start = torch.zeros(2, 4).double()
    found = [softmax_regression(fit_rows(t, y, 2), 0.1, start, tolerance=0.0, steps=n) for n in (1000, 100_000)]
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([3.0], (0, False)),
        ([3.0, 2.0, 1.0], (2, False)),
        ([3.0, 2.0, 2.5], (1, False)),
        ([3.0, 2.0, 2.5, 2.5], (1, True)),
        ([3.0, 2.0, 2.5, 2.5, 1.0], (1, True)),  # the path goes on for the other probe only
        ([3.0, 2.0, 2.0 - 1e-5, 2.5], (1, True)),
    ],
)
def test_the_best_ridge_is_one_probes_own_choice(losses, best):
    assert probes._best(losses) == best
