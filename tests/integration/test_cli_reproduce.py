"""``lightning-ib reproduce``: what it lists, writes, says, and goes on with."""

import csv

import pytest
from matplotlib.figure import Figure
from PIL import Image

from lightning_ib.cli import main
from lightning_ib.reproduce import clusters, collapse, collapse_training, generalization
from lightning_ib.reproduce.collapse_picture import draw
from tests.helpers.idx import write_idx

TINY = collapse_training.Grid((0.1, 0.01), 1, n_steps=4, n_measured=3, n_train=30, n_test=100, n_kernel=100, width=8)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Experiments that take a moment and draw nothing, and a folder of pictures."""
    monkeypatch.setattr(collapse, "QUICK", TINY)
    monkeypatch.setattr(collapse, "draw", lambda *_: Figure(figsize=(1, 1)))
    monkeypatch.setattr(generalization, "draw", lambda *_: Figure(figsize=(1, 1)))
    monkeypatch.setattr(generalization, "_WIDTHS", (4,))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIGHTNING_IB_DATA", raising=False)
    write_idx(tmp_path / "data", 100)
    return tmp_path


def rows_in(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_without_a_name_the_experiments_are_listed(capsys):
    assert main(["reproduce"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines][:2] == ["collapse", "generalization"]
    assert all("--quick: " in line for line in lines)


def test_a_wrong_name_is_answered_with_the_names(capsys, small):
    assert main(["reproduce", "colapse"]) == 2
    error = capsys.readouterr().err
    assert "there is no experiment 'colapse': give collapse" in error
    assert not (small / "reproduce").exists()


@pytest.mark.slow
def test_an_experiment_writes_picture_table_and_text(capsys, small, monkeypatch):
    monkeypatch.setattr(collapse, "draw", draw)
    assert main(["reproduce", "collapse", "--quick", "--data-dir", "data"]) == 0
    out = capsys.readouterr().out
    folder = small / "reproduce" / "collapse"
    for kind, suffix in (("picture", "png"), ("table", "csv"), ("text", "md")):
        assert f"{kind}: {folder.relative_to(small)}/collapse.{suffix}" in out
    with Image.open(folder / "collapse.png") as picture:
        assert picture.size[0] > 1000
    rows = rows_in(folder / "collapse.csv")
    assert [(row["weight_decay"], row["step"]) for row in rows] == [(d, s) for d in ("0.1", "0.01") for s in "014"]
    text = (folder / "collapse.md").read_text(encoding="utf-8")
    assert text.startswith("# collapse: ")
    assert "arXiv 2509.20829" in text
    assert "| width | 8 |" in text
    assert "| setting | quick |\n| device | cpu |" in text
    assert out.count("claimed: ") == text.count("Claimed: ")


def test_without_data_a_sentence_says_how_to_get_them(capsys, small):
    assert main(["reproduce", "collapse", "--quick"]) == 2
    assert "lightning-ib reproduce: MNIST is needed: give --data-dir DIR with MNIST/raw/" in capsys.readouterr().err
    assert not (small / "reproduce").exists()


def test_a_folder_that_cannot_be_written_is_said_before_the_work(capsys, small):
    (small / "taken").write_text("")
    assert main(["reproduce", "collapse", "--quick", "--data-dir", "data", "--out", "taken/in"]) == 2
    assert "--out taken/in cannot be written: " in capsys.readouterr().err


def test_places_that_are_taken_are_said_before_the_work(capsys, small):
    (small / "a").mkdir()
    (small / "a" / "runs").write_text("")
    assert main(["reproduce", "collapse", "--quick", "--data-dir", "data", "--out", "a"]) == 2
    assert "--out a cannot be written: a/runs: " in capsys.readouterr().err
    (small / "b" / "collapse.png").mkdir(parents=True)
    assert main(["reproduce", "collapse", "--quick", "--data-dir", "data", "--out", "b"]) == 2
    assert "--out b cannot be written: b/collapse.png is a folder" in capsys.readouterr().err
    assert not any((small / "b" / "runs").iterdir())


def test_a_device_that_is_missing_is_said(capsys, small):
    for device in ("nowhere", "meta"):
        assert main(["reproduce", "generalization", "--quick", "--device", device]) == 2
        assert f"--device {device} cannot be used: " in capsys.readouterr().err
    assert not (small / "reproduce").exists()


@pytest.mark.parametrize("seed", ["-1", "x", "1.5", "4294967295", "18446744073709551616"])
def test_a_seed_is_a_whole_number(capsys, small, seed):
    assert main(["reproduce", "generalization", f"--seed={seed}"]) == 2
    assert "expected a whole number from 0 to 4294967196" in capsys.readouterr().err


def test_an_interrupted_experiment_goes_on(capsys, small, monkeypatch):
    monkeypatch.setenv("LIGHTNING_IB_DATA", "data")
    command = ["reproduce", "collapse", "--quick", "--seed", "3", "--out"]
    assert main([*command, "whole"]) == 0
    original, runs = collapse.train, []

    def interrupted(*arguments):
        runs.append(arguments[2])
        if runs == [0.1, 0.01]:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(collapse, "train", interrupted)
    assert main([*command, "parts"]) == 130
    assert "runs that are done: 1, kept in parts/runs; the same command goes on" in capsys.readouterr().err
    assert not (small / "parts" / "collapse.csv").exists()
    assert main([*command, "parts"]) == 0
    assert runs == [0.1, 0.01, 0.01]
    for name in ("collapse.csv", "collapse.md"):
        assert (small / "parts" / name).read_bytes() == (small / "whole" / name).read_bytes(), name
    assert main([*command, "parts", "--seed", "1"]) == 2
    assert "holds runs of other settings (seed): give another --out, or delete it" in capsys.readouterr().err
    write_idx(small / "other", 100, seed=5)
    assert main([*command, "parts", "--data-dir", "other"]) == 2
    assert "holds runs of other settings (data): give another --out" in capsys.readouterr().err


def test_where_nothing_is_done_the_command_begins_anew(capsys, small, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(collapse, "train", interrupted)
    assert main(["reproduce", "collapse", "--quick", "--data-dir", "data"]) == 130
    assert "no run is done yet: the same command begins anew" in capsys.readouterr().err


def test_generalization_needs_no_data(small, monkeypatch):
    training = clusters.Training(n_epochs=2, n_information=100, n_draws=2)
    monkeypatch.setattr(generalization, "_LEAST_ACCURACY", 0.0)
    original = generalization.train
    monkeypatch.setattr(generalization, "train", lambda model, _: original(model, training))
    assert main(["reproduce", "generalization", "--quick"]) == 0
    folder = small / "reproduce" / "generalization"
    assert len(rows_in(folder / "generalization.csv")) == 9
    text = (folder / "generalization.md").read_text(encoding="utf-8")
    assert "Kendall's τ [95 %]" in text
    assert "| setting | quick |\n| device | cpu |" in text
