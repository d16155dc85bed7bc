"""Estimators of other packages on the cases of ``truth.py``: the same samples, in a file of their own.

Run it as ``python benchmarks/peers.py``; the arguments are those of ``truth.py``. A package that is missing is left
out, with a line that says so; ``--npeet`` names a folder that holds NPEET, which has no release in the index. Each call
runs in a process of its own, which is ended after ``--timeout`` seconds, so that none can hold the run. These are
seconds of the clock: a busy machine ends calls that would have come through.

What is called for each is in ``peer_estimators.py``. ``python benchmarks/truth.py --docs docs/truth.md`` puts the
results beside ours.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from estimators import Estimator
from peer_estimators import PEERS, Package
from records import read
from runs import completed, parser, run_asked
from tables import summary

RESULTS = Path(__file__).parent / "results" / "peers.csv"
TIMEOUT = 120.0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of the command line."""
    found = parser(__doc__, RESULTS)
    found.add_argument("--npeet", type=Path, help="a folder that holds NPEET's source, with npeet/ in it")
    found.add_argument("--timeout", type=float, default=TIMEOUT, help=f"seconds of a call, default: {TIMEOUT:g}")
    options = completed(found, arguments, RESULTS)
    if options.timeout <= 0:
        found.error(f"--timeout must be more than 0 seconds, got {options.timeout:g}.")
    if options.npeet and not (options.npeet / "npeet").is_dir():
        found.error(f"--npeet: {options.npeet} has no folder npeet: name the folder around it.")
    return options


def at_hand() -> list[str]:
    """The peers whose package is installed; a line is printed for each package that is not."""
    packages: dict[Package, list[str]] = {}
    for name, peer in PEERS.items():
        packages.setdefault(peer.package, []).append(name)
    names: list[str] = []
    for package, of in packages.items():
        if package.found():
            names += of
        else:
            print(f"{package.name} is not installed: left out are {', '.join(of)}.", flush=True)
    return names


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, or print."""
    options = parsed(arguments)
    if options.npeet:
        sys.path.append(str(options.npeet.resolve()))  # the processes of the pool have the same path
    if not options.summary:
        names = at_hand()
        if not names:
            raise SystemExit("no package of others is installed: there is nothing to run.")
        run_asked(options, names, options.timeout)
    rows = read(options.results)
    if not rows:
        raise SystemExit(f"{options.results} has no rows: run without --summary first.")
    peers: dict[str, Estimator] = dict(PEERS)
    print(summary(rows.values(), peers))


if __name__ == "__main__":
    main()
