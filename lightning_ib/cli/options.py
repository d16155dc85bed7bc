"""The commands and their options."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from lightning_ib import __version__

_ABOUT = """\
The information plane of a network's layers: measure the checkpoints of a past run, and draw, compare or film what was
measured.
"""

_EXAMPLES = """\
examples:
  lightning-ib replay checkpoints/ --model train.Net --data train.Digits
  lightning-ib replay --help

Exit codes: 0 done, 1 failed half-way, 2 wrong usage or input, 130 interrupted.
"""

_REPLAY = """\
Measure every checkpoint of a past run, in the order of time, as InformationPlaneCallback would have measured it.

The model gets the weights of each checkpoint, all of them, and the hyperparameters that Lightning saved with it. The
data are those of a validation: val_dataloader, or train_dataloader where there is none. Bin edges and calibrations that
the callback froze in the run are taken from the checkpoint. Layers, unit and estimators are those of the run, where it
had the callback, unless they are given here.

The output folder, by default 'replay' beside the first checkpoint, holds

  information_plane.csv          every value
  information_plane.png, .svg    the picture
  events.out.tfevents.…          scalars, picture and page for TensorBoard
  replay.pt                      edges and options, to go on

A replay that was interrupted goes on where it stopped when the same command is given.
"""

_REPLAY_EXAMPLES = """\
examples:
  every checkpoint in a folder; Net is a class in train.py, Digits a LightningDataModule in it
    lightning-ib replay checkpoints/ --model train.Net --data train.Digits
  two layers, in nats, with a second estimator
    lightning-ib replay checkpoints/ --model train.Net --data train.loader --layers encoder head --unit nats \\
        --estimators probe kde
  a run of LightningCLI
    lightning-ib replay lightning_logs/version_0/checkpoints --config lightning_logs/version_0/config.yaml
  with the run's own callback, as bins and unpack= need it
    lightning-ib replay checkpoints/ --model train.Net --data train.Digits --callback train.information_plane
"""


def parser() -> ArgumentParser:
    """The parser of all commands."""
    top = ArgumentParser(
        "lightning-ib", description=_ABOUT, epilog=_EXAMPLES, formatter_class=RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"lightning-ib {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    _add_replay(commands)
    return top


def _command(commands: Any, name: str, brief: str, about: str, examples: str) -> ArgumentParser:
    made: ArgumentParser = commands.add_parser(
        name, help=brief, description=about, epilog=examples, formatter_class=RawDescriptionHelpFormatter
    )
    return made


def _add_replay(commands: Any) -> None:
    """The options of ``replay``."""
    one = _command(commands, "replay", "measure the checkpoints of a past run", _REPLAY, _REPLAY_EXAMPLES)
    one.add_argument(
        "checkpoints", nargs="+", metavar="CHECKPOINT", help="a file (.ckpt, .pt, .pth) or a folder of such files"
    )
    what = one.add_argument_group("what to measure")
    what.add_argument("--model", metavar="NAME", help="module.Class, or a function without arguments that returns it")
    what.add_argument(
        "--data", metavar="NAME", help="module.Class of a LightningDataModule, or a function that returns a loader"
    )
    what.add_argument("--config", metavar="FILE", help="the config.yaml of a LightningCLI, in place of both")
    what.add_argument(
        "--callback", metavar="NAME", help="the run's InformationPlaneCallback, or a function that returns it"
    )
    how = one.add_argument_group("how to measure it")
    how.add_argument("--layers", nargs="+", action="extend", metavar="NAME", help="names of modules, or glob patterns")
    how.add_argument(
        "--estimators", nargs="*", action="extend", metavar="NAME", help="such as probe or kde; none where it is empty"
    )
    how.add_argument("--unit", choices=("bits", "nats"), help="of the informations; bits")
    how.add_argument("--max-samples", type=int, metavar="N", help="the most samples that cells and estimators see")
    how.add_argument("--ignore-index", type=int, metavar="LABEL", help="leave out rows with this label, such as -100")
    how.add_argument("--tokens", action="store_true", help="take the tokens of sequences for samples")
    how.add_argument("--by", choices=("epoch", "step"), help="what tells checkpoints apart; epoch")
    how.add_argument("--device", metavar="NAME", help="such as cpu or cuda:1; the first GPU where there is one")
    out = one.add_argument_group("where to")
    out.add_argument("--output", metavar="FOLDER", help="an empty or a new folder, or that of a replay to go on with")
    out.add_argument("--prefix", metavar="NAME", help="the first part of every logged name; ib")
    one.add_argument(
        "--trust", action="store_true", help="read checkpoints that hold other objects than tensors: they may run code"
    )
    one.add_argument("--traceback", action="store_true", help="show where an error was raised")
