"""What is asked of a Trainer: the private attributes of Lightning that are relied on are there, and in one file."""

import ast

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_ib.callbacks.trainer import logged_step, set_up_validation_data, transferred
from tests.helpers import PACKAGE
from tests.helpers.tiny import TinyModule, make_data, pl, trainer


def loader(n):
    return DataLoader(make_data(n), 16)


class Asked(pl.Callback):
    """Asks for the step at every hook that measures, beside what Lightning logs there."""

    def __init__(self):
        self.steps = []

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.steps.append(("validation", logged_step(trainer)))

    def on_train_epoch_end(self, trainer, pl_module):
        self.steps.append(("epoch", logged_step(trainer)))


def test_the_step_is_the_one_that_lightning_logs_at(tmp_path):
    asked, data = Asked(), loader(64)
    trainer(tmp_path, asked, max_epochs=2).fit(TinyModule(), data, data)
    assert asked.steps == [("validation", 3), ("epoch", 3), ("validation", 7), ("epoch", 7)]


class BeforeValidation(pl.Callback):
    def on_train_start(self, trainer, pl_module):
        set_up_validation_data(trainer)
        self.stage, self.loaders = str(trainer.state.stage), trainer.val_dataloaders


def test_validation_data_can_be_had_before_the_epoch_that_validates(tmp_path):
    before, data = BeforeValidation(), loader(64)
    trainer(tmp_path, before, max_epochs=2, check_val_every_n_epoch=2, num_sanity_val_steps=0).fit(
        TinyModule(), data, data
    )
    assert before.loaders is not None
    assert before.stage == "RunningStage.TRAINING"


class Halved(TinyModule):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        return [batch[0] / 2, batch[1]]


def test_a_batch_goes_through_the_hooks_of_the_module(tmp_path):
    module, seen = Halved(), {}

    class Transferred(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.setdefault("x", transferred(trainer, pl_module, [torch.ones(2, 6), torch.zeros(2).long()])[0])

    trainer(tmp_path, Transferred(), max_epochs=1).fit(module, loader(32))
    assert torch.equal(seen["x"], torch.full((2, 6), 0.5))


@pytest.mark.parametrize("file", sorted((PACKAGE / "callbacks").glob("*.py")), ids=lambda file: file.name)
def test_private_attributes_of_lightning_are_in_one_file(file):
    own, of_tuples = {"self", "cls", "module"}, {"_replace", "_make", "_asdict", "_fields"}
    private = {
        ast.unparse(node)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in of_tuples
        and not (isinstance(node.value, ast.Name) and node.value.id in own)
    }
    private = {text for text in private if not text.startswith(("self.", "super()"))}
    if file.name == "trainer.py":
        assert private == {
            "trainer.lightning_module._current_fx_name",
            "trainer.fit_loop.epoch_loop._batches_that_stepped",
            "pl_module._on_before_batch_transfer",
        }
    else:
        assert not private


def test_a_module_without_forward_is_known():
    from lightning_ib.callbacks.trainer import has_forward

    class Bare(pl.LightningModule):
        pass

    assert (has_forward(Bare()), has_forward(TinyModule()), has_forward(nn.Linear(2, 2))) == (False, True, True)
