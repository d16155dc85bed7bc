"""The entry of the command line: exit codes and streams."""

import os
import select
import subprocess
import sys

import pytest

from lightning_ib.cli import main, replay
from tests.helpers import ROOT
from tests.helpers.histories import measured


def ended(*_):
    raise SystemExit(0)


def test_code_that_ends_the_program_is_a_fault(monkeypatch, capsys):
    monkeypatch.setattr(replay, "replay", ended)
    assert main(["replay", "a.ckpt"]) == 2
    assert "code that it ran ended the program" in capsys.readouterr().err


def test_the_notes_of_an_error_come_last(monkeypatch, capsys):
    def failing(_):
        error = ValueError("no")
        error.add_note("All is kept.")
        raise error

    monkeypatch.setattr(replay, "replay", failing)
    assert main(["replay", "a.ckpt"]) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "lightning-ib replay: ValueError: no (--traceback shows where.)",
        "All is kept.",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(select, "poll"), reason="needs poll")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_closes_is_quiet(tmp_path, unbuffered):
    for name in ("a", "b"):
        measured(0).to_csv(tmp_path / name / "information_plane.csv")
    arguments = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "c.png")]
    code = f"import sys; from lightning_ib.cli import main; sys.stdin.readline(); sys.exit(main({arguments!r}))"
    pipe, env = subprocess.PIPE, {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, env=env) as process:
        process.stdout.close()
        process.stdin.write(b"\n")
        process.stdin.close()
        err = process.stderr.read().decode()
    assert (process.returncode, "BrokenPipe" in err, "Traceback" in err) == (1, False, False)
