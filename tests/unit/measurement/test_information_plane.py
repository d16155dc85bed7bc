"""One measurement after another: its figures do not depend on batches, order or what was measured before."""

import copy
import math
import pickle
import warnings

import pytest
import torch
from torch import nn

from lightning_ib import CellQuantizer, FixedBins, InformationPlane, QuantileBins, Quantizer, UniformBins, measure
from lightning_ib.functional import (
    bucketize,
    conditional_entropy,
    conditional_mutual_information,
    entropy,
    hash_table,
    mutual_information,
    row_ids,
)
from tests.helpers.nets import known_net
from tests.helpers.planes import QUANTIZERS, SIXTEEN, WHOLE, Exact, batches, counted, exact_data, hooks_on
from tests.helpers.samples import generator

pytestmark = pytest.mark.usefixtures("one_thread")


# -- Figures that are known --------------------------------------------------------------------------------------------


def by_hand(x, y, t, n_samples, unit):
    return {
        "h_x": entropy(x, unit=unit),
        "h_t": entropy(t, unit=unit),
        "h_y": entropy(y, unit=unit),
        "i_xt": mutual_information(x, t, unit=unit),
        "i_ty": mutual_information(t, y, unit=unit),
        "h_y_given_t": conditional_entropy(y, given=t, unit=unit),
        "i_xt_given_y": conditional_mutual_information(x, t, given=y, unit=unit),
        "n_samples": n_samples,
        "n_codes": len(t.unique()),
    }


@pytest.mark.parametrize("unit", ["bits", "nats"])
@pytest.mark.parametrize("discretized", [False, True])
@pytest.mark.parametrize("real_target", [False, True])
def test_figures_are_those_of_the_functional_package(unit, discretized, real_target):
    n = 400
    x = torch.randn(n, 6, generator=generator())
    y = x[:, 0] + x[:, 1] if real_target else (x[:, 0] > 0).long() + 2 * (x[:, 3] > 0.5).long()
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).double().eval()
    x = x.double()
    bins = {"0": UniformBins(3), "1": QuantileBins(2), "2": FixedBins([-0.3, 0.0, 0.3])}
    points = measure(
        model,
        batches(x, y, 64),
        {name: Quantizer(None, b) for name, b in bins.items()},
        input=Quantizer(lambda x: x[:, :3], QuantileBins(3)) if discretized else None,
        target=Quantizer(None, QuantileBins(5)) if real_target else None,
        unit=unit,
    )

    def ids(z, b):
        edges = b.edges(z)
        return row_ids(
            bucketize(z, edges=edges), table=hash_table(n_coordinates=z.shape[1], n_codes=edges.shape[-1] + 1)
        )

    with torch.no_grad():
        outputs = {"0": model[0](x), "1": model[:2](x), "2": model(x)}
    x_ids = ids(x[:, :3], QuantileBins(3)) if discretized else torch.arange(n)
    y_ids = ids(y.unsqueeze(1), QuantileBins(5)) if real_target else y
    for point in points:
        expected = by_hand(x_ids, y_ids, ids(outputs[point.layer], bins[point.layer]), n, unit)
        found = {name: getattr(point, name) for name in expected}
        assert found == pytest.approx(expected, abs=1e-12)
        assert point.unit == unit


def test_without_a_target_only_its_figures_are_missing():
    x = SIXTEEN.unsqueeze(1)
    (point,) = measure(known_net(same=lambda x: x), [(x, None)], {"same": WHOLE})
    assert (point.h_t, point.i_xt, point.h_x, point.n_samples, point.n_codes) == (4.0, 4.0, 6.0, 64, 16)
    assert point.saturation == 4 / 6
    assert all(math.isnan(v) for v in (point.i_ty, point.h_y, point.h_y_given_t, point.i_xt_given_y))


def test_without_a_target_a_discretized_input_still_counts():
    x = SIXTEEN.unsqueeze(1)
    low_bit = Quantizer(lambda x: x % 2, FixedBins([0.5]))
    (point,) = measure(known_net(same=lambda x: x), [(x, None)], {"same": WHOLE}, input=low_bit)
    assert (point.h_x, point.i_xt, point.h_t) == (1.0, 1.0, 4.0)
    assert math.isnan(point.i_ty)


def test_epoch_and_step_are_written_into_the_points():
    plane = InformationPlane({"same": WHOLE})
    model = known_net(same=lambda x: x)
    (point,) = counted(plane, model, [(SIXTEEN.unsqueeze(1), SIXTEEN)], epoch=3, step=77)
    assert (point.epoch, point.step) == (3, 77)


def test_epoch_and_step_of_a_second_compute_are_its_own():
    plane = InformationPlane({"same": WHOLE})
    counted(plane, known_net(same=lambda x: x), [(SIXTEEN.unsqueeze(1), SIXTEEN)])
    (point,) = plane.compute(epoch=3, step=77)
    assert (point.epoch, point.step) == (3, 77)


def test_one_sample_has_no_saturation():
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        (point,) = measure(known_net(same=lambda x: x), [(torch.ones(1, 1), torch.ones(1).long())], {"same": WHOLE})
    assert (point.h_t, point.h_x, point.n_samples) == (0.0, 0.0, 1)
    assert math.isnan(point.saturation)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(64,), (64, 1), (64, 1, 1)])
def test_labels_of_any_integer_dtype_count(dtype, shape):
    y = (SIXTEEN % 2).to(dtype).reshape(shape)
    (point,) = measure(known_net(same=lambda x: x), batches(SIXTEEN.unsqueeze(1), y, 10), {"same": WHOLE})
    assert (point.i_ty, point.h_y) == (1.0, 1.0)


@pytest.mark.filterwarnings("ignore:the target is -")
def test_negative_labels_are_a_class_like_any_other():
    y = SIXTEEN % 2 - 100
    (point,) = measure(known_net(same=lambda x: x), batches(SIXTEEN.unsqueeze(1), y, 10), {"same": WHOLE})
    assert point.i_ty == 1.0


def test_later_changes_of_the_batch_do_not_reach_what_was_counted():
    x, y = SIXTEEN.clone().unsqueeze(1), SIXTEEN % 4
    x = x.double()
    for quantizer in (WHOLE, Quantizer(None, UniformBins(16))):
        plane, model = InformationPlane({"same": quantizer}, input=quantizer), known_net(same=lambda x: x)
        a, b = x.clone(), y.clone()
        with plane.attach(model):
            model(a)
            plane.update(a, b)
            a.zero_(), b.zero_()  # as a loader that reuses its buffers would
        (point,) = plane.compute()
        assert (point.h_t, point.h_y, point.i_ty, point.h_x) == (4.0, 2.0, 2.0, 4.0)


# -- Batches and order do not matter -----------------------------------------------------------------------------------


@pytest.mark.parametrize("discretized", [False, True])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_batches_and_order_change_not_one_bit(name, discretized):
    x, y = exact_data()
    order = torch.randperm(len(x), generator=generator(5))

    def points(x, y, *sizes):
        data = list(
            zip(x.split(sizes[0] if len(sizes) == 1 else sizes), y.split(sizes[0] if len(sizes) == 1 else sizes))
        )
        layers = {"layer*": QUANTIZERS[name]()}
        return measure(Exact(), data, layers, input=Quantizer(None, QuantileBins(2)) if discretized else None)

    whole = points(x, y, 300)
    assert all(math.isfinite(figure) for point in whole for figure in point[3:10])
    for sizes in [(7,), (299,), (1, 1, 255, 43)]:
        assert points(x, y, *sizes) == whole, sizes
    assert points(x[order], y[order], 300) == whole
    assert points(x[order], y[order], 32) == whole


def test_batches_and_order_of_a_network_that_rounds_change_next_to_nothing():
    x = torch.randn(500, 1, 12, 12, generator=generator())
    y = (x.mean((1, 2, 3)) > 0).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 10))
    order = torch.randperm(500, generator=generator(5))
    whole = measure(model, [(x, y)])
    for data in (batches(x, y, 33), batches(x[order], y[order], 100)):
        for point, other in zip(whole, measure(model, data)):
            assert other[:3] == point[:3]
            assert other[3:13] == pytest.approx(point[3:13], abs=1e-9)


# -- One measurement after another -------------------------------------------------------------------------------------


def two_measurements(quantizer, scale):
    model = known_net(same=lambda x: x)
    plane = InformationPlane({"same": quantizer})
    x = torch.arange(16.0).repeat(4).unsqueeze(1)
    first = counted(plane, model, batches(x, SIXTEEN % 2, 10))
    plane.reset()
    second = counted(plane, model, batches(scale * x, SIXTEEN % 2, 10))
    return first[0], second[0]


@pytest.mark.parametrize("bins", [UniformBins(16), QuantileBins(16), UniformBins(16, quantiles=(0, 1))])
def test_the_second_measurement_uses_the_first_ones_edges(bins):
    first, second = two_measurements(Quantizer(None, bins), 1000.0)
    assert first.h_t == 4.0
    assert second.n_codes == 2  # zero stays in the first bin; the rest lies above the last edge
    first, second = two_measurements(Quantizer(None, bins), 1.0)
    assert second == first


def test_with_refit_every_measurement_has_edges_of_its_own():
    first, second = two_measurements(Quantizer(None, UniformBins(16, refit=True)), 1000.0)
    assert first.h_t == second.h_t == 4.0


def test_cells_are_those_of_the_epoch_alone():
    x, y = torch.randn(300, 8, generator=generator()), SIXTEEN.repeat(5)[:300]
    other = torch.randn(300, 8, generator=generator(9)).sinh()
    model, plane = known_net(same=lambda x: x), InformationPlane(["same"])
    found = []
    for data in (other, x, 4 * x, other):
        plane.reset()
        found += counted(plane, model, [(data, y)])
    assert repr(found[1]) == repr(found[2]) == repr(measure(model, [(x, y)], ["same"])[0])
    assert repr(found[0]) == repr(found[3]) != repr(found[1])
    assert plane.frozen_state() == {"layers": {}}


def test_reset_drops_what_was_counted():
    model, plane = known_net(same=lambda x: x), InformationPlane({"same": WHOLE})
    counted(plane, model, [(SIXTEEN.unsqueeze(1), SIXTEEN)])
    plane.reset()
    (point,) = counted(plane, model, [(SIXTEEN[:16].unsqueeze(1), SIXTEEN[:16] % 2)])
    assert (point.n_samples, point.h_t, point.h_y) == (16, 4.0, 1.0)


def test_counting_goes_on_after_a_compute_without_reset():
    model, plane = known_net(same=lambda x: x), InformationPlane({"same": WHOLE})
    x, y = SIXTEEN.unsqueeze(1), SIXTEEN % 2
    with plane.attach(model):
        for half in (slice(0, 16), slice(16, 64)):
            model(x[half])
            plane.update(x[half], y[half])
            points = plane.compute()
    assert points == measure(model, [(x, y)], {"same": WHOLE})


@pytest.mark.parametrize("where", ["layer", "input", "target"])
def test_counting_goes_on_after_a_compute_that_fitted_edges(where):
    x = torch.arange(8.0).repeat(8).unsqueeze(1)[: 16 + 27]
    fitted = Quantizer(None, UniformBins(8))
    layer, input, target = (fitted if where == name else WHOLE for name in ("layer", "input", "target"))
    model, plane = known_net(same=lambda x: x), InformationPlane({"same": layer}, input=input, target=target)
    with plane.attach(model):
        for some in (slice(0, 16), slice(16, None)):
            model(x[some])
            plane.update(x[some], x[some, 0])
            (point,) = plane.compute()
    # T, X and Y are one and the same.
    assert point.i_ty == point.i_xt == point.h_t == point.h_x == point.h_y


def test_a_plane_follows_its_model_to_another_attach():
    model, plane = known_net(same=lambda x: x), InformationPlane({"same": WHOLE})
    x, y = SIXTEEN.unsqueeze(1), SIXTEEN % 2
    for some in (slice(0, 20), slice(20, 64)):
        with plane.attach(model):
            model(x[some])
            plane.update(x[some], y[some])
        assert hooks_on(model) == []
    assert plane.compute() == measure(model, [(x, y)], {"same": WHOLE})


def test_attaching_again_takes_the_old_hooks_off():
    one, two, plane = known_net(same=lambda x: x), known_net(same=lambda x: x), InformationPlane({"same": WHOLE})
    plane.attach(one)
    plane.attach(one)
    assert len(hooks_on(one)) == 1
    plane.attach(two)
    assert (len(hooks_on(one)), len(hooks_on(two))) == (0, 1)
    plane.detach()
    plane.detach()
    assert hooks_on(two) == []


@pytest.mark.parametrize("quantizer", [CellQuantizer(), Quantizer(None, UniformBins(5))], ids=["cells", "uniform"])
def test_frozen_state_goes_through_a_checkpoint(quantizer, tmp_path):
    def plane():
        both = Quantizer(None, QuantileBins(3))
        return InformationPlane({"same": quantizer}, input=both, target=both)

    x = torch.randn(200, 6, generator=generator())
    model, first, resumed, fresh = known_net(same=lambda x: x), plane(), plane(), plane()
    counted(first, model, [(x, x[:, 0])])
    torch.save(first.frozen_state(), tmp_path / "state.pt")
    first.reset()
    resumed.attach(model)
    resumed.load_frozen_state(torch.load(tmp_path / "state.pt", weights_only=True))
    later = [(3 * x + 1, 2 * x[:, 0])]
    assert counted(resumed, model, later) == counted(first, model, later)
    assert counted(fresh, model, later) != first.compute()
    assert first.frozen_state()["layers"].keys() == ({"same"} if isinstance(quantizer, Quantizer) else set())


def test_frozen_state_of_other_layers_is_left_alone():
    plane = InformationPlane({"same": Quantizer(None, UniformBins(5))})
    plane.attach(known_net(same=lambda x: x))
    plane.load_frozen_state({"layers": {"gone": {"edges": torch.zeros(1), "shape": [1]}}})
    plane.load_frozen_state({})
    assert plane.fitted_quantizers["same"].edges is None


def test_a_resumed_measurement_refits_too():
    model = known_net(same=lambda x: x)
    planes = [InformationPlane({"same": Quantizer(None, UniformBins(16, refit=True))}) for _ in range(2)]
    x = torch.arange(16.0).unsqueeze(1)
    counted(planes[0], model, [(x, None)])
    planes[1].attach(model)
    planes[1].load_frozen_state(planes[0].frozen_state())
    assert counted(planes[1], model, [(1000 * x, None)])[0].h_t == 4.0


# -- A plane is a plain object -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda plane: pickle.loads(pickle.dumps(plane))])
@pytest.mark.parametrize("layers", [None, {"0": WHOLE, "head": None}], ids=["cells", "bins and cells"])
@pytest.mark.parametrize("attached", [False, True])
def test_a_copy_holds_what_was_counted_and_goes_on_by_itself(copied, layers, attached):
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("0", nn.Linear(6, 5))
    model.add_module("head", nn.Linear(5, 3))
    data = [(torch.randn(20, 6), torch.arange(20) % 3) for _ in range(3)]
    plane = InformationPlane(layers)
    with plane.attach(model) as recorder:
        for x, y in data[:2]:
            model(x)
            plane.update(x, y)
        if not attached:
            recorder.remove()
        other = copied(plane)
    assert not hooks_on(model)
    assert (other.n_seen, other.n_updates) == (40, 2)
    with pytest.raises(RuntimeError, match="update needs a model"):
        other.update(*data[2])
    points = plane.compute()
    assert other.compute() == points
    assert counted(other, model, data[2:]) == measure(model, data, layers)
    assert plane.compute() == points, "what the copy saw does not reach it"


def test_computing_twice_gives_the_same_points():
    model, data = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)), [(torch.randn(30, 6), torch.arange(30) % 3)] * 2
    plane = InformationPlane({"0": Quantizer(None, UniformBins(4)), "1": None}, input=Quantizer(None, UniformBins(2)))
    points = counted(plane, model, data)
    assert plane.compute() == plane.compute() == points
    assert [point.epoch for point in plane.compute(epoch=7)] == [7, 7]


def test_what_is_kept_of_a_batch_needs_no_gradient():
    model = nn.Sequential(nn.Linear(6, 5))
    plane = InformationPlane(["0"], input=Quantizer(lambda x: x.mean(1), UniformBins(2)), keep_rows=True)
    x = torch.randn(8, 6, requires_grad=True)
    with plane.attach(model):
        model(x)
        plane.update(x, torch.arange(8) % 2)
    drawn = plane.drawn()
    assert not any(rows.requires_grad for rows in (*drawn.layers.values(), *drawn.others.values()))


def test_updates_are_counted_from_the_start_of_the_measurement():
    model, plane = nn.Sequential(nn.Linear(6, 5)), InformationPlane(["0"])
    x, y = torch.randn(8, 6), torch.arange(8) % 2
    assert plane.n_updates == 0
    counted(plane, model, [(x, y)] * 3)
    assert (plane.n_updates, plane.n_seen, plane.n_shown) == (3, 24, 24)
    plane.reset()
    assert (plane.n_updates, plane.n_seen, plane.n_shown) == (0, 0, 0)
    with pytest.raises(ValueError, match="nothing was counted: no batch was seen"):
        plane.compute()
