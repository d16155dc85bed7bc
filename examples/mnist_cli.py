"""The example's network under LightningCLI: everything, the callback included, comes from a YAML file.

.. code:: bash

    pip install 'lightning-ib[cli,example]'
    python examples/mnist_cli.py fit --config examples/mnist_cli.yaml

Any value can be changed on the command line, such as ``--trainer.max_epochs 3`` or ``--data.which digits``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.cli import LightningCLI
from torch import Tensor
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
from mnist_cnn import MNISTNet, load_data  # noqa: E402


class ImagesOfDigits(pl.LightningDataModule):
    """MNIST, or if it is unavailable scikit-learn's handwritten digits.

    Args:
        data_dir: the folder that holds ``MNIST/raw``, or is to hold it.
        which: ``"mnist"``, ``"digits"`` or ``"auto"``.
        batch_size: images a batch.
    """

    def __init__(self, data_dir: str = "data", which: str = "auto", batch_size: int = 100) -> None:
        super().__init__()
        self.data_dir, self.which, self.batch_size = data_dir, which, batch_size

    def setup(self, stage: str) -> None:
        """Read the data."""
        self.training, self.validation = load_data(self.which, Path(self.data_dir))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The training images, shuffled."""
        return DataLoader(self.training, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The validation images."""
        return DataLoader(self.validation, 1000)


if __name__ == "__main__":
    LightningCLI(MNISTNet, ImagesOfDigits, seed_everything_default=0)
