"""What a layer without a quantizer gets: known answers, odd data, bounded memory, the same samples at every pass."""

import gc
import math
import warnings

import pytest
import torch
from torch import nn

from lightning_ib import CellQuantizer, FixedBins, InformationPlane, QuantileBins, Quantizer, UniformBins, measure
from lightning_ib.functional import cells, entropy, mutual_information, sketch
from lightning_ib.records.reliability import VerdictWarning
from tests.helpers.mnist import ThesisNet
from tests.helpers.nets import Function
from tests.helpers.nets import known_net as net
from tests.helpers.planes import counted
from tests.helpers.samples import generator

FIGURES = ("i_xt", "i_ty", "h_t", "h_x", "h_y", "h_y_given_t", "i_xt_given_y")


def same(x):
    return x


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def clusters(n, n_classes, d=16, seed=0):
    """Rows in clusters of their class, well apart."""
    y = torch.arange(n) % n_classes
    return 10 * torch.eye(n_classes, d)[y] + randn(n, d, seed=seed), y


def batches(x, y, size=50):
    return list(zip(x.split(size), y.split(size)))


def measured(function, x, y, size=50, **options):
    (point,) = measure(net(layer=function), batches(x, y, size), ["layer"], **options)
    return point


# --- Known answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "one"), [("bits", 1.0), ("nats", math.log(2))])
def test_clusters_of_their_class_give_known_figures(unit, one):
    x, y = clusters(1600, 4)
    point = measured(same, x, y, unit=unit)
    assert (point.i_ty, point.h_t, point.h_y) == pytest.approx((2 * one, 2 * one, 2 * one))
    assert (point.h_y_given_t, point.i_xt_given_y) == pytest.approx((0, 0), abs=1e-9)
    assert point.i_xt == point.h_t
    assert point.h_x == pytest.approx(math.log2(1600) * one)
    assert (point.n_samples, point.n_codes, point.source, point.verdict) == (1600, 4, "cells", "ok")
    assert point.explained_variance > 0.8
    assert point.i_ty_permuted == pytest.approx(9 / 3200 * math.log2(math.e) * one, rel=0.1)
    assert math.isnan(point.clipped_fraction)


def test_figures_are_those_of_the_functional_package():
    x, y = randn(700, 3, 20, 20), torch.arange(700) % 5
    plane = InformationPlane(["layer"], unit="nats")
    (point,) = counted(plane, net(layer=same), batches(x, y))
    found = cells(sketch(x))
    assert point.n_codes == found.n_cells
    assert point.explained_variance == pytest.approx(found.explained)
    assert point.h_t == pytest.approx(entropy(found.numbers, unit="nats"))
    assert point.i_ty == pytest.approx(mutual_information(found.numbers, y, unit="nats"))
    assert plane.discretized["layer"] == (
        f"1200 coordinates, sketched to 128; {found.n_cells} cells with {found.explained:.0%} of the variance, "
        "700 samples"
    )


def test_what_training_does_to_scale_and_offset_does_not_show():
    """A frozen grid would clip, or fall to one symbol."""
    x, y = clusters(1000, 5)
    plane, model = InformationPlane(["layer"]), net(layer=lambda x: moved["factor"] * x + moved["offset"])
    for factor, offset in ((1.0, 0.0), (1e-4, 0.0), (1e4, 0.0), (3.0, 50.0), (-7.0, 0.0)):
        moved = {"factor": factor, "offset": offset}
        plane.reset()
        (point,) = counted(plane, model, batches(x, y))
        assert point.i_ty == pytest.approx(math.log2(5))
        assert point.verdict == "ok"


KNOWN = {
    # Epoch: accuracy, Fano's bound; I(T;Y) and H(T) of two convolutions, of the logits and of their softmax, in nats.
    "init": (0.100, 0.0, (1.853, 5.27), (1.870, 5.18), (1.164, 4.68), (1.109, 4.60)),
    "0": (0.982, 2.171, (1.861, 5.27), (1.919, 5.06), (2.102, 2.90), (2.185, 2.30)),
    "9": (0.9975, 2.278, (1.821, 5.33), (1.961, 5.15), (2.230, 2.62), (2.281, 2.30)),
}


@pytest.mark.slow
@pytest.mark.parametrize("epoch", KNOWN)
def test_the_networks_of_the_thesis_read_what_is_known_of_them(data_dir, mnist_train, epoch):
    """Twenty thousand training images; worked out beforehand with NumPy, by another program."""
    model = ThesisNet()
    if epoch != "init":
        run = data_dir / "thesis" / "max_pool"
        model.load_state_dict(torch.load(run / f"epoch_{epoch}.pt", weights_only=True))
    x, y = (part[:20_000] for part in mnist_train)
    seen, options = [], {"max_samples": 20_000, "unit": "nats"}
    model.out.register_forward_hook(lambda module, args, output: seen.append(output))
    conv1, conv2, head = measure(model, batches(x, y, 100), ["conv1.0", "conv2.0", "out"], **options)
    (logits,) = measure(net(out=same), batches(torch.cat(seen), y, 100), ["out"], head=False, **options)
    accuracy, fano, *known = KNOWN[epoch]
    tolerances = [(0.06, 0.2)] * 4 if epoch == "init" else [(0.03, 0.1)] * 2 + [(0.01, 0.02)] * 2
    for point, (i_ty, h_t), (near_i, near_h) in zip((conv1, conv2, logits, head), known, tolerances):
        assert point.i_ty == pytest.approx(i_ty, abs=near_i)
        assert point.h_t == pytest.approx(h_t, abs=near_h)
        assert (point.n_samples, point.verdict) == (20_000, "ok")
    assert head.accuracy == pytest.approx(accuracy, abs=0.002 if epoch == "init" else 6e-4)
    assert head.i_ty_fano == pytest.approx(fano, abs=2e-3)
    assert conv1.i_ty_fano == conv2.i_ty_fano == head.i_ty_fano
    assert head.fano_shortfall == 0
    assert math.isnan(logits.i_ty_fano)
    assert conv1.i_ty_permuted == pytest.approx(0.06, abs=0.005)


# --- Few samples, odd labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 9])
def test_fewer_than_ten_samples_have_a_point(n):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", VerdictWarning)
        point = measured(same, randn(n, 4), torch.arange(n) % 2)
    assert point.n_samples == n
    assert point.n_codes == 2
    assert 0 <= point.h_t <= 1
    assert 0 <= point.i_ty <= 1
    assert math.isfinite(point.i_ty_permuted)


def test_one_sample_is_one_symbol_and_says_nothing_of_its_target():
    with pytest.warns(UserWarning, match="all 1 samples have the same target"):
        point = measured(same, randn(1, 4), torch.zeros(1).long())
    assert (point.h_t, point.n_samples, point.n_codes) == (0, 1, 1)
    assert math.isnan(point.i_ty)
    assert math.isnan(point.saturation)


def test_fewer_samples_than_classes_are_flagged():
    with pytest.warns(VerdictWarning, match="the target is saturated at epoch 0: H.Y. is 4.32 bits of log N"):
        point = measured(same, randn(20, 4), 7 * torch.arange(20))
    assert point.verdict == "target_saturated"
    assert point.i_ty == pytest.approx(point.h_t)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -3e-20])
@pytest.mark.parametrize("d", [1, 5, 1000])
def test_rows_that_are_all_alike_are_constant(d, value):
    with pytest.warns(VerdictWarning, match=r"layer 'layer' is constant at epoch 0: .* look for dead") as caught:
        point = measured(lambda x: torch.full((len(x), d), value), randn(120, 4), torch.arange(120) % 3)
    assert len(caught) == 1
    assert (point.h_t, point.i_ty, point.n_codes, point.verdict) == (0, 0, 1, "constant")
    assert math.isnan(point.explained_variance)


def test_one_class_says_nothing_and_says_so():
    with pytest.warns(UserWarning, match="all 120 samples have the same target at epoch 0") as caught:
        point = measured(same, randn(120, 4), torch.full((120,), 3))
    assert len(caught) == 1
    assert point.h_t > 0
    assert point.h_y == 0
    assert all(math.isnan(v) for v in (point.i_ty, point.h_y_given_t, point.i_ty_permuted, point.accuracy))


@pytest.mark.filterwarnings("ignore:the target is -")
@pytest.mark.parametrize("y", [torch.arange(400) % 4 - 100, (torch.arange(400) % 4) * 10**12, (torch.arange(400) % 4)])
@pytest.mark.parametrize("shape", [(400,), (400, 1)])
def test_labels_of_any_value_count(y, shape):
    x, _ = clusters(400, 4)
    assert measured(same, x, y.reshape(shape)).i_ty == pytest.approx(2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.bool])
def test_labels_of_any_integer_dtype_count(dtype):
    x, y = clusters(400, 2)
    assert measured(same, x, y.to(dtype)).i_ty == pytest.approx(1)


def test_labels_never_seen_before_are_taken_at_a_later_epoch():
    x, y = clusters(800, 8)
    plane, model = InformationPlane(["layer"]), net(layer=same)
    (first,) = counted(plane, model, [(x[y < 4], y[y < 4])])
    plane.reset()
    (second,) = counted(plane, model, [(x, y)])
    plane.reset()
    (third,) = counted(plane, model, [(x, y - 5000)])
    assert (first.i_ty, second.i_ty, third.i_ty) == pytest.approx((2, 3, 3))


@pytest.mark.parametrize("first", [True, False])
def test_some_batches_with_and_some_without_a_target_are_refused(first):
    x, y = clusters(100, 2)
    data = [(x, y), (x, None)]
    with pytest.raises(ValueError, match=r"some batches came with a target and some without: give one for each, or"):
        measure(net(layer=same), data if first else data[::-1], ["layer"])
    # The next measurement may be of the other kind.
    plane = InformationPlane(["layer"])
    assert math.isnan(counted(plane, net(layer=same), [(x, None)])[0].i_ty)
    plane.reset()
    assert counted(plane, net(layer=same), [(x, y)])[0].i_ty == pytest.approx(1)


def test_without_a_target_only_its_figures_are_missing():
    x, _ = clusters(400, 4)
    (point,) = measure(net(layer=same), [(x, None)], ["layer"])
    assert point.h_t == pytest.approx(2)
    assert point.verdict == "ok"
    assert all(math.isnan(v) for v in (point.i_ty, point.h_y, point.i_ty_permuted, point.i_ty_fano))


# --- Odd activations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("d", [1, 16, 1000])
def test_rows_that_are_not_finite_cost_their_layer_and_one_warning_until_they_are_again(d, bad):
    x, y = clusters(400, 4)
    plane = InformationPlane(["sick", "well"])
    model = net(sick=lambda x: x.repeat(1, -(-d // 16))[:, :d] + broken[: len(x)], well=same)
    broken = torch.zeros(400, 1)
    broken[[3, 77, 399]] = bad
    with pytest.warns(UserWarning, match="layer 'sick' gave NaN or infinite values in 3 of 400 samples at epoch") as w:
        sick, well = counted(plane, model, [(x, y)], epoch=5)
    plane.reset()
    assert math.isnan(counted(plane, model, [(x, y)], epoch=6)[0].h_t)  # a second warning would be an error
    assert len([one for one in w if one.category is UserWarning]) == 1
    assert all(math.isnan(getattr(sick, name)) for name in FIGURES)
    assert (sick.n_samples, sick.n_codes, sick.verdict) == (400, 0, "")
    assert well.i_ty == pytest.approx(2)
    broken.zero_()
    plane.reset()
    sick, well = counted(plane, model, [(x, y)], epoch=7)
    assert math.isfinite(sick.h_t)
    assert sick.verdict != ""
    if d >= 4:
        assert sick.i_ty == pytest.approx(2)


def test_a_half_that_overflows_is_told_as_any_infinity():
    x, y = clusters(400, 4)
    with pytest.warns(UserWarning, match="layer 'layer' gave NaN or infinite values in 400 of 400 samples"):
        point = measured(lambda x: (1e6 * x).half(), x, y)
    assert math.isnan(point.h_t)
    assert measured(lambda x: (100 * x).half(), x, y).i_ty == pytest.approx(2)


def test_double_precision_does_not_overflow():
    x, y = clusters(400, 4)
    assert measured(lambda x: 1e200 * x.double(), x, y).i_ty == pytest.approx(2)


def test_an_outlier_does_not_own_the_cells():
    x, y = clusters(1000, 5)
    x[3] = 1e6
    assert measured(same, x, y).i_ty > math.log2(5) - 0.05


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_one_coordinate_is_enough(shape):
    y = torch.arange(800) % 4
    point = measured(same, (10.0 * y + randn(800)).reshape(800, *shape), y)
    assert point.i_ty == pytest.approx(2)


def test_a_hundred_thousand_coordinates_take_128_numbers_a_sample():
    y = torch.arange(120) % 3
    x = randn(120, 100_000) + 4 * torch.eye(3)[y].repeat(1, 33_334)[:, :100_000]
    plane = InformationPlane(["layer"])
    (point,) = counted(plane, net(layer=same), batches(x, y))
    assert point.i_ty == pytest.approx(math.log2(3))
    assert plane.drawn().layers["layer"].shape == (120, 128)
    assert plane.drawn().layers["layer"].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("width", [8, 400])
def test_activations_of_any_real_dtype_count(dtype, width):
    y = torch.arange(400) % 2
    x = y[:, None].expand(400, width).clone()
    x[::7, 0] = 1
    assert measured(lambda x: x.to(dtype), x.float(), y).i_ty == pytest.approx(1)


def test_complex_activations_are_refused_by_the_name_of_the_layer():
    sentence = "layer 'layer' could not be recorded: got complex values: take real ones, with pool=torch.view_as_real"
    with pytest.raises(ValueError, match=sentence):
        measured(lambda x: x + 1j, *clusters(40, 2))
    x, y = clusters(400, 2)
    (point,) = measure(net(layer=lambda x: x + 1j), [(x, y)], {"layer": CellQuantizer(pool=torch.view_as_real)})
    assert point.i_ty == pytest.approx(1)


def test_an_empty_batch_changes_nothing():
    x, y = clusters(400, 4, 300)
    empty = [(x[:0], y[:0])]
    expected = repr(measured(same, x, y))
    for data in (empty + batches(x, y), batches(x, y) + empty):
        assert repr(measure(net(layer=same), data, ["layer"])[0]) == expected
    with pytest.raises(ValueError, match="nothing was counted: no batch was seen. Is the data empty"):
        measure(net(layer=same), empty, ["layer"])


def test_a_single_number_is_refused_by_the_name_of_the_layer():
    with pytest.raises(ValueError, match="layer 'layer' could not be recorded: got a single number, not a batch"):
        measured(lambda x: x.mean(), *clusters(40, 2))


@pytest.mark.parametrize("quantizer", [None, Quantizer(), Quantizer(None, FixedBins([0.0]))], ids=["cells", "30", "1"])
def test_a_layer_without_coordinates_is_refused_by_its_name(quantizer):
    sentence = r"layer 'layer' could not be recorded: a sample has no coordinates, in a batch of shape \(40, 0, 3\)\."
    with pytest.raises(ValueError, match=sentence):
        measure(net(layer=lambda x: x[:, :0, None].expand(-1, -1, 3)), [clusters(40, 2)], {"layer": quantizer})


def test_an_output_that_changes_later_is_not_reached():
    """What was sampled is a copy."""
    kept = []
    x, y = clusters(400, 4)
    plane, model = InformationPlane(["layer"]), net(layer=lambda x: kept.append(x.clone()) or kept[-1])
    with plane.attach(model):
        for some, labels in batches(x, y):
            model(some)
            plane.update(some, labels)
            kept[-1].zero_()
    assert plane.compute()[0].i_ty == pytest.approx(2)


def test_cells_may_be_given_a_pool_a_select_and_a_number():
    x, y = clusters(2000, 10)

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.layer = nn.Parameter(torch.ones(1)), Function(lambda x: (0 * x, [x]))

        def forward(self, x):
            return self.layer(x)

    def i_ty(quantizer):
        return measure(Pair(), [(x, y)], {"layer": quantizer})[0].i_ty

    def second(output):
        return output[1][0]

    assert i_ty(CellQuantizer()) == 0
    assert i_ty(CellQuantizer(select=second)) == pytest.approx(math.log2(10))
    assert i_ty(CellQuantizer(4, select=second)) < 2.01
    assert i_ty(CellQuantizer(select=second, pool=lambda z: z[:, 10:])) < 0.3  # noise alone


# --- A sample of bounded size ----------------------------------------------------------------------------------------


def held(plane):
    """How many rows, and bytes, the plane's sample holds in tensors."""
    found = [chunk for chunks in plane.sampled._reservoir._rows.values() for chunk in chunks]
    return max((len(chunk) for chunk in found), default=0), sum(chunk.untyped_storage().nbytes() for chunk in found)


def wide(x):
    return x.repeat(1, 25)  # 200 coordinates


def test_memory_does_not_grow_with_the_number_of_samples():
    """At most about twice ``max_samples`` rows of 512 bytes a layer, with the labels and what waits in a batch."""
    plane = InformationPlane({"a": None, "b": CellQuantizer(pool=lambda z: z[:, 50:])}, max_samples=1000)
    model, most = net(a=wide, b=wide), 0
    with plane.attach(model):
        for k in range(50):
            x = randn(1000, 8, seed=k)
            model(x)
            plane.update(x, torch.arange(1000) % 4)
            rows, size = held(plane)
            most = max(most, size)
            assert rows <= 2 * (1000 + 8)
    a_layer, others = 2 * 1008 * 512, 2 * 1008 * 3 * 8  # the label, the place in the batch, the sum of x
    assert 1000 * 512 < most <= 2 * a_layer + others
    points = plane.compute()
    assert [point.n_samples for point in points] == [1000, 1000]
    assert plane.drawn().layers["a"].shape == (1000, 128)


def test_nothing_else_holds_the_activations():
    plane = InformationPlane(["layer"], max_samples=100)
    model = net(layer=lambda x: x[:, :1].repeat(1, 997))
    counted(plane, model, [(randn(500, 4, seed=k), torch.arange(500) % 2) for k in range(6)])
    gc.collect()
    left = [found for found in gc.get_objects() if type(found) is torch.Tensor and found.shape[1:] == (997,)]
    assert left == []


def sampled_places(plane, n, size):
    """Which of the samples 0 … n − 1 are sampled, each of them being its own number."""
    plane.reset()
    numbers = torch.arange(n, dtype=torch.float64)[:, None]
    counted(plane, net(layer=same), batches(numbers, torch.arange(n) % 3, size))
    rows, labels = plane.drawn().layers["layer"][:, 0], plane.drawn().others["y"]
    assert torch.equal(rows.long() % 3, labels)
    return rows.long().tolist()


@pytest.mark.slow
def test_the_same_samples_at_every_pass_and_for_any_batch_size():
    plane = InformationPlane(["layer"], max_samples=200)
    first = sampled_places(plane, 5000, 50)
    assert len(set(first)) == 200
    assert max(first) > 4500
    assert min(first) < 500
    for size in (50, 1, 7, 333, 5000):
        assert sampled_places(plane, 5000, size) == first
    assert sampled_places(InformationPlane(["layer"], max_samples=200), 5000, 64) == first


@pytest.mark.parametrize("size", [1, 7, 64, 3000])
def test_the_batch_size_changes_no_figure(size):
    x, y = torch.randint(-8, 9, (1200, 300), generator=generator()) / 8, torch.arange(1200) % 3
    options = {"max_samples": 500}
    assert repr(measured(same, x, y, size, **options)) == repr(measured(same, x, y, 100, **options))


def test_fewer_samples_than_the_sample_are_all_taken():
    assert measured(same, *clusters(700, 4), max_samples=701).n_samples == 700
    assert measured(same, *clusters(700, 4), max_samples=700).n_samples == 700
    assert measured(same, *clusters(700, 4), max_samples=699).n_samples == 699


def test_ten_thousand_samples_are_taken_by_default():
    x, y = clusters(12_000, 4)
    point = measured(same, x, y, 3000)
    assert point.n_samples == 10_000
    assert point.i_ty == pytest.approx(2, abs=0.001)
    assert point.h_x == pytest.approx(math.log2(10_000))


def test_bins_count_every_sample_and_cells_a_sample_of_them():
    x, y = clusters(3000, 4)
    bins = Quantizer(lambda z: z[:, :4], FixedBins([5.0]))
    plane = InformationPlane({"binned": bins, "cut": None}, max_samples=500)
    binned, cut = counted(plane, net(binned=same, cut=same), batches(x, y))
    assert (binned.n_samples, binned.source, cut.n_samples, cut.source) == (3000, "binned", 500, "cells")
    assert binned.h_x == pytest.approx(math.log2(3000))
    assert cut.h_x == pytest.approx(math.log2(500))
    assert binned.i_ty == pytest.approx(2)
    assert cut.i_ty == pytest.approx(cut.h_y)
    alone = [measure(net(t=same), batches(x, y), {"t": q}, max_samples=500)[0] for q in (bins, None)]
    assert [repr(p._replace(layer="t")) for p in (binned, cut)] == [repr(p) for p in alone]
    assert list(plane.fitted_quantizers) == ["binned"]
    assert list(plane.discretized) == ["cut"]


@pytest.mark.parametrize("max_samples", [300, 5000])
def test_a_discretized_input_goes_with_cells(max_samples):
    x, y = clusters(3000, 4)
    plane = InformationPlane(["layer"], input=Quantizer(lambda x: x[:, :2], FixedBins([5.0])), max_samples=max_samples)
    (point,) = counted(plane, net(layer=same), batches(x, y))
    n = min(max_samples, 3000)
    assert point.n_samples == n
    # Y is in one of four clusters, and X tells two of them, and the other two from those.
    assert point.h_t == pytest.approx(2, abs=0.02)
    assert point.i_xt == pytest.approx(1.5, abs=0.03)
    assert point.h_x == pytest.approx(1.5, abs=0.03)
    assert point.i_ty == pytest.approx(point.h_y)
    assert point.i_xt_given_y == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("bins", [QuantileBins(4), UniformBins(4), FixedBins([1.0, 2.0, 3.0])], ids=repr)
@pytest.mark.parametrize("max_samples", [400, 5000])
def test_a_real_target_goes_with_cells(bins, max_samples):
    y = torch.arange(2000) % 4 + 0.25 + 0.5 * torch.rand(2000, generator=generator())
    x = 30 * torch.eye(4, 8)[y.long()] + randn(2000, 8)
    plane = InformationPlane(["layer"], target=Quantizer(None, bins), max_samples=max_samples)
    for _ in range(2):  # its edges are fitted on all samples, then frozen
        plane.reset()
        (point,) = counted(plane, net(layer=same), batches(x, y))
        assert point.n_samples == min(max_samples, 2000)
        assert point.h_y == pytest.approx(2, abs=0.03)
        assert point.i_ty == pytest.approx(point.h_y, abs=0.01)
        assert math.isnan(point.accuracy)
    assert "edges" in plane.frozen_state()["target"]


def test_an_input_or_target_that_is_not_finite_costs_its_own_figures():
    x, y = clusters(400, 4)
    bad = x.clone()
    bad[3] = math.nan
    plane = InformationPlane(["layer"], input=Quantizer(None, QuantileBins(2)))
    model = net(layer=lambda x: x.nan_to_num(0))
    with pytest.warns(UserWarning, match=r"the input gave NaN or infinite values in \d+ of 400 samples"):
        (point,) = counted(plane, model, [(bad, y)])
    assert math.isnan(point.i_xt)
    assert point.i_ty > 1.9
    plane = InformationPlane(["layer"], target=Quantizer(None, QuantileBins(4)))
    real = y.float()
    real[7] = math.nan
    with pytest.warns(UserWarning, match=r"the target gave NaN or infinite values in \d+ of 400 samples"):
        (point,) = counted(plane, net(layer=same), [(x, real)])
    assert math.isnan(point.i_ty)
    assert point.h_t == pytest.approx(2)


def test_no_random_state_is_moved():
    before = torch.get_rng_state()
    x, y = clusters(600, 4, 300)
    for max_samples in (100, 1000):
        measured(same, x, y, max_samples=max_samples)
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_of_cells_goes_into_a_checkpoint():
    plane = InformationPlane(["layer"])
    counted(plane, net(layer=same), batches(*clusters(400, 4)))
    assert plane.frozen_state() == {"layers": {}}


def test_targets_of_several_shapes_are_one_warning_and_leave_the_rest():
    """Rows of real numbers in one batch, and single ones in another."""
    model, plane = nn.Sequential(nn.Linear(3, 4)), InformationPlane(["0"])
    with plane.attach(model), torch.no_grad():
        for y in (torch.randn(32), torch.randn(32, 3)):
            x = torch.randn(32, 3)
            model(x)
            plane.update(x, y)
    with pytest.warns(UserWarning, match="^the target was not read at epoch 2: its samples have different shapes"):
        (point,) = plane.compute(epoch=2)
    assert math.isnan(point.i_ty)
    assert math.isfinite(point.h_t)
