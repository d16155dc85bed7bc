"""The example of tanh against ReLU: its data, its training, its bins and cells, and whole runs of it."""

import csv
import importlib
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ib.functional import cells
from lightning_ib.records import InformationPoint
from tests.helpers import ROOT

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "examples" / "tanh_vs_relu.py"
PANELS = {"tanh", "relu", "relu_unit", "tanh_cells", "relu_cells"}


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # as for a script
        yield importlib.import_module(SCRIPT.stem)


@pytest.fixture(scope="module")
def rule(example):
    return example.rule(example.power(example.patterns()))


def task():
    """The module of the data and the networks, which the script imports from beside it."""
    return importlib.import_module("twelve_bits")


def plain_entropy(codes):
    """H in bits of the rows of an array."""
    _, counts = np.unique(codes, axis=0, return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum())


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# -- the data ----------------------------------------------------------------------------------------------------------


def test_the_corners_are_an_icosahedrons(example):
    v = task().vertices().numpy()
    cosines = np.sort(v @ v.T, axis=1)
    expected = [-1] + [-1 / np.sqrt(5)] * 5 + [1 / np.sqrt(5)] * 5 + [1]
    np.testing.assert_allclose(cosines, np.tile(expected, (12, 1)), atol=1e-12)


def test_the_group_has_sixty_rotations(example):
    v, turns = task().vertices().numpy(), example.rotations().numpy()
    group = {tuple(turn) for turn in turns}
    assert len(group) == 60
    assert {tuple(a[b]) for a in turns for b in turns} == group
    for turn in turns:
        # The linear map that takes each corner to its image: v.T @ v is 4 times the identity.
        matrix = v[turn].T @ v / 4
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(v @ matrix.T, v[turn], atol=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)


def test_the_patterns_are_all_there_are(example):
    x = example.patterns().numpy()
    assert x.shape == (4096, 12)
    assert len(np.unique(x, axis=0)) == 4096
    assert set(np.unique(x)) == {0, 1}


def test_the_orbits_are_as_many_as_burnside_counts(example):
    # The mean number of patterns that a rotation leaves alone: 2 to the number of its cycles.
    turns = {"none": (1, 12), "fifths": (24, 4), "thirds": (20, 4), "halves": (15, 6)}
    expected = sum(n * 2**cycles for n, cycles in turns.values()) // 60
    assert example.n_orbits(example.patterns(), example.rotations()) == expected == 96


def test_what_the_label_depends_on_is_the_power_of_degree_one(example):
    x, (a, b, c) = example.patterns().numpy(), task().vertices().numpy().T
    polar, azimuth = np.arccos(c), np.arctan2(b, a)
    harmonics = [
        np.sqrt(3 / (4 * np.pi)) * np.cos(polar) + 0j,
        *(-m * np.sqrt(3 / (8 * np.pi)) * np.sin(polar) * np.exp(1j * m * azimuth) for m in (1, -1)),
    ]
    expected = 4 * np.pi / 3 * sum(np.abs(x @ y) ** 2 for y in harmonics)
    np.testing.assert_allclose(example.power(example.patterns()).numpy(), expected, atol=1e-8)


def test_the_label_is_as_probable_after_each_rotation(example, rule):
    numbers = {tuple(row): k for k, row in enumerate(example.patterns().int().tolist())}
    for turn in example.rotations():
        turned = torch.empty(4096, 12, dtype=torch.int)
        turned[:, turn] = example.patterns().int()
        where = torch.tensor([numbers[tuple(row)] for row in turned.tolist()])
        assert torch.equal(rule.p[where], rule.p)


def test_the_label_tells_nearly_a_bit(example, rule):
    p = rule.p.numpy()
    assert np.mean(p) == pytest.approx(0.5, abs=0.01)
    joint = np.stack([p, 1 - p]) / 4096
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = joint * np.log2(joint / joint.sum(0) / joint.sum(1, keepdims=True))
    i_xy = np.nansum(terms)
    assert 0.98 < i_xy < 1
    assert i_xy == pytest.approx(0.99, abs=1e-9)
    assert example.information(rule.p) == pytest.approx(i_xy, abs=1e-9)


def test_the_threshold_splits_as_evenly_as_the_levels_allow(example, rule):
    f = example.power(example.patterns())
    shares = [float((f > level).double().mean()) for level in f.unique()]
    best = min(abs(share - 0.5) for share in shares)
    assert abs(float((f > rule.theta).double().mean()) - 0.5) == pytest.approx(best)
    assert torch.equal(rule.p > 0.5, f > rule.theta)


# -- the networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("activation", "gain"), [(nn.Tanh, 1), (nn.ReLU, 2)])
def test_networks_have_the_papers_form_and_their_seeds_weights(example, activation, gain):
    before = torch.get_rng_state()
    nets = [task().network(activation, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    weights = [[m.weight for m in net.modules() if isinstance(m, nn.Linear)] for net in nets]
    assert [w.shape[1] for w in weights[0]] + [2] == [12, 10, 7, 5, 4, 3, 2]
    assert all(map(torch.equal, weights[0], weights[1]))
    assert not torch.equal(weights[0][0], weights[2][0])
    assert sum(isinstance(m, activation) for m in nets[0].modules()) == 5
    for w in weights[0]:
        assert float(w.detach().abs().max()) <= 2 * (gain / w.shape[1]) ** 0.5 + 1e-6


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_networks_learn_side_by_side_what_each_learns_alone(example, activation):
    nets, alone = (
        [task().network(activation, torch.Generator().manual_seed(seed)).double() for seed in range(3)]
        for _ in range(2)
    )
    adams = [torch.optim.Adam(net.parameters(), lr=4e-4) for net in alone]
    team = example.Team(nets, activation())
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        x = torch.randint(2, (3, 64, 12), generator=generator).double()
        y = torch.randint(2, (3, 64), generator=generator)
        team.step(x, y)
        for net, adam, own_x, own_y in zip(alone, adams, x, y):
            adam.zero_grad()
            nn.functional.cross_entropy(net(own_x), own_y).backward()
            adam.step()
    team.write_back()
    for net, other in zip(nets, alone):
        for learned, expected in zip(net.parameters(), other.parameters()):
            torch.testing.assert_close(learned, expected, rtol=0, atol=1e-9)


def test_training_goes_over_each_networks_own_share_of_the_data(example, monkeypatch):
    seen = []
    monkeypatch.setattr(example.Team, "step", lambda self, x, y: seen.append(x[:, :, 0]))
    epochs = example.train(nn.Tanh, torch.arange(4096.0)[:, None].repeat(1, 12), torch.zeros(4096).long(), 2)
    assert next(epochs)[0] == 0
    assert not seen
    assert next(epochs)[0] == 7
    first, seen[:] = torch.cat(seen, dim=1), []
    assert next(epochs)[0] == 14
    second = torch.cat(seen, dim=1)
    assert first.shape == (2, 3482)
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(1).values, second.sort(1).values)
    assert len(first[0].unique()) == len(first[1].unique()) == 3482
    assert not torch.equal(first[0].sort().values, first[1].sort().values)


# -- bins, cells and measurements --------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[0.0, 0.0], [0.5], [-3.0, 0.02, 8.0], [0.069, 0.071, 33.0]])
def test_edges_are_multiples_of_the_width_that_hold_all_values(example, values):
    z = torch.tensor(values)[:, None]
    edges = example.Grid(0.07).edges(z).numpy()
    np.testing.assert_allclose(edges / 0.07, np.round(edges / 0.07), atol=1e-9)
    np.testing.assert_allclose(np.diff(edges), 0.07)
    assert edges[0] <= float(z.min()) < edges[1]
    assert edges[-2] <= float(z.max()) < edges[-1]


def relu_team(example, n_seeds=2):
    generators = [torch.Generator().manual_seed(seed) for seed in range(n_seeds)]
    return example.Team([task().network(nn.ReLU, generator) for generator in generators], nn.ReLU())


def outputs_of(net, x):
    """Layer → what it puts out; of the last one the probabilities."""
    rows = {}
    with torch.no_grad():
        for name, layer in net.named_children():
            x = layer(x)
            rows[name] = x.softmax(1) if name == "out" else x
    return rows


def test_a_team_is_measured_at_the_width_the_papers_had(example):
    x = 2 * example.patterns().float() - 1
    y = torch.arange(4096) % 2
    team = relu_team(example)
    planes = {"whole": example.plane(example.WHOLE), "unit": example.plane(example.UNIT)}
    before = torch.get_rng_state()
    history = list(example.measured(planes, team, x, y, epoch=3, step=21))
    again = list(example.measured(planes, team, x, y, epoch=3, step=21))
    assert torch.equal(torch.get_rng_state(), before)
    assert history == again
    assert len(history) == 2 * 2 * 6
    outputs = [outputs_of(net, x) for net in team.nets]
    for one in history:
        point, z = one.point, outputs[one.seed][one.point.layer].double().numpy()
        codes = np.floor(z / 0.07)
        if one.panel == "unit":
            codes = codes.clip(-15, 14)  # all above 14 × 0.07 = 0.98 in one bin, all below −0.98 in another
        assert (point.epoch, point.step, point.n_samples) == (3, 21, 4096)
        assert point.h_t == pytest.approx(plain_entropy(codes), abs=1e-8)
        i_ty = point.h_t + 1 - plain_entropy(np.column_stack([codes, y]))
        assert point.i_ty == pytest.approx(i_ty, abs=1e-8)


def test_a_team_is_measured_in_the_default_cells_of_all_patterns(example):
    x = 2 * example.patterns().float() - 1
    y = torch.arange(4096) % 2
    team = relu_team(example)
    history = list(example.measured({"cells": example.plane(None)}, team, x, y, epoch=0, step=0))
    assert len(history) == 2 * 6
    outputs = [outputs_of(net, x) for net in team.nets]
    for one in history:
        found = cells(outputs[one.seed][one.point.layer])
        assert (one.point.source, one.point.n_samples) == ("cells", 4096)
        assert one.point.n_codes <= example.N_CELLS == 64
        # A team's product may differ from a network's in the last bit, and so many patterns lie between two cells.
        h_t = plain_entropy(found.numbers[:, None])
        assert one.point.h_t == pytest.approx(h_t, abs=0.25)
        i_ty = h_t + 1 - plain_entropy(np.column_stack([found.numbers, y]))
        assert one.point.i_ty == pytest.approx(i_ty, abs=0.1)


def test_cells_do_not_see_the_scale_that_bins_of_one_width_measure(example):
    x = 2 * example.patterns().float() - 1
    y = torch.arange(4096) % 2
    planes = {"bins": example.plane(example.WHOLE), "cells": example.plane(None)}

    def hidden(factor):
        team = relu_team(example, 1)
        with torch.no_grad():
            team.weights[0] *= factor  # offsets are 0: all ReLU layers grow by the factor
        points = example.measured(planes, team, x, y, epoch=0, step=0)
        return {(one.panel, one.point.layer): one.point.h_t for one in points if one.point.layer != "out"}

    before, after = hidden(1), hidden(8)  # a power of two changes no digit
    for panel, layer in before:
        if panel == "cells":
            assert after[panel, layer] == pytest.approx(before[panel, layer], abs=1e-6)
    assert after["bins", "layer5"] > before["bins", "layer5"] + 1


@pytest.mark.parametrize("n_epochs", [1, 2, 3, 40, 8000])
def test_epochs_to_measure_after_spread_from_the_first_to_the_last(example, n_epochs):
    epochs = example.moments(n_epochs)
    assert epochs[:2] == [0, 1]
    assert epochs[-1] == n_epochs
    assert epochs == sorted(set(epochs))
    assert len(epochs) <= 40


# -- whole runs --------------------------------------------------------------------------------------------------------


FLAGS = ["--epochs", "1", "--seeds", "2"]
FILES = ["planes.csv", "planes.png", "planes_bound.csv", "planes_bound.png"]


class Finished(NamedTuple):
    """A run: the folder it wrote to, what it printed, its task, and what it measured."""

    folder: Path
    printed: str
    task: Any
    measured: Any


@pytest.fixture(scope="module")
def finished(example, tmp_path_factory):
    """A run in this process, which leaves the random state alone."""
    folder, given, results = tmp_path_factory.mktemp("finished") / "new", [], []

    def watched(*arguments, run=example.run):
        given.append(arguments)
        results.append(run(*arguments))
        return results[-1]

    before = torch.get_rng_state()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setattr(example, "run", watched)
        example.main([*FLAGS, "--out", str(folder / "planes.png")])
    assert torch.equal(torch.get_rng_state(), before)
    return Finished(folder, printed.getvalue(), given[0][-1], results[0])


def test_a_run_prints_what_it_found_and_writes_pictures_and_values(example, finished):
    assert sorted(path.name for path in finished.folder.iterdir()) == FILES
    for name in FILES[1::2]:
        assert (finished.folder / name).read_bytes().startswith(b"\x89PNG")

    printed = finished.printed
    assert "4096 patterns, 96 where the 60 rotations of the icosahedron count as none" in printed
    assert "I(X;Y) = 0.9900 bit" in printed
    assert printed.count("of the 3-unit layer goes from") == 5
    assert printed.count("beside the bound, in bits") == 4
    distances = read(finished.folder / "planes_bound.csv")
    assert len(distances) == 4 * 2 * 2 * 6
    assert {row["epoch"] for row in distances} == {"0", "1"}
    assert all(0 <= float(row["gap"]) <= 1 and 0 <= float(row["surplus"]) <= 12 for row in distances)
    rows = read(finished.folder / "planes.csv")
    assert list(rows[0]) == ["panel", "seed", *InformationPoint._fields]
    assert len(rows) == 5 * 2 * 2 * 6
    assert {row["panel"] for row in rows} == PANELS
    assert {row["epoch"] for row in rows} == {"0", "1"}
    for row in rows:
        in_cells = row["panel"].endswith("_cells")
        assert row["source"] == ("cells" if in_cells else "binned")
        assert not in_cells or float(row["h_t"]) <= 6
        if row["layer"] == "layer1":
            assert row["verdict"] == ("ok" if in_cells else "saturated")
    for panel in PANELS:
        chosen = [row for row in rows if (row["panel"], row["layer"], row["epoch"]) == (panel, "layer1", "0")]
        h_t = np.mean([float(row["h_t"]) for row in chosen])
        section = printed.split(f"\n{example.PANELS[panel].title}\n")[1]
        assert f"    0  layer1     10   {h_t:5.2f} (" in section.splitlines()[1]


@pytest.mark.slow
def test_the_script_does_the_same_without_a_warning(programs, finished, tmp_path):
    done = programs.script(SCRIPT, *FLAGS, "--out", tmp_path / "planes.png", folder=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert f"The planes: {tmp_path / 'planes.png'}" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    assert done.stdout.replace(str(tmp_path), str(finished.folder)) == finished.printed
    for name in FILES[::2]:
        assert (tmp_path / name).read_bytes() == (finished.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--epochs", "0"], "argument --epochs: must be a whole number of at least 1, got '0'"),
        (["--epochs", "1.5"], "argument --epochs: must be a whole number of at least 1, got '1.5'"),
        (["--seeds", "-3"], "argument --seeds: must be a whole number of at least 1, got '-3'"),
        (["--seeds", "many"], "argument --seeds: must be a whole number of at least 1, got 'many'"),
        (["--out", "plane.txt"], "argument --out: must end in .png, .pdf or .svg, got 'plane.txt'"),
        (["--out", "file/plane.png"], "argument --out: must lie in a folder that can be made, got 'file/plane.png' ("),
        (["--epoch-s", "3"], "unrecognized arguments: --epoch-s 3"),
    ],
)
def test_a_bad_argument_is_told_in_a_sentence_before_anything_is_done(
    example, tmp_path, monkeypatch, capsys, flags, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        example.main(flags)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert sentence in printed.err.splitlines()[-1]
    assert not printed.out
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_picture_that_cannot_be_written_is_told_in_a_sentence(example, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(example.beside_bound, "task", lambda _: finished.task)
    monkeypatch.setattr(example, "run", lambda *_: finished.measured)
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(SystemExit) as stopped:
        example.main(["--out", str(tmp_path / "taken.png")])
    assert str(stopped.value.code).startswith(f"error: {tmp_path / 'taken.png'} and the .csv beside it cannot be")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken.csv", "taken.png", "taken_bound.csv"]


@pytest.mark.slow
def test_tanh_falls_relu_does_not_and_seems_to_where_it_is_clipped(example, rule, monkeypatch):
    # Five times as fast as the example, whose learning rate is tested above.
    monkeypatch.setattr(task(), "LEARNING_RATE", 2e-3)
    monkeypatch.setattr(example, "N_MEASUREMENTS", 4)  # all of them take twice as long as the training
    monkeypatch.setattr(example.beside_bound, "distances", lambda *_: ())
    y = (torch.rand(4096, generator=torch.Generator().manual_seed(0), dtype=torch.float64) < rule.p).long()
    history, _ = example.run(example.patterns(), y, 500, 2, None)

    def h_t(panel, layer):
        return [summary.h_t for _, summary in sorted(example.over_seeds(history, panel, layer).items())]

    tanh, relu, clipped = (h_t(panel, "layer5") for panel in ("tanh", "relu", "relu_unit"))
    assert tanh[-1] < 0.7 * tanh[0]  # and below a half later on
    assert relu[-1] > relu[0] + 1
    assert relu[-1] > max(relu) - 0.5
    assert clipped[-1] < max(clipped) / 2
    # Cells follow the scale: tanh's fall is there, ReLU's rise with its activations and its fall in unfit bins are not.
    tanh_cells, relu_cells = (h_t(panel, "layer5") for panel in ("tanh_cells", "relu_cells"))
    assert tanh_cells[-1] < 0.65 * tanh_cells[0]
    assert relu_cells[-1] > relu_cells[0] - 0.5
    assert max(relu_cells) < relu_cells[0] + 1.5
    last = [one.point for one in history if (one.panel, one.point.layer) == ("relu_unit", "layer5")][-2:]
    assert {(point.epoch, point.verdict) for point in last} == {(500, "clipped")}
    unclipped = [one.point for one in history if one.panel in ("tanh", "relu")]
    assert all(point.saturation > 0.9 for point in unclipped if point.layer == "layer1")
    found = example.findings(history)
    assert "[−1, 1]: H(T) of the 3-unit layer" in found
    assert "tanh, cells: H(T) of the 3-unit layer" in found
    assert "(Fano): its cells mix what later layers separate." in found
