"""Small language models, the windows of text that they read, and their loss."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from word_text import Documents

LENGTH = 32
"""Words in a window."""


class LanguageModel(pl.LightningModule):
    """Predicts the next word.

    Args:
        steps: of the whole training.
        learning_rate: the highest one.
    """

    layers: tuple[str, ...] = ()
    """The names of the modules whose outputs are the layers, the embedding first."""

    def __init__(self, steps: int, learning_rate: float) -> None:
        super().__init__()
        self.steps, self.learning_rate = steps, learning_rate

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The cross-entropy of the next words."""
        loss = cross_entropy(self(batch[0]).flatten(0, 1), batch[1].flatten())
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, with a rate that rises and falls."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class LSTMModel(LanguageModel):
    """An embedding, two LSTMs and a readout.

    Args:
        n_words: in the vocabulary.
        steps: of the whole training.
        width: of the LSTMs.
    """

    layers = ("embedding", "lstm1", "lstm2")

    def __init__(self, n_words: int, steps: int, width: int = 128) -> None:
        super().__init__(steps, learning_rate=8e-3)
        self.embedding = nn.Embedding(n_words, width)
        self.lstm1 = nn.LSTM(width, width, batch_first=True)
        self.lstm2 = nn.LSTM(width, width, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, n_words)
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Words ``(B, L)`` → logits of the next ones ``(B, L, V)``."""
        first, _ = self.lstm1(self.dropout(self.embedding(tokens)))
        second, _ = self.lstm2(self.dropout(first))
        logits: Tensor = self.head(self.dropout(second))
        return logits


class TransformerModel(LanguageModel):
    """An embedding of words and places, causal blocks and a readout.

    Args:
        n_words: in the vocabulary.
        steps: of the whole training.
        width: of the blocks.
        depth: how many there are.
    """

    def __init__(self, n_words: int, steps: int, width: int = 128, depth: int = 3) -> None:
        super().__init__(steps, learning_rate=3e-3)
        self.embedding = nn.Embedding(n_words, width)
        self.place = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.1, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_words)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.layers = ("embedding", *(f"blocks.{k}" for k in range(depth)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Words ``(B, L)``, L at most 32, → logits of the next ones ``(B, L, V)``."""
        length = tokens.shape[1]
        future = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        h = self.embedding(tokens) + self.place[:length]
        for block in self.blocks:
            h = block(h, src_mask=future)
        logits: Tensor = self.head(self.norm(h))
        return logits


MODELS: dict[str, type[LSTMModel] | type[TransformerModel]] = {"lstm": LSTMModel, "transformer": TransformerModel}


def windows(documents: Documents) -> Tensor:
    """Documents as windows of 32 words and the one after, int64, shape ``(M, 33)``; each shares one with the next."""
    n = (len(documents.tokens) - 1) // LENGTH
    return documents.tokens[: n * LENGTH + 1].unfold(0, LENGTH + 1, LENGTH)


def loader(documents: Documents, batch_size: int = 32, *, shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    """Batches ``(words, next words)``, each ``(B, 32)``."""
    rows = windows(documents)
    return DataLoader(TensorDataset(rows[:, :-1], rows[:, 1:]), batch_size, shuffle=shuffle, drop_last=False)


def unigram_entropy(held_out: Documents) -> float:
    """The entropy of the held-out words themselves, in nats a word: what no context gives."""
    share = torch.bincount(held_out.tokens).double() / len(held_out.tokens)
    return -float(torch.xlogy(share, share).sum())


@torch.no_grad()
def held_out_loss(model: nn.Module, documents: Documents) -> float:
    """The cross-entropy of a model on the next words of documents, in nats a word."""
    was, total, n = model.training, 0.0, 0
    model.eval()
    for tokens, following in loader(documents, 64):
        total += float(cross_entropy(model(tokens).flatten(0, 1), following.flatten(), reduction="sum"))
        n += following.numel()
    model.train(was)
    return total / n
