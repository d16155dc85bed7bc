"""Which layer of a language model already knows, and how its information plane moves in training.

A small language model learns to predict the next word. At the start, after 1, 2, 4, … steps and at the end a probe
reads from every layer, at words of held-out documents, which word comes next, whether a bracket is open, and the part
of speech. The first layer within a standard error of the best one is marked: for that target, the layers after it could
be pruned::

    python examples/word_knowledge.py

Beside it stands the plane of recent work on large models, by soft entropy: what a layer knows of the words so far
against what it knows of the next word, both above what permuted words give (five minutes). ``--model transformer``
trains a transformer, and ``--model FOLDER`` measures a model of ``transformers`` as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from knowledge_picture import draw_knowledge, draw_plane
from mnist_cnn import whole_number
from torch import Tensor, nn
from word_layers import EPOCHS, finished, losses, text_flags, text_of, trained
from word_models import LENGTH, MODELS
from word_text import Corpus, Documents, inside_brackets, next_word_class, part_of_speech, seen_before
from word_vectors import Batch, from_folder, occurrences, own_batches, tokenized_batches

from lightning_ib import History, Record
from lightning_ib.functional import probe_information, soft_information
from lightning_ib.records import earliest_layer
from lightning_ib.records.files import replacing

TARGETS = ("next word", "inside brackets", "part of speech")
FREQUENT = 20
"""The next word is one of so many frequent ones, or another one."""

CONTEXTS = {"one word": 1, "two words": 2, "three words": 3}
MOST_CONTEXTS = 1000
"""So many contexts of two words, and of three, are told apart; the others are those of one word less."""

SKIPPED = 3
"""The first words of a window, which have no context there."""

FOLDS = 4


@dataclass
class Study:
    """Words of held-out documents, what may be known of them, and what was found.

    Attributes:
        rows: a window of each document, ``(M, 32)``.
        kept: the places in all windows that are measured, ``(N,)``.
        document: of each of these, ``(N,)``.
        targets: what a probe reads: name → classes, int64, ``(N,)``; those of a single class are left out.
        contexts: words so far: name → classes, ``(N,)``; and the next word as ``"next"``.
        known: target → its history.
        plane: the soft entropies.
    """

    rows: Tensor
    kept: Tensor
    document: Tensor
    targets: dict[str, Tensor]
    contexts: dict[str, Tensor]
    known: dict[str, History] = field(init=False)
    plane: History = field(default_factory=History)

    def __post_init__(self) -> None:
        self.known = {name: History() for name in self.targets}

    @classmethod
    def of(cls, text: Corpus, n: int, seed: int) -> Study:
        """Draw a window from each of the held-out documents, of words that training has not, until there are n words.

        Raises:
            ValueError: too few documents are long enough.
        """
        tokens, document = text.held_out
        generator = torch.Generator().manual_seed(seed)
        new = ~seen_before(text.held_out, text.training, LENGTH)  # docstrings repeat whole passages
        whole = document[: len(new)] == document[LENGTH:]
        starts = (new & whole).nonzero().flatten()
        starts = starts[torch.randperm(len(starts), generator=generator)]
        # one of each document: the first that comes
        of, order = document[starts].sort(stable=True)
        first = starts[order[of.diff(prepend=of[:1] - 1) > 0]]
        first = first[torch.randperm(len(first), generator=generator)[: max(2 * FOLDS, n // (LENGTH - SKIPPED))]]
        if len(first) < 2 * FOLDS:
            raise ValueError(
                f"the text is too short: {len(first)} held-out documents have more than {LENGTH} words in a row that "
                f"training has not, and it takes {2 * FOLDS}. Give more text, in longer documents."
            )
        place = first[:, None] + torch.arange(LENGTH)
        kept = torch.arange(place.numel()).view(place.shape)[:, SKIPPED:].flatten()
        at = place.flatten()[kept]
        speech, _ = part_of_speech(text.vocabulary)
        targets = (next_word_class(tokens, FREQUENT), inside_brackets(text.held_out, text.vocabulary), speech[tokens])
        contexts = {name: context(text, length)[at] for name, length in CONTEXTS.items()}
        return cls(
            tokens[place],
            kept,
            document[at],
            {name: target[at] for name, target in zip(TARGETS, targets) if len(target[at].unique()) > 1},
            {**contexts, "next": tokens[at + 1]},
        )

    def measure(self, model: nn.Module, layers: Sequence[str], batches: Iterable[Batch], step: int) -> None:
        """Read every layer, and record what it knows, in bits."""
        outputs, read = occurrences(model, layers, batches, self.rows.numel())
        used = read[self.kept] & read[(self.kept + 1).clamp(max=len(read) - 1)]  # what follows was read, too
        document, plane = self.document[used], []
        for layer in layers:
            t = outputs[layer][self.kept[used]]
            for name, target in self.targets.items():
                found = probe_information(t, target[used], groups=document, folds=FOLDS)
                values = (found.information, found.standard_error, "bits", found.n_held_out)
                self.known[name] += History([Record(0, step, layer, "probe", "I_TY", *values)])
            for name, classes in self.contexts.items():
                soft = soft_information(t, classes[used])
                for quantity, value in (("I", soft.i_ty), ("floor", soft.i_ty_floor)):
                    plane.append(Record(0, step, layer, "soft", f"{quantity} {name}", value, unit="bits"))
        self.plane += History(plane)


def context(text: Corpus, length: int) -> Tensor:
    """The last words at every held-out word, as classes.

    The most frequent contexts of this length in training have one each; the others are those of one word less.
    """
    vocabulary = len(text.vocabulary)

    def grams(documents: Documents) -> Tensor:
        codes = documents.tokens.clone()
        for back in range(1, length):
            codes[back:] += documents.tokens[:-back] * vocabulary**back
        return codes

    if length == 1:
        return text.held_out.tokens
    codes, counts = grams(text.training).unique(return_counts=True)
    frequent = codes[counts.topk(min(MOST_CONTEXTS, len(codes))).indices].sort().values
    mine = grams(text.held_out)
    at = torch.searchsorted(frequent, mine).clamp(max=len(frequent) - 1)
    return torch.where(frequent[at] == mine, at + vocabulary + MOST_CONTEXTS * (length - 2), context(text, length - 1))


class Watch(pl.Callback):
    """Measures at the start, after 1, 2, 4, … steps, and at the end.

    Args:
        study: what is measured.
        layers: of the model.
    """

    def __init__(self, study: Study, layers: Sequence[str]) -> None:
        self.study, self.layers = study, layers

    def _measure(self, model: nn.Module, step: int) -> None:
        self.study.measure(model, self.layers, own_batches(self.study.rows), step)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The start."""
        self._measure(pl_module, 0)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """After a power of two of steps, and after the last one."""
        step = trainer.global_step
        if step & (step - 1) == 0 or step == trainer.estimated_stepping_batches:
            self._measure(pl_module, step)


def table(study: Study) -> str:
    """What every layer knows in the end, with a mark on the first within a standard error of the best one."""
    lines = ["I(T;Y) by layer at the end, in bits, by a linear probe on words of unseen documents (± standard error);"]
    lines += ["* marks the first layer within one standard error of the best: what comes after could be pruned.", ""]
    last = {name: history.last().records() for name, history in study.known.items()}
    layers = [record.layer for record in next(iter(last.values()))]
    width = max(len(layer) for layer in layers)
    lines.append(" " * width + "".join(f"{name:>22}" for name in last))
    first = {name: earliest_layer(history) for name, history in study.known.items()}
    for k, layer in enumerate(layers):
        cells = [
            f"{r[k].value:.3f} ± {r[k].standard_error:.3f} {'*' if first[n] == layer else ' '}" for n, r in last.items()
        ]
        lines.append(f"{layer:{width}}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def plane_table(study: Study) -> str:
    """The soft information of every layer in the end, above that of permuted words."""
    names = list(study.contexts)
    last = {(record.layer, record.quantity): record.value for record in study.plane.last().records()}
    layers = list(dict.fromkeys(layer for layer, _ in last))
    width = max(len(layer) for layer in layers)
    lines = ["Soft information at the end, in bits, above that of permuted words (which is in brackets):", ""]
    lines.append(" " * width + "".join(f"{name:>18}" for name in names))
    for layer in layers:
        values = [(last[layer, f"I {name}"], last[layer, f"floor {name}"]) for name in names]
        lines.append(f"{layer:{width}}" + "".join(f"{f'{i - floor:.3f} ({floor:.2f})':>18}" for i, floor in values))
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    text_flags(flags)
    flags.add_argument("--measured", type=whole_number(200), default=6000, metavar="N", help="words (%(default)s)")
    flags.add_argument("--out", type=Path, default=Path("word_knowledge"), help="the folder of the pictures")
    return flags


def run(args: argparse.Namespace) -> None:
    """Train or load a model, and print and draw what its layers know.

    Raises:
        ValueError: the text or the model cannot be used; the sentence gives the reason.
    """
    local = None if args.model in MODELS else from_folder(Path(args.model))
    text = text_of(args)
    study = Study.of(text, args.measured, args.seed)
    if local is None:
        epochs = args.epochs or EPOCHS[args.model]
        print(losses(trained(args.model, text, epochs, args.seed, watch=lambda layers: Watch(study, layers)), text))
    else:
        batches = tokenized_batches(study.rows, text.vocabulary, local.tokenizer)
        study.measure(local.model, local.layers, batches, 0)
        if not local.is_causal:
            print("The model may read words in both directions: then its layers have seen the next word.\n")
    for name in (name for name in TARGETS if name not in study.known):
        print(f"{name}: left out, as all measured words are of one class.")
    print(table(study), plane_table(study), sep="\n\n")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, figure in (
        ("knowledge", draw_knowledge(study.known)),
        ("plane", draw_plane(study.plane, list(CONTEXTS))),
    ):
        with replacing(args.out / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
    print(f"\nPictures are in {args.out}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; a wrong argument ends in one sentence."""
    return finished(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
