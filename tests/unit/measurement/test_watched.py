"""Layers that a measurement watches: which of them ran, and that hooks change nothing of the model."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from lightning_ib import FixedBins, InformationPlane, Quantizer, measure
from tests.helpers.nets import known_net
from tests.helpers.planes import QUANTIZERS, WHOLE, Branches, branches_data, counted, hooks_on
from tests.helpers.records import exact
from tests.helpers.samples import generator

pytestmark = pytest.mark.usefixtures("one_thread")


# -- Layers that did not run -------------------------------------------------------------------------------------------


def test_a_named_layer_that_never_ran_is_an_error():
    with pytest.raises(RuntimeError, match="layer 'extra' never ran in this forward, so there is nothing to measure"):
        measure(Branches(), branches_data(), ["trunk", "extra"])


def test_a_layer_picked_by_default_that_never_ran_is_left_out():
    model = Branches()
    with pytest.warns(UserWarning, match="layer 'extra' is left out: picked by default, it never ran") as caught:
        points = measure(model, branches_data() * 3)
    assert len(caught) == 1
    assert [point.layer for point in points] == ["trunk", "head"]
    assert hooks_on(model) == []


def test_a_layer_that_was_left_out_stays_out_for_the_measurement():
    model, plane = Branches(), InformationPlane()
    x, y = branches_data()[0]
    with plane.attach(model):
        model(x)
        with pytest.warns(UserWarning, match="left out"):
            plane.update(x, y)
        model.use_extra = True
        model(x)
        plane.update(x, y)
    assert [(point.layer, point.n_samples) for point in plane.compute()] == [("trunk", 80), ("head", 80)]


def test_no_layer_that_ran_is_an_error():
    plane = InformationPlane()
    with plane.attach(Branches()), pytest.raises(RuntimeError, match="layer 'trunk', 'extra', 'head' never ran"):
        plane.update(torch.rand(4, 4), torch.arange(4))


def test_a_named_layer_that_stops_running_is_an_error():
    model, plane = Branches(), InformationPlane(["trunk", "extra"])
    model.use_extra = True
    x, y = branches_data()[0]
    with plane.attach(model):
        model(x)
        plane.update(x, y)
        model.use_extra = False
        model(x)
        with pytest.raises(RuntimeError, match="layer 'extra' never ran in this forward"):
            plane.update(x, y)


def test_a_layer_picked_by_default_that_stops_running_is_left_out():
    model, plane = Branches(), InformationPlane(estimators=["probe", "soft"], max_samples=30)
    model.use_extra = True
    x, y = branches_data()[0]
    with plane.attach(model):
        for k in range(4):
            model.use_extra = k < 2
            model(x + k)
            with warnings.catch_warnings() if k != 2 else pytest.warns(UserWarning, match="layer 'extra' is left out"):
                plane.update(x + k, y)
    assert [(point.layer, point.n_samples) for point in plane.compute()] == [("trunk", 30), ("head", 30)]
    assert {one.layer for one in plane.estimate()} == {"trunk", "head"}


def test_a_head_that_stops_running_is_left_out_with_what_it_predicted():
    class Net(Branches):
        def forward(self, x):
            return self.head(self.trunk(x)) if self.use_extra else self.trunk(x)

    model, plane = Net(), InformationPlane(max_samples=30)
    model.use_extra = True
    x, y = branches_data()[0]
    with plane.attach(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k in range(4):
            model.use_extra = k < 2
            model(x + k)
            plane.update(x + k, y)
        assert [(point.layer, point.n_samples) for point in plane.compute()] == [("trunk", 30)]
    assert plane.head is None


class Positions(nn.Module):
    """As many positions as a batch has samples."""

    def __init__(self, n=16):
        super().__init__()
        self.token, self.position, self.out = nn.Embedding(50, 8), nn.Embedding(n, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.out((self.token(x) + self.position(torch.arange(self.position.num_embeddings)))[:, 0])


def positions_data(n=80, size=16):
    x = torch.randint(0, 50, (n, 16), generator=generator())
    return [(x[k : k + size], x[k : k + size, 0] % 3) for k in range(0, n, size)]


@pytest.mark.parametrize("without_target", [False, True])
def test_a_layer_picked_by_default_that_follows_the_place_in_the_batch_is_left_out(without_target):
    data = [(x, None if without_target else y) for x, y in positions_data()]
    sentence = "layer 'position' is left out: picked by default, it put out the same rows in every batch"
    with pytest.warns(UserWarning, match=sentence) as caught:
        points = measure(Positions(), data)
    assert len(caught) == 1
    assert [point.layer for point in points] == ["token", "out"]


def test_a_named_layer_that_follows_the_place_in_the_batch_is_warned_of():
    with pytest.warns(UserWarning, match="layer 'position' put out the same rows .*, and its values say nothing"):
        assert [p.layer for p in measure(Positions(), positions_data(), ["token", "position"])] == ["token", "position"]


def test_rows_of_the_positions_that_do_not_fit_the_last_batch_leave_the_layer_out():
    with pytest.warns(UserWarning, match="layer 'position' is left out: .* it put out 16 rows for 8 labels"):
        assert [point.layer for point in measure(Positions(), positions_data(72))] == ["token", "out"]


def test_data_that_repeats_from_batch_to_batch_leaves_no_layer_out():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        points = measure(Branches(), branches_data() * 3, ["trunk", "head"])
    assert [point.layer for point in points] == ["trunk", "head"]


@pytest.mark.parametrize(
    ("output", "what"),
    [
        (lambda x: torch.distributions.Categorical(logits=x), "its output holds no tensor, it is a Categorical"),
        (lambda x: x.mean(), "got a single number"),
        (lambda x: torch.fft.rfft(x), "got complex values"),
        (lambda x: None, "its output holds no tensor, it is a NoneType"),
    ],
)
def test_a_layer_whose_output_cannot_be_recorded_is_left_out_or_a_sentence_where_it_is_named(output, what):
    class Odd(Branches):
        def forward(self, x):
            self.extra(x)
            return super().forward(x)

    class Extra(nn.Linear):
        def forward(self, x):
            return output(super().forward(x))

    model = Odd()
    model.extra = Extra(4, 4)
    with pytest.warns(UserWarning, match=f"layer 'extra' is left out: picked by default, it .*{what}"):
        assert [point.layer for point in measure(model, branches_data())] == ["trunk", "head"]
    with pytest.raises(ValueError, match=f"layer 'extra' could not be recorded: {what}.* Or leave it out of layers="):
        measure(model, branches_data(), ["trunk", "extra"])
    assert hooks_on(model) == []


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_torchscript_that_nobody_named_is_left_out():
    model = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Tanh())), nn.Linear(4, 2))
    with pytest.warns(UserWarning, match="layer '1' is not among the layers picked by default: TorchScript"):
        assert [point.layer for point in measure(model, branches_data())] == ["0", "2"]
    assert hooks_on(model) == []


class Exportable(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        self.rnn, self.head = nn.GRU(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.rnn(self.features(x).relu_()[:, None])[0][:, -1])


@pytest.mark.filterwarnings("ignore:The tensor attributes .* were assigned during export")
def test_a_module_out_of_torch_export_is_measured_as_it_is():
    model, (data,) = Exportable().eval(), branches_data()
    shapes = ({0: torch.export.Dim("batch", min=2, max=64)},)
    program = torch.export.export(model, (torch.rand(8, 4),), dynamic_shapes=shapes)
    layers = ["features.0", "features.2", "rnn", "head", "features"]
    plain = [(p.layer, pytest.approx(p.h_t)) for p in measure(model, [data], layers)]
    assert [(p.layer, p.h_t) for p in measure(torch.export.unflatten(program), [data], layers)] == plain

    graph = program.module()
    code, modules = graph.code, [name for name, _ in graph.named_modules()]
    assert [(p.layer, p.h_t) for p in measure(graph, [data], layers)] == plain
    with pytest.raises(Exception, match="Guard failed|mat1 and mat2"):
        measure(graph, [(torch.rand(8, 5), torch.zeros(8).long())], layers)
    assert graph.code == code
    assert [name for name, _ in graph.named_modules()] == modules, "the graph is what it was"

    both = nn.Sequential(nn.Dropout(0.9), graph, nn.Linear(2, 2))
    points = measure(both, [data], ["1.rnn", "2"])
    assert both.training
    assert [p.h_t for p in points] == pytest.approx(
        [p.h_t for p in measure(nn.Sequential(both[0], model, both[2]), [data], ["1.rnn", "2"])]
    ), "the dropout was in eval mode"


class Tagged(torch.Tensor):
    """As MONAI's MetaTensor: it goes through every operation, its results are its own, and it refuses one in place."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "").startswith("fill_diagonal"):
            raise TypeError("not in place")
        return super().__torch_function__(func, types, args, kwargs or {})


def test_estimators_take_activations_and_labels_of_a_tensor_subclass():
    estimators = ["probe", "kde", "knn", "mixed", "copula", "renyi"]
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh())

    def found(convert):
        plane = InformationPlane(["0", "1"], estimators=estimators)
        with plane.attach(model), torch.no_grad():
            for x, y in branches_data(100):
                model(convert(x))
                plane.update(convert(x), convert(y))
        return exact(plane.compute()), exact(plane.estimate())

    assert found(lambda t: t.as_subclass(Tagged)) == found(lambda t: t)


def test_an_update_without_a_forward_is_an_error():
    model, plane = known_net(same=lambda x: x), InformationPlane({"same": WHOLE})
    with plane.attach(model):
        model(torch.rand(4, 1))
        plane.update(None, torch.arange(4))
        with pytest.raises(RuntimeError, match="never ran"):
            plane.update(None, torch.arange(4))


def test_a_layer_that_was_left_out_may_run_later():
    model, plane = Branches(), InformationPlane()
    with pytest.warns(UserWarning, match="left out"):
        counted(plane, model, branches_data())
    plane.reset()
    model.use_extra = True
    assert {"trunk", "head"} <= {point.layer for point in counted(plane, model, branches_data())}


# -- The hooks and the model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_come_off_however_the_block_ends(error):
    model, plane = Branches(), InformationPlane(["trunk"])

    def block():
        with plane.attach(model):
            model(torch.rand(2, 4))
            raise error

    with pytest.raises(error):
        block()
    assert hooks_on(model) == []


def test_a_failing_pool_raises_in_update_and_not_in_the_forward():
    model = Branches()
    plane = InformationPlane({"trunk": Quantizer(nn.MaxPool3d(4), FixedBins([0.0]))})
    with plane.attach(model):
        model(torch.rand(2, 4))
        with pytest.raises(ValueError, match="layer 'trunk' could not be recorded: "):
            plane.update(None, torch.arange(2))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_watching_changes_neither_outputs_nor_gradients_nor_randomness(name):
    def step(watched):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 2))
        x = torch.randn(8, 6, generator=generator())
        plane = InformationPlane({"*": QUANTIZERS[name]()})
        recorder = plane.attach(model) if watched else None
        for _ in range(2):
            out = model(x)
            if watched:
                plane.update(x, torch.arange(8))
        out.square().sum().backward()
        if watched:
            plane.compute()
            recorder.remove()
        return [out, torch.get_rng_state(), *(p.grad for p in model.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(step(True), step(False)))


def test_a_pool_that_works_in_place_changes_no_output():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(8, 4, generator=generator())
    expected = model(x)
    with InformationPlane({"0": Quantizer(nn.ReLU(inplace=True), FixedBins([0.5]))}).attach(model):
        assert torch.equal(model(x), expected)


def test_a_watched_model_can_be_pickled():
    model, plane = nn.Sequential(nn.Linear(4, 2)), InformationPlane(["0"])
    with plane.attach(model):
        pickle.dumps(model)


def test_a_copy_of_a_watched_model_works_and_is_not_counted():
    # Averaged weights are kept in such a copy.
    model, plane = nn.Sequential(nn.Linear(4, 2)), InformationPlane({"0": WHOLE})
    x = torch.rand(8, 4)
    with plane.attach(model):
        duplicate = copy.deepcopy(model)
        model(x)
        duplicate(x + 1)
        plane.update(x, torch.arange(8) % 2)
        duplicate(x)
    assert plane.compute() == measure(model, [(x, torch.arange(8) % 2)], {"0": WHOLE})


def test_a_compiled_model_can_be_measured_by_default():
    model = nn.Sequential(nn.Linear(4, 2))
    data = branches_data()
    assert measure(torch.compile(model, backend="eager"), data) == measure(model, data)


def test_a_compiled_model_can_be_measured_by_name():
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    data = branches_data()
    assert measure(torch.compile(model, backend="eager"), data, ["0", "1"]) == measure(model, data, ["0", "1"])


def test_a_layer_of_one_number_a_sample_can_be_measured_twice():
    model, plane = known_net(score=lambda x: x[:, 0]), InformationPlane(["score"])
    data = [(torch.randn(100, 2, generator=generator()), torch.arange(100) % 2)]
    first = counted(plane, model, data)
    plane.reset()
    assert counted(plane, model, data) == first


# -- Several processes -------------------------------------------------------------------------------------------------


class TwiceAndNormed(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.norm, self.head = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.norm(self.shared(self.shared(x).relu())))


def test_of_an_exported_module_the_last_call_counts_and_names_outside_are_not_its_own():
    teacher, (data,) = TwiceAndNormed().eval(), branches_data()
    program = torch.export.export(teacher, (data[0],))

    class Student(nn.Module):
        def __init__(self, teacher):
            super().__init__()
            self.teacher, self.shared, self.head = teacher, nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.shared(x)) + self.teacher(x)

    torch.manual_seed(1)
    plain = Student(teacher)
    exported = copy.deepcopy(plain)
    exported.teacher = program.module()
    points, points_of = (measure(model, [data]) for model in (exported, plain))
    assert [point.layer for point in points] == ["teacher.shared", "teacher.head", "shared", "head"]
    assert [(p.layer, pytest.approx(p.h_t)) for p in points_of] == [(p.layer, p.h_t) for p in points]
