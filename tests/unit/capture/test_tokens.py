"""Labels that do not count, and tokens or pixels as samples."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import InformationPlane, InformationPlaneCallback, Quantizer, UniformBins, measure, resolution_sweep
from lightning_ib.functional import joint, standard_error, symbols
from tests.helpers.records import exact
from tests.helpers.samples import generator
from tests.helpers.tiny import pl, trainer

BINS = Quantizer(bins=UniformBins(4, low=-2, high=2))


def coarse(values):
    """To 1/16: sums of products are exact then, on every processor and in batches of every size."""
    return (16 * values).round() / 16


def rows(n=300, ignored=0.4):
    x = coarse(torch.randn(n, 6, generator=generator()))
    y = (x[:, 0] > 0).long()
    return x, torch.where(torch.rand(n, generator=generator(1)) < ignored, -100, y)


def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Hardtanh(), nn.Linear(8, 2)).requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(coarse(parameter))
    return model


def batches(*tensors, size=32):
    return list(zip(*(t.split(size) for t in tensors)))


def planes(data, *, layers=None, trim=None, estimators=("probe", "kde", "soft", "knn"), **options):
    """The points and estimates of a measurement, twice."""
    plane, model = InformationPlane(layers, estimators=list(estimators), **options), net()
    found = []
    for _ in range(2):  # soft entropies stream from the second pass on
        plane.reset()
        with plane.attach(model):
            for x, *others in data:
                model(x)
                plane.update(x, *others)
            if trim is not None:
                plane.trim(trim)
            found.append((plane.compute(), plane.estimate()))
    return found


@pytest.mark.parametrize("layers", [None, {"0": BINS, "2": None}], ids=["cells", "bins"])
def test_rows_with_the_label_that_is_ignored_leave_every_variable(layers):
    """All figures, and all estimators, are those of the other rows."""
    x, y = rows()
    kept = y != -100
    with_all = planes(batches(x, y), layers=layers, ignore_index=-100)
    without = planes(batches(x[kept], y[kept]), layers=layers)
    assert with_all[0][0][0].n_samples == int(kept.sum())
    for (points, estimates), (points_of, estimates_of) in zip(with_all, without):
        assert [one.n_samples for one in estimates] == [one.n_samples for one in estimates_of]
        # A probe deals the rows to its folds by their order, which is that of their places.
        others = [[one for one in some if one.source != "probe"] for some in (estimates, estimates_of)]
        for one, other in zip([*points, *others[0]], [*points_of, *others[1]]):
            for a, b in zip(one, other):
                assert a == pytest.approx(b, abs=1e-6, nan_ok=True) if isinstance(a, float) else a == b


def test_the_sample_is_full_though_most_rows_are_ignored():
    x, y = rows(2000, ignored=0.9)
    (point, *_), _ = planes(batches(x, y), max_samples=100, ignore_index=-100)[0]
    assert point.n_samples == 100


@pytest.mark.parametrize("layers", [None, {"0": BINS, "2": None}], ids=["cells", "bins"])
def test_what_evened_out_shares_is_left_out_whether_it_counts_or_not(layers):
    x, y = rows()
    longer = torch.cat([x, x[:20]]), torch.cat([y, y[:20]])
    cut = planes(batches(*longer), layers=layers, trim=300, ignore_index=-100)
    assert exact(cut[0][0]) == exact(planes(batches(x, y), layers=layers, ignore_index=-100)[0][0])


def test_an_index_that_is_none_is_refused():
    with pytest.raises(TypeError, match=r"ignore_index must be an integer such as -100 or None, got '-100'\."):
        InformationPlaneCallback(ignore_index="-100")
    with pytest.raises(TypeError, match=r"tokens must be True or False, got 1\."):
        InformationPlaneCallback(tokens=1)


@pytest.mark.parametrize(("absent", "warned"), [(-100, True), (-1, True), (-7, False)])
def test_a_label_that_seems_to_be_none_is_named(absent, warned):
    x, y = rows()
    y = torch.where(y == -100, absent, y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measure(net(), [(x, y)])
        measure(net(), [(x, torch.where(y == 0, -1, 1))])  # two classes
    told = [str(one.message) for one in caught]
    n = int((y == absent).sum())
    sentence = f"the target is {absent} in {n} of 300 samples, which is counted like any other value."
    assert told == [f"{sentence} If it says that they have no label, give ignore_index={absent}."] * warned


@pytest.mark.parametrize("dtype", [torch.long, torch.float])
def test_rows_of_several_labels_are_left_out_where_one_is_ignored(dtype):
    x, _ = rows()
    y = (x[:, :3] > 0).to(dtype)
    y[::7, 1] = -100
    y[::5] = -100
    kept = (y != -100).all(1)
    (point, *_), _ = planes(batches(x, y), ignore_index=-100)[0]
    (point_of, *_), _ = planes(batches(x[kept], y[kept]))[0]
    assert point.n_samples == int(kept.sum())
    assert point.h_y == point_of.h_y > 2.9
    assert point.i_ty == pytest.approx(point_of.i_ty, abs=1e-6)


def test_a_row_of_real_labels_that_seem_to_be_none_is_named():
    x, _ = rows()
    y = (x[:, :3] > 0).float()
    y[::5, 0] = -100
    with pytest.warns(UserWarning, match="the target is -100 in 60 of 300 samples, .* give ignore_index=-100"):
        measure(net(), [(x, y)])


def test_data_whose_labels_are_all_ignored_is_told():
    x, _ = rows()
    with pytest.raises(ValueError, match="nothing was counted: every label is -100"):
        measure(net(), [(x, torch.full((300,), -100))], ignore_index=-100)


def test_a_sweep_leaves_them_out_too():
    x, y = rows()
    kept = y != -100
    found = resolution_sweep(net(), [(x, y)], ["0"], n_samples=[100], ignore_index=-100).rows
    assert found == resolution_sweep(net(), [(x[kept], y[kept])], ["0"], n_samples=[100]).rows


# -- tokens ------------------------------------------------------------------------------------------------------------


def sequences(n=60, length=5):
    x = torch.randn(n, length, 6, generator=generator())
    return x, (x[..., 0] > 0).long()


@pytest.mark.parametrize("layers", [None, {"0": BINS, "2": None}], ids=["cells", "bins"])
def test_tokens_are_samples(layers):
    x, y = sequences()
    by_token = planes(batches(x, y, size=8), layers=layers, tokens=True)
    flat = planes(batches(x.flatten(0, 1), y.flatten(), size=40), layers=layers)
    for (points, estimates), (points_of, estimates_of) in zip(by_token, flat):
        for one, other in zip(points, points_of):
            assert (one.n_samples, one.i_ty, one.h_t, one.accuracy) == (
                300,
                pytest.approx(other.i_ty, abs=1e-9),
                pytest.approx(other.h_t, abs=1e-9),
                pytest.approx(other.accuracy, abs=1e-9, nan_ok=True),
            )
        # the probe keeps the tokens of a sequence in one fold
        values, others = ([r.value for r in of if r.source != "probe"] for of in (estimates, estimates_of))
        assert values == pytest.approx(others, abs=1e-6)


@pytest.mark.parametrize("how", ["mask", "ignored"])
def test_tokens_that_are_masked_are_left_out(how):
    x, y = sequences()
    mask = torch.arange(5) < torch.randint(1, 6, (60, 1), generator=generator())
    if how == "mask":
        found = planes(batches(x, y, mask.long(), size=8), tokens=True)
    else:
        found = planes(batches(x, torch.where(mask, y, -1), size=8), tokens=True, ignore_index=-1)
    kept = planes(batches(x[mask], y[mask], size=40))
    for one, other in zip(found[0][0], kept[0][0]):
        assert (one.n_samples, one.n_codes) == (other.n_samples, other.n_codes) == (int(mask.sum()), one.n_codes)
        assert (one.i_ty, one.h_t) == pytest.approx((other.i_ty, other.h_t), abs=1e-9)


@pytest.mark.parametrize("layers", [None, {"0": BINS, "2": None}], ids=["cells", "bins"])
def test_sequences_that_evened_out_shares_are_left_out(layers):
    x, y = sequences()
    longer = torch.cat([x, x[:3]]), torch.cat([y, y[:3]])
    cut = planes(batches(*longer, size=8), layers=layers, tokens=True, trim=60)
    assert exact(cut[0][0]) == exact(planes(batches(x, y, size=8), layers=layers, tokens=True)[0][0])


@pytest.mark.parametrize("layers", [["0"], {"0": BINS}], ids=["cells", "bins"])
def test_errors_are_taken_over_sequences(layers):
    """Ten copies of a token say nothing new: the error is that of the sequences."""
    x = torch.randn(200, 6, generator=generator())
    y = (x[:, 0] > 0).long()
    copies = x.unsqueeze(1).expand(-1, 10, -1), y.unsqueeze(1).expand(-1, 10)
    many = planes([copies], layers=layers, tokens=True, estimators=())
    t = symbols((x[:, 0] > 0.5).long().repeat_interleave(10))
    of, one = symbols(y.repeat_interleave(10)), symbols((x[:, 0] > 0.5).long())
    terms, single = ((1, t), (1, of), (-1, joint(t, of))), ((1, one), (1, symbols(y)), (-1, joint(one, symbols(y))))
    clustered = standard_error(*terms, clusters=torch.arange(200).repeat_interleave(10))
    assert clustered == pytest.approx(standard_error(*single), abs=1e-12)
    assert standard_error(*terms, clusters=torch.arange(2000)) == pytest.approx(standard_error(*terms), abs=1e-12)
    (point,) = many[0][0]
    assert point.n_samples == 2000
    assert point.h_y_se == pytest.approx(standard_error((1, symbols(y))), abs=1e-9)


class Segments(pl.LightningModule):
    """A class for each pixel, from convolutions that keep the size and one that does not."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(1, 6, 3, padding=1)
        self.small = nn.Conv2d(6, 6, 3, stride=2)
        self.out = nn.Conv2d(6, 3, 1)

    def forward(self, x):
        z = self.wide(x).relu()
        self.small(z)
        return self.out(z)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1], ignore_index=255)

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.05)


@pytest.mark.slow
def test_a_network_that_segments_is_measured_by_pixel(tmp_path):
    x = torch.randn(40, 1, 8, 8, generator=generator())
    y = torch.bucketize(x[:, 0], torch.tensor([-0.4, 0.4]))
    y[:, 0] = 255
    data = DataLoader(TensorDataset(x, y), 8)
    callback = InformationPlaneCallback(tokens=True, ignore_index=255)
    with pytest.warns(UserWarning, match="layer 'small' is left out"):
        trainer(tmp_path, callback, max_epochs=3).fit(Segments(), data, data)
    assert callback.history[-1].n_samples == 40 * 7 * 8
    first, last = (point for point in callback.history if point.layer == "out" and point.epoch in (0, 3))
    assert last.accuracy > 0.6
    assert last.i_ty > first.i_ty


@pytest.mark.parametrize("shape", [(40, 8, 8), (40, 1, 8, 8), (40, 8, 8, 1)])
@pytest.mark.parametrize("dtype", [torch.long, torch.float])
def test_masks_may_have_an_axis_of_one(shape, dtype):
    x = torch.randn(40, 1, 8, 8, generator=generator())
    y = (x[:, 0] > 0).to(dtype).reshape(shape)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 1))
    points = measure(model, batches(x, y, size=8), tokens=True)
    assert [(point.layer, point.n_samples) for point in points] == [("0", 40 * 64), ("2", 40 * 64)]
    assert points[0].h_y == pytest.approx(1, abs=0.01)


def test_labels_of_samples_are_no_labels_of_tokens():
    with pytest.raises(
        ValueError, match=r"one label for each of 300 samples, and tokens=True takes one a token, .*leave"
    ):
        measure(net(), [rows()], tokens=True)


class Words(pl.LightningModule):
    """A language model in miniature, with batches as those of Hugging Face."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix = nn.Embedding(9, 8), nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 9)

    def forward(self, input_ids, attention_mask=None):
        return self.head(self.mix(self.embed(input_ids))[0])

    def training_step(self, batch, batch_idx):
        logits = self(batch["input_ids"], batch["attention_mask"])
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.03)


@pytest.mark.slow
def test_a_language_model_is_measured_by_token(tmp_path):
    ids = torch.randint(9, (60, 7), generator=generator())
    mask = (torch.arange(7) < torch.randint(2, 8, (60, 1), generator=generator())).long()
    data = [
        {"input_ids": a, "attention_mask": m, "labels": torch.where(m > 0, a.roll(1, 1), -100)}
        for a, m in batches(ids, mask, size=10)
    ]
    loader = DataLoader(data, batch_size=None)
    callback = InformationPlaneCallback(tokens=True)
    trainer(tmp_path, callback, max_epochs=4).fit(Words(), loader, loader)
    assert {point.n_samples for point in callback.history} == {int(mask.sum())}
    assert {point.epoch for point in callback.history} == {0, 1, 2, 3, 4}
    of_head = [point for point in callback.history if point.layer == "head"]
    assert of_head[-1].accuracy > of_head[0].accuracy
    assert math.isfinite(of_head[-1].i_ty_fano)


@pytest.mark.parametrize("ignored", [0.1, 0.85])
def test_the_sample_of_rows_that_count_depends_on_no_batch_size(ignored):
    x, y = rows(3000, ignored)
    options = {"max_samples": 300, "ignore_index": -100, "estimators": ()}
    small, *others = (planes(batches(x, y, size=size), **options)[0][0] for size in (8, 64, 1000, 3000))
    assert small[0].n_samples == 300
    assert all(exact(other) == exact(small) for other in others)


def test_labels_that_are_no_tensor_or_real_numbers_are_ignored_too():
    x, y = rows()
    expected = exact(measure(net(), [(x, y)], ignore_index=-100))
    assert exact(measure(net(), [(x, y.numpy())], ignore_index=-100)) == expected
    assert exact(measure(net(), [(x, y.double())], ignore_index=-100)) == expected


class Swapped(nn.Module):
    """Sequences by sequence: (B, L, D), then (L, B, D)."""

    def __init__(self):
        super().__init__()
        self.right, self.wrong = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x):
        return self.right(x), self.wrong(x.transpose(0, 1))


def test_tokens_in_another_order_than_their_labels_are_left_out():
    x, y = sequences()
    with pytest.warns(
        UserWarning, match=r"layer 'wrong' is left out: .* put out tokens of shape \(5, 60\), and the labe"
    ):
        found = measure(Swapped(), [(x, y)], tokens=True)
    assert [point.layer for point in found] == ["right"]
    with pytest.raises(ValueError, match="Name another module, or give CellQuantizer"):
        measure(Swapped(), [(x, y)], ["wrong"], tokens=True)


def test_pictures_are_taken_apart_by_place_whatever_module_puts_them_out():
    """As many channels as pixels a side."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Sequential(nn.Identity()))
    x = torch.randn(30, 1, 8, 8, generator=generator())
    points = measure(model, [(x, (x[:, 0] > 0).long())], ["0", "1", "2"], tokens=True)
    assert all(point.i_ty > 0.5 for point in points)


def test_the_input_of_pictures_is_discretized_by_place():
    model = nn.Sequential(nn.Conv2d(1, 3, 1))
    x = torch.randn(30, 1, 8, 8, generator=generator())
    (point,) = measure(model, [(x, (x[:, 0] > 0).long())], ["0"], input=BINS, tokens=True)
    assert 1 < point.h_x <= 2
    assert point.n_samples == 30 * 64
