"""The drift of layers: which samples are the same, and what a layer is compared with."""

import math
import warnings

import pytest
import torch
from torch import nn

from lightning_ib import InformationPlane
from lightning_ib.functional import linear_cka
from lightning_ib.measurement.drift import Drift
from lightning_ib.measurement.same_samples import fingerprints, same_rows
from lightning_ib.records import History
from lightning_ib.report.summary import changes

N = 40


def fingerprint(x, n=N, n_samples=N):
    return fingerprints(x, torch.arange(n), n=n, n_samples=n_samples)


def alike(one, other):
    return bool(same_rows(fingerprint(one), fingerprint(other)).any())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4,), (300,), (3, 16, 16)])
def test_order_within_a_row_matters_and_rounding_does_not(dtype, shape):
    x = torch.randn(N, *shape).to(dtype)
    assert same_rows(fingerprint(x), fingerprint(x.clone())).all()
    assert not alike(x, x.flip(-1))
    assert not alike(x, x.roll(1, -1))
    assert not alike(x, x.roll(1, 0))
    assert not alike(x, x + 0.01)
    if dtype == torch.float64:
        assert same_rows(fingerprint(x), fingerprint(x * (1 + 1e-7))).all()
        scale = 1 + 1e6 * (torch.arange(N) == 3).double().view(-1, *[1] * len(shape))  # an outlier blurs no other row
        assert same_rows(fingerprint(x * scale), fingerprint((x + 1e-3) * scale)).sum() == 0


def test_whole_numbers_must_be_the_same():
    ids = torch.randint(50_000, (N, 700))
    assert same_rows(fingerprint(ids), fingerprint(ids.clone())).all()
    assert not alike(ids, ids.index_add(1, torch.tensor([600]), torch.ones(N, 1, dtype=torch.int64)))
    mask = torch.rand(N, 5) > 0.5
    assert same_rows(fingerprint(mask), fingerprint(mask)).all()
    assert not alike(mask, ~mask)


def test_all_tensors_of_an_input_count_and_tokens_have_a_place():
    mask, image = torch.ones(N, 3), torch.randn(N, 6)
    assert not alike({"mask": mask, "image": image}, {"mask": mask, "image": image.flip(1)})
    assert same_rows(fingerprint({"a": mask, "b": image}), fingerprint({"b": image, "a": mask})).all()
    missing = image.clone()
    missing[:, 2] = math.nan
    assert same_rows(fingerprint([missing]), fingerprint([missing.clone()])).all()
    complex_image = torch.randn(N, 6, dtype=torch.complex64)
    assert not alike(complex_image, complex_image.conj())
    assert fingerprint("a text") is None
    assert fingerprint(torch.randn(N - 1, 6)) is None
    tokens = torch.randn(N // 4, 4, 6)
    found, other = (fingerprint(one, n_samples=N // 4) for one in (tokens, tokens.flip(0)))
    assert len(found.unique(dim=0)) == N
    assert same_rows(found, found).all()
    assert not same_rows(found, other).any()
    assert not same_rows(found, torch.cat([found[1:], found[:1]])).any()


class Net(nn.Module):
    def __init__(self, d=6, width=5):
        super().__init__()
        self.a, self.b = nn.Linear(d, width), nn.Linear(width, 4)

    def forward(self, x):
        return self.b(self.a(x["image"] if isinstance(x, dict) else x))


def passes(model, inputs, y=None, change=lambda epoch: None, **options):
    """The plane after a measurement of each input, the drift it recorded, and what it said."""
    plane, found = InformationPlane(["a", "b"], companions=["drift"], **options), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for epoch, x in enumerate(inputs):
            change(epoch)
            plane.reset()
            with plane.attach(model), torch.no_grad():
                model(x)
                plane.update(x, y(epoch) if callable(y) else y)
                plane.compute(epoch=epoch)
                found += [one for one in plane.estimate(epoch=epoch) if one.source == "drift"]
    return plane, found, [str(one.message) for one in caught]


def by_epoch(records, layer="a"):
    return [one.value for one in records if one.layer == layer]


def nans(values):
    return [math.isnan(one) for one in values]


LABELS = torch.arange(N) % 4


def test_a_run_on_shuffled_data_has_settled_nowhere():
    x = torch.randn(N, 6)
    plane, found, said = passes(Net(), [x, x[torch.randperm(N)], x[torch.randperm(N)]], LABELS)
    assert nans(by_epoch(found)) == [False, True, True]
    assert sum("are others than at the first measurement" in one for one in said) == 1
    to_last = plane.cka_to_last()
    assert nans(by_epoch(to_last)) == [True, True, True]
    assert {one.verdict for one in to_last} == {""}
    assert "settled" not in changes(History([*found, *to_last]))
    assert nans(by_epoch(plane.cka_to_last({(0, 0)}))) == [False]


def test_a_measurement_on_other_samples_in_between_leaves_the_others():
    x = torch.randn(N, 6)
    plane, found, _ = passes(Net(), [x, x.flip(1), x], LABELS)
    assert nans(by_epoch(found)) == [False, True, False]
    assert nans(by_epoch(plane.cka_to_last())) == [False, True, False]


def test_a_layer_that_fails_at_the_last_measurement_has_no_similarity_to_it():
    model, x = Net(), torch.randn(N, 6)

    def break_b(epoch):
        if epoch == 2:
            nn.init.constant_(model.b.bias, math.nan)

    plane, _, _ = passes(model, [x, x, x], LABELS, break_b)
    to_last = plane.cka_to_last()
    assert nans(by_epoch(to_last)) == [False] * 3
    assert nans(by_epoch(to_last, "b")) == [True] * 2
    assert changes(History(to_last)) == ""
    settled = changes(History([*to_last, *(one._replace(quantity="cka_to_first") for one in to_last)]))
    assert settled.endswith("settled since epoch (CKA to the last at least 0.95): a 0")


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ([{"mask": torch.ones(N, 3), "image": torch.randn(N, 6)} for _ in range(2)], {}),
        ([torch.randn(N // 4, 4, 6) for _ in range(2)], {"tokens": True}),
    ],
)
def test_other_inputs_beside_what_stays_the_same_are_seen(inputs, options):
    y = LABELS.reshape(-1, 4) if options else LABELS
    _, found, said = passes(Net(), inputs, y, **options)
    assert nans(by_epoch(found)) == [False, True]
    assert any("are others" in one for one in said)
    _, found, _ = passes(Net(), [inputs[0]] * 2, y, **options)
    assert by_epoch(found) == pytest.approx([1, 1])


def test_inputs_without_tensors_cannot_be_recognized():
    class Texts(Net):
        def forward(self, x):
            return super().forward(torch.tensor([[float(one)] * 6 for one in x]))

    _, found, said = passes(Texts(), [[str(k) for k in range(N)]] * 2, LABELS)
    assert nans(by_epoch(found)) == [True, True]
    assert sum("hold no tensor with a row for each sample" in one for one in said) == 1


def test_a_lost_target_leaves_the_drift():
    x, targets = torch.randn(N, 6), {"p": None, "q": None}
    _, found, _ = passes(Net(), [x, x], lambda epoch: {"p": LABELS[epoch == 0 :], "q": LABELS}, targets=targets)
    assert by_epoch(found) == pytest.approx([1, 1])


def test_few_rows_are_flagged_and_never_settled():
    x = torch.randn(N, 6)
    assert linear_cka(torch.randn(100, 2048), torch.randn(100, 2048)) > 0.9  # of unrelated rows
    plane, found, said = passes(Net(width=N), [x, x], LABELS)
    to_last = plane.cka_to_last()
    for records in (found, to_last):
        assert {(one.layer, one.verdict) for one in records} == {("a", "capped"), ("b", "ok")}
    assert sum("CKA of unrelated rows is near 0.50" in one for one in said) == 1
    assert changes(History([*found, *to_last])).endswith("at least 0.95): b 0")


def test_the_state_of_another_run_is_dropped_where_its_samples_are_others():
    model, x = Net(), torch.randn(N, 6)
    plane, _, _ = passes(model, [x, x], LABELS)
    state = plane.frozen_state()

    def gone_on(other):
        plane = InformationPlane(["a", "b"], companions=["drift"])
        with plane.attach(model), torch.no_grad():
            plane.load_frozen_state(state)
            plane.estimation.drift.is_of_another_run = True
            model(other)
            plane.update(other, LABELS[: len(other)])
            plane.compute(epoch=5)
            found = plane.estimate(epoch=5)
        return by_epoch(found), [one.epoch for one in plane.cka_to_last() if one.layer == "a"]

    assert gone_on(x) == (pytest.approx([1]), [0, 1, 5])
    assert gone_on(x[:30]) == (pytest.approx([1]), [5])
    drift = Drift()
    drift.load(state["drift"])
    drift.load({})
    assert drift.state() == {}
