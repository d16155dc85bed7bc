"""What is written of a finding."""

import csv

import pytest
from matplotlib.figure import Figure
from PIL import Image

from lightning_ib.reproduce.experiment import Claim, Finding
from lightning_ib.reproduce.registry import Experiment
from lightning_ib.reproduce.report import write_finding

EXPERIMENT = Experiment("toy", "a toy", "Someone, Something, 2026", "seconds", "minutes")


def finding(**changes):
    rows = [{"step": 1, "name": "a|b", "loss": 0.123456789}, {"step": 2, "name": 'c,"d"', "loss": 1.0}]
    claims = [Claim("up", "it is 3", True), Claim("down", "it is 4", False), Claim("left", "too few", None)]
    figure = Figure(figsize=(2, 1), dpi=50)
    whole = Finding(figure, rows, claims, ["By counting."], {"rate": 0.1, "seeds": "0, 1"}, ["It divides twice."], rows)
    return whole._replace(**changes)


def test_picture_table_and_text(tmp_path):
    written = write_finding(EXPERIMENT, finding(), tmp_path / "new", "1.2.3")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["toy.csv", "toy.md", "toy.png"]
    with Image.open(written.picture) as picture:
        assert picture.size == (100, 50)
    with written.table.open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [
            {"step": "1", "name": "a|b", "loss": "0.123456789"},
            {"step": "2", "name": 'c,"d"', "loss": "1.0"},
        ]
    text = written.text.read_text(encoding="utf-8")
    for part in (
        "# toy: a toy\n",
        "Source: Someone, Something, 2026.\n",
        "1. Claimed: up\n   Found: it is 3\n   **Holds.**\n",
        "2. Claimed: down\n   Found: it is 4\n   **Does not hold.**\n",
        "3. Claimed: left\n   Found: too few\n   **Cannot be said.**\n",
        "| step | name | loss |\n| --- | --- | --- |\n| 1 | a\\|b | 0.1235 |\n",
        "- By counting.\n",
        "| rate | 0.1 |\n| seeds | 0, 1 |\n| lightning-ib | 1.2.3 |\n",
        "## Faults of the original that are not copied\n\n- It divides twice.\n",
    ):
        assert part in text


def test_without_faults_there_is_no_such_heading(tmp_path):
    written = write_finding(EXPERIMENT, finding(faults=(), summary=()), tmp_path, "1.2.3")
    text = written.text.read_text(encoding="utf-8")
    assert "Faults" not in text
    assert "a\\|b" not in text


def test_an_older_picture_stays_where_a_new_one_fails(tmp_path):
    write_finding(EXPERIMENT, finding(), tmp_path, "1.2.3")
    before = (tmp_path / "toy.png").read_bytes()

    class Broken(Figure):
        def savefig(self, *args, **kwargs):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_finding(EXPERIMENT, finding(figure=Broken()), tmp_path, "1.2.3")
    assert (tmp_path / "toy.png").read_bytes() == before
