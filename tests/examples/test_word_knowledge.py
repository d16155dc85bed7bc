"""The example of what the layers of a language model know: its targets, its moments, and the whole script."""

import pytest
import torch

from lightning_ib import History, Record
from tests.examples.test_word_layers import folder, sentences, small, write  # noqa: F401 - fixtures
from tests.helpers import ROOT
from tests.helpers.scripts import untouched

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn", reason="needs the extra: pip install 'lightning-ib[example]'")


@pytest.fixture(scope="module")
def modules():
    """The script and the modules beside it, by their names."""
    import importlib

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        names = ("word_text", "word_knowledge", "knowledge_picture", "word_models", "word_vectors")
        found = {name: importlib.import_module(name) for name in names}
        small(found["word_models"], patch)
        yield found


@pytest.fixture(scope="module")
def documents(sentences):  # noqa: F811
    """Longer documents: three sentences each."""
    return [" ".join(sentences[k : k + 3]) for k in range(0, 300, 2)]


@pytest.fixture(scope="module")
def text(modules, documents):
    return modules["word_text"].corpus(documents, vocabulary_size=40, tokens=100_000)


def test_measured_words_are_of_single_documents_and_have_their_targets(modules, text):
    study = modules["word_knowledge"].Study.of(text, 300, seed=0)
    tokens, document = text.held_out
    length, skipped = modules["word_models"].LENGTH, modules["word_knowledge"].SKIPPED
    assert len(study.kept) == len(study.document) == len(study.rows) * (length - skipped)
    assert len(study.document.unique()) == len(study.rows)
    words = study.rows.flatten()[study.kept]
    assert torch.equal(words, study.contexts["one word"])
    following = study.contexts["next"].view(len(study.rows), -1)
    assert torch.equal(following[:, :-1], words.view(len(study.rows), -1)[:, 1:])
    expected = following.flatten().clamp(max=modules["word_knowledge"].FREQUENT)
    assert torch.equal(study.targets["next word"], expected)
    for row, of in zip(study.rows, study.document.view(len(study.rows), -1)[:, 0]):
        inside = tokens[document == of]
        assert any(torch.equal(inside[k : k + length], row) for k in range(len(inside) - length + 1))


def test_contexts_back_off_to_shorter_ones(modules, monkeypatch):
    w = modules["word_text"]
    monkeypatch.setattr(modules["word_knowledge"], "MOST_CONTEXTS", 1)
    training = w.Documents(torch.tensor([3, 4, 3, 4, 5, 3, 4]), torch.zeros(7).long())
    held_out = w.Documents(torch.tensor([3, 4, 5, 3, 4, 3]), torch.zeros(6).long())
    text = w.Corpus([f"w{k}" for k in range(6)], training, held_out)
    one, two = (modules["word_knowledge"].context(text, n).tolist() for n in (1, 2))
    assert one == [3, 4, 5, 3, 4, 3]
    assert two == [3, 6, 5, 3, 6, 3]  # "3 4" alone has a class of its own


def test_the_table_marks_the_first_that_knows(modules, text):
    study = modules["word_knowledge"].Study.of(text, 300, seed=0)
    for name in study.known:
        study.known[name] = History(
            [
                Record(0, 7, layer, "probe", "I_TY", value, 0.05)
                for layer, value in {"a": 0.1, "b": 0.58, "c": 0.6}.items()
            ]
        )
    line = next(line for line in modules["word_knowledge"].table(study).splitlines() if line.startswith("b"))
    assert line.split().count("*") == 3


@pytest.mark.parametrize("kind", ["lstm", "folder"])
def test_the_script(modules, documents, folder, tmp_path, monkeypatch, capsys, kind):  # noqa: F811
    own = write(tmp_path / "text.txt", documents)
    model = folder if kind == "folder" else kind
    with untouched(monkeypatch):
        flags = ["--model", model, "--text", own, "--epochs", 1, "--measured", 300, "--out", tmp_path / "out"]
        assert modules["word_knowledge"].main([str(one) for one in flags]) == 0
    printed = capsys.readouterr().out
    assert printed.count("*") >= 3
    for name in ("knowledge", "plane"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_measuring_leaves_training_as_it_was(modules, text, monkeypatch):
    study = modules["word_knowledge"].Study.of(text, 300, seed=0)
    train = modules["word_knowledge"].trained
    with untouched(monkeypatch):
        watched = train("lstm", text, 1, 0, watch=lambda layers: modules["word_knowledge"].Watch(study, layers[-1:]))
        alone = train("lstm", text, 1, 0)
    for one, other in zip(watched.parameters(), alone.parameters()):
        assert torch.equal(one, other)
    steps = sorted({record.step for record in study.plane.records()})
    assert steps[:4] == [0, 1, 2, 4]
    assert steps[-1] == watched.steps


def test_a_text_without_brackets_is_measured_without_them(modules, documents, folder, tmp_path, monkeypatch, capsys):  # noqa: F811
    own = write(tmp_path / "text.txt", [one.replace("(", "").replace(")", "") for one in documents])
    with untouched(monkeypatch):
        flags = ["--model", folder, "--text", own, "--measured", "300", "--out", tmp_path / "out"]
        assert modules["word_knowledge"].main([str(one) for one in flags]) == 0
    printed = capsys.readouterr().out
    assert "inside brackets: left out, as all measured words are of one class." in printed
    assert "next word" in printed


def test_documents_that_are_too_short_are_said(modules, sentences, tmp_path, capsys):  # noqa: F811
    own = write(tmp_path / "text.txt", sentences)
    with pytest.raises(SystemExit):
        modules["word_knowledge"].main(["--text", own])
    assert (
        "held-out documents have more than 32 words in a row that training has not, and it takes 8"
        in capsys.readouterr().err
    )
