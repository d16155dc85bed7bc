"""The representation of words in the layers of a language model, and which words are near to which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from word_text import NUMBER, START, UNKNOWN

from lightning_ib.capture.recorder import Recorder

LEAST_OCCURRENCES = 6
"""Words that are rarer have no representation here: the mean of few occurrences is their context."""

LEAST_CHOSEN = 16


class Batch(NamedTuple):
    """What a model reads at once.

    Attributes:
        inputs: the keyword arguments of the model, tensors ``(B, L)``.
        words: the word that a token belongs to, int64, ``(B, L)``; −1 where it belongs to none, as in padding.
        places: where this word stands in all windows, one after the other, int64, ``(B, L)``.
        weight: the share of the token in its word, float64, ``(B, L)``.
    """

    inputs: dict[str, Tensor]
    words: Tensor
    places: Tensor
    weight: Tensor


class LocalModel(NamedTuple):
    """A model of ``transformers`` from a folder.

    Attributes:
        model: the network.
        tokenizer: its tokenizer.
        layers: the names of its embedding and of its blocks.
        is_causal: whether it is known to read in one direction.
    """

    model: nn.Module
    tokenizer: Any
    layers: list[str]
    is_causal: bool


def from_folder(folder: Path) -> LocalModel:
    """Load a language model of ``transformers`` and its tokenizer, from a local folder alone.

    Raises:
        ValueError: the folder holds none; the sentence says what it should hold.
    """
    expected = "a folder with config.json, the weights and the tokenizer of a language model, as save_pretrained writes"
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no model: give lstm, transformer, or {expected}.")
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise ValueError("models in folders need transformers: pip install transformers.") from error
    try:
        model = AutoModel.from_pretrained(str(folder), local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the model in {folder} cannot be loaded ({reason}): give {expected}.") from error
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"the tokenizer in {folder} does not say which word a token is of: save a fast one.")
    tokenizer.padding_side = tokenizer.truncation_side = "right"  # padding on the left would move the places
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(f"the model in {folder} reads with one part and writes with another: give one such as GPT-2.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    places = getattr(model.config, "max_position_embeddings", None)
    if places is not None:  # what comes after is cut off
        tokenizer.model_max_length = min(tokenizer.model_max_length, places)
    is_causal = any("CausalLM" in name or "LMHead" in name for name in model.config.architectures or ())
    return LocalModel(model, tokenizer, [_name_of_embedding(model), *blocks(model)], is_causal)


def _name_of_embedding(model: Any) -> str:
    embedding = model.get_input_embeddings()
    return next(str(name) for name, module in model.named_modules() if module is embedding)


def blocks(model: nn.Module) -> list[str]:
    """The names of the modules in the longest list of modules: the blocks of a transformer."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    name = max(lists, key=lambda one: (len(lists[one]), -len(one)))
    return [f"{name}.{k}" for k in range(len(lists[name]))]


def own_batches(rows: Tensor, size: int = 64) -> Iterator[Batch]:
    """Windows of words ``(M, L)``, for a model that reads the vocabulary itself."""
    places = torch.arange(rows.numel()).view(rows.shape)
    for some, at in zip(rows.split(size), places.split(size)):
        yield Batch({"tokens": some}, some, at, torch.ones(some.shape, dtype=torch.float64))


def tokenized_batches(rows: Tensor, vocabulary: Sequence[str], tokenizer: Any, size: int = 32) -> Iterator[Batch]:
    """Windows of words ``(M, L)``, cut by a tokenizer; a word is the mean of its pieces.

    What stands for numbers, starts and unknown words is left out before.
    """
    signs = torch.tensor([vocabulary.index(word) for word in (UNKNOWN, NUMBER, START)])
    numbered = [(row, torch.arange(k * len(row), (k + 1) * len(row))) for k, row in enumerate(rows)]
    kept = [(row[words], at[words]) for row, at in numbered if (words := ~torch.isin(row, signs)).any()]
    for start in range(0, len(kept), size):
        some = kept[start : start + size]
        texts = [[vocabulary[k] for k in row.tolist()] for row, _ in some]
        cut = tokenizer(
            [" ".join(text) for text in texts],
            padding=True,
            truncation=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        ends = cut.pop("offset_mapping")
        words, places = (torch.full(cut["input_ids"].shape, -1) for _ in range(2))
        weight = torch.zeros(words.shape, dtype=torch.float64)
        for k, (row, at) in enumerate(some):
            # the word of every character, by which a piece is of the word of its last one
            of_character = torch.tensor([j for j, word in enumerate(texts[k]) for _ in f"{word} "])
            last, is_piece = ends[k, :, 1] - 1, (ends[k, :, 1] > ends[k, :, 0]) & (cut["attention_mask"][k] > 0)
            of = torch.where(is_piece, of_character[last.clamp(min=0)], -1)
            words[k], places[k] = torch.where(is_piece, row[of], -1), torch.where(is_piece, at[of], -1)
            weight[k] = torch.where(is_piece, 1 / (of[:, None] == of).sum(1).double(), 0.0)
        yield Batch(dict(cut), words, places, weight)


@torch.no_grad()
def readings(
    model: nn.Module, layers: Sequence[str], batches: Iterable[Batch]
) -> Iterator[tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]]:
    """What every layer puts out at the tokens of words, batch by batch, in eval mode.

    Args:
        model: the network.
        layers: names of modules that put out ``(B, L, D)``.
        batches: what it reads.

    Yields:
        Of T tokens: their words and places, ``(T,)``, their weights, ``(T, 1)``, and their rows by layer, float64
        ``(T, D)``, on the CPU.
    """
    was, device = model.training, next(model.parameters()).device
    model.eval()
    with Recorder(model, layers, lambda _, activation: activation.flatten(0, 1).double().cpu()) as recorder:
        for batch in batches:
            model(**{name: values.to(device) for name, values in batch.inputs.items()})
            chosen = (batch.words >= 0).flatten()
            words, places, weight = (part.flatten()[chosen] for part in (batch.words, batch.places, batch.weight))
            yield words, places, weight[:, None], {layer: rows[chosen] for layer, rows in recorder.take().items()}
    model.train(was)


def occurrences(
    model: nn.Module, layers: Sequence[str], batches: Iterable[Batch], n: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The output of every layer at each of n words, one after the other.

    Returns:
        float64 ``(n, D)`` by layer, and whether a word was read at all, ``(n,)``.
    """
    found, read = dict[str, Tensor](), torch.zeros(n, dtype=torch.bool)
    for _, places, weight, outputs in readings(model, layers, batches):
        read[places] = True
        _add(found, n, places, weight, outputs)
    return {layer: found[layer] for layer in layers}, read


def representations(
    model: nn.Module, layers: Sequence[str], batches: Iterable[Batch], n_words: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The mean output of every layer over the occurrences of each word.

    Args:
        model: the network; it is in eval mode meanwhile.
        layers: names of modules that put out ``(B, L, D)``.
        batches: what it reads.
        n_words: in the vocabulary.

    Returns:
        float64 ``(V, D)`` by layer, and the number of occurrences ``(V,)``.
    """
    sums, counts = dict[str, Tensor](), torch.zeros(n_words, 1, dtype=torch.float64)
    for words, _, weight, outputs in readings(model, layers, batches):
        counts.index_add_(0, words, weight)
        _add(sums, n_words, words, weight, outputs)
    return {layer: sums[layer] / counts.clamp(min=1) for layer in layers}, counts[:, 0].round().long()


def _add(sums: dict[str, Tensor], n: int, at: Tensor, weight: Tensor, outputs: Mapping[str, Tensor]) -> None:
    """Add weighted rows to the n sums of every layer, at their places."""
    for layer, rows in outputs.items():
        sums.setdefault(layer, rows.new_zeros(n, rows.shape[1])).index_add_(0, at, rows * weight)


class Neighbors(NamedTuple):
    """Words with a representation, and their cosines in a layer.

    Attributes:
        words: places in the vocabulary, int64, shape ``(M,)``.
        cosine: of the chosen words to all of these, after the mean over words was taken off, ``(16, M)``.
        chosen: the places of the chosen words in ``words``.
    """

    words: Tensor
    cosine: Tensor
    chosen: Tensor

    def nearest(self, n: int) -> Tensor:
        """The n nearest words of each chosen one, itself left out, as places in ``words``, ``(16, n)``."""
        return self.cosine.scatter(1, self.chosen[:, None], -2.0).topk(min(n, len(self.words) - 1)).indices


def neighbors(vectors: Tensor, words: Tensor, chosen: Tensor) -> Neighbors:
    """The cosines of chosen words, after the mean over words was taken off: otherwise all are near the frequent ones.

    Args:
        vectors: of all words, float64, shape ``(V, D)``.
        words: those that take part, ``(M,)``.
        chosen: some of these, as places in the vocabulary.
    """
    rows = normalize(vectors[words] - vectors[words].mean(0))
    places = (words[None, :] == chosen[:, None]).long().argmax(1)
    return Neighbors(words, rows[places] @ rows.T, places)


def chosen_words(names: Sequence[str], vocabulary: Sequence[str], counts: Tensor) -> Tensor:
    """The places of words in the vocabulary.

    Raises:
        ValueError: there are fewer than sixteen, one is unknown, or one occurs too rarely.
    """
    import difflib

    names = list(dict.fromkeys(names))
    if len(names) < LEAST_CHOSEN:
        raise ValueError(f"it takes {LEAST_CHOSEN} different words, got {len(names)}: {', '.join(names)}.")
    for name in names:
        if name not in vocabulary:
            words = [word for word in vocabulary if word.isalpha()]
            near = difflib.get_close_matches(name, words, n=3) or words[:3]
            raise ValueError(f"{name!r} is not among the {len(vocabulary)} words of the text: try {', '.join(near)}.")
        if not name.isalpha():
            raise ValueError(f"{name!r} is a sign and has no representation of its own: choose another word.")
        if (times := int(counts[vocabulary.index(name)])) < LEAST_OCCURRENCES:
            raise ValueError(f"{name!r} occurs {times} times, and it takes {LEAST_OCCURRENCES}: choose another word.")
    return torch.tensor([vocabulary.index(name) for name in names])


def kept_neighbors(layers: Mapping[str, Neighbors], n: int = 10) -> dict[str, float]:
    """The share of the n nearest neighbors in the last layer that each layer has, too."""
    *_, last = layers.values()
    final = last.nearest(n)
    return {
        name: float((one.nearest(n)[:, :, None] == final[:, None, :]).any(2).double().mean())
        for name, one in layers.items()
    }
