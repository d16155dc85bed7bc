"""The bundled example: its data, its discretizations, and whole runs of it."""

import gzip
import hashlib
import importlib.util
import math
import random
import re
import shlex
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections import OrderedDict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_ib import FixedBins, Quantizer, measure
from lightning_ib.records import History, InformationPoint
from lightning_ib.records.reliability import Verdict
from tests.helpers import ROOT
from tests.helpers.mnist import channels_last
from tests.helpers.records import estimate
from tests.reference.test_thesis import thesis_layers

pytest.importorskip("pooch", reason="needs the extra: pip install 'lightning-ib[example]'")
pytest.importorskip("sklearn", reason="needs the extra: pip install 'lightning-ib[example]'")

SCRIPT = ROOT / "examples" / "mnist_cnn.py"
FILES = [f"{split}-{kind}" for split in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("mnist_cnn", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(example, tmp_path, monkeypatch, capsys):
    """Run the example in this process; gives what it printed and the points it wrote. Random states are put back."""
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(variable, "0")
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()

    def _run(*flags):
        example.main([*flags, "--log-dir", str(tmp_path)])
        newest = max((tmp_path / "lightning_logs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return capsys.readouterr().out, History.read_csv(newest / "information_plane.csv"), newest

    yield _run
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])


@pytest.fixture
def unreachable(example, monkeypatch):
    """A download that fails: nobody listens at this port."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/"
    monkeypatch.setattr(example, "MIRROR", url)
    return url


@pytest.fixture
def serve(example, monkeypatch):
    """Serve a folder at the place the example downloads from; gives the list of what was asked for."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def _serve(folder):
        asked = []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *args):
                asked.append(self.path)

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        monkeypatch.setattr(example, "MIRROR", f"http://127.0.0.1:{server.server_port}/")
        return asked

    yield _serve
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def idx(array):
    return b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_small_mnist(raw, n_train=40, n_test=20):
    """Random images in MNIST's format, gzipped."""
    rng = np.random.default_rng(0)
    raw.mkdir(parents=True)
    for split, n in (("train", n_train), ("t10k", n_test)):
        images, labels = rng.integers(0, 256, (n, 28, 28), np.uint8), (np.arange(n) % 10).astype(np.uint8)
        (raw / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (raw / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


# -- reading MNIST -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mnist_is_read_packed_and_unpacked(example, data_dir, mnist_train, mnist_test, tmp_path):
    unpacked = tmp_path / "MNIST" / "raw"
    unpacked.mkdir(parents=True)
    for name in FILES:
        (unpacked / name).write_bytes(gzip.decompress((data_dir / "MNIST" / "raw" / f"{name}.gz").read_bytes()))
    assert hashlib.md5((unpacked / FILES[0]).read_bytes()).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    for split, (x, y) in (("train", mnist_train), ("t10k", mnist_test)):
        for folder in (data_dir, tmp_path):
            images, labels = example.read_mnist(folder, split)
            assert torch.equal(images, x)
            assert torch.equal(labels, y)
            assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)


def test_idx_keeps_shape_and_values(example, tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "plain").write_bytes(idx(array))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx(array)))
    for name in ("plain", "packed.gz"):
        assert torch.equal(example.read_idx(tmp_path / name), torch.from_numpy(array))


WHOLE = idx(np.ones((3, 28, 28), np.uint8))
# No time in the header: every test worker must see the same bytes.
PACKED = gzip.compress(WHOLE, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.gz", PACKED[:-20], "it cannot be unpacked"),
        ("x.gz", PACKED[:-8] + b"\x00" * 8, "it cannot be unpacked"),
        ("x.gz", PACKED[:12] + b"\xff" * 8 + PACKED[20:], "it cannot be unpacked"),
        ("x.gz", b"<html>404 Not Found</html>", "it cannot be unpacked"),
        (
            "x.gz",
            gzip.compress(WHOLE[:-5], mtime=0),
            "it holds 2347 values where it should hold 2352 (shape (3, 28, 28))",
        ),
        ("x", WHOLE[:-5], "it holds 2347 values where it should hold 2352 (shape (3, 28, 28))"),
        ("x", WHOLE + b"\x00", "it holds 2353 values where it should hold 2352 (shape (3, 28, 28))"),
        ("x", WHOLE[:10], "it does not begin as an IDX file of bytes does"),
        ("x", b"\x00\x00\x0d" + WHOLE[3:], "it does not begin as an IDX file of bytes does"),
        ("x", b"", "it does not begin as an IDX file of bytes does"),
        ("x", idx(np.ones((0, 28, 28), np.uint8)), "it holds 0 values"),
    ],
    ids=[
        "gz-short",
        "gz-checksum",
        "gz-garbled",
        "gz-html",
        "gz-values-missing",
        "values-missing",
        "values-too-many",
        "half-a-header",
        "not-bytes",
        "empty",
        "no-images",
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(example, tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path} is damaged, {reason}")) as caught:
        example.read_idx(path)
    assert str(caught.value).endswith(": delete it, and it is downloaded anew, or put a sound copy in its place")


def test_files_that_do_not_belong_together_are_refused(example, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    write_small_mnist(raw)
    (raw / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(39, np.uint8))))
    with pytest.raises(ValueError, match=r"images of shape \(40, 28, 28\) and labels of shape \(39,\) where"):
        example.read_mnist(tmp_path, "train")


# -- downloading it ----------------------------------------------------------------------------------------------------


def checksums(folder):
    return {f"{name}.gz": hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest() for name in FILES}


@pytest.mark.slow
def test_mnist_is_downloaded_once_with_a_progress_bar(
    example, data_dir, mnist_test, serve, tmp_path, monkeypatch, capfd
):
    # The same files as the real server's, packed anew: only their checksums differ from it.
    folder = data_dir / "MNIST" / "raw"
    monkeypatch.setattr(example, "MD5", checksums(folder))
    asked = serve(folder)
    for _ in range(2):
        training, validation = example.load_data("mnist", tmp_path)
    assert sorted(asked) == sorted(f"/{name}.gz" for name in FILES)
    assert (len(training), len(validation)) == (60_000, 10_000)
    assert torch.equal(validation.tensors[0], mnist_test[0])
    assert torch.equal(validation.tensors[1], mnist_test[1])
    assert sorted(path.name for path in (tmp_path / "MNIST" / "raw").iterdir()) == sorted(f"{n}.gz" for n in FILES)
    assert "100%" in capfd.readouterr().err


def test_only_what_is_missing_is_downloaded(example, serve, tmp_path, monkeypatch):
    write_small_mnist(tmp_path / "server")
    monkeypatch.setattr(example, "MD5", checksums(tmp_path / "server"))
    asked = serve(tmp_path / "server")
    write_small_mnist(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    example.load_data("mnist", tmp_path)
    assert asked == ["/t10k-labels-idx1-ubyte.gz"]


def test_a_download_with_a_wrong_checksum_is_refused_and_not_kept(example, serve, tmp_path):
    write_small_mnist(tmp_path / "server")
    asked = serve(tmp_path / "server")
    with pytest.raises(RuntimeError, match=r"its download failed \(MD5 hash of downloaded file .* does not match"):
        example.load_data("mnist", tmp_path)
    assert len(asked) == 1
    assert list((tmp_path / "MNIST" / "raw").iterdir()) == []


def test_a_server_without_the_file_is_told(example, serve, tmp_path):
    serve(tmp_path)
    with pytest.raises(RuntimeError, match=r"its download failed \(404 Client Error: File not found"):
        example.load_data("mnist", tmp_path / "data")


def test_no_connection_is_told_at_once(example, unreachable, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits for another try"))
    with pytest.raises(OSError, match="cannot be reached") as caught:
        example.read_mnist(tmp_path, "train")
    assert str(caught.value) == (
        f"train-images-idx3-ubyte.gz is not in {tmp_path / 'MNIST' / 'raw'}, and {unreachable} cannot be reached to "
        "download it: name the folder that holds MNIST/raw with --data-dir"
    )


def test_the_checksums_cover_the_four_files(example):
    assert sorted(example.MD5) == sorted(f"{name}.gz" for name in FILES)
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in example.MD5.values())
    assert example.MIRROR.startswith("https://")


# -- the digits --------------------------------------------------------------------------------------------------------


def test_digits_are_of_the_size_of_mnist(example):
    (x, y), (x_val, y_val) = example.digits()
    assert x.shape == (1500, 1, 28, 28)
    assert x_val.shape == (297, 1, 28, 28)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert 0 <= x.min() < x.max() <= 1
    assert y.unique().tolist() == y_val.unique().tolist() == list(range(10))
    assert example.MNISTNet()(x[:2]).shape == (2, 10)


def test_digits_take_the_place_of_mnist_with_a_warning(example, unreachable, tmp_path):
    with pytest.warns(UserWarning, match="MNIST cannot be had") as caught:
        training, validation = example.load_data("auto", tmp_path)
    assert (len(training), len(validation)) == (1500, 297)
    (warning,) = caught
    assert str(warning.message) == (
        f"MNIST cannot be had, since train-images-idx3-ubyte.gz is not in {tmp_path / 'MNIST' / 'raw'}, and "
        f"{unreachable} cannot be reached to download it: name the folder that holds MNIST/raw with --data-dir. Taking "
        "scikit-learn's 8 × 8 handwritten digits instead: 1500 images to train on, whose values are not to be "
        "compared with MNIST's."
    )


def test_digits_take_the_place_of_a_damaged_mnist_with_a_warning(example, unreachable, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    write_small_mnist(raw)
    (raw / "t10k-images-idx3-ubyte.gz").write_bytes(PACKED[:-20])
    with pytest.warns(UserWarning, match=r"t10k-images-idx3-ubyte.gz is damaged, .* delete it"):
        training, _ = example.load_data("auto", tmp_path)
    assert len(training) == 1500


def test_digits_asked_for_are_taken_without_a_warning(example, unreachable, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training, _ = example.load_data("digits", tmp_path)
    assert len(training) == 1500
    assert list(tmp_path.iterdir()) == []


def test_mnist_that_cannot_be_had_ends_in_one_sentence(example, unreachable, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setenv("PL_SEED_WORKERS", "0")
    with pytest.raises(SystemExit) as caught, torch.random.fork_rng():
        example.main(["--data", "mnist", "--data-dir", str(tmp_path)])
    assert caught.value.code == (
        f"error: MNIST cannot be had, since train-images-idx3-ubyte.gz is not in {tmp_path / 'MNIST' / 'raw'}, and "
        f"{unreachable} cannot be reached to download it: name the folder that holds MNIST/raw with --data-dir, or "
        "take --data digits."
    )


def test_without_pooch_or_scikit_learn_the_sentence_says_what_to_install(example, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(RuntimeError, match="to download it takes pooch: pip install pooch, or take --data digits"):
        example.load_data("mnist", tmp_path)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(RuntimeError, match="pip install scikit-learn"):
        example.load_data("digits", tmp_path)


# -- the discretizations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "conv1", "conv2"),
    [
        ("none", 16 * 14 * 14, 32 * 7 * 7),
        ("v1", 16 * 3 * 3, 32 * 2 * 2),
        ("v2", 8 * 3 * 3, 16 * 2 * 2),
        ("v3", 4 * 3 * 3, 8 * 2 * 2),
        ("v4", 16 * 2 * 2, 32),
        ("v5", 16 * 2 * 2, 32),
    ],
)
def test_pools_leave_so_many_coordinates(example, name, conv1, conv2):
    net, x = example.MNISTNet(), torch.rand(5, 1, 28, 28)
    t1 = net.conv1(x)
    t2 = net.conv2(t1)
    asked = example.discretization(name)
    assert list(asked["layers"]) == ["conv1", "conv2", "out"]
    assert asked["layers"]["conv1"].pooled(t1).shape == (5, conv1)
    assert asked["layers"]["conv2"].pooled(t2).shape == (5, conv2)
    assert asked["input"].pooled(x).shape == (5, 49)
    probabilities = asked["layers"]["out"].pooled(net(x))
    assert probabilities.shape == (5, 10)
    assert torch.allclose(probabilities.sum(1), torch.ones(5)) == (name != "none")


def test_cells_leave_everything_to_the_callback(example):
    assert example.discretization("cells") == {"layers": None, "input": None}
    assert example.parser().parse_args([]).discretization == "cells"


def test_a_discretization_that_does_not_exist_is_refused(example):
    with pytest.raises(KeyError, match="v6"):
        example.discretization("v6")


def test_thesis_bins_are_the_two_quantile_edges(example):
    z = torch.randn(1001, 3, generator=torch.Generator().manual_seed(0)).relu()
    bins = example.ThesisBins()
    assert bins.refit
    low, high = np.quantile(z.double().numpy(), [0.01, 0.99], axis=0)
    expected = np.stack([low - 0.1, (high + 0.1) / 2], axis=1)
    np.testing.assert_allclose(bins.edges(z).numpy(), expected, rtol=0, atol=1e-12)


def test_thesis_bins_ascend_for_a_coordinate_far_above_zero(example):
    edges = example.ThesisBins().edges(torch.tensor([[0.0, 5.0], [1.0, 5.1]]))
    assert (edges.diff(dim=1) > 0).all()


def thesis_network(example, data_dir, kind):
    net = example.MNISTNet()
    net.load_state_dict(torch.load(data_dir / "thesis" / kind / "epoch_9.pt", weights_only=True))
    return channels_last(net)


def test_the_thesis_discretization_is_the_one_that_meets_its_record(example, data_dir, mnist_train):
    """The one that ``tests/reference/test_thesis.py`` measures all images with."""
    net, data = thesis_network(example, data_dir, "max_pool"), [tuple(part[:1500] for part in mnist_train)]
    written_out = {"layers": thesis_layers(), "input": Quantizer(nn.MaxPool2d(4), FixedBins([0.0, 0.5]))}
    found, expected = (measure(net, data, **asked) for asked in (example.discretization("v3"), written_out))
    for one, other in zip(found.points(), expected.points(), strict=True):
        assert (one.layer, one.h_x) == (other.layer, other.h_x)
        assert (one.h_t, one.i_ty) == pytest.approx((other.h_t, other.i_ty), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "least", "most"), [("v5", "avg_pool", 9.6, 9.95), ("v1", "max_pool", 10.97, 11.01)]
)
def test_other_discretizations_give_the_first_layer_what_the_thesis_records(
    example, data_dir, mnist_train, name, kind, least, most
):
    # Without the layers after it, which take most of the time.
    net = nn.Sequential(OrderedDict(conv1=thesis_network(example, data_dir, kind).conv1))
    asked, data = example.discretization(name), list(zip(mnist_train[0].split(500), mnist_train[1].split(500)))
    (point,) = measure(net, data, {"conv1": asked["layers"]["conv1"]}, input=asked["input"], unit="nats")
    assert least < point.h_t < most


# -- whole runs --------------------------------------------------------------------------------------------------------

ROW = re.compile(r"^ +(\d+)  (\S+)" + 6 * r" +(–|-?\d+\.\d{3})" + r"(?:  (\w+))?$", re.MULTILINE)


def check_report(printed, points, log_dir):
    """What is printed at the end: the table, the figure, the command; and the figure is there."""
    estimates = History.read_csv(log_dir / "information_plane.csv").estimates()
    read = {(e.epoch, e.layer): e.value for e in estimates if (e.source, e.quantity) == ("probe", "I_TY")}
    assert len(read) == len(points)
    rows = ROW.findall(printed)
    assert [(int(epoch), layer) for epoch, layer, *_ in rows] == [(p.epoch, p.layer) for p in points]
    for (_, _, *figures, verdict), point in zip(rows, points):
        probe = read[point.epoch, point.layer]
        expected = (point.i_xt, point.i_ty, point.i_ty_permuted, probe, point.i_ty_fano, point.h_t)
        shown = [math.nan if figure == "–" else float(figure) for figure in figures]
        assert shown == pytest.approx(expected, abs=0.0006, nan_ok=True)
        assert verdict == point.verdict
    figure = re.search("^The information plane: (.+)$", printed, re.MULTILINE).group(1)
    assert Path(figure) == log_dir / "information_plane.png"
    assert Path(figure).read_bytes().startswith(b"\x89PNG")
    command = shlex.split(printed.rstrip().splitlines()[-1])
    assert command[-2:] == ["--logdir", str(log_dir)]
    return command


# Others differ in their pools, whose shapes are tested above.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["cells", "none", "v3", "v5"])
def test_every_kind_of_discretization_runs_from_end_to_end(example, run, monkeypatch, name):
    # Fewer images to validate on than to train on: the number of samples says which of them are measured.
    training, validation = example.load_data("digits", Path())
    monkeypatch.setattr(example, "load_data", lambda *_: (training, TensorDataset(*validation[:120])))
    printed, points, log_dir = run("--limit", "200", "--epochs", "1", "--discretization", name)
    by_cells = name == "cells"
    layers = ["conv1.0", "conv2.0", "out"] if by_cells else ["conv1", "conv2", "out"]
    n = 120 if by_cells else 200
    assert [(point.epoch, point.layer) for point in points] == [(e, layer) for e in (0, 1) for layer in layers]
    assert {(point.n_samples, point.unit) for point in points} == {(n, "nats")}
    assert {point.source for point in points} == {"cells" if by_cells else "binned"}
    log_n = math.log(n)
    assert printed.count(f"Information in nats, over {n} images: log N = {log_n:.3f}, H(X) = ") == 1
    assert all(0 <= point.h_t <= log_n + 1e-9 and 0 <= point.i_ty <= 2.303 for point in points)
    check_report(printed, points, log_dir)


@pytest.mark.slow
def test_the_seed_settles_the_run(run):
    flags = ("--data", "digits", "--limit", "100", "--epochs", "1", "--discretization", "v4")
    first, again, other = (run(*flags, "--seed", seed)[1] for seed in ("3", "3", "4"))
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", ["cells", "v3"])
def test_a_single_image_is_no_error(run, name):
    # Nothing can be told of one image: the library warns of its one class, and of a probe without a second row.
    with (
        pytest.warns(UserWarning, match="all 1 samples have the same target"),
        pytest.warns(UserWarning, match="probe could not be estimated at epoch 0, its values are NaN"),
    ):
        printed, _, _ = run("--data", "digits", "--limit", "1", "--epochs", "1", "--discretization", name)
    assert "The information plane: " in printed
    assert "information_plane.png" in printed  # without a figure of the target: I(X;T) over the epochs


@pytest.mark.slow
def test_the_script_runs_on_mnist_and_its_command_opens_the_run(programs, data_dir, tmp_path):
    flags = [
        "--data",
        "mnist",
        "--data-dir",
        str(data_dir),
        "--limit",
        "1500",
        "--epochs",
        "2",
        "--discretization",
        "v3",
    ]
    done = programs.script(SCRIPT, *flags, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "UserWarning" not in done.stderr
    log_dir = Path("lightning_logs", "version_0")
    points = History.read_csv(tmp_path / log_dir / "information_plane.csv")
    assert (tmp_path / log_dir / "information_plane.png").exists()
    assert f"The information plane: {log_dir / 'information_plane.png'}" in done.stdout
    assert len(ROW.findall(done.stdout)) == len(points) == 9
    assert points[-1].i_ty > points[2].i_ty + 0.5  # the last layer has learned
    assert re.search(r"Epoch 1(: 100%|/1 )", done.stdout + done.stderr), "tqdm's bar, or Rich's where it is installed"

    command = shlex.split(done.stdout.rstrip().splitlines()[-1])
    shown = subprocess.run([*command, "--inspect"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    assert "ib/information_plane" in shown.stdout


@pytest.mark.slow
def test_the_script_ends_without_a_traceback_where_mnist_is_damaged(programs, tmp_path):
    write_small_mnist(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(PACKED[:-20])
    done = programs.script(SCRIPT, "--data", "mnist", "--data-dir", tmp_path, folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.rstrip().splitlines()[-1]
    assert last.startswith("error: MNIST cannot be had, since ")
    assert last.endswith("put a sound copy in its place, or take --data digits.")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--epochs", "0"], "argument --epochs: must be a whole number of at least 1, got '0'"),
        (["--epochs", "ten"], "argument --epochs: must be a whole number of at least 1, got 'ten'"),
        (["--batch-size", "-1"], "argument --batch-size: must be a whole number of at least 1, got '-1'"),
        (["--limit", "0.5"], "argument --limit: must be a whole number of at least 1, got '0.5'"),
        (["--seed", "4294967296"], "argument --seed: must be a whole number between 0 and 4294967295"),
        (["--discretization", "v6"], "argument --discretization: invalid choice: 'v6'"),
        (["--data", "cifar"], "argument --data: invalid choice: 'cifar'"),
    ],
)
def test_a_wrong_flag_ends_in_one_line(example, capsys, flags, sentence):
    with pytest.raises(SystemExit) as caught:
        example.main(flags)
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err.rstrip().splitlines()[-1]


def test_the_table_explains_its_verdicts(example):
    point = InformationPoint.missing("a_long_name", n_samples=8, unit="bits")._replace(h_x=3.0, h_y=1.0)
    known = {"i_xt": 2.9, "i_ty": 1.0, "i_ty_permuted": 0.5, "h_t": 2.9, "saturation": 0.967, "verdict": "saturated"}
    later = point._replace(epoch=1, **known)
    probe = estimate(1, 0, "a_long_name", "probe", "I_TY", 0.75)
    estimates = [probe, probe._replace(quantity="accuracy", value=0.9), probe._replace(source="kde", value=0.25)]
    expected = [
        "Information in bits, over 8 images: log N = 3.000, H(X) = 3.000, H(Y) = 1.000",
        "",
        "epoch  layer        I(X;T)  I(T;Y)  chance   probe    Fano    H(T)  verdict",
        "    0  a_long_name       –       –       –       –       –       –",
        "    1  a_long_name   2.900   1.000   0.500   0.750   0.625   2.900  saturated",
        "",
        "chance: I(T;Y) under permuted labels; probe: what a linear probe reads of the same rows",
        "Fano: the least I(T;Y) of every layer, by the accuracy of the head",
        "saturated: H(T) > 0.9 log N. Such values tell the images apart, not what was learned",
    ]
    assert example.table(History.of([point, later._replace(i_ty_fano=0.625)], estimates)).splitlines() == expected
    without = example.table(History.of([point, later])).splitlines()
    assert without[4] == "    1  a_long_name   2.900   1.000   0.500       –       –   2.900  saturated"


def test_every_verdict_of_a_layer_is_explained(example):
    target = {verdict for verdict in get_args(Verdict) if verdict.startswith("target_")}
    assert set(example.DOUBTS) == set(get_args(Verdict)) - target - {"ok"}


def test_the_tensorboard_command_quotes_the_folder_and_finds_the_program(example, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shlex.split(example.tensorboard_command("my runs")) == [
        *(sys.executable, "-m", "tensorboard.main", "--logdir", "my runs")
    ]
    program = tmp_path / "tensorboard"
    program.write_text("")
    program.chmod(0o755)
    assert example.tensorboard_command("my runs") == "tensorboard --logdir 'my runs'"
