"""Names on the command line, and the sentences about wrong ones."""

import sys

import pytest

from lightning_ib.cli.errors import UsageError, nearest
from lightning_ib.cli.names import made, named_object


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a module, which is current."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_training.py").write_text("class Net:\n    class Inner: ...\n    def __init__(self, n): ...\n")
    (tmp_path / "my_broken.py").write_text("import does_not_exist\n")
    (tmp_path / "my_failing.py").write_text("1 / 0\n")
    (tmp_path / "my_script.py").write_text("import sys\ndef stops(): sys.exit()\nif stops: sys.exit()\n")
    (tmp_path / "my_stop.py").write_text("import sys\ndef stops(): sys.exit()\n")
    yield tmp_path
    for name in ("my_training", "my_broken", "my_failing", "my_script", "my_stop"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["my_training.Net.Inner", "my_training:Net.Inner"])
def test_the_current_folder_is_searched_first(here, name):
    assert named_object(name, "--model").__qualname__ == "Net.Inner"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my_training.Nte", "--model my_training.Nte: module my_training has no Nte: did you mean Net?"),
        ("my_training.Net.Other", "--model my_training.Net.Other: Net has no Other"),
        ("my_trainig.Net", "there is no module my_trainig in .*: did you mean my_training?"),
        ("my_broken.Net", "importing it raised ModuleNotFoundError: No module named 'does_not_exist'"),
        ("my_failing.Net", "importing it raised ZeroDivisionError: division by zero"),
        (
            "my_script.Net",
            "importing my_script ended the program, as a script that reads its own options does: put that below "
            '`if __name__ == "__main__":`.',
        ),
        ("train.py", "there is no module train"),
        ("my training.Net", "is no dotted name"),
        ("", "is no dotted name"),
    ],
)
def test_a_wrong_name_is_one_sentence(here, name, sentence):
    with pytest.raises(UsageError, match=sentence):
        named_object(name, "--model")


def test_what_needs_arguments_cannot_be_made(here):
    with pytest.raises(
        UsageError, match="--model x needs n, and the checkpoint holds no value for it: give a function"
    ):
        made(named_object("my_training.Net", "--model"), "x", "--model")
    with pytest.raises(UsageError, match="--data x: making it raised SystemExit: it ended the program"):
        made(named_object("my_stop.stops", "--data"), "x", "--data")
    assert made(dict, "builtins.dict", "--data") == {}


def test_the_nearest_name_is_suggested():
    assert nearest("x", ["one"]) == ": it has one."
    assert nearest("x", map(str, range(20))) == "."
