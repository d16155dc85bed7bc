"""The stochastic code: divergences, draws, priors, precision."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions

from lightning_ib.objectives import BottleneckOutput, ConditionalPrior, GaussianBottleneck, gaussian_kl


def normal(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def independent(mean, std):
    return distributions.Independent(distributions.Normal(mean, std), 1)


# -- divergences -------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(k=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_the_divergence_is_that_of_torch(k, seed):
    mean, m = normal((4, k), seed), normal((4, k), seed + 1)
    std, s = normal((4, k), seed + 2).exp(), normal((4, k), seed + 3).exp()
    expected = distributions.kl_divergence(independent(mean, std), independent(m, s))
    torch.testing.assert_close(gaussian_kl(mean, std, m, s), expected)
    standard = distributions.kl_divergence(independent(mean, std), independent(0 * m, s / s))
    torch.testing.assert_close(gaussian_kl(mean, std), standard)
    assert (gaussian_kl(mean, std, m, s) >= 0).all()


def test_equal_gaussians_have_no_divergence():
    mean, std = normal((3, 7)), normal((3, 7), 1).exp()
    assert gaussian_kl(mean, std, mean, std).tolist() == [0, 0, 0]


def test_priors_broadcast():
    mean, std = normal((5, 3)), normal((5, 3), 1).exp()
    m, s = normal((3,), 2), normal((3,), 3).exp()
    torch.testing.assert_close(gaussian_kl(mean, std, m, s), gaussian_kl(mean, std, m.expand(5, 3), s.expand(5, 3)))
    assert gaussian_kl(mean, std, prior_std=s).shape == (5,)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0.0], torch.ones(1)), TypeError, r"mean must be a floating-point tensor of shape \(…, K\), got a list"),
        ((torch.zeros(2).long(), torch.ones(2)), TypeError, r"got torch.int64: give mean.double\(\)"),
        ((torch.zeros(2), torch.ones(3)), ValueError, r"the same shape \(…, K\), got \(2,\) and \(3,\)"),
        ((torch.zeros(2), torch.tensor([1.0, 0.0])), ValueError, "std must be positive, got 0: give .*softplus"),
        ((torch.zeros(2), torch.ones(2), torch.zeros(3)), ValueError, r"prior_mean must have a shape that broadcasts"),
        ((torch.zeros(2), torch.ones(2), None, -torch.ones(2)), ValueError, "prior_std must be positive, got -1"),
    ],
)
def test_divergences_that_make_no_sense(arguments, error, message):
    with pytest.raises(error, match=message):
        gaussian_kl(*arguments)


def test_nan_gives_nan():
    assert gaussian_kl(torch.tensor([math.nan]), torch.ones(1)).isnan()
    assert gaussian_kl(torch.zeros(1), torch.tensor([math.nan])).isnan()


# -- the bottleneck ----------------------------------------------------------------------------------------------------


def test_the_rate_is_a_sum_over_latents_for_each_sample():
    bottleneck = GaussianBottleneck(6, 4).double()
    code = bottleneck(normal((9, 6)))
    assert code.kl.shape == (9,)
    expected = distributions.kl_divergence(
        independent(code.mean, code.std), independent(torch.zeros(4).double(), torch.ones(4).double())
    )
    torch.testing.assert_close(code.kl, expected)


@pytest.mark.parametrize("prior", ["standard", "learned"])
@pytest.mark.parametrize(("init_std", "min_std"), [(0.7, 1e-3), (0.0067, 1e-3), (2.0, 0.5)])
def test_every_std_starts_at_init_std_and_the_prior_at_the_standard_one(prior, init_std, min_std):
    bottleneck = GaussianBottleneck(6, 4, prior=prior, init_std=init_std, min_std=min_std)
    code = bottleneck(normal((9, 6), dtype=torch.float32))
    torch.testing.assert_close(code.std, torch.full((9, 4), init_std))
    torch.testing.assert_close(code.kl, gaussian_kl(code.mean, code.std), atol=1e-5, rtol=1e-5)


def test_no_std_falls_below_the_least():
    bottleneck = GaussianBottleneck(2, 3, min_std=0.25)
    with torch.no_grad():
        bottleneck.bias[3:] = -1000
    code = bottleneck(torch.zeros(1, 2))
    assert code.std.tolist() == [[0.25] * 3]
    assert code.kl.isfinite()


def test_a_draw_in_training_and_the_mean_in_eval():
    bottleneck, x = GaussianBottleneck(6, 4), normal((9, 6), dtype=torch.float32)
    drawn = bottleneck(x)
    assert not torch.equal(drawn.sample, bottleneck(x).sample)
    torch.manual_seed(1)
    first = bottleneck(x).sample
    torch.manual_seed(1)
    assert torch.equal(first, bottleneck(x).sample)
    bottleneck.eval()
    state = torch.get_rng_state()
    code = bottleneck(x)
    assert torch.equal(code.sample, code.mean)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(code.kl, drawn.kl)


@pytest.mark.parametrize("training", [True, False])
def test_several_draws_have_the_moments_of_the_code(training):
    bottleneck = GaussianBottleneck(2, 3, init_std=0.5).train(training)
    code = bottleneck(torch.ones(2, 2), samples=20_000)
    assert code.sample.shape == (20_000, 2, 3)
    torch.testing.assert_close(code.sample.mean(0), code.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(code.sample.std(0), code.std, atol=0.02, rtol=0)
    assert not torch.equal(code.sample[0], code.sample[1])


def test_further_dimensions_are_kept():
    code = GaussianBottleneck(6, 4)(torch.zeros(5, 7, 6), samples=2)
    assert code.sample.shape == (2, 5, 7, 4)
    assert code.kl.shape == (5, 7)


@pytest.mark.parametrize("prior", ["standard", "learned"])
def test_gradients_reach_every_parameter(prior):
    bottleneck = GaussianBottleneck(6, 4, prior=prior)
    code = bottleneck(torch.randn(9, 6))
    (code.kl.mean() + code.sample.square().mean()).backward()
    for name, parameter in bottleneck.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_rate_is_float32_under_autocast_and_in_half_precision(dtype):
    bottleneck, prior = GaussianBottleneck(6, 4, prior="learned"), ConditionalPrior(3, 4)
    x, y = torch.randn(9, 6), torch.arange(9) % 3
    exact, rates = bottleneck(x), prior.kl(bottleneck(x), y)
    with torch.autocast("cpu", dtype=dtype):
        code = bottleneck(x)
        rate = prior.kl(code, y)
    assert code.kl.dtype == code.std.dtype == rate.dtype == torch.float32
    torch.testing.assert_close(code.kl, exact.kl, rtol=0.02, atol=0.02)
    torch.testing.assert_close(rate, rates, rtol=0.02, atol=0.02)
    assert bottleneck.to(dtype)(x.to(dtype)).kl.dtype == torch.float32
    assert prior.to(dtype).kl(code, y).dtype == torch.float32


@pytest.mark.parametrize(
    "module",
    [GaussianBottleneck(6, 4, prior="learned", init_std=0.3), ConditionalPrior(3, 4)],
    ids=lambda module: type(module).__name__,
)
def test_copies_and_states(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
    fresh = copy.deepcopy(module)
    fresh.reset_parameters()
    fresh.load_state_dict(module.state_dict())
    for other in (fresh, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(other) == repr(module)
        for mine, its in zip(module.parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, its)


def test_what_it_is_made_from_is_shown():
    assert repr(GaussianBottleneck(6, 4)) == (
        "GaussianBottleneck(in_features=6, latent=4, prior='standard', init_std=0.7, min_std=0.001)"
    )
    assert repr(ConditionalPrior(3, 4)) == "ConditionalPrior(num_classes=3, latent=4)"


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, 4), {}, ValueError, "GaussianBottleneck: in_features must be an integer of at least 1, got 0"),
        ((6, 2.5), {}, TypeError, "GaussianBottleneck: latent must be an integer of at least 1, got 2.5"),
        ((6, 4), {"prior": "learnt"}, ValueError, "prior must be 'standard' or 'learned', got 'learnt': did you mean"),
        ((6, 4), {"min_std": 0}, ValueError, "min_std must be a positive finite number, got 0"),
        ((6, 4), {"init_std": 1e-3}, ValueError, "init_std must be a finite number above 0.001, got 0.001: σ starts"),
        ((6, 4), {"init_std": math.nan}, ValueError, "init_std must .* got nan"),
    ],
)
def test_bottlenecks_that_make_no_sense(arguments, options, error, message):
    with pytest.raises(error, match=message):
        GaussianBottleneck(*arguments, **options)


@pytest.mark.parametrize(
    ("x", "samples", "error", "message"),
    [
        (torch.zeros(3, 5), None, ValueError, r"x must have shape \(B, 6\), as in_features says, got \(3, 5\): give"),
        (torch.zeros(3, 6).long(), None, TypeError, r"x must be a floating-point tensor of shape \(B, 6\)"),
        (torch.zeros(3, 6), 0, ValueError, "samples must be an integer of at least 1, got 0"),
        (torch.zeros(3, 6), True, TypeError, "samples must be an integer of at least 1, got True"),
    ],
)
def test_inputs_that_make_no_sense(x, samples, error, message):
    with pytest.raises(error, match=message):
        GaussianBottleneck(6, 4)(x, samples)


# -- the reverse encoder -----------------------------------------------------------------------------------------------


@pytest.fixture
def prior():
    prior = ConditionalPrior(3, 4).double()
    with torch.no_grad():
        prior.mean.copy_(normal((3, 4)))
        prior.rho.copy_(normal((3, 4), 1))
    return prior


def code_of(mean, std):
    return BottleneckOutput(mean, mean, std, gaussian_kl(mean, std))


def test_the_rate_is_the_divergence_from_the_prior_of_the_class(prior):
    code, y = code_of(normal((6, 4), 2), normal((6, 4), 3).exp()), torch.tensor([0, 1, 2, 2, 1, 0])
    mean, std = prior(y)
    expected = distributions.kl_divergence(independent(code.mean, code.std), independent(mean, std))
    torch.testing.assert_close(prior.kl(code, y), expected)
    prior.kl(code, y).sum().backward()
    assert (prior.mean.grad.abs().sum(1) > 0).all()
    assert (prior.rho.grad.abs().sum(1) > 0).all()


def test_the_rate_of_soft_labels_is_the_mean_over_the_labels(prior):
    code, p = code_of(normal((6, 4), 2), normal((6, 4), 3).exp()), normal((6, 3), 4).softmax(1)
    each = torch.stack([prior.kl(code, torch.full((6,), y)) for y in range(3)], 1)
    torch.testing.assert_close(prior.kl(code, p), (p * each).sum(1))


def test_it_starts_as_the_standard_prior():
    code = GaussianBottleneck(6, 4)(torch.randn(5, 6))
    torch.testing.assert_close(ConditionalPrior(3, 4).kl(code, torch.tensor([0, 1, 2, 0, 1])), code.kl)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (torch.tensor([0, 3]), ValueError, "y must be class labels from 0 to 2, .* got 3 in 1 of 2 samples: leave"),
        (torch.tensor([0.0, 1.0]), TypeError, r"integers of shape \(2,\), got torch.float32: give y.long\(\)"),
        (torch.tensor([0]), ValueError, r"y must be class labels of shape \(2,\), got \(1,\)"),
        (torch.full((2, 3), 0.5), ValueError, "y must hold a distribution over the classes in each row"),
    ],
)
def test_labels_of_the_prior(prior, y, error, message):
    with pytest.raises(error, match=message):
        prior.kl(code_of(normal((2, 4)), torch.ones(2, 4).double()), y)


def test_priors_that_make_no_sense(prior):
    with pytest.raises(ValueError, match="ConditionalPrior: num_classes must be an integer of at least 2, got 1"):
        ConditionalPrior(1, 4)
    with pytest.raises(ValueError, match=r"code must have shape \(B, 4\), as latent says, got \(2, 5\)"):
        prior.kl(code_of(normal((2, 5)), torch.ones(2, 5).double()), torch.tensor([0, 1]))
    with pytest.raises(TypeError, match=r"integers of shape \(B,\), got torch.float32: give y.long\(\) for class numb"):
        prior(torch.zeros(2, 3))
