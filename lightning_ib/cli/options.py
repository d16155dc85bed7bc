"""The commands and their options."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from typing import Any, NoReturn

from lightning_ib import __version__

_ABOUT = """\
The information plane of a network's layers: measure the checkpoints of a past run, draw, compare or film what was
measured, and reproduce published experiments.
"""

_EXAMPLES = """\
examples:
  lightning-ib replay checkpoints/ --model train.Net --data train.Digits
  lightning-ib plot lightning_logs/version_0 -o plane.pdf --style paper
  lightning-ib compare lightning_logs/version_0 lightning_logs/version_1
  lightning-ib movie lightning_logs/version_0 -o plane.gif
  lightning-ib page lightning_logs/version_0 -o plane.html
  lightning-ib reproduce collapse --quick
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
  estimators.png                 the values of estimators, where there are others than the probe
  events.out.tfevents.…          scalars, pictures and page for TensorBoard
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


_RUN = """\
A RUN is the folder with information_plane.csv, which the callback and 'replay' write, or such a file.
"""

_PLOT = f"""\
Draw the information plane of a run; of several runs small planes side by side, on equal axes.

{_RUN}"""

_PLOT_EXAMPLES = """\
examples:
  lightning-ib plot lightning_logs/version_0                           writes plane.png here
  lightning-ib plot lightning_logs/version_0 -o plane.pdf --style paper
  lightning-ib plot lightning_logs/version_0 --each-layer -o layers.svg
"""

_COMPARE = f"""\
Draw several runs side by side on equal axes, and print how they differ: I(X;T), I(T;Y), H(T) and the verdict of each
layer at the last epoch that all of them have. Runs in different units are converted into that of the first.

With --gap METRIC, print which recorded quantities go with a metric over at least four runs, such as the generalization
gap: Kendall's tau-b and Spearman's rho of each, with bars over resampled runs, and how often chance reaches the
largest. The metric is read from CSVLogger's metrics.csv or from TensorBoard's event files in the folder of the run.

{_RUN}"""

_COMPARE_EXAMPLES = """\
examples:
  lightning-ib compare runs/tanh runs/relu -o compare.png              the table goes to the console
  lightning-ib compare runs/* --gap "val_loss - train_loss"            the picture is gap.png
  lightning-ib compare runs/* --gap test_loss --table gap.csv
"""

_MOVIE = f"""\
Film the information plane of a run: a frame for each measurement, in axes that stay. GIF needs nothing else, MP4 needs
ffmpeg.

{_RUN}"""

_MOVIE_EXAMPLES = """\
examples:
  lightning-ib movie lightning_logs/version_0                          writes plane.gif here
  lightning-ib movie lightning_logs/version_0 -o plane.mp4 --fps 10
"""

_PAGE = f"""\
Write the interactive page of TensorBoard as one HTML file with the values of runs inside. It needs neither a server nor
a network.

{_RUN}"""

_PAGE_EXAMPLES = """\
example:
  lightning-ib page runs/tanh runs/relu -o plane.html --title "tanh and ReLU"
"""

_REPRODUCE = """\
Run a published experiment anew, and write its picture, its table, and what was found against what was claimed. Without
a name the experiments are listed.

The output folder, by default reproduce/NAME in the current one, holds

  NAME.png    the picture
  NAME.csv    every value
  NAME.md     what was claimed and found, how it was measured, the settings, faults of the original that are not copied
  runs/       the values of each run that is done, to go on

An experiment that was interrupted goes on with its next run when the same command is given.
"""

_REPRODUCE_EXAMPLES = """\
examples:
  lightning-ib reproduce                                               lists the experiments
  lightning-ib reproduce generalization --quick
  lightning-ib reproduce collapse --data-dir data                      data/MNIST/raw holds MNIST
"""


_ESTIMATORS = "probe, mlp_probe, kde, renyi, ksg, knn, mixed, projected, copula, infonce, smile, quantized8, soft"
_ALL_THAT_FOLLOW = "all names that follow are taken: put it after CHECKPOINT or RUN, or -- between"


class _Parser(ArgumentParser):
    """A parser that says where a file went that is missing."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required") and ("CHECKPOINT" in message or "RUN" in message):
            message += ": --layers and --estimators take all names that follow; put it before, or -- between"
        super().error(message)


def parser() -> ArgumentParser:
    """The parser of all commands."""
    top = _Parser("lightning-ib", description=_ABOUT, epilog=_EXAMPLES, formatter_class=RawDescriptionHelpFormatter)
    top.add_argument("--version", action="version", version=f"lightning-ib {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    _add_replay(commands)
    one = _command(commands, "plot", "draw the information plane of runs", _PLOT, _PLOT_EXAMPLES)
    _add_runs(one, "plane.png")
    _add_style(one)
    one.add_argument("--each-layer", action="store_true", help="a small plane for each layer of one run")
    one.add_argument("--gradients", action="store_true", help="the signal and the noise of the gradients of one run")
    one = _command(commands, "compare", "draw runs side by side, and print differences", _COMPARE, _COMPARE_EXAMPLES)
    _add_runs(one, "compare.png, with --gap gap.png,")
    _add_style(one)
    _add_gap(one)
    one = _command(commands, "movie", "film the information plane of a run", _MOVIE, _MOVIE_EXAMPLES)
    one.add_argument("run", metavar="RUN", help="the folder of the run, or its CSV")
    _add_output(one, "plane.gif")
    one.add_argument("--fps", type=float, default=4.0, metavar="N", help="frames a second (default: 4)")
    one = _command(commands, "page", "write runs as an interactive page", _PAGE, _PAGE_EXAMPLES)
    _add_runs(one, "plane.html")
    one.add_argument("--title", default="Information plane", help="of the page (default: Information plane)")
    _add_reproduce(commands)
    return top


def _positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)


_LARGEST_SEED = 2**32 - 100


def _seed(text: str) -> int:
    """A whole number that the generators of NumPy take too, as they do the next ones."""
    if not text.isdecimal() or int(text) > _LARGEST_SEED:
        raise ArgumentTypeError(f"expected a whole number from 0 to {_LARGEST_SEED}, got {text!r}")
    return int(text)


def _not_empty(text: str) -> str:
    """A path."""
    if not text.strip():
        raise ArgumentTypeError("expected a path, got an empty one")
    return text


def _metric(text: str) -> str:
    """The name of a metric."""
    if not text.strip():
        raise ArgumentTypeError("expected the name of a logged metric, got an empty one")
    return text.strip()


def _add_runs(one: ArgumentParser, output: str) -> None:
    one.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run, or its CSV")
    _add_output(one, output)


def _add_output(one: ArgumentParser, output: str) -> None:
    one.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=_not_empty,
        help=f"the file to write (default: {output} in the current folder)",
    )
    _add_layers_and_unit(
        one, "the layers to show, or patterns (default: all)", "convert into this unit (default: that of the first run)"
    )
    one.add_argument(
        "--target", metavar="NAME", help="which of several targets of the run (default: the first; of a page all)"
    )
    _add_traceback(one)


def _add_layers_and_unit(to: Any, of_layers: str, of_unit: str) -> None:
    to.add_argument("--layers", nargs="+", action="extend", metavar="NAME", help=f"{of_layers}; {_ALL_THAT_FOLLOW}")
    to.add_argument("--unit", choices=("bits", "nats"), help=of_unit)


def _add_traceback(one: ArgumentParser) -> None:
    one.add_argument("--traceback", action="store_true", help="show where an error was raised")


def _add_style(one: ArgumentParser) -> None:
    one.add_argument(
        "--style",
        choices=("screen", "paper"),
        default="screen",
        help="paper: 3.4 inches wide, small fonts, no title, 300 dpi (default: screen)",
    )


def _add_gap(one: ArgumentParser) -> None:
    """The options of ``compare --gap``."""
    with_metric = one.add_argument_group("what goes with a metric, over runs")
    with_metric.add_argument(
        "--gap",
        metavar="METRIC",
        type=_metric,
        help='the name of a logged metric, or of two with a minus between, such as "val_loss - train_loss"',
    )
    moment = with_metric.add_mutually_exclusive_group()
    for option, best in (("--at-min", "lowest"), ("--at-max", "highest")):
        moment.add_argument(
            option,
            metavar="METRIC",
            type=_metric,
            help=f"compare at the epoch where a logged metric is {best} (default: at the last measurement)",
        )
    with_metric.add_argument("--table", metavar="FILE", type=_not_empty, help="write all correlations as .csv or .json")


def _add_reproduce(commands: Any) -> None:
    """The options of ``reproduce``."""
    one = _command(commands, "reproduce", "run a published experiment anew", _REPRODUCE, _REPRODUCE_EXAMPLES)
    one.add_argument("name", nargs="?", metavar="NAME", help="of the experiment (default: list them)")
    one.add_argument("--quick", action="store_true", help="in minutes (default: the setting of the paper)")
    one.add_argument("--out", metavar="DIR", type=_not_empty, help="the folder to write into (default: reproduce/NAME)")
    one.add_argument(
        "--data-dir",
        metavar="DIR",
        type=_not_empty,
        help="the folder that holds MNIST/raw (default: that in LIGHTNING_IB_DATA)",
    )
    one.add_argument("--seed", metavar="N", type=_seed, default=0, help="the first seed (default: 0)")
    one.add_argument("--device", metavar="NAME", default="cpu", help="such as cuda:1 (default: cpu)")
    _add_traceback(one)


def _command(commands: Any, name: str, brief: str, about: str, examples: str) -> ArgumentParser:
    made: ArgumentParser = commands.add_parser(
        name, help=brief, description=about, epilog=examples, formatter_class=RawDescriptionHelpFormatter
    )
    return made


def _add_replay(commands: Any) -> None:
    """The options of ``replay``."""
    one = _command(commands, "replay", "measure the checkpoints of a past run", _REPLAY, _REPLAY_EXAMPLES)
    one.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CHECKPOINT",
        help="a file (.ckpt, .pt, .pth), a folder of such files, or the folder of a run, with them in checkpoints/",
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
    _add_how(one.add_argument_group("how to measure it"))
    out = one.add_argument_group("where to")
    out.add_argument(
        "--output",
        metavar="FOLDER",
        type=_not_empty,
        help="an empty or new folder, or that of a replay to go on with (default: replay, beside the first checkpoint)",
    )
    out.add_argument(
        "--prefix", metavar="NAME", help="the first part of every logged name (default: that of the run, or ib)"
    )
    one.add_argument(
        "--trust", action="store_true", help="read checkpoints that hold other objects than tensors: they may run code"
    )
    _add_traceback(one)


def _add_how(how: Any) -> None:
    """The options of how ``replay`` measures."""
    _add_layers_and_unit(
        how,
        "names of modules, or glob patterns (default: those of the run, or those that the callback picks)",
        "of the informations (default: that of the run, or bits)",
    )
    how.add_argument(
        "--estimators",
        nargs="*",
        action="extend",
        metavar="NAME",
        help=f"any of {_ESTIMATORS} (default: those of the run, or probe); none where it is empty; {_ALL_THAT_FOLLOW}",
    )
    how.add_argument(
        "--companions",
        nargs="*",
        action="extend",
        metavar="NAME",
        help="any of spectrum, classes, drift, or all: the geometry of layers (default: those of the run); "
        f"{_ALL_THAT_FOLLOW}",
    )
    how.add_argument(
        "--max-samples",
        type=_positive,
        metavar="N",
        help="the most samples that cells and estimators see (default: as the callback, or 10000)",
    )
    how.add_argument(
        "--limit-batches", type=_positive, metavar="N", help="read so many batches of the data (default: all)"
    )
    how.add_argument("--ignore-index", type=int, metavar="LABEL", help="leave out rows with this label, such as -100")
    how.add_argument("--tokens", action="store_true", help="take the tokens of sequences for samples")
    how.add_argument("--by", choices=("epoch", "step"), help="what tells checkpoints apart (default: epoch)")
    how.add_argument(
        "--device", metavar="NAME", help="such as cpu or cuda:1 (default: the first GPU where there is one)"
    )
