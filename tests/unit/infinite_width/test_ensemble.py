"""Infinite ensembles of infinitely wide networks over training time."""

import math

import pytest
import torch

from lightning_ib.infinite_width import InfiniteWidthEnsemble

NORMAL = torch.Generator().manual_seed(0)
X, X_TEST = (torch.randn(n, 3, generator=NORMAL, dtype=torch.float64) for n in (6, 5))
Y, Y_TEST = X[:, 0].sign(), X_TEST[:, 0].sign()
VALUES = ("i_xz", "i_xz_upper", "i_xz_lower", "i_xz_left_out", "i_yz", "i_zd", "train_loss", "test_loss", "distance")


def fitted(x=X, y=Y, **settings):
    return InfiniteWidthEnsemble(2, activation="erf", **settings).fit(x, y)


def test_the_start_is_the_prior():
    ensemble = fitted()
    found = ensemble.at(0, X_TEST, Y_TEST)
    assert torch.equal(found.mean, torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(found.variance, ensemble.nngp(X_TEST).diagonal(), rtol=1e-14, atol=0)
    assert float(found.i_zd) == float(found.distance) == 0
    assert float(found.test_loss) == pytest.approx(0.5 + float(found.variance.mean()) / 2)


def test_the_end_is_kernel_regression():
    ensemble = fitted()
    found = ensemble.at(math.inf, X_TEST, Y_TEST)
    solve = torch.linalg.solve(ensemble.ntk(X), ensemble.ntk(X, X_TEST)).T
    cross = ensemble.nngp(X_TEST, X)
    variance = ensemble.nngp(X_TEST) + solve @ ensemble.nngp(X) @ solve.T - solve @ cross.T - cross @ solve.T
    torch.testing.assert_close(found.mean, solve @ Y)
    torch.testing.assert_close(found.variance, variance.diagonal())
    assert float(found.train_loss) == 0
    late = ensemble.at(1e6, X_TEST, Y_TEST)
    for name in VALUES:
        assert float(getattr(late, name)) == pytest.approx(float(getattr(found, name)), rel=1e-9, abs=1e-12)


def test_several_times_are_those_times():
    ensemble, times = fitted(), [0.0, 0.3, 7.0]
    together = ensemble.at(torch.tensor(times, dtype=torch.float64), X_TEST, Y_TEST)
    assert together.mean.shape == (3, 5)
    assert together.i_xz.shape == (3,)
    for k, t in enumerate(times):
        alone = ensemble.at(t, X_TEST, Y_TEST)
        assert alone.i_xz.shape == ()
        torch.testing.assert_close(together.mean[k], alone.mean, rtol=0, atol=1e-14)
        for name in VALUES:
            torch.testing.assert_close(getattr(together, name)[k], getattr(alone, name), rtol=1e-12, atol=1e-14)


def test_outputs_are_independent_and_share_the_kernel():
    both = fitted(y=torch.stack([Y, X[:, 1]], 1)).at([0.5, 2.0], X_TEST, torch.stack([Y_TEST, X_TEST[:, 1]], 1))
    one, other = fitted().at([0.5, 2.0], X_TEST, Y_TEST), fitted(y=X[:, 1]).at([0.5, 2.0], X_TEST, X_TEST[:, 1])
    assert both.mean.shape == (2, 5, 2)
    torch.testing.assert_close(both.mean, torch.stack([one.mean, other.mean], -1))
    torch.testing.assert_close(both.variance, one.variance)
    for name in ("train_loss", "test_loss", "test_loss_of_mean", "distance", "i_zd", "fisher"):
        torch.testing.assert_close(getattr(both, name), getattr(one, name) + getattr(other, name))
    assert ((both.i_xz_lower <= both.i_xz + 1e-3) & (both.i_xz <= both.i_xz_upper + 1e-3)).all()
    assert (both.i_xz > one.i_xz).all()
    assert (both.standard_error > 0).all()


def test_a_column_of_targets_is_one_output():
    row, column = fitted().at(1, X_TEST, Y_TEST), fitted(y=Y[:, None]).at(1, X_TEST, Y_TEST)
    assert column.mean.shape == (5, 1)
    assert float(column.i_xz) == float(row.i_xz)


def test_units():
    nats, bits = (fitted().at(1, X_TEST, Y_TEST, unit=unit) for unit in ("nats", "bits"))
    assert bits.unit == "bits"
    for name in ("i_xz", "i_xz_upper", "i_xz_lower", "i_xz_left_out", "i_yz", "i_zd"):
        torch.testing.assert_close(getattr(bits, name) * math.log(2), getattr(nats, name))
    torch.testing.assert_close(bits.test_loss, nats.test_loss)


def test_classes_are_labels_signs_or_the_largest_output():
    labels = (Y_TEST > 0).long()
    ensemble = fitted()
    by_label, by_sign = (ensemble.at(1, X_TEST, y) for y in (labels, Y_TEST))
    assert float(by_label.i_yz) == float(by_sign.i_yz)
    assert math.isnan(float(by_label.test_loss))
    assert math.isnan(float(ensemble.at(1, X_TEST).i_yz))
    one_hot = torch.nn.functional.one_hot((Y > 0).long()).double()
    twice = fitted(y=one_hot)
    targets = torch.nn.functional.one_hot(labels).double()
    assert float(twice.at(1, X_TEST, targets).i_yz) == float(twice.at(1, X_TEST, labels).i_yz)


def test_repeated_inputs_learn_the_mean_of_their_targets():
    targets = torch.cat([Y, Y + torch.linspace(-1, 1, 6, dtype=torch.float64)])
    twice = fitted(torch.cat([X, X]), targets).at(math.inf, X_TEST, Y_TEST)
    mean = fitted(X, targets.view(2, 6).mean(0)).at(math.inf, X_TEST, Y_TEST)
    for name in ("mean", "variance", "i_xz", "i_yz", "distance"):
        torch.testing.assert_close(getattr(twice, name), getattr(mean, name), rtol=1e-9, atol=1e-11)
    assert float(twice.train_loss) == pytest.approx(float(targets.view(2, 6).var(0, correction=0).mean()) / 2)


def test_outputs_at_training_inputs_become_their_targets():
    found = fitted().at([1.0, math.inf], X, Y)
    assert found.saturated.tolist() == [0, 6]
    share = float((Y > 0).double().mean())
    h_y = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    assert float(found.i_xz[1]) == pytest.approx(h_y)
    assert float(found.i_yz[1]) == pytest.approx(h_y)
    assert float(found.i_zd[1]) == math.inf


@pytest.mark.parametrize("scale", [1e-8, 1e3, 1e6])
@pytest.mark.parametrize("of_targets", [1e-7, 1.0, 1e5])
def test_outputs_at_training_inputs_are_counted_at_any_scale(scale, of_targets):
    x, y = torch.cat([X, X_TEST]), torch.cat([Y, Y_TEST]) * of_targets
    found = InfiniteWidthEnsemble(1, bias_variance=0.0).fit(x * scale, y).at(math.inf, x * scale, y)
    share = float((y > 0).double().mean())
    h_y = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    assert int(found.saturated) == 11
    assert float(found.i_xz) == pytest.approx(h_y)
    assert float(found.i_yz) == pytest.approx(h_y)


def test_directions_below_rounding_are_said_where_they_would_be_learned():
    """Forty places on a line: a smooth kernel has eigenvalues that float64 cannot hold."""
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    ensemble = InfiniteWidthEnsemble(1, activation="erf").fit(x, x[:, 0].sin())
    ensemble.at([0.0, 100.0], x)
    with pytest.warns(
        UserWarning, match=r"of 40 directions with eigenvalues below the rounding of float64 \(.*left out"
    ):
        ensemble.at(math.inf, x)


def test_one_training_point_and_one_test_point():
    found = fitted(X[:1], Y[:1]).at([0.0, 1.0, math.inf], X_TEST[:1], Y_TEST[:1])
    assert found.i_xz.tolist() == found.i_yz.tolist() == [0, 0, 0]
    assert found.i_xz_left_out.isnan().all()
    assert found.train_loss[0] > found.train_loss[1] > found.train_loss[2] == 0


def test_an_input_of_zero_norm_gives_zero_where_there_is_no_bias():
    x = torch.cat([X, torch.zeros(1, 3, dtype=torch.float64)])
    found = fitted(x, torch.cat([Y, Y[:1]]), bias_variance=0.0).at([0.0, 1.0, math.inf], x)
    assert found.mean[:, -1].tolist() == found.variance[:, -1].tolist() == [0, 0, 0]
    assert found.i_xz.isfinite().all()
    assert float(found.train_loss[-1]) == pytest.approx(1 / 14)


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"hidden_layers": -1}, ValueError, "hidden_layers must be an integer of at least 0, got -1"),
        ({"activation": "rleu"}, ValueError, "did you mean 'relu'"),
        ({"weight_variance": 0}, ValueError, "weight_variance must be a positive finite number"),
        ({"bias_variance": -0.1}, ValueError, "bias_variance must be a finite number of at least 0"),
    ],
)
def test_settings_out_of_range(settings, error, message):
    with pytest.raises(error, match=message):
        InfiniteWidthEnsemble(**{"hidden_layers": 1, **settings})


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X, (Y > 0).long(), TypeError, "y must be real targets.*one_hot"),
        (X, Y[:4], ValueError, "x and y must be of the same samples, got 6 of one and 4 of the other"),
        (X, Y * math.nan, ValueError, "y has NaN or infinite values"),
        (X * math.inf, Y, ValueError, "x has NaN or infinite values in 6 of 6 rows"),
        (X * 1e200, Y, ValueError, "x has values with squares beyond float64: standardize it"),
        (X, Y[:, None, None], ValueError, r"y must have shape \(N,\) or \(N, k\), got \(6, 1, 1\)"),
    ],
)
def test_training_data_of_another_kind(x, y, error, message):
    with pytest.raises(error, match=message):
        InfiniteWidthEnsemble(1).fit(x, y)


def test_memory_is_said_before_it_is_taken():
    x = torch.zeros(20_000, 1)
    message = "training on 20000 inputs takes 19.4 GB of memory, and memory_limit_gb is 4: .* give memory_limit_gb=20"
    with pytest.raises(ValueError, match=message):
        InfiniteWidthEnsemble(1).fit(x, x[:, 0])
    with pytest.raises(ValueError, match="the kernel of 20000 and 20000 inputs takes 6.6 GB"):
        InfiniteWidthEnsemble(1).ntk(x)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1.0, X_TEST), ValueError, "t must be a time of training of at least 0, infinity included, got -1.0"),
        (([0.0, math.nan], X_TEST), ValueError, "at least 0, infinity included, got nan"),
        (("late", X_TEST), TypeError, "t must be a number or a sequence of numbers, got 'late'"),
        (([], X_TEST), ValueError, r"shape \(T,\) with T at least 1"),
        ((1, X_TEST[:, :2]), ValueError, "x_test must have 3 values an input as x, got"),
        ((1, X_TEST, Y_TEST[:3]), ValueError, "x_test and y_test must be of the same samples"),
        ((1, X_TEST, torch.stack([Y_TEST, Y_TEST], 1)), ValueError, r"y_test must have shape \(n,\) as y has"),
    ],
)
def test_moments_that_cannot_be(arguments, error, message):
    with pytest.raises(error, match=message):
        fitted().at(*arguments)


def test_it_shows_its_settings():
    assert repr(InfiniteWidthEnsemble(2)) == (
        "InfiniteWidthEnsemble(2, activation='relu', weight_variance=2, bias_variance=0.1)"
    )


def test_it_is_trained_first():
    with pytest.raises(RuntimeError, match=r"not trained: call fit\(x, y\) first"):
        InfiniteWidthEnsemble(1).at(1, X_TEST)


def test_tanh_at_pixels_of_255():
    with pytest.raises(ValueError, match="tanh needs pre-activations with a variance of at most 100.*standardize x"):
        InfiniteWidthEnsemble(1, activation="tanh").fit(255 * X, Y)
