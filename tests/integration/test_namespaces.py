"""``pytorch_lightning`` and ``lightning.pytorch``: the callback in a Trainer of either, whatever else is installed."""

import importlib.util
import sys

import pytest

from lightning_ib import InformationPlaneCallback
from lightning_ib.callbacks.namespaces import lightning_of
from tests.helpers.tiny import fit, pl

INSTALLED = [name for name in ("pytorch_lightning", "lightning") if importlib.util.find_spec(name)]

TRAIN = """
import importlib.util, sys
from lightning_ib import InformationPlaneCallback
from tests.helpers.tiny import TinyModule, pl, train_loader, val_loader
RICH = importlib.util.find_spec("rich")
callback = InformationPlaneCallback()
run = pl.Trainer(callbacks=callback, max_epochs=2, accelerator="cpu", default_root_dir=sys.argv[1], log_every_n_steps=1)
run.fit(TinyModule(), train_loader(), val_loader())
assert [point.epoch for point in callback.history] == [0, 0, 1, 1, 2, 2], callback.history
assert isinstance(callback, pl.Callback)
assert "ib/I_TY/out" in run.callback_metrics
bars = [pl.callbacks.TQDMProgressBar(), *([pl.callbacks.RichProgressBar()] if RICH else [])]
for bar in bars:
    run = pl.Trainer(callbacks=[InformationPlaneCallback(data="train"), bar], max_epochs=2, logger=False,
                     default_root_dir=sys.argv[1],
                     accelerator="cpu", enable_checkpointing=False)
    run.fit(TinyModule(), train_loader(), val_loader())
if RICH:
    shown = [task.description for task in bar.progress.tasks if task.finished and not task.visible]
    assert shown.count("Information plane") == 1, shown
print("modules:", *(name for name in ("lightning", "pytorch_lightning") if sys.modules.get(name)))
"""


@pytest.fixture
def python(programs):
    def run(code, *arguments, namespace, blocked=()):
        block = f"import sys; sys.modules.update(dict.fromkeys({list(blocked)!r}))\n"
        return programs.run(block + code, *arguments, environment={"LIGHTNING_IB_NAMESPACE": namespace})

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("namespace", "alone"),
    [("pytorch_lightning", True), ("lightning.pytorch", True), ("lightning.pytorch", False)],
)
def test_a_trainer_of_either_namespace_takes_it_bare(python, tmp_path, namespace, alone):
    root = namespace.split(".")[0]
    if root not in INSTALLED:
        pytest.skip(f"{root} is not installed: the environments of `make test-matrix` have it")
    other = {"pytorch_lightning": "lightning", "lightning": "pytorch_lightning"}[root]
    ran = python(TRAIN, tmp_path, namespace=namespace, blocked=[other] if alone else [])
    assert ran.returncode == 0, ran.stderr[-3000:]
    # The line goes to the log of the Trainer at hand, and the bar stands under its own.
    assert "ib: hidden: 8 coordinates; " in ran.stderr
    assert "Information plane: 100%" in ran.stdout
    if alone:
        assert f"modules: {root}" in ran.stdout.splitlines()


QUIET = """
import importlib, logging, pickle, sys
first, name = sys.argv[1:]
if first == "ib":
    from lightning_ib import InformationPlaneCallback
pl = importlib.import_module(name)
logging.getLogger(name).setLevel(logging.ERROR)
import lightning_ib
from lightning_utilities.core import rank_zero
assert issubclass(lightning_ib.InformationPlaneCallback, pl.Callback)
callback = pickle.loads(pickle.dumps(lightning_ib.InformationPlaneCallback()))
assert rank_zero.log.name == f"{name}.utilities.rank_zero", rank_zero.log.name
pl.Trainer(callbacks=callback, accelerator="cpu", logger=False, enable_checkpointing=False)
"""


@pytest.mark.parametrize("first", ["ib", "lightning"])
@pytest.mark.parametrize("namespace", ["pytorch_lightning", "lightning.pytorch"])
def test_lightnings_log_stays_that_of_the_namespace_in_use(python, namespace, first):
    """Whichever is imported first, and with both installed: what the user silenced stays silent."""
    if namespace.split(".")[0] not in INSTALLED:
        pytest.skip(f"{namespace} is not installed: the environments of `make test-matrix` have it")
    ran = python(QUIET, first, namespace, namespace=namespace)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "GPU available" not in ran.stderr + ran.stdout


def test_the_callback_is_one_of_every_namespace_that_is_imported():
    made = InformationPlaneCallback()
    for name in ("pytorch_lightning", "lightning.pytorch"):
        if name in sys.modules:
            assert isinstance(made, sys.modules[name].Callback)


def test_the_namespace_is_that_of_the_trainer(tmp_path):
    class Mine(pl.Trainer):
        pass

    assert lightning_of(Mine(default_root_dir=tmp_path, accelerator="cpu", logger=False)).__name__ == pl.__name__
    with pytest.raises(TypeError, match="object is no Trainer of pytorch_lightning or lightning.pytorch"):
        lightning_of(object())


def test_without_lightning_the_sentence_says_what_to_install(python):
    ran = python(
        "import lightning_ib\nassert lightning_ib.InformationPlane and lightning_ib.measure\n"
        "lightning_ib.InformationPlaneCallback",
        namespace="",
        blocked=["pytorch_lightning", "lightning"],
    )
    assert (
        "InformationPlaneCallback needs PyTorch Lightning: pip install pytorch-lightning (or lightning)." in ran.stderr
    )
    assert "ModuleNotFoundError" in ran.stderr


@pytest.mark.slow
def test_how_a_layer_was_discretized_is_said_once_in_the_log_of_the_namespace(tmp_path, caplog):
    with caplog.at_level("INFO"):
        fit(tmp_path, InformationPlaneCallback())
    said = [record for record in caplog.records if "of the variance" in record.getMessage()]
    assert len(said) == 2
