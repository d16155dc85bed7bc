"""Text that every installation already has, as words: docstrings of installed packages, and Python's own topics.

A document is a docstring or a topic, and whole documents are held out. A text of one's own has blank lines between its
documents.
"""

from __future__ import annotations

import ast
import importlib.util
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

PACKAGES = ("sklearn", "scipy", "numpy")
UNKNOWN, NUMBER, START = "<unknown>", "<number>", "<start>"
TOKEN = re.compile(r"[^\W\d_]+|[0-9][0-9.]*|[()\[\].,]")
HELD_OUT = 0.1
"""The share of the documents that is held out."""

LEAST_TOKENS, LEAST_HELD_OUT, LEAST_WORDS = 2_000, 100, 8

SUFFIXES = {
    "noun (-ion, -ment, -ness, -ity, -er, -or)": r".{3,}(ion|ment|ness|ity|er|or)s?",
    "adverb (-ly)": r".{3,}ly",
    "-ing": r".{2,}ing",
    "-ed": r".{2,}ed",
    "adjective (-al, -ive, -ous, -able, -ible, -ic, -ar)": r".{3,}(al|ive|ous|able|ible|ic|ar)",
    "plural (-s)": r".{2,}[^s]s",
}
"""A part of speech → the ends of its words. Anything else is "other", and what is no word has a class of its own."""

SIGNS, NO_WORD = "sign or number", "unknown word"


class Documents(NamedTuple):
    """Documents one after the other.

    Attributes:
        tokens: their words as places in the vocabulary, int64, shape ``(N,)``; each begins with the sign of a start.
        document: the number of the document of each token, int64, shape ``(N,)``, ascending.
    """

    tokens: Tensor
    document: Tensor


class Corpus(NamedTuple):
    """A text, cut into words.

    Attributes:
        vocabulary: the words, those for signs first, then by descending frequency.
        training: the documents to learn from.
        held_out: other ones.
    """

    vocabulary: list[str]
    training: Documents
    held_out: Documents


def words(text: str) -> list[str]:
    """The words of a text in lower case, brackets, full stops and commas; a number is one sign.

    Example:
        >>> words("Returns X (of shape 3.5).")
        ['returns', 'x', '(', 'of', 'shape', '<number>', ')', '.']
    """
    return [NUMBER if token[0].isdigit() else token for token in TOKEN.findall(text.lower())]


def corpus(documents: Sequence[str], *, vocabulary_size: int, tokens: int, seed: int = 0) -> Corpus:
    """Cut documents into words, hold out some of the documents, and number the most frequent words of the others.

    Args:
        documents: the texts; those of the same words are taken once.
        vocabulary_size: how many words get a number, the signs included.
        tokens: documents are drawn at random until there are so many words.
        seed: of the draw.

    Raises:
        ValueError: there are too few words to learn from.
    """
    order = list(dict.fromkeys(documents))
    random.Random(seed).shuffle(order)
    found = dict.fromkeys(tuple(words(text)) for text in order)
    cut: list[list[str]] = []
    n = 0
    for document in (one for one in found if len(one) >= LEAST_WORDS):
        if n < tokens:
            cut.append([START, *document])
            n += len(cut[-1])
    n_held_out = max(1, round(HELD_OUT * len(cut)))
    n_apart = sum(len(document) for document in cut[:n_held_out])
    if n < LEAST_TOKENS or len(cut) < 10 or n_apart < LEAST_HELD_OUT:
        raise ValueError(
            f"the text is too short: {n} words in {len(cut)} documents of eight words and more, {n_apart} of them held "
            f"out, and it takes {LEAST_TOKENS} words in ten documents, {LEAST_HELD_OUT} of them held out. Give more "
            "text, with blank lines between its documents, or let more of it be read."
        )
    counts = Counter(word for document in cut[n_held_out:] for word in document)
    known = [word for word, _ in counts.most_common() if word not in (UNKNOWN, NUMBER, START)]
    vocabulary = [UNKNOWN, NUMBER, START, *known][:vocabulary_size]
    return Corpus(vocabulary, _numbered(cut[n_held_out:], vocabulary), _numbered(cut[:n_held_out], vocabulary))


def _numbered(documents: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> Documents:
    place = {word: k for k, word in enumerate(vocabulary)}
    tokens = torch.tensor([place.get(word, 0) for document in documents for word in document])
    lengths = torch.tensor([len(document) for document in documents])
    return Documents(tokens, torch.arange(len(documents)).repeat_interleave(lengths))


# -- where text comes from ---------------------------------------------------------------------------------------------


def own_text(path: Path) -> list[str]:
    """The documents of a file, between blank lines.

    Raises:
        ValueError: it cannot be read as text.
    """
    try:
        return re.split(r"\n\s*\n", path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as text: {error}.") from error


def installed_text(packages: Iterable[str] = PACKAGES) -> list[str]:
    """Python's topics, and the docstrings of installed packages, which are read and not imported."""
    from pydoc_data import topics

    documents = [text for _, text in sorted(topics.topics.items())]
    for package in packages:
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            for file in sorted(Path(folder).rglob("*.py")):
                if "tests" not in file.parts:
                    documents += docstrings(file.read_text(encoding="utf-8", errors="ignore"))
    return documents


def docstrings(source: str) -> Iterator[str]:
    """The docstrings of a module's source, without their examples in code."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield re.sub(r"(?m)^\s*>>>.*\n(?:.*\S.*\n)*", "\n", text + "\n")


def seen_before(documents: Documents, others: Documents, length: int) -> Tensor:
    """Whether the words from each place on, so many of them, also stand in other documents: by a hash of 64 bits.

    Returns:
        bool, shape ``(N − length,)``.
    """

    def codes(tokens: Tensor) -> Tensor:
        found = torch.zeros(len(tokens) - length, dtype=torch.int64)
        for k in range(length):
            found = found * 6364136223846793005 + tokens[k : len(tokens) - length + k] + 1
        return found

    return torch.isin(codes(documents.tokens), codes(others.tokens))


# -- what a layer may know of a token ----------------------------------------------------------------------------------


def next_word_class(tokens: Tensor, n: int) -> Tensor:
    """The next word among the n most frequent ones, ``0 … n − 1``, or n for any other; −100 at the last token.

    Args:
        tokens: places in a vocabulary that is ordered by frequency, int64, shape ``(N,)``.
        n: how many classes but the last there are.
    """
    following = torch.cat([tokens[1:], tokens.new_full((1,), -100)])
    return following.clamp(max=n)


def inside_brackets(documents: Documents, vocabulary: Sequence[str]) -> Tensor:
    """1 where a bracket is open behind a token, round or square, and 0 elsewhere; int64, shape ``(N,)``."""
    step = torch.zeros(len(vocabulary), dtype=torch.int64)
    for word, change in {"(": 1, "[": 1, ")": -1, "]": -1}.items():
        if word in vocabulary:
            step[vocabulary.index(word)] = change
    inside, depth, document = [], 0, -1
    for change, of in zip(step[documents.tokens].tolist(), documents.document.tolist()):
        depth = max(0, (depth if of == document else 0) + change)
        document = of
        inside.append(int(depth > 0))
    return torch.tensor(inside)


def part_of_speech(vocabulary: Sequence[str]) -> tuple[Tensor, list[str]]:
    """The part of speech of every word as far as its end shows it: int64, shape ``(V,)``, and the names of the classes.

    Example:
        >>> of, names = part_of_speech(["quickly", "function", "(", "the"])
        >>> [names[k] for k in of]
        ['adverb (-ly)', 'noun (-ion, -ment, -ness, -ity, -er, -or)', 'sign or number', 'other']
    """
    names = [*SUFFIXES, "other", SIGNS, NO_WORD]

    def kind(word: str) -> int:
        if not word.isalpha():
            return names.index(NO_WORD if word == UNKNOWN else SIGNS)
        return next((k for k, end in enumerate(SUFFIXES.values()) if re.fullmatch(end, word)), len(SUFFIXES))

    return torch.tensor([kind(word) for word in vocabulary]), names
