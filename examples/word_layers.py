"""The words of a language model, layer by layer: what do the layers know that the embedding does not?

A two-layer LSTM, or a small transformer, learns to predict the next word of the docstrings that are installed here, and
of Python's own topics. Then the mean output of every layer over the occurrences of a word is its representation there::

    python examples/word_layers.py

prints the held-out loss beside the entropy of single words, and the nearest neighbors of sixteen words in every layer;
it draws them by t-SNE, in two and in three dimensions, and logs them for TensorBoard's projector (four minutes).
``--model transformer`` trains a transformer, ``--model FOLDER`` reads a model of ``transformers`` from a folder, and
``--text FILE`` takes a text of your own.
"""

from __future__ import annotations

import argparse
import logging
import math
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
import torch
from mnist_cnn import tensorboard_command, whole_number
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from word_models import MODELS, LanguageModel, held_out_loss, loader, unigram_entropy, windows
from word_pictures import draw_words, placed, shown_words
from word_text import Corpus, corpus, installed_text, own_text
from word_vectors import (
    LEAST_OCCURRENCES,
    Neighbors,
    chosen_words,
    from_folder,
    kept_neighbors,
    neighbors,
    own_batches,
    representations,
    tokenized_batches,
)

from lightning_ib.records.files import replacing

WORDS = (
    *("array", "matrix", "float", "integer", "true", "mean", "row", "column"),
    *("string", "filename", "gradient", "first", "minimum", "left", "input", "positive"),
)
EPOCHS = {"lstm": 4, "transformer": 2}
NEAREST_2D, NEAREST_3D = 200, 50
"""How many neighbors of each word are drawn."""

SHOWN = 5


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning says nothing but warnings meanwhile."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def trained(
    kind: str, text: Corpus, epochs: int, seed: int, watch: Callable[[Sequence[str]], pl.Callback] | None = None
) -> LanguageModel:
    """Train a language model on a text, with a progress bar.

    Args:
        kind: ``"lstm"`` or ``"transformer"``.
        text: to learn from.
        epochs: how often it is read.
        seed: of the weights and of the order.
        watch: the names of the layers → a callback.
    """
    pl.seed_everything(seed, verbose=False)
    batches = loader(text.training, 16, shuffle=True)
    model = MODELS[kind](len(text.vocabulary), steps=epochs * len(batches))
    with quiet(), warnings.catch_warnings():
        for message in (".*does not have many workers.*", ".*LeafSpec.*"):
            warnings.filterwarnings("ignore", message=message)
        trainer = pl.Trainer(
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            callbacks=[] if watch is None else [watch(model.layers)],
        )
        trainer.fit(model, batches)
    return model.eval()


def losses(model: LanguageModel, text: Corpus) -> str:
    """The held-out loss beside the entropy of single words."""
    entropy, loss = unigram_entropy(text.held_out), held_out_loss(model, text.held_out)
    return (
        f"{len(text.training.tokens)} words to learn from, {len(text.held_out.tokens)} held out in other documents.\n"
        f"Held-out loss {loss:.2f} nats a word, entropy of single words {entropy:.2f}: {entropy - loss:.2f} below "
        f"(perplexity {math.exp(loss):.0f} instead of {math.exp(entropy):.0f}).\n"
    )


def table(layers: dict[str, Neighbors], names: Sequence[str], vocabulary: Sequence[str]) -> str:
    """The nearest neighbors of the chosen words, a line for each word and layer."""
    width = max(len(layer) for layer in layers)
    lines = [f"The {SHOWN} nearest words by layer (cosine, after the mean over words was taken off):"]
    for k, name in enumerate(names):
        lines.append("")
        for layer, near in layers.items():
            found = [vocabulary[int(near.words[place])] for place in near.nearest(SHOWN)[k]]
            lines.append(f"{name:14} {layer:{width}}  {', '.join(found)}")
            name = ""
    shares = ", ".join(f"{layer} {share:.0%}" for layer, share in kept_neighbors(layers).items())
    return "\n".join(
        [*lines, "", f"Of the ten nearest in the last layer, these are among the ten nearest in: {shares}."]
    )


def draw(
    vectors: dict[str, Tensor], near: Neighbors, names: Sequence[str], n: int, dimensions: int, folder: Path
) -> None:
    """Place the chosen words and the n nearest of each, as the last layer has them, in every layer, and draw them.

    Each layer has a picture of its own, and all of them have one.
    """
    shown = shown_words(near, n)
    chosen = torch.searchsorted(shown, near.chosen).tolist()
    closest = near.cosine[:, shown].argmax(0).tolist()
    panels = {layer: placed(rows[near.words[shown]], dimensions) for layer, rows in vectors.items()}
    title = f"{len(shown)} words: {len(names)}, and the {n} nearest of each in the last layer (t-SNE)"
    pictures = {f"_{layer}": {layer: places} for layer, places in panels.items()} | {"": panels}
    for name, of in pictures.items():
        with replacing(folder / f"words_{dimensions}d{name}.png") as temporary:
            draw_words(of, names, chosen, closest, title).savefig(temporary, format="png")


def project(vectors: dict[str, Tensor], words: Tensor, vocabulary: Sequence[str], folder: Path) -> None:
    """Log all words of every layer for TensorBoard's projector, in place of those of a run before."""
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for layer, rows in vectors.items():
            writer.add_embedding(
                (rows[words] - rows[words].mean(0)).float(), [vocabulary[int(k)] for k in words], tag=layer
            )


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    text_flags(flags)
    flags.add_argument("--words", default=",".join(WORDS), help="sixteen words or more, with commas between them")
    flags.add_argument("--out", type=Path, default=Path("word_layers"), help="the folder of pictures and projector")
    return flags


def text_flags(flags: argparse.ArgumentParser) -> None:
    """The flags of the text and of the model."""
    flags.add_argument("--model", default="lstm", help="lstm, transformer, or a folder with a model of transformers")
    flags.add_argument("--text", type=Path, help="a text of your own, with blank lines between its documents")
    flags.add_argument("--epochs", type=whole_number(1), help="of training (default: lstm 4, transformer 2)")
    flags.add_argument("--vocabulary", type=whole_number(20), default=2000, help="how many words are known")
    flags.add_argument("--tokens", type=whole_number(1), default=1_000_000, help="how many words of text are read")
    flags.add_argument(
        "--seed", type=whole_number(0, 2**32 - 1), default=0, metavar="N", help="random seed (%(default)s)"
    )


def text_of(args: argparse.Namespace) -> Corpus:
    """The text that the flags ask for."""
    documents = installed_text() if args.text is None else own_text(args.text)
    return corpus(documents, vocabulary_size=args.vocabulary, tokens=args.tokens, seed=args.seed)


def run(args: argparse.Namespace) -> None:
    """Train or load a model, print the table, and draw.

    Raises:
        ValueError: the text, the words or the model cannot be used; the sentence gives the reason.
    """
    local = None if args.model in MODELS else from_folder(Path(args.model))
    text = text_of(args)
    rows = windows(text.training)[:, :-1]
    names = [word.strip().lower() for word in args.words.split(",") if word.strip()]
    chosen_words(names, text.vocabulary, torch.bincount(rows.flatten(), minlength=len(text.vocabulary)))

    if local is None:
        own = trained(args.model, text, args.epochs or EPOCHS[args.model], args.seed)
        print(losses(own, text))
        vectors, counts = representations(own, own.layers, own_batches(rows), len(text.vocabulary))
    else:
        batches = tokenized_batches(rows, text.vocabulary, local.tokenizer)
        vectors, counts = representations(local.model, local.layers, batches, len(text.vocabulary))
    chosen = chosen_words(names, text.vocabulary, counts)
    is_word = torch.tensor([word.isalpha() for word in text.vocabulary])
    words = (is_word & (counts >= LEAST_OCCURRENCES)).nonzero().flatten()
    near = {layer: neighbors(of, words, chosen) for layer, of in vectors.items()}
    print(table(near, names, text.vocabulary))

    args.out.mkdir(parents=True, exist_ok=True)
    *_, last = near.values()
    for dimensions, n in ((2, NEAREST_2D), (3, NEAREST_3D)):
        draw(vectors, last, names, n, dimensions, args.out)
    project(vectors, words, text.vocabulary, args.out / "projector")
    print(f"\nPictures are in {args.out}. The projector: {tensorboard_command(str(args.out))}")


def finished(
    flags: argparse.ArgumentParser, run: Callable[[argparse.Namespace], None], arguments: Sequence[str] | None
) -> int:
    """Run an example; a wrong argument ends in one sentence."""
    args = flags.parse_args(arguments)
    try:
        run(args)
    except ValueError as error:
        flags.error(str(error))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run this one."""
    return finished(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
