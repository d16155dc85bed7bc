"""The rows of one variable: what is kept of each batch, when it becomes ids, and what several processes gather."""

import copy
import math
import pickle
import warnings

import pytest
import torch
from torchmetrics.utilities import distributed

from lightning_ib import FixedBins, QuantileBins, Quantizer, UniformBins
from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.functional import NOT_FINITE
from lightning_ib.measurement import variables as module
from lightning_ib.measurement.variables import Form, RowForm, Variable, Variables

CPU = torch.device("cpu")


def binned(bins, **options):
    return Variable("layer 'one'", FittedQuantizer(Quantizer(None, bins)), **options)


def keep(variable, *batches):
    """Give it batches, pooled as the hook of a layer does."""
    for batch in batches:
        variable.keep(variable.fitted.values(batch) if variable.fitted else batch)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- What is kept -----------------------------------------------------------------------------------------------------


def test_without_a_quantizer_rows_are_kept_as_they_are():
    variable, rows = Variable("the target"), torch.arange(10)
    keep(variable, *rows.split(3))
    assert variable.n == 10
    assert torch.equal(variable.rows(), rows)
    assert torch.equal(variable.rows(), rows), "asking changes nothing"


@pytest.mark.parametrize("bins", [UniformBins(4), QuantileBins(3), FixedBins([-0.5, 0.5])], ids=repr)
@pytest.mark.parametrize("sizes", [[60], [1, 59], [7, 30, 23], [10] * 6])
def test_ids_are_those_of_all_values_at_once_however_they_are_batched(bins, sizes):
    z = normal(60, 3)
    whole = FittedQuantizer(Quantizer(None, bins))
    if bins.needs_data:
        whole.fit(z)
    else:
        whole.values(z)
    variable = binned(bins)
    keep(variable, *z.split(sizes))
    assert variable.n == 60
    assert torch.equal(variable.rows(), whole.discretize(z).ids)
    assert torch.equal(variable.fitted.edges, whole.edges)
    assert variable.n == 60


def test_counting_goes_on_after_the_edges_were_fitted():
    z, variable = normal(40, 2), binned(UniformBins(4))
    keep(variable, z[:25])
    first = variable.rows()
    keep(variable, z[25:])
    assert torch.equal(variable.rows()[:25], first)
    assert torch.equal(variable.rows(), variable.fitted.discretize(z).ids)


def test_values_wait_until_many_are_put_into_bins_at_once(monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 20)
    variable = binned(FixedBins([0.0]))
    keep(variable, normal(4, 2), normal(4, 2))
    assert variable.form() == Form(None, RowForm((2,), torch.float32), None, 2)
    keep(variable, normal(4, 2))
    assert variable.form() == Form(RowForm((), torch.int64), None, None, 2)


def test_values_wait_for_the_fit_however_many_they_are(monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    variable = binned(UniformBins(3))
    keep(variable, normal(30, 2), normal(30, 2))
    variable.bin_waiting()
    assert variable.form() == Form(None, RowForm((2,), torch.float32), None, 2)
    assert variable.waiting().shape == (60, 2)


def test_the_chunks_are_as_few_as_the_logarithm_of_the_batches():
    variable = Variable("the target")
    for k in range(1000):
        variable.keep(torch.tensor([k]))
    assert len(variable._kept) <= 10
    assert torch.equal(variable.rows(), torch.arange(1000))


@pytest.mark.parametrize(("width", "n_bytes"), [(3, 9), (255, 9), (256, 12)])
def test_a_sample_of_a_layer_takes_nine_bytes_or_twelve_where_it_is_wide(width, n_bytes):
    variable = binned(FixedBins([0.0, 1.0]), counts_out_of_bounds=True)
    keep(variable, normal(50, width), normal(50, width))
    variable.rows()
    held = [*variable._kept, *variable._waiting, *variable._out_of_bounds]
    assert sum(chunk.untyped_storage().nbytes() for chunk in held) == 100 * n_bytes


def test_after_the_fit_the_values_are_let_go_of():
    variable = binned(UniformBins(3))
    keep(variable, normal(30, 2))
    variable.rows()
    assert variable.waiting() is None


# --- Values that cannot be put into bins ------------------------------------------------------------------------------


def test_rows_that_are_not_finite_are_marked_and_no_edges_are_fitted():
    z, variable = normal(20, 2), binned(UniformBins(3))
    z[3, 1] = math.nan
    z[5] = math.inf
    keep(variable, z)
    ids = variable.rows()
    assert variable.fitted.edges is None
    assert (ids == NOT_FINITE).nonzero().flatten().tolist() == [3, 5]
    assert len(ids.unique()) == 2


def test_bins_that_fail_name_the_variable():
    class Descending(UniformBins):
        def edges(self, z):
            return torch.tensor([1.0, 0.0])

    variable = binned(Descending(3))
    keep(variable, normal(20, 2))
    with pytest.raises(ValueError, match="^layer 'one' cannot be put into bins: "):
        variable.rows()


@pytest.mark.parametrize("variable", [Variable("the target"), binned(UniformBins(3)), binned(FixedBins([0.0]))])
def test_without_rows_there_are_no_ids(variable):
    assert variable.rows() is None
    keep(variable, torch.empty(0, 2))
    assert (variable.rows(), variable.n, variable.form()) == (None, 0, None)


# --- Out of bounds ----------------------------------------------------------------------------------------------------


def test_the_clipped_fraction_counts_coordinates_beyond_the_bins():
    variable = binned(FixedBins([0.0, 1.0]), counts_out_of_bounds=True)
    keep(variable, torch.tensor([[0.5, 9.0], [0.5, 0.5]]), torch.tensor([[-9.0, 9.0], [0.5, 1.5]]))
    variable.rows()
    assert variable.clipped_fraction() == 3 / 8
    variable.trim(2)
    assert variable.clipped_fraction() == 1 / 4


@pytest.mark.parametrize("variable", [Variable("the target"), binned(FixedBins([0.0]), counts_out_of_bounds=True)])
def test_the_clipped_fraction_is_nan_where_it_is_undefined(variable):
    keep(variable, torch.tensor([[0.5], [9.0]]))
    variable.rows()
    assert math.isnan(variable.clipped_fraction())


# --- trim, reset, copies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 9, 10, 15, 20, 99])
@pytest.mark.parametrize("bins", [None, UniformBins(3), FixedBins([0.0, 1.0])])
def test_trim_leaves_the_first_rows(n, bins):
    z = normal(20, 2)
    variable = Variable("the target") if bins is None else binned(bins, counts_out_of_bounds=True)
    keep(variable, z[:10])
    if bins is not None:
        variable.rows()
    keep(variable, z[10:])
    whole = copy.deepcopy(variable).rows()
    variable.trim(n)
    assert variable.n == min(n, 20)
    trimmed = variable.rows()
    assert (trimmed is None and n == 0) or torch.equal(trimmed, whole[:n])


def test_reset_drops_the_rows_and_leaves_the_edges():
    variable = binned(UniformBins(3), counts_out_of_bounds=True)
    keep(variable, normal(20, 2))
    variable.rows()
    edges = variable.fitted.edges
    variable.reset()
    assert variable.n == 0
    assert variable.fitted.edges is edges
    keep(variable, normal(5, 2))
    variable.rows()
    assert sum(map(len, variable._out_of_bounds)) == 5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_goes_on_by_itself(copied):
    z, variable = normal(30, 2), binned(UniformBins(3))
    keep(variable, z[:20])
    other = copied(variable)
    keep(other, z[20:])
    assert (variable.n, other.n) == (20, 30)
    assert torch.equal(other.rows(), other.fitted.discretize(z).ids)
    assert variable.fitted.edges is None


# --- Several processes ------------------------------------------------------------------------------------------------


def together(monkeypatch, *shares):
    """What each of these gathers, as if each were a process of its own, in the order of their ranks.

    The forms are agreed on as :class:`Variables` does.
    """
    for share in shares:
        share.bin_waiting()
    forms = [form for share in shares if (form := share.form()) is not None]
    offered, found = [[] for _ in shares], []
    for share, calls in zip(shares, offered):  # what each offers, call by call
        monkeypatch.setattr(distributed, "gather_all_tensors", lambda rows, calls=calls: [calls.append(rows) or rows])
        copy.deepcopy(share).gathered(forms, CPU)
    assert len({len(calls) for calls in offered}) == 1, "all processes make the same calls"
    for share in shares:
        everywhere = iter(zip(*offered))
        monkeypatch.setattr(distributed, "gather_all_tensors", lambda _, everywhere=everywhere: list(next(everywhere)))
        found.append(share.gathered(forms, CPU))
    return found


@pytest.mark.parametrize("sizes", [[20, 20], [1, 39], [40, 0], [0, 40], [0, 25, 15], [0, 0, 40]])
@pytest.mark.parametrize("bins", [None, UniformBins(3), FixedBins([0.0, 1.0])], ids=repr)
def test_all_processes_gather_the_rows_in_the_order_of_their_ranks(monkeypatch, sizes, bins):
    z = normal(40, 2)
    alone = Variable("the target") if bins is None else binned(bins, counts_out_of_bounds=True)
    keep(alone, z)
    shares = [copy.deepcopy(alone) for _ in sizes]
    for share, rows in zip(shares, z.split(sizes)):
        share.reset()
        if share.fitted is not None:
            share.fitted = FittedQuantizer(Quantizer(None, bins))
        keep(share, *([rows] if len(rows) else []))
    for whole in together(monkeypatch, *shares):
        assert whole.n == 40
        assert torch.equal(whole.rows(), alone.rows())
        assert whole.clipped_fraction() == pytest.approx(alone.clipped_fraction(), nan_ok=True)
    assert [share.n for share in shares] == sizes, "each keeps what it had"


def test_edges_that_were_fitted_to_all_are_those_of_each_and_its_values_become_ids(monkeypatch):
    z = normal(40, 2)
    shares = [binned(UniformBins(3)) for _ in range(2)]
    keep(shares[0], z[:10])
    keep(shares[1], z[10:])
    for share, whole in zip(shares, together(monkeypatch, *shares)):
        ids = whole.rows()
        share.bin_waiting()
        assert share.waiting() is None
        assert share.form().kept == RowForm((), torch.int64)
    assert torch.equal(torch.cat([share.rows() for share in shares]), ids)
    assert torch.equal(shares[0].fitted.edges, shares[1].fitted.edges)


def test_a_process_without_rows_learns_their_width(monkeypatch):
    shares = [binned(FixedBins([0.0, 1.0])) for _ in range(2)]
    keep(shares[1], normal(10, 3))
    together(monkeypatch, *shares)
    assert shares[0].fitted.width == 3


def test_a_variable_that_nobody_kept_is_gathered_without_a_call(monkeypatch):
    shares = [binned(UniformBins(3)), binned(UniformBins(3))]
    keep(shares[0], torch.empty(0, 2))
    for whole in together(monkeypatch, *shares):
        assert whole.rows() is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(4, 2), torch.zeros(4, 3)),
        (torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.float64)),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64)),
    ],
)
def test_other_forms_are_refused_in_all_processes(one, other):
    shares = [Variable("the target"), Variable("the target")]
    keep(shares[0], one)
    keep(shares[1], other)
    for share in shares:
        with pytest.raises(ValueError, match="^the target has another form in one process than in another"):
            share.gathered([share.form() for share in shares], CPU)


def test_a_process_with_edges_and_one_without_are_refused():
    frozen, fresh = binned(UniformBins(3)), binned(UniformBins(3))
    keep(frozen, normal(9, 2))
    frozen.rows()
    keep(fresh, normal(9, 2))
    with pytest.raises(ValueError, match="start from one checkpoint"):
        fresh.gathered([frozen.form(), fresh.form()], CPU)


# --- All variables ----------------------------------------------------------------------------------------------------


def test_variables_are_kept_trimmed_forgotten_and_reset_together():
    refit = FittedQuantizer(Quantizer(None, UniformBins(3, refit=True)))
    everything = Variables(Variable("the input"), {"": Variable("the target")}, Variable("the sequences"))
    everything.add_layer("a", refit)
    everything.add_layer("b", FittedQuantizer(Quantizer(None, FixedBins([0.0]))))
    assert [variable.name for variable in everything] == [
        "the input", "the target", "the sequences", "layer 'a'", "layer 'b'",
    ]  # fmt: skip
    keep(everything.ys[""], torch.arange(6))
    keep(everything.layers["a"], normal(6, 2))
    everything.trim(4)
    assert (everything.n, everything.ys[""].n) == (4, 4)
    everything.layers["a"].rows()
    assert refit.edges is not None
    everything.forget(["b", "unknown"])
    assert list(everything.layers) == ["a"]
    assert everything.forms().keys() == {"the target", "layer 'a'"}
    everything.reset()
    assert everything.n == everything.ys[""].n == 0
    assert refit.edges is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keep(everything.layers["a"], normal(6, 2))
