"""The sampled rows as points: principal components, TensorBoard's projector, t-SNE."""

import math
import random
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from lightning_ib import InformationPlaneCallback
from lightning_ib.estimators.base import Rows
from lightning_ib.functional.continuous.principal_components import principal_components
from lightning_ib.plot.embedding import plot_tsne, turned
from lightning_ib.report.projector import is_projected, log_rows
from lightning_ib.warn_once import WarnOnce
from tests.helpers.tiny import fit, pl


def spread(m, d, seed=0):
    """Rows whose components have variances well apart."""
    generator = np.random.default_rng(seed)
    rotation = np.linalg.qr(generator.normal(size=(d, d)))[0]
    return torch.from_numpy(
        generator.normal(size=(m, d)) * np.linspace(3, 0.2, d) @ rotation + generator.normal(size=d)
    )


# -- principal components ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "d", "n"), [(80, 6, 6), (80, 6, 2), (200, 60, 50), (30, 100, 10), (40, 40, 5)])
def test_components_are_those_of_scikit_learn_up_to_their_signs(m, d, n):
    z = spread(m, d)
    found = principal_components(z, n=n).numpy()
    expected = PCA(n, svd_solver="full").fit_transform(z.numpy())
    signs = np.sign((found * expected).sum(0))
    assert found == pytest.approx(expected * signs, abs=1e-8)


@pytest.mark.parametrize(
    ("shape", "n", "expected"),
    [
        ((70, 60), 50, 50),
        ((70, 8), 50, 8),
        ((20, 60), 50, 20),
        ((20, 60), 3, 3),
        ((20, 3, 4, 4), 50, 20),
        ((9, 1), 5, 1),
    ],
)
def test_as_many_as_there_are_at_most(shape, n, expected):
    found = principal_components(torch.randn(shape), n=n)
    assert (tuple(found.shape), found.dtype, found.device.type) == ((shape[0], expected), torch.float64, "cpu")


def test_fifty_unless_another_number_is_asked_for():
    assert principal_components(torch.randn(90, 70)).shape == (90, 50)


def test_the_sign_is_that_of_the_greatest_deviation():
    found = principal_components(spread(80, 6))
    greatest = found.gather(0, found.abs().argmax(0, keepdim=True))
    assert (greatest > 0).all()


@pytest.mark.parametrize(("m", "d"), [(80, 6), (30, 100)])
def test_the_same_rows_give_the_same_picture(m, d):
    """Whatever the offset, the order of the coordinates and that of the rows."""
    z = spread(m, d)
    found = principal_components(z, n=5)
    assert torch.equal(found, principal_components(z.clone(), n=5))
    assert torch.allclose(principal_components(z + 7, n=5), found, atol=1e-8)
    order = torch.randperm(m)
    assert torch.allclose(principal_components(z[order], n=5), found[order], atol=1e-8)
    assert torch.allclose(principal_components(z.flip(1), n=5), found, atol=1e-8)


def test_the_first_has_the_most_variance():
    variances = principal_components(spread(100, 20)).var(0)
    assert torch.equal(variances, variances.sort(descending=True).values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.bool])
def test_rows_of_any_kind(dtype):
    z = (3 * torch.randn(50, 4)).to(dtype)
    assert torch.equal(principal_components(z), principal_components(z.double()))


def test_a_map_is_its_coordinates():
    z = torch.randn(40, 2, 3, 3)
    assert torch.equal(principal_components(z), principal_components(z.reshape(40, 18)))


def test_a_layer_of_single_numbers():
    z = torch.randn(40)
    assert torch.equal(principal_components(z), principal_components(z[:, None]))


def test_values_that_are_not_finite_are_zeros():
    z = torch.randn(30, 4)
    z[3, 1], z[5, 2], z[6] = math.nan, math.inf, -math.inf
    there = z.where(z.isfinite(), 0.0)
    assert torch.equal(principal_components(z), principal_components(there))


def test_a_constant_is_a_point():
    assert (principal_components(torch.full((20, 5), 3.0)) == 0).all()


def test_the_rows_are_left_as_they_are():
    z = torch.randn(20, 3, requires_grad=True)
    before = z.detach().clone()
    assert not principal_components(z).requires_grad
    assert torch.equal(z.detach(), before)


# -- the projector -----------------------------------------------------------------------------------------------------


@pytest.fixture
def writer(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(tmp_path)
    yield writer
    writer.close()


def logger(experiment):
    return SimpleNamespace(experiment=experiment)


def tables(folder):
    """The folders of the projector's tables, by the tensor's name, as its own config tells them."""
    text = (folder / "projector_config.pbtxt").read_text()
    found = []
    for block in text.split("embeddings {")[1:]:
        found.append({line.split(":")[0].strip(): line.split('"')[1] for line in block.splitlines() if '"' in line})
    return {of["tensor_name"]: of for of in found}


def test_the_projector_is_given_rows_and_labels(writer, tmp_path):
    labels = torch.arange(30) % 3
    layers = {"hidden.0": Rows(torch.randn(30, 60), labels), "out": Rows(torch.randn(30, 4), labels)}
    log_rows([logger(writer)], "ib", layers, 7, WarnOnce())
    written = tables(tmp_path)
    assert len(written) == 2
    for (name, files), (layer, rows) in zip(sorted(written.items()), layers.items()):
        assert name.startswith(f"ib/{layer}:")
        assert files["tensor_path"].startswith("00007/")
        points = np.loadtxt(tmp_path / files["tensor_path"], delimiter="\t", ndmin=2)
        expected = principal_components(rows.t).numpy()
        assert points == pytest.approx(expected, abs=1e-3 * np.abs(expected).max())
        told = (tmp_path / files["metadata_path"]).read_text().split()
        assert told == [str(label) for label in labels.tolist()]


def test_every_measurement_has_points_of_its_own(writer, tmp_path):
    for step in (0, 10):
        log_rows([logger(writer)], "ib", {"out": Rows(torch.randn(9, 3), torch.arange(9))}, step, WarnOnce())
    assert {files["tensor_path"].split("/")[0] for files in tables(tmp_path).values()} == {"00000", "00010"}


@pytest.mark.parametrize("y", [None, torch.linspace(0, 1, 9)])
def test_without_class_labels_the_points_have_none(y, writer, tmp_path):
    log_rows([logger(writer)], "ib", {"out": Rows(torch.randn(9, 3), y)}, 0, WarnOnce())
    ((_, files),) = tables(tmp_path).items()
    assert "metadata_path" not in files
    assert np.loadtxt(tmp_path / files["tensor_path"]).shape == (9, 3)


def test_the_projector_is_given_no_more_rows_and_digits_than_it_shows(writer, tmp_path):
    rows = 1e-3 * torch.randn(1500, 60, generator=torch.Generator().manual_seed(1))
    log_rows([logger(writer)], "ib", {"out": Rows(rows, torch.arange(1500))}, 0, WarnOnce())
    ((_, files),) = tables(tmp_path).items()
    assert np.loadtxt(tmp_path / files["tensor_path"]).shape == (1000, 50)
    assert (tmp_path / files["metadata_path"]).read_text().split() == [str(k) for k in range(1000)]
    assert (tmp_path / files["tensor_path"]).stat().st_size < 500_000


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_rows_of_any_scale_keep_four_digits(scale, writer, tmp_path):
    rows = scale * torch.tensor([[1.0, -2.0], [3.0, 4.0], [-5.0, 0.3]], dtype=torch.float64)
    log_rows([logger(writer)], "ib", {"out": Rows(rows)}, 0, WarnOnce())
    ((_, files),) = tables(tmp_path).items()
    expected = principal_components(rows).numpy()
    assert np.loadtxt(tmp_path / files["tensor_path"]) == pytest.approx(expected, rel=1e-3, abs=1e-3 * scale)


@pytest.mark.slow
def test_of_many_measurements_few_go_to_the_projector_and_the_last_does(tmp_path):
    callback = InformationPlaneCallback(["out"], log_projector=True, max_samples=32, estimators=())
    board = pl.loggers.TensorBoardLogger(tmp_path, name="", version="run")
    model, _ = fit(tmp_path, callback, max_epochs=7, logger=board)
    steps = sorted({int(files["tensor_path"].split("/")[0]) for files in tables(tmp_path / "run").values()})
    # After the epochs 0, 1, 2, 4 and 7, at the steps of their scalars; an epoch has six.
    assert steps == [0, 5, 11, 23, 41]


def test_no_run_has_more_than_eleven_tables_a_layer():
    assert [n for n in range(10_000) if is_projected(n)] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]


class Full:
    """A logger whose disk is full."""

    def __init__(self, error):
        self.error, self.asked = error, 0
        self.experiment = self

    def add_embedding(self, *args, **kwargs):
        self.asked += 1
        raise self.error


def test_a_logger_that_fails_is_one_warning_and_keeps_no_other_back(writer, tmp_path):
    warned, full, rows = (
        WarnOnce(every_rank=True),
        Full(OSError("No space left on device")),
        Rows(torch.randn(9, 3), torch.arange(9)),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            log_rows([full, logger(writer)], "ib", {"out": rows}, step, warned)
    assert [str(one.message) for one in caught] == [
        "Full could not log the projector: OSError: No space left on device. Training goes on."
    ]
    assert full.asked == 3
    assert len(list(tmp_path.rglob("tensors.tsv"))) == 3


def test_loggers_without_a_projector_are_passed_over():
    layers = {"out": Rows(torch.randn(9, 3), torch.arange(9))}
    log_rows([logger(object()), logger(None), object(), SimpleNamespace()], "ib", layers, 0, WarnOnce())


@pytest.mark.slow
def test_a_training_with_tensorboard_has_the_projector_of_every_measurement(tmp_path):
    callback = InformationPlaneCallback(["hidden", "out"], log_projector=True, max_samples=32)
    board = pl.loggers.TensorBoardLogger(tmp_path, name="", version="run")
    fit(tmp_path, callback, max_epochs=2, logger=board)
    written = tables(tmp_path / "run")
    assert len(written) == 2 * 3
    for files in written.values():
        assert len(np.loadtxt(tmp_path / "run" / files["tensor_path"])) == 32
        assert set((tmp_path / "run" / files["metadata_path"]).read_text().split()) == set("0123")


# -- t-SNE -------------------------------------------------------------------------------------------------------------


def clusters(m=45, d=6, k=3):
    y = torch.arange(m) % k
    return Rows(torch.randn(m, d, generator=torch.Generator().manual_seed(3)) + 20 * torch.eye(k, d)[y], y)


def points(axes):
    return [np.asarray(collection.get_offsets()) for collection in axes.collections]


def test_a_panel_a_layer_and_a_color_a_class():
    rows = clusters()
    figure = plot_tsne({"hidden": rows, "out": rows._replace(t=rows.t[:, :3])})
    assert [axes.get_title() for axes in figure.axes] == ["hidden", "out"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0", "1", "2"]
    assert "45 rows" in figure.get_suptitle()
    named = [tuple(line.get_color()) for line in figure.legends[0].get_lines()]
    assert len(set(named)) == 3
    for axes in figure.axes:
        assert [len(of) for of in points(axes)] == [15, 15, 15]
        assert [tuple(collection.get_facecolor()[0]) for collection in axes.collections] == named


def test_classes_far_apart_are_drawn_apart():
    (axes,) = plot_tsne({"out": clusters()}).axes
    of = points(axes)
    for k, own in enumerate(of):
        others = np.concatenate([other for j, other in enumerate(of) if j != k])
        for place in own:
            near = np.sort(np.linalg.norm(own - place, axis=1))[1]
            assert near < np.linalg.norm(others - place, axis=1).min()


def test_the_same_rows_give_the_same_drawing_and_no_random_state_is_touched():
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first, second = (points(plot_tsne({"out": clusters()}).axes[0]) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second))
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_without_class_labels_all_points_are_of_one_kind():
    figure = plot_tsne({"out": clusters()._replace(y=None)})
    assert [len(of) for of in points(figure.axes[0])] == [45]
    assert figure.legends == []


def test_many_classes_have_no_legend():
    rows = clusters(m=60)
    figure = plot_tsne({"out": rows._replace(y=torch.arange(60) // 2)})
    assert figure.legends == []
    assert len(points(figure.axes[0])) == 30


def test_the_title_names_the_moment_and_names_of_any_kind_are_shown():
    rows = clusters()._replace(y=torch.arange(45) % 3)
    figure = plot_tsne({"_stem": rows, "fc$x$": rows}, "epoch 3")
    assert figure.get_suptitle() == "t-SNE, epoch 3: 45 rows a layer"
    assert [axes.get_title() for axes in figure.axes] == ["_stem", "fc$x$"]
    assert not any(axes.title.get_parse_math() for axes in figure.axes)
    assert plot_tsne({"out": rows}).get_suptitle() == "t-SNE: 45 rows a layer"


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4, 5])
def test_the_picture_is_at_most_a_thousand_pixels_wide(n_layers):
    figure = plot_tsne({f"layer{k}": Rows(torch.full((9, 2), 1.0), None) for k in range(n_layers)})
    assert figure.bbox.width <= 1000


def test_a_panel_is_turned_and_mirrored_to_the_one_before():
    generator = np.random.default_rng(5)
    before = generator.normal(size=(40, 2))
    before -= before.mean(0)
    angle = 2.2
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    for change in (rotation, rotation @ np.diag([1.0, -1.0])):
        assert turned(before @ change + 3, before) == pytest.approx(before)
    assert turned(before + 3, None) == pytest.approx(before)
    assert turned(before + 3, before[:9]) == pytest.approx(before)


def test_the_panels_of_a_run_are_aligned():
    """The rows of the second measurement are those of the first, but for the order of the coordinates and a sign."""
    rows, places = clusters(m=60), {}
    (axes,) = plot_tsne({"out": rows}, "epoch 0", places).axes
    first = places["out"]
    assert np.concatenate(points(axes)) == pytest.approx(np.concatenate([first[k::3] for k in range(3)]), abs=1e-4)
    places["out"] = first @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    plot_tsne({"out": rows}, "epoch 1", places)
    assert places["out"] == pytest.approx(first @ np.array([[0.0, 1.0], [-1.0, 0.0]]), abs=1e-3)


@pytest.mark.parametrize("m", [4, 5, 10])
def test_few_rows(m):
    (axes,) = plot_tsne({"out": Rows(torch.randn(m, 3), None)}).axes
    (of,) = points(axes)
    assert of.shape == (m, 2)
    assert np.isfinite(of).all()


def test_rows_some_of_which_are_not_finite():
    rows = clusters()
    rows.t[3] = math.nan
    assert all(np.isfinite(of).all() for of in points(plot_tsne({"out": rows}).axes[0]))


def test_a_layer_of_one_coordinate():
    """Such as the output of a regression."""
    (of,) = points(plot_tsne({"out": Rows(torch.randn(30, 1), None)}).axes[0])
    assert np.isfinite(of).all()


@pytest.mark.parametrize(
    "t",
    [torch.full((30, 3), 2.0), torch.full((30, 3), math.nan), 1e-30 * torch.eye(30, 3)],
    ids=["dead", "nan", "tiny"],
)
def test_a_layer_that_says_nothing_ends_nothing(t):
    """A dead layer, one of NaNs, which are shown as zeros, and one that hardly varies."""
    assert len(plot_tsne({"out": Rows(t, None)}).axes) == 1
