"""Two processes that measure together have the figures of one."""

import json

import pytest

from lightning_ib import InformationPlane, QuantileBins, Quantizer
from tests.helpers.planes import LAYERS, QUANTIZERS, SHARES, Exact, counted, exact_data

pytestmark = pytest.mark.usefixtures("one_thread")

RANK = """
import json, os, sys
from datetime import timedelta
import torch, torch.distributed as dist
from lightning_ib import InformationPlane, QuantileBins, Quantizer
from tests.helpers.planes import LAYERS, QUANTIZERS, SHARES, Exact, exact_data

torch.set_num_threads(1)
folder = sys.argv[1]
other = os.fork()  # of a process that has imported all, and has begun nothing
rank, store = int(other == 0), os.path.join(folder, "store")
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=30))
x, y = exact_data()
mine = SHARES[rank]
found = {}
for name, make in QUANTIZERS.items():
    try:
        model = Exact()
        plane = InformationPlane({"layer*": make()}, input=Quantizer(None, QuantileBins(2)))
        found[name] = []
        for _ in range(2):  # fitted, then frozen
            plane.reset()
            with plane.attach(model):
                for some, labels in zip(x[mine].split(64), y[mine].split(64)):
                    model(some)
                    plane.update(some, labels)
            found[name].append(plane.compute())
    except Exception as error:
        found[name] = repr(error)


def given(plane, batches):
    model = Exact()
    with plane.attach(model):
        for some, labels in batches:
            model(some)
            plane.update(some, labels)
    return plane


own = list(zip(x[mine].split(64), y[mine].split(64)))
for name, together in {"alone": False, "together": True}.items():
    plane = given(InformationPlane(LAYERS, estimators=["kde"], across_processes=together), own)
    found[name] = [plane.compute(), plane.estimate()]
plane = given(InformationPlane(LAYERS, input=Quantizer(None, QuantileBins(2))), own if rank else [])
found["one has none"] = [plane.compute(), plane.compute()]
plane = given(InformationPlane(LAYERS), [(some, labels.double() / 3 if rank else labels) for some, labels in own])
try:
    plane.compute()
except ValueError as error:
    found["other forms"] = str(error)
with open(os.path.join(folder, f"{rank}.json"), "w") as file:
    json.dump(found, file, default=list)  # a history as its points
dist.barrier()  # who leaves first tears down what the other still waits on
dist.destroy_process_group()
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


@pytest.fixture(scope="module")
def two_ranks(programs, tmp_path_factory):
    """What each of them found."""
    folder = tmp_path_factory.mktemp("ranks")
    done = programs.run(RANK, folder, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTIZERS)
def test_two_processes_give_the_figures_of_one(two_ranks, name):
    x, y = exact_data()
    plane = InformationPlane({"layer*": QUANTIZERS[name]()}, input=Quantizer(None, QuantileBins(2)))
    expected = counted(plane, Exact(), [(x, y)])
    for found in two_ranks:
        assert [[repr(tuple(point)) for point in points] for points in found[name]] == [
            [repr(tuple(point)) for point in expected]
        ] * 2


def numbers(records):
    """Their fields, the numbers rounded as the order of the rows may change their last bits."""
    return [
        tuple(pytest.approx(value, abs=1e-9, nan_ok=True) if isinstance(value, float) else value for value in record)
        for record in records
    ]


def found_by(two_ranks, name):
    for one in two_ranks:
        found = one[name]
        yield [[tuple(record) for record in records] for records in found] if isinstance(found, list) else found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alone", "together"])
def test_two_processes_count_together_or_each_alone(two_ranks, name):
    x, y = exact_data()
    for share, (points, estimates) in zip(SHARES, found_by(two_ranks, name)):
        rows = slice(None) if name == "together" else share
        plane = InformationPlane(LAYERS, estimators=["kde"])
        assert points == numbers(counted(plane, Exact(), [(x[rows], y[rows])]))
        assert estimates == numbers(plane.estimate())
        assert {estimate[8] for estimate in estimates} == {len(x[rows])}


@pytest.mark.slow
def test_a_process_without_a_batch_has_the_figures_of_the_other(two_ranks):
    x, y = exact_data()
    plane = InformationPlane(LAYERS, input=Quantizer(None, QuantileBins(2)))
    expected = numbers(counted(plane, Exact(), [(x[SHARES[1]], y[SHARES[1]])]))
    for first, again in found_by(two_ranks, "one has none"):
        assert first == expected
        assert again == expected


@pytest.mark.slow
def test_targets_of_other_forms_are_refused_in_both_processes(two_ranks):
    one, other = found_by(two_ranks, "other forms")
    assert one == other
    assert one.startswith("the target has another form in one process than in another")
