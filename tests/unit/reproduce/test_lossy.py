"""The experiment ``lossy``: compressed informations, curves, and a small run."""

import csv
import math

import pytest
import torch

from lightning_ib.functional import mutual_information_knn
from lightning_ib.reproduce import lossy
from lightning_ib.reproduce.compressed import (
    clear_difference,
    compress,
    information,
    information_of_labels,
    known_channel,
    ksg,
    phases,
    smoothed,
)
from lightning_ib.reproduce.experiment import Settings, Silent, seeded
from lightning_ib.reproduce.finished import FinishedRuns
from lightning_ib.reproduce.lossy_training import LAYERS, Classifier, Plan, evaluating, measured, train
from lightning_ib.reproduce.mnist import standardized
from lightning_ib.reproduce.registry import experiment_of
from lightning_ib.reproduce.report import write_finding
from tests.helpers.samples import generator, normal

PLAN = Plan(1, 1, 1, 100, 130, rate=1e-3, batch=50, autoencoder_batch=50, window=3, order=1)
X, Y = standardized(torch.rand(130, 1, 28, 28, generator=generator())), torch.arange(130) % 10
DATA = (X[:100], Y[:100], X, Y)


@pytest.mark.parametrize("is_lossy", [False, True])
@pytest.mark.parametrize("bits", [0, 3])
def test_a_compressed_channel(bits, is_lossy):
    channel = known_channel(bits, 1500, lossy=is_lossy, seed=1)
    assert (channel.bits, channel.kept) == (bits * (1 + is_lossy), bits)
    found = information(compress(channel.x), compress(channel.t))
    assert abs(found.bits - bits) < 3 * found.error < 1.5
    assert ksg(compress(channel.x), compress(channel.t)) == pytest.approx(bits, abs=1)


def test_an_information_is_free_of_scale():
    channel = known_channel(2, 400, lossy=False, seed=0)
    x, t = compress(channel.x), compress(channel.t)
    mapped = information(x @ normal(4, 4), 1000 * t, weighted=False)
    assert mapped.bits == pytest.approx(information(x, t, weighted=False).bits, abs=0.2)
    assert information(2 * x, 1000 * t + 3).bits == pytest.approx(information(x, t).bits)


def test_labels():
    y = torch.arange(1200) % 3
    t = normal(1200, 2) + 1.5 * torch.nn.functional.one_hot(y).double()[:, :2]
    found = information_of_labels(t, y)
    assert abs(found.bits - mutual_information_knn(t, y)) < 3 * found.error < 0.3


def test_what_has_no_density_is_nan():
    x, flat = normal(60, 2), torch.zeros(60, 2).double()
    assert math.isnan(information(x, flat).bits)
    assert math.isnan(information(x, x).bits)
    assert math.isnan(information_of_labels(torch.cat([x[:30], flat[:30]]), torch.arange(60) // 30).bits)
    assert math.isnan(ksg(x, flat))


def test_curves():
    squares = [(0.3 * k - 1) ** 2 for k in range(12)]
    assert smoothed(squares, 5, 2) == pytest.approx(squares)
    assert smoothed(squares[:2], 31, 4) == pytest.approx(squares[:2])
    assert phases([0.0, 1.0, 0.5, 2.0], [1.0] * 4, 2) == []
    assert phases([0.0, 1.0, 0.5, 2.0], [0.01] * 4, 2) == [(0, 1), (1, 2), (2, 3)]
    assert phases([3.0, 2.0, 2.1, 1.0], [0.2] * 4, 2) == [(0, 3)]
    assert phases([], [], 2) == phases([1.0], [0.1], 2) == []


@pytest.mark.parametrize("n", [15, 61])
def test_noise_has_no_phases(n):
    """Five layers of white noise, whose errors are known: a phase in 1 of 20 runs at most."""
    noise = torch.randn(200, 5, n, generator=generator(), dtype=torch.float64).tolist()
    times = clear_difference(n, 5)
    assert sum(any(phases(layer, [1.0] * n, times) for layer in run) for run in noise) <= 0.05 * 200


def test_the_run_of_a_diverged_network_ends():
    done = []
    rows = train(DATA, PLAN._replace(rate=1e30, n_epochs=2), 0, done.append)
    assert {row["epoch"] for row in rows} == {0}
    assert sum(done) == 3


CHANNEL = {"layer": "known channel, lossless", "truth": 2.0, "truth_compressed": 2.0, "i_xt_unweighted": 1.9}


@pytest.mark.parametrize(("found", "error", "holds"), [(2.2, 0.1, True), (2.4, 0.1, False), (2.6, 0.35, None)])
def test_an_estimator_is_accurate_where_its_errors_tell_a_bit_from_none(found, error, holds):
    channels = [CHANNEL | {"i_xt": found, "i_xt_error": error, "i_xt_ksg": 1.5}]
    claim = lossy._about_the_estimator(channels, rows_of([1.0, 2.0]))
    assert claim.holds is holds
    assert "without weights 0.10, by Kraskov et al. 0.50" in claim.found
    assert "the three differ by up to" in claim.found


def test_measuring_leaves_every_mode():
    with seeded(0):
        model = Classifier(1e-3)
        model.dropout.eval()
        before = {name: module.training for name, module in model.named_modules()}
        rows = measured(model, normal(130, 4), X, Y)
        assert {name: module.training for name, module in model.named_modules()} == before
        assert model.noise.sigma == 1e-3
        with evaluating(model):
            assert not torch.equal(model(X[:2]), model(X[:2]))  # its noise stays on
    assert [row["layer"] for row in rows] == list(LAYERS)
    assert all(math.isfinite(row["i_xt"]) and row["i_xt_error"] > 0 for row in rows)


def test_what_is_written(tmp_path):
    state = torch.get_rng_state()
    settings = Settings(True, FinishedRuns(tmp_path / "runs", {}))
    finding = lossy.experiment(DATA, PLAN, settings, Silent())
    assert torch.equal(torch.get_rng_state(), state)
    written = write_finding(experiment_of("lossy"), finding, tmp_path, "0")
    with written.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(LAYERS) + 10
    assert {row["epoch"] for row in rows} == {"0", "1", ""}
    assert "cannot be said" in {claim.verdict for claim in finding.claims}
    assert written.picture.stat().st_size > 10_000
    assert settings.finished.has("seed 0")


def rows_of(values, error=0.1, without=None, ksg=0.8):
    return [
        {"layer": layer, "epoch": k, "i_xt": value, "i_xt_error": error, "test_loss": 2.0 / (k + 1)}
        | {
            "i_xt_without_noise": value if without is None else without,
            "i_xt_unweighted": value,
            "i_xt_ksg": ksg * value,
        }
        for k, value in enumerate(values)
        for layer in LAYERS
    ]


@pytest.mark.parametrize(
    ("rows", "verdicts"),
    [
        (rows_of([0, 2, 1, 3, 2]), ["holds", "holds"]),
        (rows_of([0, 2, 1, 3, 2, *[2] * 30]), ["holds", "holds"]),
        (rows_of([*[0] * 30, 1, 2, 3, 1]), ["cannot be said", "does not hold"]),
        (rows_of([0, 2, 1, 3, 2], ksg=-1), ["cannot be said", "cannot be said"]),  # one estimate rises where two fall
        (rows_of([0, 1, 2] * 10, 9.0), ["cannot be said", "cannot be said"]),
        (rows_of([0, 1, 2], without=5.0), ["cannot be said", "cannot be said"]),
        (rows_of([math.nan] * 3), ["cannot be said", "cannot be said"]),
        ([row for row in rows_of([0, 2, 1, 3, 2]) if row["layer"] == "fc1"], ["holds", "cannot be said"]),
    ],
)
def test_verdicts(rows, verdicts):
    of_noise, *others = lossy.judged(rows)
    assert of_noise.holds is None  # an estimate of four numbers is finite, whatever the information
    assert [claim.verdict for claim in others] == verdicts
