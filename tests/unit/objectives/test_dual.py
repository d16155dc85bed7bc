"""The variational dual IB: its terms, its relation to the functionals of theory, its sentences about bad labels."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_ib.objectives import (
    ConditionalPrior,
    DualIBTerms,
    GaussianBottleneck,
    VariationalDualIBLoss,
    dual_distortion,
)

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]], dtype=torch.float64)
RATE = torch.tensor([1.0, 3.0], dtype=torch.float64)
Y = torch.tensor([0, 2])


def rows(shape, seed=0, spread=1.0):
    return (spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).softmax(-1)


# -- the dual term -----------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(k=st.integers(2, 6), seed=st.integers(0, 10_000), spread=st.floats(0.1, 8.0))
def test_the_dual_term_is_a_divergence(k, seed, spread):
    q, p = rows((5, k), seed, spread), rows((5, k), seed + 1, spread)
    dual = dual_distortion(q.log(), p)
    torch.testing.assert_close(dual, F.kl_div(p.log(), q, reduction="none").sum(1))
    assert (dual > 0).all()  # q ≠ p
    assert (dual <= -p.amin(1).log()).all()
    torch.testing.assert_close(dual_distortion(p.log() + 3, p), torch.zeros(5).double(), atol=1e-14, rtol=0)


@settings(max_examples=40)
@given(k=st.integers(2, 6), seed=st.integers(0, 10_000), smoothing=st.floats(1e-6, 0.999))
def test_it_is_zero_for_the_smoothed_label_alone(k, seed, smoothing):
    y = torch.randint(k, (4,), generator=torch.Generator().manual_seed(seed))
    p = (1 - smoothing) * F.one_hot(y, k).double() + smoothing / k
    loss = VariationalDualIBLoss(0, 1, smoothing=smoothing)
    assert loss(p.log(), y, torch.zeros(4)).dual == pytest.approx(0, abs=1e-12)
    assert loss(p.log() + rows((4, k), seed), y, torch.zeros(4)).dual > 0
    certain_and_wrong = 1e4 * F.one_hot((y + 1) % k, k).double()
    assert loss(certain_and_wrong, y, torch.zeros(4)).dual == pytest.approx(math.log(k / smoothing))


def test_confidence_beyond_the_smoothed_label_costs():
    loss = VariationalDualIBLoss(0, 1, smoothing=0.1)
    margins = torch.tensor([0.0, 1.0, 2.0, math.log(0.95 / 0.05), 4.0, 8.0], dtype=torch.float64)
    dual = [loss(torch.tensor([[m, 0.0]]), torch.tensor([0]), torch.zeros(1)).dual.item() for m in margins.tolist()]
    assert dual[3] == min(dual) == pytest.approx(0, abs=1e-7)
    assert dual[0] > dual[1] > dual[2] > dual[3] < dual[4] < dual[5]


def test_a_masked_class_adds_nothing():
    logits = torch.tensor([[1.0, -math.inf, 0.0]], requires_grad=True)
    dual = dual_distortion(logits, torch.tensor([[0.5, 0.2, 0.3]]))
    dual.sum().backward()
    q = torch.tensor([1.0, 0.0]).softmax(0)
    assert dual.item() == pytest.approx(float((q * (q / torch.tensor([0.5, 0.3])).log()).sum()), abs=1e-6)
    assert logits.grad.isfinite().all()


# -- the loss ----------------------------------------------------------------------------------------------------------


def test_the_terms_by_hand():
    terms = VariationalDualIBLoss(2, 3, smoothing=0.3)(LOGITS, Y, RATE)
    q = LOGITS.softmax(1)
    p = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64)
    dual = (q * (q / p).log()).sum() / 2
    distortion = -(q[0, 0].log() + q[1, 2].log()) / 2
    expected = DualIBTerms(2 + 2 * distortion + 3 * dual, torch.tensor(2.0).double(), distortion, dual)
    torch.testing.assert_close(tuple(terms), tuple(expected))
    assert list(terms._asdict()) == ["loss", "rate", "distortion", "dual"]


def test_gamma_0_is_the_loss_of_vib():
    terms = VariationalDualIBLoss(10, 0)(LOGITS, Y, RATE)
    torch.testing.assert_close(terms.loss, RATE.mean() + 10 * F.cross_entropy(LOGITS, Y))
    assert terms.dual.isnan()
    torch.testing.assert_close(VariationalDualIBLoss(10, 0, smoothing=0.1)(LOGITS, Y, RATE).loss, terms.loss)
    # Soft labels with zeros are no obstacle there.
    soft = VariationalDualIBLoss(10, 0)(LOGITS, F.one_hot(Y, 3).double(), RATE)
    torch.testing.assert_close(soft.loss, terms.loss)


def test_several_draws_are_averaged():
    logits = torch.stack([LOGITS, 2 * LOGITS, -LOGITS])
    loss = VariationalDualIBLoss(2, 3, smoothing=0.3)
    each = [loss(one, Y, RATE).loss for one in logits]
    torch.testing.assert_close(loss(logits, Y, RATE).loss, sum(each) / 3)
    torch.testing.assert_close(loss(logits, Y, RATE.expand(3, 2)).loss, sum(each) / 3)


@pytest.mark.parametrize("samples", [(), (4,)])
def test_without_reduction_every_sample_has_its_terms(samples):
    logits = LOGITS.expand(*samples, 2, 3)
    each = VariationalDualIBLoss(2, 3, smoothing=0.3, reduction="none")(logits, Y, RATE)
    means = VariationalDualIBLoss(2, 3, smoothing=0.3)(logits, Y, RATE)
    for one, mean in zip(each, means):
        assert one.shape == (*samples, 2)
        torch.testing.assert_close(one.mean(), mean)


def test_soft_labels_stand_for_their_mean_over_labels():
    """Of the distortion; the dual term takes them as the distribution to be close to."""
    p = rows((2, 3))
    terms = VariationalDualIBLoss(2, 3)(LOGITS, p, RATE)
    torch.testing.assert_close(terms.distortion, F.cross_entropy(LOGITS, p))
    torch.testing.assert_close(terms.dual, dual_distortion(LOGITS, p).mean())
    mixed = VariationalDualIBLoss(2, 3, smoothing=0.3)(LOGITS, p, RATE)
    torch.testing.assert_close(mixed.dual, dual_distortion(LOGITS, 0.7 * p + 0.1).mean())


def test_soft_labels_for_the_dual_term_alone():
    confusion = rows((3, 3))
    terms = VariationalDualIBLoss(2, 3)(LOGITS, Y, RATE, soft_labels=confusion[Y])
    torch.testing.assert_close(terms.distortion, F.cross_entropy(LOGITS, Y))
    torch.testing.assert_close(terms.dual, dual_distortion(LOGITS, confusion[Y]).mean())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_terms_are_float32_for_half_precision(dtype):
    loss = VariationalDualIBLoss(2, 3, smoothing=0.3)
    terms = loss(LOGITS.to(dtype), Y, RATE.to(dtype))
    assert {term.dtype for term in terms} == {torch.float32}
    torch.testing.assert_close(terms.loss.double(), loss(LOGITS, Y, RATE).loss, rtol=0.02, atol=0.02)
    assert VariationalDualIBLoss(2, 3)(LOGITS.to(dtype), rows((2, 3)).to(dtype), RATE.to(dtype)).loss.isfinite()


def test_a_step_under_autocast_moves_every_part():
    bottleneck, prior, decoder = GaussianBottleneck(6, 4), ConditionalPrior(3, 4), nn.Linear(4, 3)
    loss, y = VariationalDualIBLoss(2, 3, smoothing=0.1), torch.arange(9) % 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        code = bottleneck(torch.randn(9, 6))
        terms = loss(decoder(code.sample), y, prior.kl(code, y))
    assert terms.loss.dtype == torch.float32
    terms.loss.backward()
    for module in (bottleneck, prior, decoder):
        for parameter in module.parameters():
            assert parameter.grad.abs().sum() > 0


def test_weights_can_change_between_steps_and_are_checked():
    loss = VariationalDualIBLoss(0, 0, smoothing=0.1)
    loss.beta, loss.gamma = 2, 3
    expected = VariationalDualIBLoss(2, 3, smoothing=0.1)(LOGITS, Y, RATE).loss
    torch.testing.assert_close(loss(LOGITS, Y, RATE).loss, expected)
    with pytest.raises(ValueError, match="VariationalDualIBLoss: beta must be a finite number of at least 0, got -1"):
        loss.beta = -1
    assert loss.beta == 2
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(other) == repr(loss)
        assert torch.equal(other(LOGITS, Y, RATE).loss, loss(LOGITS, Y, RATE).loss)
    assert repr(loss) == "VariationalDualIBLoss(beta=2, gamma=3, smoothing=0.1, reduction='mean')"
    assert loss.state_dict() == {}


def test_nan_in_logits_gives_nan():
    loss = VariationalDualIBLoss(2, 3, smoothing=0.3)
    assert loss(LOGITS * math.nan, Y, RATE).loss.isnan()
    assert loss(LOGITS, Y, RATE * math.nan).loss.isnan()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((-1, 0), {}, ValueError, "VariationalDualIBLoss: beta must be a finite number of at least 0, got -1"),
        ((0, -0.5), {}, ValueError, "VariationalDualIBLoss: gamma must be a finite number of at least 0, got -0.5"),
        ((math.nan, 0), {}, ValueError, "beta must .* got nan"),
        ((0, math.inf), {}, ValueError, "gamma must .* got inf"),
        (("1", 0), {}, TypeError, "beta must .* got '1': give a float"),
        ((1, 1), {"smoothing": 0}, ValueError, "smoothing must be a positive finite number .*, got 0: give 0.1, say"),
        ((1, 1), {"smoothing": 1}, ValueError, "smoothing must be below 1, got 1, which leaves nothing of the labels"),
        ((1, 1), {"smoothing": 1.5}, ValueError, "smoothing must .* got 1.5"),
        ((1, 1), {"reduction": "sum"}, ValueError, "reduction must be 'mean' or 'none', got 'sum'"),
    ],
)
def test_losses_that_make_no_sense(arguments, options, error, message):
    with pytest.raises(error, match=message):
        VariationalDualIBLoss(*arguments, **options)


ZERO = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
GOOD = rows((2, 3))
REFUSED = [
    (LOGITS, Y, RATE, None, ValueError, r"class labels without smoothing give it 0 .* smoothing=0.1\), say, which mix"),
    (LOGITS, ZERO, RATE, None, ValueError, "1 of 6 soft labels are 0: give VariationalDualIBLoss"),
    (LOGITS, Y, RATE, ZERO, ValueError, "1 of 6 soft labels are 0"),
    (LOGITS, GOOD * math.nan, RATE, None, ValueError, "y has NaN in 2 of 2 rows: leave them out"),
    (LOGITS, GOOD * 2, RATE, None, ValueError, r"y must hold a distribution .* which 2 of 2 rows do not: give prob"),
    (LOGITS, Y, RATE, LOGITS, ValueError, "soft_labels must hold a distribution"),
    (LOGITS, GOOD[:1], RATE, None, ValueError, r"y must hold .* shape \(2, 3\) as the logits have, got \(1, 3\)"),
    (LOGITS, Y.double(), RATE, None, TypeError, r"y.long\(\) for class numbers, or soft labels of shape \(2, 3\)"),
    (LOGITS, [0, 2], RATE, None, TypeError, "y must be class labels, .* got a list"),
    (
        LOGITS,
        torch.tensor([0, 3]),
        RATE,
        None,
        ValueError,
        "from 0 to 2, as there are 3 classes, got 3 in 1 of 2 sampl",
    ),
    (LOGITS, torch.tensor([-100, 0]), RATE, None, ValueError, "got -100 in 1 of 2 samples: leave these samples out"),
    (LOGITS, Y[:1], RATE, None, ValueError, r"class labels of shape \(2,\), got \(1,\)"),
    (LOGITS, F.one_hot(Y, 3), RATE, None, ValueError, r"got \(2, 3\): give y.argmax\(1\) for one-hot rows"),
    (LOGITS[0], Y, RATE, None, ValueError, r"logits must have shape \(B, K\), .* got \(3,\)"),
    (LOGITS[:, :1], Y, RATE, None, ValueError, r"two classes, got \(2, 1\)"),
    (LOGITS[:0], Y[:0], RATE[:0], None, ValueError, r"at least one sample and two classes, got \(0, 3\)"),
    (LOGITS.long(), Y, RATE, None, TypeError, "logits must be a floating-point tensor"),
    (
        LOGITS,
        Y,
        RATE.mean(),
        None,
        ValueError,
        r"rate must have one value .* got shape \(\): give code.kl, or prior.kl",
    ),
    (LOGITS, Y, RATE.expand(3, 2), None, ValueError, r"rate must .* got shape \(3, 2\)"),
    (LOGITS, Y, 1.0, None, TypeError, "rate must be a floating-point tensor"),
]


@pytest.mark.parametrize(("logits", "y", "rate", "soft_labels", "error", "message"), REFUSED)
def test_what_is_refused_in_one_sentence(logits, y, rate, soft_labels, error, message):
    with pytest.raises(error, match=message) as caught:
        VariationalDualIBLoss(1, 1)(logits, y, rate, soft_labels=soft_labels)
    assert str(caught.value).endswith(".")


def test_a_zero_is_refused_by_the_divergence_too():
    with pytest.raises(ValueError, match="1 of 6 soft labels are 0"):
        dual_distortion(LOGITS, ZERO)
    with pytest.raises(TypeError, match="soft_labels must be a floating-point tensor"):
        dual_distortion(LOGITS, Y)


# -- what it bounds ----------------------------------------------------------------------------------------------------


class Discrete:
    """A random p(x, y), an encoder q(t|x), a decoder q(y|t), and what follows from them."""

    def __init__(self, seed, x=5, y=3, t=4):
        self.p_x, self.rows = rows((x,), seed), rows((x, y), seed + 1)
        self.encoder, self.decoder = rows((x, t), seed + 2, 2.0), rows((t, y), seed + 3)
        self.p_t = self.p_x @ self.encoder
        self.p_ty = self.encoder.T @ (self.p_x[:, None] * self.rows)
        self.p_y = self.p_ty.sum(0)
        self.i_xt = (self.p_x[:, None] * self.encoder * (self.encoder / self.p_t).log()).sum()
        self.i_ty = (self.p_ty * (self.p_ty / (self.p_t[:, None] * self.p_y)).log()).sum()
        self.h_y = -(self.p_y * self.p_y.log()).sum()
        self.dual = sum(
            self.p_x[x] * self.encoder[x] @ (self.decoder * (self.decoder / self.rows[x]).log()).sum(1)
            for x in range(x)
        )

    def loss(self, beta, gamma, log_prior):
        """The mean of the loss over p(x) q(t|x), with a prior of shape (T,) or, by label, (Y, T)."""
        log_q = self.encoder.log()
        rate = log_q - (log_prior if log_prior.ndim == 1 else self.rows @ log_prior)
        logits = self.decoder.log()[:, None].expand(-1, len(self.p_x), -1)
        loss = VariationalDualIBLoss(beta, gamma, reduction="none")
        return (self.p_x * self.encoder.T * loss(logits, self.rows, rate.T).loss).sum()


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), beta=st.floats(0, 20), gamma=st.floats(0, 20))
def test_the_loss_with_a_prior_is_the_functional_and_its_gaps(seed, beta, gamma):
    at = Discrete(seed)
    prior = rows((4,), seed + 9)
    gap = (at.p_t * (at.p_t / prior).log()).sum()
    gap += beta * (at.p_ty * (at.p_ty / at.p_t[:, None] / at.decoder).log()).sum()
    functional = at.i_xt + beta * (at.h_y - at.i_ty) + gamma * at.dual
    torch.testing.assert_close(at.loss(beta, gamma, prior.log()), functional + gap)
    assert gap >= 0


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), beta=st.floats(0, 20), gamma=st.floats(0, 20))
def test_the_loss_with_a_reverse_encoder_is_the_functional_and_its_gaps(seed, beta, gamma):
    """I(X;T) − (1 + β) I(T;Y) + β H(Y) + γ E D, plus E D[q(t|y)‖r(t|y)] and β E D[p(y|t)‖q(y|t)]."""
    at = Discrete(seed)
    reverse = rows((3, 4), seed + 9)
    t_given_y = (at.p_ty / at.p_y).T
    gap = (at.p_ty.T * (t_given_y / reverse).log()).sum()
    gap += beta * (at.p_ty * (at.p_ty / at.p_t[:, None] / at.decoder).log()).sum()
    functional = at.i_xt - (1 + beta) * at.i_ty + beta * at.h_y + gamma * at.dual
    torch.testing.assert_close(at.loss(beta, gamma, reverse.log()), functional + gap)
    assert gap >= 0


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000))
def test_labels_that_vary_act_as_their_geometric_mean(seed):
    """E_y D[q‖p̃(·|y)] = D[q‖p̄(·|x)] + c(x): c does not depend on the decoder, and is 0 where y is a function of x."""
    p_y, smoothed, q = rows((3,), seed), rows((3, 3), seed + 1), rows((1, 3), seed + 2)
    log_mean = p_y @ smoothed.log()
    mean, c = log_mean.softmax(0), -log_mean.logsumexp(0)
    each = dual_distortion(q.log().expand(3, 3), smoothed)
    torch.testing.assert_close(p_y @ each, dual_distortion(q.log(), mean[None])[0] + c)
    assert c >= 0


def test_a_compiled_step_is_one_graph_with_the_same_values():
    bottleneck, prior, decoder = (
        GaussianBottleneck(6, 4, prior="learned").eval(),
        ConditionalPrior(3, 4),
        nn.Linear(4, 3),
    )
    loss, x, y = VariationalDualIBLoss(2, 3, smoothing=0.1), torch.randn(9, 6), torch.arange(9) % 3

    def step(x, y):
        code = bottleneck(x)
        return loss(decoder(code.sample), y, prior.kl(code, y))

    compiled = torch.compile(step, fullgraph=True, backend="eager")
    torch.testing.assert_close(tuple(compiled(x, y)), tuple(step(x, y)))
    torch._dynamo.reset()
