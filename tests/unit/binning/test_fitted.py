"""What was fitted, at work: the same ids at every pass, frozen edges, checkpoints."""

import io
import math

import pytest
import torch
from torch import nn

from lightning_ib import FixedBins, QuantileBins, Quantizer, UniformBins
from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.functional import NOT_FINITE
from tests.helpers.quantizers import OwnBins, fitted, ids_in_batches, randn, reduced

pytestmark = pytest.mark.usefixtures("one_thread")

DISCRETIZED = {
    "uniform": lambda: Quantizer(None, UniformBins(7)),
    "uniform quantiles": lambda: Quantizer(nn.Flatten(), UniformBins(7, quantiles=(0.05, 0.95))),
    "uniform layer": lambda: Quantizer(None, UniformBins(7, per="layer")),
    "quantile": lambda: Quantizer(lambda a: a.flatten(1)[:, :5], QuantileBins(4)),
    "own": lambda: Quantizer(None, OwnBins([-0.5, 0.25])),
    "refit": lambda: Quantizer(None, UniformBins(7, refit=True)),
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(33,), (6, 20), (3, 7, 7)], ids=str)
@pytest.mark.parametrize("name", DISCRETIZED)
def test_ids_of_the_first_fit_are_those_of_every_later_pass(name, shape, dtype):
    x = randn(50, *shape).to(dtype)
    discretizer = FittedQuantizer(DISCRETIZED[name]())
    held = ids_in_batches(discretizer, x, 32)
    discretizer.fit(held)
    first = discretizer.discretize_held(held).ids
    for batch_size in (50, 11, 1):
        assert torch.equal(ids_in_batches(discretizer, x, batch_size), first), batch_size


@pytest.mark.parametrize("name", DISCRETIZED)
@pytest.mark.parametrize("batch_size", [1, 13])
def test_the_first_fit_does_not_depend_on_the_batches(name, batch_size):
    x = randn(150, 5, 9, 9)
    whole, ids = fitted(DISCRETIZED[name](), x)
    discretizer = FittedQuantizer(DISCRETIZED[name]())
    held = ids_in_batches(discretizer, x, batch_size)
    discretizer.fit(held)
    assert torch.equal(discretizer.edges, whole.edges)
    assert torch.equal(discretizer.discretize_held(held).ids, ids)


@pytest.mark.parametrize("shape", [(5, 9, 9), (16, 8, 8), (3, 4, 6, 6)], ids=str)
@pytest.mark.parametrize("name", DISCRETIZED)
def test_the_memory_format_changes_no_id(name, shape):
    x = randn(100, *shape)
    last = x.to(memory_format=torch.channels_last if len(shape) == 3 else torch.channels_last_3d)
    assert last.stride() != x.stride()
    discretizer, ids = fitted(DISCRETIZED[name](), x)
    assert torch.equal(reduced(discretizer, last), ids)
    assert torch.equal(fitted(DISCRETIZED[name](), last)[1], ids)


def test_one_number_a_sample_is_held_and_fitted_and_then_put_into_bins():
    discretizer, ids = fitted(Quantizer(None, UniformBins(7)), randn(500))
    assert len(ids) == 500
    assert len(ids.unique()) == 7
    assert torch.equal(reduced(discretizer, randn(500)), ids)


@pytest.mark.parametrize("pool", [None, nn.Identity(), nn.Flatten(), lambda a: a[:, :2]])
@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_held_shares_no_memory_with_the_activation(dtype, shape, pool):
    x = randn(6, *shape).to(dtype)
    held = reduced(FittedQuantizer(Quantizer(pool)), x)
    before = held.clone()
    x.zero_()
    assert torch.equal(held, before)


def test_ids_share_no_memory_with_the_activation():
    x = torch.tensor([0, 1, 0])
    ids = reduced(FittedQuantizer(Quantizer(None, FixedBins([0.5]))), x)
    before = ids.clone()
    x.fill_(1)
    assert torch.equal(ids, before)


def test_the_first_fit_is_frozen_and_refit_is_not():
    for refit in (False, True):
        discretizer = FittedQuantizer(Quantizer(None, UniformBins(4, refit=refit)))
        for scale, edge in ((1.0, 0.25), (100.0, 25.0 if refit else 0.25)):
            discretizer.begin()
            value = reduced(discretizer, scale * torch.tensor([[0.0], [0.5], [1.0]]))
            assert value.is_floating_point() == (scale == 1.0 or refit)
            if value.is_floating_point():
                discretizer.fit(value)
            assert discretizer.edges[0, 0].item() == edge


@pytest.mark.parametrize("bins", [FixedBins([0.0]), UniformBins(4, low=0, high=1)])
def test_known_edges_are_never_forgotten(bins):
    discretizer = FittedQuantizer(Quantizer(None, bins))
    reduced(discretizer, randn(3, 2))
    discretizer.begin()
    assert discretizer.edges is not None


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("shape", [(10,), (5, 9, 9)])
@pytest.mark.parametrize("name", [*(name for name in DISCRETIZED if name != "refit"), "fixed"])
def test_frozen_edges_go_through_a_checkpoint(name, shape):
    make = {**DISCRETIZED, "fixed": lambda: Quantizer(None, FixedBins([-0.1, 0.1]))}[name]
    x, later = randn(200, *shape), 3 * randn(200, *shape, seed=1)
    discretizer = FittedQuantizer(make())
    first = reduced(discretizer, x)
    if first.is_floating_point():
        discretizer.fit(first)
    state = saved(discretizer.state_dict())
    resumed = FittedQuantizer(make())
    resumed.load_state_dict(state)
    assert state.keys() == {"edges", "asked"}
    assert torch.equal(reduced(resumed, later), reduced(discretizer, later))


def test_nothing_is_saved_before_the_first_fit():
    discretizer = FittedQuantizer(Quantizer())
    assert saved(discretizer.state_dict()) == {}
    discretizer.load_state_dict({})
    assert reduced(discretizer, randn(4, 3)).is_floating_point()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"edges": torch.tensor([1.0, 0.0])}, "is unusable: edges must ascend"),
        ({"edges": torch.tensor([0.0, math.nan])}, "is unusable: edges must be finite"),
        ({"edges": torch.zeros(0)}, "is unusable: edges must have shape"),
        ({"edges": [0.0, 1.0]}, "has edges that are a list, not a tensor"),
    ],
)
def test_edges_that_are_none_are_not_taken_up(changes, sentence):
    before, _ = fitted(Quantizer(None, UniformBins(4)), randn(1000, 10))
    resumed = FittedQuantizer(Quantizer(None, UniformBins(4)))
    with pytest.raises(ValueError, match=sentence):
        resumed.load_state_dict({**before.state_dict(), **changes})
    assert resumed.edges is None


@pytest.mark.parametrize(
    ("state", "sentence"), [([], "is a list, not a mapping"), ({"edges": 1}, r"lacks \['asked'\]")]
)
def test_a_state_of_another_form_is_refused(state, sentence):
    with pytest.raises(ValueError, match=sentence):
        FittedQuantizer(Quantizer()).load_state_dict(state)


def test_edges_of_a_checkpoint_for_another_number_of_coordinates_are_fitted_anew():
    before, _ = fitted(Quantizer(None, UniformBins(4)), randn(100, 10))
    resumed = FittedQuantizer(Quantizer(None, UniformBins(4)))
    resumed.load_state_dict(saved(before.state_dict()))
    with pytest.warns(UserWarning, match="edges are for 10 coordinates, and a sample has 7 .* fitted anew"):
        assert reduced(resumed, randn(100, 7)).is_floating_point()


def test_a_saved_state_is_a_snapshot():
    discretizer, _ = fitted(Quantizer(None, UniformBins(4)), randn(50, 2))
    state = discretizer.state_dict()
    before = discretizer.edges.clone()
    state["edges"].zero_()
    assert torch.equal(discretizer.edges, before)


@pytest.mark.parametrize("old", [FixedBins([0.0]), UniformBins(4)], ids=["fixed", "uniform"])
def test_edges_given_by_name_win_over_those_of_a_checkpoint(old):
    before = FittedQuantizer(Quantizer(None, old))
    first = reduced(before, randn(50, 2))
    if first.is_floating_point():
        before.fit(first)
    resumed = FittedQuantizer(Quantizer(None, FixedBins([0.5])))
    resumed.load_state_dict(saved(before.state_dict()))
    expected = reduced(FittedQuantizer(Quantizer(None, FixedBins([0.5]))), randn(50, 2))
    assert torch.equal(reduced(resumed, randn(50, 2)), expected)


@pytest.mark.parametrize("asked", [UniformBins(7), UniformBins(4, per="layer"), QuantileBins(4)], ids=repr)
def test_edges_fitted_for_other_bins_are_not_taken_up(asked):
    before, _ = fitted(Quantizer(None, UniformBins(4)), randn(50, 2))
    resumed = FittedQuantizer(Quantizer(None, asked))
    with pytest.warns(UserWarning, match="fitted anew"):
        resumed.load_state_dict(saved(before.state_dict()))
    assert reduced(resumed, randn(50, 2)).is_floating_point()  # held, to be fitted


@pytest.mark.parametrize("name", DISCRETIZED)
def test_values_that_are_not_finite_are_marked_after_the_fit(name):
    discretizer, ids = fitted(DISCRETIZED[name](), randn(60, 8))
    x = randn(60, 8)
    x[3, 2], x[4, 1], x[59, 0] = math.nan, math.inf, -math.inf
    found = reduced(discretizer, x)
    assert (found == NOT_FINITE).nonzero().flatten().tolist() == [3, 4, 59]
    kept = found != NOT_FINITE
    assert torch.equal(found[kept], ids[kept])


def test_rows_of_another_width_are_refused_in_words():
    discretizer = FittedQuantizer(Quantizer(None, UniformBins(4)))
    discretizer.fit(reduced(discretizer, randn(9, 3)))
    with pytest.raises(ValueError, match=r"a sample has 5 coordinates here and had 3 before"):
        reduced(discretizer, randn(9, 5))


def test_rows_of_another_width_are_refused_in_words_where_all_share_the_edges():
    discretizer = FittedQuantizer(Quantizer(None, FixedBins([0.0])))
    reduced(discretizer, randn(9, 3))
    with pytest.raises(ValueError, match="coordinates"):
        reduced(discretizer, randn(9, 5))
