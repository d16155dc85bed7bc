"""The example of the words of a language model: its text, what layers are read as, and the whole script."""

import importlib
import random
import re
from functools import partial

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from tests.helpers import ROOT
from tests.helpers.scripts import untouched

pytest.importorskip("sklearn", reason="needs the extra: pip install 'lightning-ib[example]'")

SCRIPT = ROOT / "examples" / "word_layers.py"
NAMES = ("word_text", "word_models", "word_vectors", "word_pictures", "word_layers")
WORDS = [f"{kind}{letter}" for kind in ("noun", "verb") for letter in "abcdefgh"]


@pytest.fixture(scope="module")
def modules():
    """The script and the modules beside it, by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # as for a script
        found = {name: importlib.import_module(name) for name in NAMES}
        small(found["word_models"], patch)
        yield found


def small(models, patch):
    """An LSTM of an eighth of its width, which these few words need no more than."""
    patch.setitem(models.MODELS, "lstm", partial(models.LSTMModel, width=16))


@pytest.fixture(scope="module")
def sentences():
    """Documents in which eight nouns and eight verbs alternate."""
    draw = random.Random(0)
    lines = []
    for _ in range(300):
        pairs = [f"the {draw.choice(WORDS[:8])} ({draw.choice(WORDS[8:])})" for _ in range(4)]
        lines.append(" ".join(pairs) + ".")
    return lines


@pytest.fixture(scope="module")
def text(modules, sentences):
    return modules["word_text"].corpus(sentences, vocabulary_size=40, tokens=100_000)


# -- the text ----------------------------------------------------------------------------------------------------------


def test_words_brackets_and_numbers(modules):
    assert modules["word_text"].words("X (n_samples, 3.5) [Eq.2]") == (
        ["x", "(", "n", "samples", ",", "<number>", ")", "[", "eq", ".", "<number>", "]"]
    )


def test_whole_documents_are_held_out(modules, sentences, text):
    again = modules["word_text"].corpus(sentences, vocabulary_size=40, tokens=100_000)
    assert torch.equal(again.training.tokens, text.training.tokens)
    assert again.vocabulary[:3] == ["<unknown>", "<number>", "<start>"]
    start = text.vocabulary.index("<start>")
    for documents in (text.training, text.held_out):
        first = torch.cat([torch.tensor([True]), documents.document.diff() > 0])
        assert (documents.tokens[first] == start).all()
        assert (documents.tokens[~first] != start).all()

    def texts(documents):
        lengths = torch.bincount(documents.document).tolist()
        return {tuple(part.tolist()) for part in documents.tokens.split(lengths)}

    assert not texts(text.training) & texts(text.held_out)
    assert len(texts(text.held_out)) == round(len(set(sentences)) * 0.1)


def test_docstrings_are_read_without_their_code(modules):
    source = '"""Module."""\ndef f():\n    """Add.\n\n    >>> f()\n    3\n\n    More."""\nclass A:\n    x = 1\n'
    found = [" ".join(one.split()) for one in modules["word_text"].docstrings(source)]
    assert found == ["Module.", "Add. More."]
    assert list(modules["word_text"].docstrings("def (")) == []


def test_installed_text_is_there(modules):
    assert sum(len(one) for one in modules["word_text"].installed_text(packages=())) > 100_000


def test_targets_of_tokens(modules):
    w = modules["word_text"]
    vocabulary = ["a", "(", ")", "[", "]", "quickly"]
    tokens = torch.tensor([0, 1, 0, 3, 5, 4, 2, 0, 1, 0])
    documents = w.Documents(tokens, torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 0, 1]))
    assert w.inside_brackets(documents, vocabulary).tolist() == [0, 1, 1, 1, 1, 1, 0, 0, 1, 0]
    assert w.next_word_class(tokens, 3).tolist() == [1, 0, 3, 3, 3, 2, 0, 1, 0, -100]
    kinds, names = w.part_of_speech(vocabulary)
    assert names[kinds[5]] == "adverb (-ly)"
    assert names[kinds[1]] == "sign or number"


# -- representations ---------------------------------------------------------------------------------------------------


def test_a_word_is_the_mean_of_its_occurrences(modules, text):
    model = modules["word_models"].LSTMModel(len(text.vocabulary), steps=1, width=8)
    rows = modules["word_models"].windows(text.held_out)[:, :-1]
    batches = modules["word_vectors"].own_batches(rows, size=3)
    found, counts = modules["word_vectors"].representations(model, model.layers, batches, len(text.vocabulary))
    word = int(rows[0, 5])
    with torch.no_grad():
        output, _ = model.eval().lstm1(model.embedding(rows))
    assert int(counts[word]) == int((rows == word).sum())
    torch.testing.assert_close(found["lstm1"][word], output[rows == word].double().mean(0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found["embedding"][word], model.embedding.weight[word].detach().double())


def test_neighbors_by_cosine_around_the_mean(modules):
    vectors = torch.tensor([[9.0, 1.0], [9.0, 1.1], [9.0, -1.0], [9.2, 0.0]], dtype=torch.float64)
    near = modules["word_vectors"].neighbors(vectors, torch.arange(4), torch.tensor([0, 2]))
    assert near.nearest(1).tolist() == [[1], [3]]
    assert modules["word_vectors"].kept_neighbors({"one": near, "two": near}, 2) == {"one": 1.0, "two": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small GPT-2 with a tokenizer that cuts words into pieces, as save_pretrained writes them."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    path = tmp_path_factory.mktemp("gpt2")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = trainers.BpeTrainer(vocab_size=32, special_tokens=["<unk>", "<pad>"], show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS), "the ( ) ."], special)
    sides = {"unk_token": "<unk>", "pad_token": "<pad>", "padding_side": "left"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **sides)
    fast.save_pretrained(path)
    torch.manual_seed(0)
    sizes = {"n_positions": 48, "n_embd": 8, "n_layer": 2, "n_head": 2}  # less than the pieces of 32 words
    config = transformers.GPT2Config(vocab_size=len(fast), bos_token_id=0, eos_token_id=0, **sizes)
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    return path


@pytest.mark.slow
def test_words_of_a_local_model_are_means_of_their_pieces_without_padding(modules, text, folder):
    local = modules["word_vectors"].from_folder(folder)
    assert local.layers == ["wte", "h.0", "h.1"]
    rows = modules["word_models"].windows(text.held_out)[:, :-1]
    batches = list(modules["word_vectors"].tokenized_batches(rows, text.vocabulary, local.tokenizer, size=4))
    assert any(int((batch.inputs["attention_mask"] == 0).sum()) for batch in batches)
    assert any(((batch.weight > 0) & (batch.weight < 1)).any() for batch in batches)
    found, counts = modules["word_vectors"].representations(
        local.model, local.layers, iter(batches), len(text.vocabulary)
    )
    single = modules["word_vectors"].tokenized_batches(rows, text.vocabulary, local.tokenizer, size=1)
    alone, times = modules["word_vectors"].representations(local.model, local.layers, single, len(text.vocabulary))
    assert torch.equal(counts, times)
    for layer in local.layers:
        torch.testing.assert_close(found[layer], alone[layer], atol=1e-5, rtol=1e-4)
    word = next(word for word in WORDS if len(local.tokenizer(word)["input_ids"]) > 1)
    pieces = local.tokenizer(word)["input_ids"]
    expected = local.model.wte.weight[pieces].detach().double().mean(0)
    torch.testing.assert_close(found["wte"][text.vocabulary.index(word)], expected)


# -- the script --------------------------------------------------------------------------------------------------------


def write(path, sentences):
    path.write_text("\n\n".join(sentences))
    return str(path)


def run(modules, monkeypatch, *arguments):
    with untouched(monkeypatch):
        return modules["word_layers"].main([str(one) for one in arguments])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lstm", "folder"])
def test_the_script(modules, sentences, folder, tmp_path, monkeypatch, capsys, kind):
    own = write(tmp_path / "text.txt", sentences)
    model = folder if kind == "folder" else kind
    if kind == "folder":  # drawn as those of the other kind are, which takes most of the time
        monkeypatch.setattr(modules["word_layers"], "placed", lambda rows, dimensions: rows[:, :dimensions].numpy())
        monkeypatch.setattr(modules["word_layers"], "draw_words", lambda *_: Figure((1, 1)))
    flags = ("--model", model, "--text", own, "--words", ",".join(WORDS), "--epochs", 1, "--out", tmp_path / "out")
    assert run(modules, monkeypatch, *flags) == 0
    printed = capsys.readouterr().out
    assert ("Held-out loss" in printed) is (kind == "lstm")
    assert all(word in printed for word in WORDS)
    layers = ["wte", "h.0", "h.1"] if kind == "folder" else ["embedding", "lstm1", "lstm2"]
    for layer in layers:
        for dimensions in (2, 3):
            assert (tmp_path / "out" / f"words_{dimensions}d_{layer}.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "out" / "projector").rglob("metadata.tsv"))


@pytest.mark.slow
def test_it_learns_the_alternation(modules, text, monkeypatch):
    with untouched(monkeypatch):
        model = modules["word_layers"].trained("lstm", text, 12, 0)
    entropy = modules["word_models"].unigram_entropy(text.held_out)
    assert modules["word_models"].held_out_loss(model, text.held_out) < entropy - 0.8


def test_a_transformer_sees_no_later_words(modules):
    model = modules["word_models"].TransformerModel(30, steps=1, width=16, depth=2).eval()
    tokens = torch.randint(30, (2, 12))
    changed = tokens.clone()
    changed[:, 8:] = 0
    with torch.no_grad():
        torch.testing.assert_close(model(tokens)[:, :8], model(changed)[:, :8])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--words", "nouna,verba"], "it takes 16 different words, got 2: nouna, verba"),
        (["--words", ",".join([*WORDS[:-1], "verbz"])], "'verbz' is not among the .* words of the text: try verb"),
        (["--words", ",".join([*WORDS[:-1], "("])], r"'\(' is a sign and has no representation of its own"),
        (["--tokens", "500"], "the text is too short: .* or let more of it be read"),
        (["--model", "nowhere"], "nowhere is no model: give lstm, transformer, or a folder with config.json"),
        (["--text", "absent.txt"], "absent.txt cannot be read as text"),
    ],
)
def test_what_cannot_be_used_is_said(modules, sentences, tmp_path, monkeypatch, capsys, flags, message):
    own = write(tmp_path / "text.txt", sentences)
    with pytest.raises(SystemExit) as stopped:
        run(modules, monkeypatch, "--text", own, "--out", tmp_path / "out", *flags)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert not (tmp_path / "out").exists()


def test_a_text_that_is_too_short_is_said(modules, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(modules, monkeypatch, "--text", write(tmp_path / "text.txt", ["Too few words."]))
    assert (
        "the text is too short: 0 words in 0 documents of eight words and more, 0 of them held out"
        in capsys.readouterr().err
    )


def test_a_folder_whose_model_is_broken_is_said(modules, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"the model in .* cannot be loaded \(.*\): give a folder with config.json"):
        modules["word_vectors"].from_folder(tmp_path)


def test_a_model_of_two_parts_is_said(modules, folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 40}
    transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="reads with one part and writes with another: give one such as GPT-2"):
        modules["word_vectors"].from_folder(tmp_path)


def test_a_tokenizer_of_bytes_reads_words_with_the_spaces_between_them(modules, tmp_path):
    """As that of GPT-2, which has other pieces for a word after a space."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator(["the cat sat on the mat"], trainers.BpeTrainer(vocab_size=80, show_progress=False))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="the")
    fast.pad_token = fast.eos_token
    vocabulary = ["<unknown>", "<number>", "<start>", "the", "cat", "sat", "on", "mat"]
    rows = torch.tensor([[2, 3, 4, 5], [3, 1, 7, 6]])
    (batch,) = modules["word_vectors"].tokenized_batches(rows, vocabulary, fast)
    texts = [fast.decode(row[words >= 0]) for row, words in zip(batch.inputs["input_ids"], batch.words)]
    assert texts == ["the cat sat", "the mat on"]
    for row, words, weight in zip(rows, batch.words, batch.weight):
        read = [word for word in row.tolist() if word > 2]
        assert list(dict.fromkeys(words[words >= 0].tolist())) == read
        assert float(weight.sum()) == pytest.approx(len(read))


def test_documents_of_the_same_words_are_taken_once(modules, sentences):
    again = [one.upper() for one in sentences]
    of = {"vocabulary_size": 40, "tokens": 100_000}
    both, one = (modules["word_text"].corpus(documents, **of) for documents in (sentences + again, sentences))
    assert len(both.training.tokens) + len(both.held_out.tokens) == len(one.training.tokens) + len(one.held_out.tokens)


def test_passages_that_training_has_are_known(modules):
    w = modules["word_text"]
    held_out = w.Documents(torch.tensor([1, 2, 3, 4, 9, 9]), torch.zeros(6).long())
    training = w.Documents(torch.tensor([7, 2, 3, 4, 7, 7]), torch.zeros(6).long())
    assert w.seen_before(held_out, training, 3).tolist() == [False, True, False]


def test_blocks_are_the_longest_list(modules):
    model = nn.Module()
    model.heads, model.layers = nn.ModuleList([nn.Identity()]), nn.ModuleList([nn.Identity()] * 3)
    assert modules["word_vectors"].blocks(model) == ["layers.0", "layers.1", "layers.2"]
