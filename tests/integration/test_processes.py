"""Several real processes: the same figures as one, whatever the shares; no deadlock; training left alone."""

import math
import re

import pytest
import torch
import torch.distributed.fsdp

from lightning_ib import InformationPlane, InformationPoint
from lightning_ib.estimators.registry import checked_estimators
from lightning_ib.evaluation.passes import preserve_state, run_pass
from lightning_ib.records import Record
from lightning_ib.records.tags import format_tag, is_diagnostic
from tests.helpers.processes import (
    ALL_IN_BINS,
    BINS,
    DEFAULT,
    EPOCHS,
    ESTIMATES,
    N_OWN,
    N_TRAIN,
    N_VAL,
    SAMPLED,
    TARGETS,
    TOKENS,
    Drawing,
    batches,
    sequences,
)
from tests.helpers.records import exact
from tests.helpers.tiny import TinyModule, make_data

pytestmark = [
    pytest.mark.slow,
    # Of two or five samples
    pytest.mark.filterwarnings("ignore:.* could not be estimated"),
]

# Scenarios that do not deal samples to processes one by one give them other places than one process does, and by its
# place a probe deals a sample to a fold.
OTHER_PLACES = ("batched", "list", "none", "iterable", "default-none")

TWO = ["alone", "alone-train", "val", "train", "own", "sampled", "batched", "list", "steps", "few", "none"]
TWO += ["iterable", "fails", "breaks", "fits-not", "fits-not-own", "scaled", "histories"]
TWO += ["targets", "targets-lost", "tokens", "loses-one", "gradients", "drawn", "drawn-not"]
BY_DEFAULT = ["default", "default-sampled", "default-own", "default-none"]
ESTIMATING = ["estimates", "estimates-sampled", "estimates-own"]
THREE = ["fewer", "default", "default-none", "geometry"]
SHARDED = ["sharded", "sharded-own", "sharded-gradients"]


RUN = """
import runpy, warnings
warnings.simplefilter("ignore")
runpy.run_module("tests.helpers.processes", run_name="__main__", alter_sys=True)
"""


def launch(programs, factory, name, **scenarios):
    """Run scenarios, and find what they left: strategy → how many processes, and the names of the scenarios."""
    folder = factory.getbasetemp() / name
    words = [word for strategy, (n, names) in scenarios.items() for word in (f"{strategy}:{n}", *names)]
    ran = programs.run(RUN, folder, *words, timeout=600)
    assert ran.returncode == 0, ran.stderr[-4000:]
    processes = {one: n for n, names in scenarios.values() for one in names}

    def found(scenario):
        ranks = range(processes[scenario])
        return [torch.load(folder / scenario / f"{rank}.pt", weights_only=False) for rank in ranks]

    found.folder, found.output = folder, ran.stdout + ran.stderr
    return found


@pytest.fixture(scope="module")
def two(programs, tmp_path_factory):
    """Two processes, each started as a program of its own; at the end each holds half of every weight."""
    sharded = SHARDED if hasattr(torch.distributed.fsdp, "fully_shard") else []
    ddp = [*TWO, *BY_DEFAULT, *ESTIMATING]
    return launch(programs, tmp_path_factory, "two", ddp=(2, ddp), model_parallel=(2, sharded))


@pytest.fixture(scope="module")
def anew(programs, tmp_path_factory):
    """Processes that are started anew for every scenario: three that are forked, then two spawned, which take long."""
    return launch(programs, tmp_path_factory, "anew", ddp_fork=(3, THREE), ddp_spawn=(2, ["val"]))


@pytest.fixture
def sharded(request):
    """Two processes that hold half of every weight each."""
    if not hasattr(torch.distributed.fsdp, "fully_shard"):
        pytest.skip("fully_shard has its public name since torch 2.6")
    return request.getfixturevalue("two")


def measured_alone(weights, data, **options):
    """The same measurements in this one process, from the weights the processes had at each of them."""
    plane, points, estimates = InformationPlane(**({"estimators": ["probe"]} | options)), [], []
    dtype = weights[0]["out.weight"].dtype
    model, data = TinyModule().to(dtype), [(x.to(dtype), y) for x, y in data]
    for epoch, state in enumerate(weights):
        model.load_state_dict(state)
        plane.reset()
        with plane.attach(model), preserve_state(model):
            run_pass(plane, data, lambda parts: model(parts.x))
            points += plane.compute(epoch=epoch)
            estimates += plane.estimate(epoch=epoch)
    return points, estimates, plane


def assert_same(found, data, but=(), **options):
    """The figures of every process, and of its estimators, are those of one, and so is how it came to them.

    Estimators that are named in ``but`` are the same in all processes only.
    """
    points, estimates, plane = measured_alone(found[0]["weights"], data, **options)
    estimates = [one for one in estimates if one.source not in but]
    for process in found:
        assert process["discretized"] == plane.discretized
        assert process["head"] == plane.head
        assert_equal([InformationPoint(*point) for point in process["history"]], points)
        found_estimates = [Record(*estimate) for estimate in process["estimates"]]
        assert_equal([one for one in found_estimates if one.source not in but], estimates)
        assert exact(process["estimates"]) == exact(found[0]["estimates"])


def assert_equal(records, expected):
    assert len(records) == len(expected)
    for record, alone in zip(records, expected):
        alone = alone._replace(step=record.step)
        for name, figure, reference in zip(record._fields, record, alone):
            if isinstance(reference, float):
                assert figure == pytest.approx(reference, abs=1e-9, nan_ok=True), (name, record, alone)
            else:
                assert figure == reference, (name, record, alone)


VALIDATION, TRAINING, OWN = batches(N_VAL, 1), batches(N_TRAIN, 0), batches(N_OWN, 2)


@pytest.mark.parametrize(
    ("name", "data", "options"),
    [
        ("val", VALIDATION, BINS),
        ("train", TRAINING, BINS),
        ("own", OWN, BINS),
        ("batched", OWN, {}),
        ("list", OWN, BINS),
        ("few", batches(5, 2), {"layers": {"out": None}}),
        ("none", VALIDATION, BINS),
        ("iterable", VALIDATION, BINS),
    ],
)
def test_two_processes_have_the_figures_of_one(two, name, data, options):
    assert_same(two(name), data, but=["probe"] if name in OTHER_PLACES else (), **options)


def test_two_processes_have_several_targets_as_one_has_and_leave_one_out_together(two):
    processes, records = two("targets"), []
    plane = InformationPlane(**BINS, targets=TARGETS, estimators=["soft"], companions="all")
    model = TinyModule().double()
    for epoch, state in enumerate(processes[0]["weights"]):
        model.load_state_dict(state)
        plane.reset()
        with plane.attach(model), preserve_state(model):
            run_pass(plane, [(x.double(), y) for x, y in VALIDATION], lambda parts: model(parts.x))
            records += [*plane.compute(epoch=epoch).records(), *plane.estimate(epoch=epoch)]
    assert {one.target for one in records} == {"", *TARGETS}
    assert {one.target for one in records if one.source == "classes"} == {"class", "coarse"}
    for process in processes:
        found = [Record(*one) for one in process["records"]]
        assert_equal([one for one in found if one.quantity != "cka_to_last"], records)
    for process in two("targets-lost"):
        of_y = [Record(*one) for one in process["records"] if one[4] == "I_TY"]
        assert {(one.target, math.isnan(one.value)) for one in of_y} == {
            ("class", False),
            ("coarse", True),
            ("first", False),
        }


def test_two_processes_have_the_tokens_of_one(two):
    data = [sequences(N_VAL, 1)[k : k + 8] for k in range(0, N_VAL, 8)]
    found = two("tokens")
    assert_same(found, data, but=["probe"], **TOKENS)  # it deals tokens to its folds by their places, which are others
    n = int((sequences(N_VAL, 1)[:][1] != -100).sum())
    assert {InformationPoint(*point).n_samples for point in found[1]["history"]} == {n}


def test_a_layer_left_out_in_one_process_and_a_failure_in_another_are_nan_in_all(two):
    one, other = two("loses-one")
    assert exact(one["history"]) == exact(other["history"])
    assert {(point[2], math.isnan(point[3])) for point in one["history"]} == {("hidden", True), ("out", True)}


# The validation loop, the same with fewer samples than there are, a pass of its own, and a process without batches.
@pytest.mark.parametrize(
    ("processes", "name", "data", "n_samples"),
    [
        ("two", "default", VALIDATION, N_VAL),
        ("two", "default-sampled", VALIDATION, 40),
        ("two", "default-own", OWN, 40),
        ("two", "default-none", VALIDATION, N_VAL),
        ("anew", "default", VALIDATION, N_VAL),
        ("anew", "default-none", VALIDATION, N_VAL),
    ],
)
def test_several_processes_have_the_cells_head_probe_and_soft_entropies_of_one(
    request, processes, name, data, n_samples
):
    found = request.getfixturevalue(processes)(name)
    but = ["probe"] if name in OTHER_PLACES else ()
    assert_same(found, data, but=but, **DEFAULT, max_samples=n_samples)
    for process in found:
        points = [InformationPoint(*point) for point in process["history"]]
        assert {(point.source, point.n_samples) for point in points} == {("cells", n_samples)}, "none is there twice"
        assert all(math.isfinite(point.i_ty_fano) for point in points)
        assert (process["head"].layer, process["head"].n_classes) == ("out", 4)
        seen = {(one.source, one.epoch > 0): one.n_samples for one in map(Record._make, process["estimates"])}
        whole = sum(len(y) for _, y in data)
        assert seen == {
            ("probe", False): n_samples,
            ("probe", True): n_samples,
            ("soft", False): n_samples,
            ("soft", True): whole,
        }


@pytest.mark.parametrize(
    ("name", "data", "options", "n_rows"),
    [
        ("estimates", VALIDATION, {}, N_VAL),
        ("estimates-sampled", VALIDATION, SAMPLED, 8),
        ("estimates-own", OWN, {"max_samples": 40}, 40),
    ],
)
def test_two_processes_have_the_estimates_of_one(two, name, data, options, n_rows):
    found = two(name)
    options = ESTIMATES | options
    assert_same(found, data, **options)
    for process in found:
        estimates = [Record(*estimate) for estimate in process["estimates"]]
        assert {estimate.epoch for estimate in estimates} == set(range(EPOCHS + 1))
        assert {estimate.source for estimate in estimates} == {
            one.name for one in checked_estimators(options["estimators"])
        }
        streamed = [estimate for estimate in estimates if estimate.source == "soft" and estimate.epoch > 0]
        rows = {estimate.n_samples for estimate in estimates if estimate not in streamed}
        assert rows == {n_rows}, "repeated samples are left out"
        assert {estimate.n_samples for estimate in streamed} == {sum(len(y) for _, y in data)}
        assert all(math.isfinite(estimate.value) for estimate in estimates)
        assert all(math.isfinite(InformationPoint(*point).i_ty_permuted) for point in process["history"])


def test_three_processes_have_the_geometry_of_one(anew):
    found = anew("geometry")
    options = {"estimators": (), "companions": "all"}
    _, alone, plane = measured_alone(found[0]["weights"], VALIDATION, **options)
    to_last = {(one.epoch, one.layer): one.value for one in plane.cka_to_last()}
    for process in found:
        estimates = [Record(*estimate) for estimate in process["estimates"]]
        assert_equal([one for one in estimates if one.quantity != "cka_to_last"], alone)
        own = {(one.epoch, one.layer): one.value for one in estimates if one.quantity == "cka_to_last"}
        assert own == pytest.approx(to_last, abs=1e-6)
        assert exact(process["estimates"]) == exact(found[0]["estimates"])
    assert {one.n_samples for one in alone} == {N_VAL}
    assert set(found[0]["edges"]["drift"]["rows"]) == {"hidden", "out"}


def test_all_processes_set_the_same_and_log_the_same_estimates(two):
    one, other = two("estimates")
    assert one["edges"]["estimators"] == other["edges"]["estimators"]
    assert exact(one["estimates"]) == exact(other["estimates"])
    last = {estimate[2:5]: Record(*estimate) for estimate in one["estimates"]}
    assert len(last) == 2 * (5 + 1 + 2 + 5 + 2)
    for (layer, source, quantity), record in last.items():
        unit = record.unit if is_diagnostic(quantity, source) else ""
        name = format_tag("ib", quantity, layer, source=source, unit=unit)
        assert one["logged"][name] == other["logged"][name] == pytest.approx(record.value, rel=1e-6)


def test_training_in_two_processes_is_bit_identical_with_estimators_and_without(two):
    for watched, alone in zip(two("estimates"), two("alone")):
        assert watched["losses"] == alone["losses"]
        assert torch.equal(watched["random"], alone["random"])
        for key, value in alone["weights"][-1].items():
            assert torch.equal(watched["weights"][-1][key], value)


def test_only_the_first_process_writes_estimates_and_shows_all_rows(two):
    folder = two.folder / "estimates"
    for name in ("information_plane.csv", "estimators.png", "projector_config.pbtxt"):
        assert len(list(folder.rglob(name))) == 1, name
    shown = list(folder.rglob("metadata.tsv"))
    assert len(shown) == 2 * (EPOCHS + 1)
    assert len({path.read_text() for path in shown}) == 1
    assert len(shown[0].read_text().split()) == N_VAL
    assert two.output.count("ib: out: kde: noise_variance = ") == len(ESTIMATING)


def test_spawned_processes_have_the_figures_of_one(anew):
    assert_same(anew("val"), VALIDATION, **BINS)


def test_three_processes_have_the_figures_of_one_where_samples_are_fewer(anew):
    assert_same(anew("fewer"), batches(2, 4), layers={"out": None})


@pytest.mark.parametrize(("name", "data"), [("sharded", VALIDATION), ("sharded-own", OWN)])
def test_sharded_weights_have_the_figures_of_whole_ones(sharded, name, data):
    assert_same(sharded(name), data, **ALL_IN_BINS)


@pytest.mark.parametrize("name", ["gradients", "sharded-gradients"])
def test_gradients_are_those_of_all_processes(request, two, name):
    if name != "gradients":
        request.getfixturevalue("sharded")
    one, other = two(name)
    assert exact(one["gradients"]) == exact(other["gradients"])
    found = {record[2:5]: record for record in one["gradients"] if record[0] == 1}
    n_steps = len(one["seen"]) // EPOCHS
    for layer in ("hidden", "out"):
        g = torch.stack([step[f"{layer}.weight"].flatten().double() for step in one["seen"][:n_steps]])
        expected = {"grad_mean": g.mean(0).norm(), "grad_std": g.var(0).sum().sqrt()}
        w = [weights[f"{layer}.weight"].double() for weights in one["weights"][:2]]
        expected |= {"weight_norm": w[1].norm(), "weight_distance": (w[1] - w[0]).norm()}
        for quantity, value in expected.items():
            record = Record(*found[layer, "gradient", quantity])
            assert record.value == pytest.approx(float(value), rel=1e-5), quantity
            # The distributed sampler gives both processes 31 of 61 samples.
            assert record.n_samples == 62


def test_training_in_two_processes_is_bit_identical_with_gradients_and_without(two):
    for watched, alone in zip(two("gradients"), two("alone-train")):
        assert watched["losses"] == alone["losses"]
        assert torch.equal(watched["random"], alone["random"])


def test_the_rate_of_a_drawn_code_is_that_of_all_samples_in_all_processes(two):
    one, other = two("drawn")
    assert exact(one["estimates"]) == exact(other["estimates"])
    model, (x, y) = Drawing().double(), make_data(N_VAL, 1)[:]
    for epoch, weights in enumerate(one["weights"]):
        model.load_state_dict(weights)
        with torch.no_grad():
            rate = model.act(model.hidden(x.double())).kl.mean() / math.log(2)
        found = {record.quantity: record for record in map(Record._make, one["estimates"]) if record.epoch == epoch}
        assert list(found) == ["I_XT", "I_TY"]
        assert found["I_XT"].value == pytest.approx(float(rate), rel=1e-9)
        assert {record.n_samples for record in found.values()} == {len(y)} == {N_VAL}


def test_a_code_that_one_process_cannot_draw_ends_nothing(two):
    for process in two("drawn-not"):
        assert process["estimates"] == []
        assert all(InformationPoint(*point).i_ty > 0 for point in process["history"])


def test_a_sampler_of_ones_own_is_shared_out_once(two):
    for process in two("sampled"):
        assert {InformationPoint(*point).n_samples for point in process["history"]} == {N_OWN}
    one, other = two("sampled")
    assert exact(one["history"]) == exact(other["history"])


def test_steps_are_measured_alike_in_all_processes(two):
    one, other = two("steps")
    steps = [point[1] for point in one["history"]]
    assert repr(one["history"]) == repr(other["history"])
    assert steps == [step for step in (0, 2, 4, 6, 8) for _ in range(2)]


@pytest.mark.parametrize(
    ("name", "without"),
    [
        *((name, "alone") for name in ("val", "own", "steps")),
        *((name, "alone-train") for name in ("train", "list")),
    ],
)
def test_training_in_two_processes_is_bit_identical_with_and_without(two, name, without):
    for watched, alone in zip(two(name), two(without)):
        assert watched["losses"] == alone["losses"]
        assert torch.equal(watched["random"], alone["random"])
        for key, value in alone["weights"][-1].items():
            assert torch.equal(watched["weights"][-1][key], value)


@pytest.mark.parametrize("name", ["default", "default-sampled", "default-own"])
def test_training_in_two_processes_is_bit_identical_with_cells_and_without(two, name):
    for watched, alone in zip(two(name), two("alone")):
        assert watched["losses"] == alone["losses"]
        assert torch.equal(watched["random"], alone["random"])
        for key, value in alone["weights"][-1].items():
            assert torch.equal(watched["weights"][-1][key], value)


def test_all_processes_log_the_same_figures_for_whoever_monitors_them(two):
    one, other = two("val")
    names = [name for name in one["logged"] if name.startswith("ib")]
    of_each = ["I_XT", "I_TY", "H_T"], ["", "_lower", "_upper"]
    expected = {f"ib/{name}" for name in [*of_each[0], "probe/I_TY", "probe/accuracy"]}
    expected |= {f"ib_diagnostics/nats/{name}{end}" for name in of_each[0] for end in of_each[1]}
    expected |= {f"ib_diagnostics/{name}" for name in ("saturation", "singleton_fraction", "nats/I_TY_permuted")}
    expected.add("ib_diagnostics/nats/probe/I_TY")
    assert set(names) == {f"{name}/{layer}" for name in expected for layer in ("hidden", "out")} | {
        "ib_diagnostics/clipped_fraction/hidden",
        "ib_diagnostics/accuracy/out",
        "ib_diagnostics/nats/I_TY_fano/out",
    }
    for name in names:
        assert one["logged"][name] == other["logged"][name]
    last = InformationPoint(*one["history"][-1])
    assert one["logged"]["ib/H_T/out"] == pytest.approx(last.h_t, rel=1e-6)


@pytest.mark.parametrize("rank", [0, 1])
def test_an_evaluation_alone_has_the_figures_of_the_whole_data_in_every_process(two, rank):
    evaluated = torch.load(two.folder / "val" / f"evaluated{rank}.pt", weights_only=False)
    assert repr([point[2:] for point in evaluated]) == repr([point[2:] for point in two("val")[rank]["history"][-2:]])


def test_all_processes_freeze_the_same_edges(two):
    one, other = (process["edges"]["layers"]["hidden"]["edges"] for process in two("val"))
    assert torch.equal(one, other)


def test_only_the_first_process_writes_files(two):
    assert len(list((two.folder / "val").rglob("information_plane.csv"))) == 1
    assert len(list((two.folder / "val").rglob("information_plane.png"))) == 1
    # How cells were made of it is said once: in every scenario but those without a callback, cells or values, and by
    # the evaluation after "val".
    none = ["alone", "alone-train", "fails", "breaks", "loses-one", "gradients"]
    measuring = {*TWO, *BY_DEFAULT, *ESTIMATING}.difference(none)
    assert len(re.findall("ib: out: .*coordinates", two.output)) == len(measuring) + 1


def test_a_failure_in_one_process_is_nan_in_all_and_ends_nothing(two):
    for process in two("fails"):
        points = [InformationPoint(*point) for point in process["history"]]
        assert [point.epoch for point in points] == list(range(EPOCHS + 1))
        assert math.isfinite(points[0].h_t)
        assert all(math.isnan(point.h_t) for point in points[1:])
        assert not process["hooked"]
        names = {(one.epoch, one.source, one.quantity) for one in map(Record._make, process["estimates"])}
        of_soft = ("H_T", "I_XT", "I_TY", "I_TY_floor", "I_TY_above_floor")
        assert names == {
            (epoch, *name)
            for epoch in range(EPOCHS + 1)
            for name in [("ksg", "I_XT"), *(("soft", figure) for figure in of_soft)]
        }
    told = torch.load(two.folder / "fails" / "warnings1.pt", weights_only=False)
    assert len(told) == 1
    assert "this process alone is in trouble. " in told[0]
    assert told[0].endswith(" Training goes on.")


def test_a_fit_of_edges_that_fails_in_one_process_is_nan_in_all_and_the_next_is_not(two):
    for process in two("breaks"):
        points = [InformationPoint(*point) for point in process["history"]]
        assert [math.isnan(point.h_t) for point in points] == [False, True, False]


@pytest.mark.parametrize("name", ["fits-not", "fits-not-own"])
def test_cells_that_the_first_process_cannot_fit_are_nan_in_all_and_the_next_are_not(two, name):
    for process in two(name):
        points = [InformationPoint(*point) for point in process["history"]]
        assert [math.isnan(point.h_t) for point in points] == [False, False, True, True, False, False]
        assert not process["hooked"]
    one, other = two(name)
    assert exact(one["history"]) == exact(other["history"])
    assert exact(one["estimates"]) == exact(other["estimates"])
    told = [torch.load(two.folder / name / f"warnings{rank}.pt", weights_only=False) for rank in (0, 1)]
    assert ["its points are NaN: no cells here. Training goes on." in of[0] for of in told] == [True, False]
    assert "the measurement failed in the first process: RuntimeError: no cells here." in told[1][0]


def test_a_forward_that_cannot_be_called_costs_all_processes_the_point_before_training_only(two):
    for process in two("scaled"):
        assert [point[0] for point in process["history"]] == [1, 1, 2, 2]


def test_histories_that_differ_are_settled_by_the_first_process(two):
    one, other = two("histories")
    assert repr(one["history"]) == repr(other["history"])
    assert [point[0] for point in one["history"]] == [0, 0, 1, 1, 2, 2]
    told = torch.load(two.folder / "histories" / "warnings0.pt", weights_only=False)
    assert told == [
        "ib: the processes came with different histories: all go on with that of rank 0, 29 values. Give every process "
        "the same checkpoint."
    ]
