"""What a batch and its target may be where nobody says so: recognized by their form, or left out with one sentence."""

import math
import warnings
from collections import UserDict, namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ib import FixedBins, InformationPlane, QuantileBins, Quantizer, measure
from lightning_ib.capture.batches import parts_of
from lightning_ib.records.reliability import VerdictWarning
from tests.helpers.nets import known_net
from tests.helpers.records import exact
from tests.helpers.samples import generator

WHOLE = Quantizer(None, FixedBins([k / 8 for k in range(-16, 16)]))
SAME = {"same": WHOLE}


def target_of(y, layers=None, **options):
    """The points of a layer that puts out its input, what was warned of, and how the target was read."""
    by_sample = not isinstance(y, int) and not (isinstance(y, torch.Tensor) and y.ndim == 0)
    x = torch.rand(len(y) if by_sample else 4, 3, generator=generator())
    plane = InformationPlane(layers, **options)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4))
    with warnings.catch_warnings(record=True) as caught, plane.attach(model):
        warnings.simplefilter("always")
        for start in range(0, len(x), 50):
            model(x[start : start + 50])
            plane.update(x[start : start + 50], y[start : start + 50] if by_sample else y)
        (point,) = plane.compute()
    return point, [str(one.message) for one in caught if not isinstance(one.message, VerdictWarning)], plane


@pytest.mark.parametrize("layers", [None, {"0": WHOLE}], ids=["cells", "bins"])
@pytest.mark.parametrize(("n", "n_bins"), [(400, 10), (60, 6), (20, 2)])
def test_a_real_target_is_put_into_bins_of_equal_mass(layers, n, n_bins):
    y = torch.randn(n, generator=generator())
    point, told, plane = target_of(y, layers)
    assert point.h_y == pytest.approx(math.log2(n_bins), abs=0.02)
    assert 0 <= point.i_ty <= point.h_y
    assert plane.target_read.startswith(f"real-valued, in {n_bins} bins of equal mass")
    assert told == []
    assert target_of(y.unsqueeze(1), layers)[0] == point


def test_a_real_target_is_that_of_bins_that_are_asked_for():
    y = torch.randn(200, generator=generator())
    asked = target_of(y, target=Quantizer(bins=QuantileBins(10)))[0]
    assert target_of(y)[0] == asked
    assert asked.h_y == pytest.approx(math.log2(10))


@pytest.mark.parametrize("layers", [None, {"0": WHOLE}], ids=["cells", "bins"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool, torch.int32, torch.uint8])
def test_whole_numbers_of_few_values_are_classes(layers, dtype):
    y = torch.arange(200) % 2
    point, told, plane = target_of(y.to(dtype), layers)
    assert point == target_of(y, layers)[0]
    assert told == []
    assert plane.target_read == ("whole numbers, taken as classes" if dtype.is_floating_point else "")


def test_whole_numbers_of_many_values_are_put_into_bins():
    point, _, plane = target_of((torch.arange(600) % 60).float())
    assert point.h_y == pytest.approx(math.log2(10))
    assert "10 bins of equal mass" in plane.target_read


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
@pytest.mark.parametrize("layers", [None, {"0": WHOLE}], ids=["cells", "bins"])
def test_yes_no_labels_are_a_symbol_for_each_combination(layers, dtype):
    labels = torch.randint(2, (400, 5), generator=generator())
    point, told, plane = target_of(labels.to(dtype), layers)
    code = (labels * 2 ** torch.arange(5)).sum(1)
    assert exact([point]) == exact([target_of(code, layers)[0]])
    assert plane.target_read == "5 yes/no labels a sample, each combination a symbol"
    assert told == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_one_hot_labels_are_classes_and_the_head_is_recognized(dtype):
    y = torch.arange(200) % 4
    point, _, plane = target_of(nn.functional.one_hot(y).to(dtype))
    assert exact([point]) == exact([target_of(y)[0]])
    assert plane.head.n_classes == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_wide_rows_of_labels_are_read_as_narrow_ones(dtype):
    y = torch.arange(600) % 200
    point, _, plane = target_of(nn.functional.one_hot(y, 200).to(dtype), head=False)
    assert exact([point]) == exact([target_of(y, head=False)[0]])
    assert plane.target_read == "one-hot rows, taken as classes"
    several = torch.randint(2, (20, 150), generator=generator()).to(dtype)[y % 20]
    point, _, plane = target_of(several)
    assert exact([point]) == exact([target_of(y % 20, head=False)[0]])
    assert plane.target_read == "many yes/no labels a sample, each combination a symbol"
    assert target_of(torch.randn(600, 150))[2].target_read.startswith("real-valued with 128 coordinates")


def test_one_batch_of_another_form_leaves_the_target_out_of_the_pass():
    """Two classes a sample, and by chance only zeros and ones in one batch."""
    for at in (0, 50):
        y = torch.randint(9, (150, 2), generator=generator())
        y[at : at + 50] = 1
        point, told, _ = target_of(y)
        assert (point.n_samples, math.isfinite(point.h_t), math.isnan(point.i_ty)) == (150, True, True)
        assert len(told) == 1


def test_infinite_targets_are_no_class():
    point, (told,), _ = target_of(torch.tensor([0.0, 1.0, math.inf] * 40))
    assert told.startswith("the target gave NaN or infinite values in 40 of 120")
    assert math.isnan(point.i_ty)


@pytest.mark.parametrize("y", [torch.eye(4).to_sparse(), torch.zeros(4, 0)])
def test_tensors_of_other_kinds_are_left_out(y):
    with pytest.warns(UserWarning, match="the target is a tensor of layout torch"):
        (point,) = measure(nn.Sequential(nn.Linear(3, 2)), [(torch.rand(4, 3), y)])
    assert math.isfinite(point.h_t)


def test_soft_entropies_of_real_classes_are_finite_at_every_measurement():
    plane, model = InformationPlane(estimators=["soft"]), nn.Sequential(nn.Linear(3, 4))
    x, y = torch.rand(300, 3, generator=generator()), (torch.arange(300) % 3).double()
    for _ in range(3):
        plane.reset()
        with plane.attach(model):
            model(x)
            plane.update(x, y)
            estimates = plane.estimate()
            assert len(plane.compute()) == 1
            assert len(estimates) == 5
            assert all(math.isfinite(one.value) for one in estimates)


Swapped = namedtuple("Swapped", "label image")


def test_a_named_pair_goes_by_its_names_and_a_mask_is_found_where_it_is():
    assert parts_of(Swapped(1, 2))[:2] == (2, 1)
    assert parts_of(({"input_ids": 1, "attention_mask": 2}, 3)).mask == 2
    assert parts_of(SimpleNamespace(label=1, attention_mask=2)).mask == 2

    class Odd:
        @property
        def y(self):
            raise RuntimeError

    assert parts_of(Odd()).y is None


def test_a_target_of_several_real_numbers_is_cut_into_cells():
    centers = 9 * torch.randn(4, 7, generator=generator())
    y = torch.arange(400) % 4
    real = centers[y] + 0.1 * torch.randn(400, 7, generator=generator(1))
    point, told, plane = target_of(real)
    assert point.h_y == pytest.approx(2, abs=0.01)
    assert point.i_ty == pytest.approx(target_of(y, head=False)[0].i_ty, abs=1e-6)
    assert plane.target_read.startswith("real-valued with 7 coordinates, in 4 cells (unpack=lambda batch: (batch[0], N")
    assert told == []
    assert target_of(torch.rand(400, 3, 8, 8, generator=generator()))[0].h_y > 0, "pictures too"


@pytest.mark.parametrize("shape", [(40, 6), (40, 3, 3)])
def test_classes_of_tokens_and_pixels_are_not_guessed_at(shape):
    point, told, _ = target_of(torch.randint(9, shape, generator=generator()))
    assert told == [
        f"the target holds several integers a sample, {shape}: the classes of tokens or pixels, or those of several "
        "tasks. I(X;T) and H(T) are measured without it. Give unpack=lambda batch: (x, y), y having one label for each "
        "sample, that of one task, say, or take tokens for samples: tokens=True."
    ]
    assert math.isnan(point.i_ty)
    assert math.isfinite(point.h_t)


@pytest.mark.parametrize("y", ["abcd", 3, [{}] * 4, torch.zeros(()), torch.zeros(4, dtype=torch.cfloat)])
def test_a_target_that_is_none_is_left_out(y):
    point, (told,), _ = target_of(y)
    assert told.startswith("the target ")
    assert "I(X;T) and H(T) are measured without it. Give unpack=lambda batch: (x, y), y having one label for" in told
    assert math.isnan(point.i_ty)


@pytest.mark.parametrize("y", [np.arange(4) % 2, [0, 1, 0, 1]])
def test_labels_need_not_be_a_tensor(y):
    assert exact([target_of(y)[0]]) == exact([target_of(torch.arange(4) % 2)[0]])


def test_a_real_target_that_is_not_finite_gives_nan_and_one_warning():
    y = torch.randn(100)
    y[7] = math.nan
    point, (told,), _ = target_of(y)
    assert told.startswith("the target gave NaN or infinite values in 1 of 100 samples at epoch 0")
    assert math.isnan(point.i_ty)
    assert math.isfinite(point.h_t)


Fields = namedtuple("Fields", "image label")


@dataclass
class Batch:
    image: torch.Tensor
    target: torch.Tensor


@pytest.mark.parametrize(
    "batch_of",
    [
        lambda x, y: (x, y),
        lambda x, y: Fields(x, y),
        lambda x, y: {"x": x, "labels": y},
        lambda x, y: {"x": x, "label": y},
        lambda x, y: UserDict(x=x, y=y),
        lambda x, y: Batch(x, y),
        lambda x, y: SimpleNamespace(x=x, targets=y),
        lambda x, y: [(x, y)],
    ],
)
def test_the_target_of_a_batch_is_recognized(batch_of):
    class Model(nn.Linear):
        def forward(self, x):
            return super().forward(getattr(x, "x", getattr(x, "image", x)))

    x, y = torch.rand(40, 3, generator=generator()), torch.arange(40) % 2
    model = nn.Sequential(Model(3, 2))
    model.forward = lambda x: model[0](x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(model, [batch_of(x, y)], ["0"])
    assert exact(found) == exact(measure(model, [(x, y)], ["0"]))


@pytest.mark.parametrize(
    ("batch", "came", "advice"),
    [
        (torch.rand(4, 1), "a Tensor", r"lambda batch: \(x, y\), or unpack=lambda batch: \(batch, None\)"),
        ((torch.rand(4, 1),), "a Tensor", r"lambda batch: \(x, y\)"),
        ([torch.rand(4, 1)] * 3, "a list of 3", r"lambda batch: \(batch\[i\], batch\[j\]\)"),
        ({"x": torch.rand(4, 1), "z": 1}, r"a mapping with the keys \['x', 'z'\]", r"lambda batch: \(x, y\)"),
    ],
)
def test_a_batch_whose_target_is_not_known_is_measured_without_one(batch, came, advice):
    model = known_net(same=lambda x: x)
    model.forward = lambda x, z=None: model.same(x)
    sentence = rf"a batch is {came}, and its target is not known: I\(X;T\) and H\(T\) are measured without .*{advice}"
    with pytest.warns(UserWarning, match=sentence) as caught:
        (point,) = measure(model, [batch] * 3, SAME)
    assert len([one for one in caught if "not known" in str(one.message)]) == 1
    assert math.isnan(point.i_ty)
    assert (point.n_samples, math.isfinite(point.h_t)) == (12, True)


@pytest.mark.parametrize(
    ("pair", "came"), [(torch.rand(4, 1), "a Tensor"), ([1] * 4, "a list of 4"), ({"x": 1}, "a mapping with the keys")]
)
def test_what_unpack_returns_is_a_pair(pair, came):
    with pytest.raises(ValueError, match=rf"unpack must return a pair \(x, y\), .* got {came}"):
        measure(known_net(same=lambda x: x), [0], SAME, unpack=lambda _: pair)


def test_batches_that_are_none_are_left_out():
    pair = torch.rand(4, 1), torch.arange(4)
    (point,) = measure(known_net(same=lambda x: x), [None, pair, None, pair], SAME)
    assert point.n_samples == 8


def test_a_mapping_that_is_no_plain_one_goes_in_as_it_is():
    """As a tensordict does: its rows are what iterating over it gives."""

    class Rows(Mapping):
        def __init__(self, **columns):
            self.columns = columns

        def __getitem__(self, name):
            return self.columns[name]

        def keys(self):
            return self.columns.keys()

        def __iter__(self):
            return iter(zip(*self.columns.values()))

        def __len__(self):
            return len(self.columns["x"])

    class Reads(nn.Linear):
        def forward(self, rows):
            return super().forward(rows["x"])

    x, y = torch.rand(40, 3), torch.arange(40) % 2
    model = nn.Sequential(Reads(3, 2))
    (point,) = measure(model, [Rows(x=x, y=y)], ["0"])
    assert (point.n_samples, point.h_y) == (40, 1.0)
