"""What a run shows and says: bars that move, lines that stand clear of them, a table at the end; and silence."""

import logging
import math
import re
import sys
from pathlib import Path

import pytest
from torch import nn

from lightning_ib import InformationPlaneCallback, measure, resolution_sweep
from lightning_ib.callbacks.namespaces import say, with_progress
from lightning_ib.records import History, InformationPoint, Record
from lightning_ib.report.summary import changes, file_locations, table
from tests.helpers.records import exact
from tests.helpers.tiny import TinyModule, fit, make_data, pl, trainer, val_loader

pytestmark = pytest.mark.usefixtures("few_pictures")

# A Trainer in a terminal, with one kind of bar; what it prints is printed again.
IN_A_TERMINAL = """
import fcntl, importlib.util, os, pty, struct, sys, termios

pid, terminal = pty.fork()
if pid == 0:
    import warnings
    warnings.filterwarnings("ignore")
    from lightning_ib import InformationPlaneCallback
    from tests.helpers.tiny import TinyModule, pl, train_loader, val_loader

    kind, data, folder = sys.argv[1:]
    bar = {"tqdm": pl.callbacks.TQDMProgressBar, "rich": pl.callbacks.RichProgressBar}[kind]()
    tsne = importlib.util.find_spec("sklearn") is not None
    callback = InformationPlaneCallback(data=None if data == "none" else data, tsne=tsne, max_samples=40)
    # Lightning's bar stands first: a line of ours is said while it is shown.
    run = pl.Trainer(callbacks=[bar, callback], max_epochs=2, accelerator="cpu", default_root_dir=folder,
                     enable_model_summary=False, enable_checkpointing=False)
    run.fit(TinyModule(), train_loader(), val_loader())
    sys.exit()
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
while True:
    try:
        read = os.read(terminal, 65536)
    except OSError:  # the other end is closed
        break
    if not read:
        break
    sys.stdout.buffer.write(read)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def printed(programs, kind, data, folder):
    """What a Trainer printed to its terminal, without colors."""
    pytest.importorskip("pty", reason="needs a pseudo-terminal")
    environment = {"TERM": "xterm-256color", "COLUMNS": "200"}
    done = programs.run(IN_A_TERMINAL, kind, data, folder, environment=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tqdm", "rich"])
def test_in_a_terminal_bars_end_at_their_total_and_lines_stand_clear_of_them(programs, kind, tmp_path):
    if kind == "rich":
        pytest.importorskip("rich")
    shown = printed(programs, kind, "train", tmp_path)
    totals = {"Information plane": 6, "Estimators": 2}
    if "t-SNE" in shown:
        totals["t-SNE"] = 2
    for name, total in totals.items():
        states = [int(n) for n in re.findall(rf"{name}[^\r\n]*? (\d+)/{total} ", shown)]
        # Rich draws as often as its own clock allows, tqdm at every step; both from the first to the last.
        assert states.count(0) >= 3, (name, states)
        assert states.count(total) >= 3, (name, states)
    # A line begins where nothing stands before it: after a line feed, or where the line was cleared.
    for line in ("ib: hidden: 8 coordinates; ", "ib: epochs 0 and 2, in bits"):
        (before,) = (shown[: at.start()] for at in re.finditer(re.escape(line), shown))
        before = re.split(r"[\r\n]|\x1b\[2K", before)[-1]
        assert re.sub(r"\x1b\[\w*", "", before).strip() == "", before


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", ["TQDMProgressBar", "RichProgressBar"])
def test_items_come_as_they_are_and_the_bar_goes_when_they_are_cut_short(kind, known, tmp_path, capsys):
    if kind == "RichProgressBar":
        pytest.importorskip("rich")
    found = []

    class Looking(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            for _ in range(2):
                found.append(list(with_progress(trainer, iter("abcd"), 4 if known else None, "Letters")))
            for letter in with_progress(trainer, iter("abcd"), 9 if known else None, "Cut"):
                if letter == "b":
                    break

    fit(tmp_path, getattr(pl.callbacks, kind)(), Looking(), max_epochs=2, enable_progress_bar=True, logger=False)
    assert found == [list("abcd")] * 4
    shown = capsys.readouterr().out
    if kind == "TQDMProgressBar":
        assert "Letters: 100%" in shown
        assert "Cut" in shown


def test_a_line_goes_to_the_log_of_the_namespace_at_the_level_the_user_set(tmp_path, caplog):
    run = trainer(tmp_path, logger=False)
    root = logging.getLogger(pl.__name__)
    level = root.level
    try:
        for asked, lines in ((logging.INFO, ["hello"]), (logging.ERROR, [])):
            root.setLevel(asked)
            caplog.clear()
            say(run, "hello")
            assert [record.getMessage() for record in caplog.records] == lines
    finally:
        root.setLevel(level)


# -- the table at the end --------------------------------------------------------------------------------------------


def points(epochs=(0, 3), layers=("conv", "out"), **values):
    point = InformationPoint.missing("", n_samples=80, unit="nats")
    point = point._replace(i_xt=2.0, i_ty=0.5, h_t=2.0, verdict="ok", **values)
    return [point._replace(epoch=e, step=10 * e, layer=layer, i_ty=e / 2) for e in epochs for layer in layers]


def test_the_table_has_the_first_and_the_last_measurement_of_every_layer():
    history = points((0, 1, 3))
    history[0] = history[0]._replace(verdict="saturated", i_ty=math.nan)
    history[-1] = history[-1]._replace(verdict="")
    assert table(history).splitlines() == [
        "epochs 0 and 3, in nats",
        "layer          I(X;T)          I(T;Y)            H(T)  verdict",
        "conv     2.000  2.000        -  1.500    2.000  2.000  saturated, ok",
        "out      2.000  2.000    0.000  1.500    2.000  2.000  ok, not measured",
    ]


def test_one_measurement_is_one_column_and_steps_are_named_as_such():
    assert table(points((2,)), "step").splitlines() == [
        "step 20, in nats",
        "layer   I(X;T)   I(T;Y)     H(T)  verdict",
        "conv     2.000    1.000    2.000  ok",
        "out      2.000    1.000    2.000  ok",
    ]


def test_a_layer_that_came_or_went_has_a_dash():
    history = [*points((0,), ("old",)), *points((1,), ("new",))]
    assert table(history).splitlines()[2:] == [
        "old      2.000      -    0.000      -    2.000      -  ok",
        "new          -  2.000        -  0.500        -  2.000  ok",
    ]


def test_changes_are_since_the_first_and_from_the_highest_value():
    history = points((0, 1, 3))
    history[2] = history[2]._replace(h_t=2.5)
    shape = [
        Record(epoch, 10 * epoch, "conv", "spectrum", quantity, scale * epoch)
        for epoch in (0, 1, 3)
        for quantity, scale in (("effective_rank", 1.5), ("effective_rank_of_variances", -1e4), ("alpha_r2", 1.0))
    ]
    drift = [
        Record(epoch, 10 * epoch, layer, "drift", "cka_to_last", value)
        for layer, values in {"conv": (0.2, 0.97, 1.0), "out": (0.96, 0.9, 1.0)}.items()
        for epoch, value in zip((0, 1, 3), values)
    ]
    assert changes(History.of(history, shape + drift)).splitlines() == [
        "change since epoch 0, and from the highest value",
        "layer               I(X;T)            I(T;Y)              H(T)",
        "conv        +0.000  +0.000    +1.500  +0.000    +0.000  -0.500",
        "out         +0.000  +0.000    +1.500  +0.000    +0.000  +0.000",
        "spectrum    effective_rank  effective_rank_of_variances",
        "conv        +4.500  +0.000               -3e+04  -3e+04",
        "settled since epoch (CKA to the last at least 0.95): conv 1",
        "not settled before the last measurement: out",
    ]
    restless = [one for one in drift if one.layer == "out"] + [drift[2]._replace(layer="late")]
    assert changes(History.of(history, restless)).splitlines()[-2:] == [
        "out         +0.000  +0.000    +1.500  +0.000    +0.000  +0.000",
        "not settled before the last measurement: out",
    ]
    assert changes(History.of(points((2,)))) == ""
    assert changes(History.of(points((0, 3))), "step").startswith("change since step 0, ")


def test_layers_that_began_late_or_end_in_nan_are_named_with_their_own_epochs():
    of = {"a": (5.0, 9.0, math.nan), "b": (math.nan, 5.0, 7.0), "c": (1.0, 2.0, 3.0), "d": (math.nan, math.nan, 1.0)}
    records = [
        Record(epoch, epoch, layer, "spectrum", name, value)
        for name in ("effective_rank", "anisotropy")
        for layer, values in of.items()
        for epoch, value in enumerate(values)
        if layer != "b" or name == "effective_rank"
    ]
    assert changes(History(records)).splitlines()[:4] == [
        "change since epoch 0, and from the highest value",
        "but from epoch 0 to 1: a (effective_rank, …)",
        "but from epoch 1 to 2: b (effective_rank)",
        "spectrum    effective_rank        anisotropy",
    ]
    assert "d                        -                 -" in changes(History(records))


def test_files_that_are_there_are_named_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    csv = Path("a b") / "information_plane.csv"
    csv.parent.mkdir()
    csv.touch()
    assert file_locations(csv.absolute(), [csv.with_suffix(".png")], tmp_path / "a b") == (
        f"CSV: {csv}\nTensorBoard: tensorboard --logdir 'a b'"
    )
    pictures = [csv.with_name(name) for name in ("information_plane.png", "geometry.png", "tsne.png")]
    pictures[1].touch()
    assert file_locations(csv, pictures, None) == f"CSV: {csv}\npicture: {pictures[1]}"
    pictures[0].touch()
    found = file_locations(csv, [*pictures, Path(__file__)], None)
    assert found == f"CSV: {csv}\npicture: {pictures[0]}\nbeside it: geometry.png"
    assert file_locations(None, [], None) == ""


def ends(caplog):
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("ib: epoch")]


@pytest.mark.slow
def test_a_fit_ends_with_the_table_and_where_its_files_are(tmp_path, pictures, caplog):
    callback = InformationPlaneCallback()
    with caplog.at_level("INFO"):
        fit(tmp_path, callback)
    (end,) = ends(caplog)
    folder = tmp_path / "lightning_logs"
    assert end.splitlines() == [
        *f"ib: {table(callback.history)}".splitlines(),
        *changes(callback.history).splitlines(),
        f"CSV: {folder / 'version_0' / 'information_plane.csv'}",
        f"picture: {folder / 'version_0' / 'information_plane.png'}",
        f"TensorBoard: tensorboard --logdir {folder}",
    ]
    assert [len(line) < 100 for line in end.splitlines()[:4]] == [True] * 4


def test_a_fit_that_is_interrupted_ends_with_the_table_too(tmp_path, caplog):
    class Interrupted(TinyModule):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                raise KeyboardInterrupt

    with caplog.at_level("INFO"), pytest.raises((SystemExit, KeyboardInterrupt)):
        fit(tmp_path, callback := InformationPlaneCallback(), model=Interrupted())
    (end,) = ends(caplog)
    assert end.startswith(f"ib: {table(callback.history)}")


@pytest.mark.parametrize("logger", [False, "csv"])
def test_without_tensorboard_there_is_no_command(tmp_path, caplog, logger):
    with caplog.at_level("INFO"):
        fit(tmp_path, InformationPlaneCallback(), logger=logger and pl.loggers.CSVLogger(tmp_path), max_epochs=1)
    (end,) = ends(caplog)
    assert "tensorboard --logdir" not in end
    assert "CSV: " in end


# -- silence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["TQDMProgressBar", "RichProgressBar"])
def test_verbose_false_silences_lines_table_and_bars_and_changes_nothing_else(kind, tmp_path, caplog, capsys):
    if kind == "RichProgressBar":
        pytest.importorskip("rich")
    callbacks = [InformationPlaneCallback(data="train", verbose=verbose) for verbose in (True, False)]
    for callback in callbacks:
        caplog.clear()
        bar = getattr(pl.callbacks, kind)()
        with caplog.at_level("INFO"):
            fit(tmp_path, bar, callback, enable_progress_bar=True, max_epochs=1)
        out = capsys.readouterr().out
        assert any(record.getMessage().startswith("ib: ") for record in caplog.records) == callback.verbose
        if kind == "TQDMProgressBar":  # of Rich's bars nothing reaches what is no terminal
            assert ("Information plane" in out) == ("Estimators" in out) == callback.verbose
    assert exact(callbacks[0].history) == exact(callbacks[1].history)
    assert (tmp_path / "lightning_logs" / "version_1" / "information_plane.csv").is_file()


def test_warnings_stay(tmp_path):
    class Dead(TinyModule):
        def forward(self, x):
            return super().forward(0 * x)

    with pytest.warns(UserWarning, match="layer 'hidden' is constant at epoch 0"):
        fit(tmp_path, InformationPlaneCallback(verbose=False), model=Dead(), max_epochs=1)


@pytest.mark.parametrize("asked", [None, ".", "there"])
def test_without_a_logger_files_are_written_where_a_folder_was_named(asked, tmp_path, pictures, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callback = InformationPlaneCallback()
    with caplog.at_level("INFO"):
        fit(asked, callback, logger=False, max_epochs=1)
    written = sorted(str(path) for path in Path().rglob("*") if path.is_file())
    names = ["information_plane.csv", "information_plane.png", "information_plane.svg"]
    assert written == [str(Path(asked) / name) for name in names] if asked else written == []
    assert len(callback.history) == 4
    (end,) = ends(caplog)
    assert ("the values are in the callback's .history" in end) == (asked is None)
    assert (callback.figure_path is None) == (asked is None)


def test_barebones_writes_shows_and_logs_nothing(tmp_path, pictures, caplog, capsys, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    callback = InformationPlaneCallback()
    options = {"barebones": True, "logger": None, "log_every_n_steps": None, "default_root_dir": tmp_path / "named"}
    never = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing"))

    class Silent(TinyModule):
        def log(self, name, value, **options):
            raise AssertionError(f"{name} is logged")

        log_dict = log

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self(batch[0])

    with caplog.at_level("INFO"):
        fit(tmp_path, callback, model=Silent(), **(options | never))
    assert [point.epoch for point in callback.history] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [record for record in caplog.records if record.getMessage().startswith("ib: ")] == []
    assert "Information plane" not in capsys.readouterr().out
    assert list(tmp_path.rglob("*")) == []


# -- without a Trainer -------------------------------------------------------------------------------------------------


def test_measure_shows_a_bar_where_it_is_asked_for_and_finds_the_same(capsys):
    model, loader = TinyModule(), val_loader()
    quiet = measure(model, loader, ["hidden", "out"])
    assert capsys.readouterr().err == ""
    assert exact(measure(model, loader, ["hidden", "out"], progress=True)) == exact(quiet)
    shown = capsys.readouterr().err
    assert re.search(r"Information plane: 100%.* 5/5 ", shown)
    assert "Estimators" not in shown
    estimated = measure(model, loader, ["hidden", "out"], estimators=["probe", "kde"], progress=True)
    assert exact(History.of(estimated)) == exact(quiet)
    assert re.search(r"Estimators: 100%.* 4/4 ", capsys.readouterr().err)


def test_a_sweep_shows_a_bar_for_its_pass_and_one_for_what_it_counts(capsys):
    model, loader = TinyModule(), val_loader()
    options = {"n_bins": [2, 3], "pools": [None, nn.Tanh()]}
    quiet = resolution_sweep(model, loader, ["hidden", "out"], **options)
    assert capsys.readouterr().err == ""
    shown = resolution_sweep(model, loader, ["hidden", "out"], progress=True, **options)
    assert exact(shown.rows) == exact(quiet.rows)
    err = capsys.readouterr().err
    assert re.search(r"Pass over the data: 100%.* 5/5 ", err)
    assert re.search(r"Resolutions: 100%.* 8/8 ", err)


def test_a_bar_leaves_the_generators_of_the_loader_alone():
    import torch
    from torch.utils.data import DataLoader

    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(make_data(40), batch_size=8, shuffle=True, generator=generator)
    before = generator.get_state()
    measure(TinyModule(), loader, ["out"], progress=True)
    assert torch.equal(generator.get_state(), before)


def test_without_tqdm_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ModuleNotFoundError, match="progress=True needs tqdm: pip install tqdm, or leave it out"):
        measure(TinyModule(), val_loader(), ["out"], progress=True)
