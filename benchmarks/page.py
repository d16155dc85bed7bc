"""How long the page takes to open and to step, with many layers, measurements and runs, in Debian's Chromium.

    python benchmarks/page.py [--layers 12] [--measurements 1000] [--runs 5] [--tensorboard]

Prints the median and the largest time of a step of the slider, to the next frame that is painted, and the time from the
request to the first picture. Needs playwright (``pip install playwright``) and a Chromium on the PATH.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_ib.records import History, InformationPoint, Record
from lightning_ib.records.measurement_json import measurement_to_json
from lightning_ib.report.page import log_measurement
from lightning_ib.tensorboard_plugin.files import self_contained_html
from lightning_ib.warn_once import WarnOnce

_STEP = """async (n) => {
    const slider = document.getElementById("slider"), found = [];
    for (let k = 0; k < n; k++) {
        const before = performance.now();
        slider.value = Math.round(1000 * ((k * 0.618) % 1));
        slider.dispatchEvent(new Event("input"));
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        found.push(performance.now() - before);
    }
    return found;
}"""
_PORT = 6127


def measurement(epoch: int, layers: int, seed: int) -> History:
    """A measurement as the default callback makes one: counted values of each layer, and a linear probe."""
    draw = random.Random(1000 * seed + epoch)
    points, estimates = [], []
    for k in range(layers):
        layer, gain = f"blocks.{k}.linear", 1 - math.exp(-epoch / 100 / (1 + k))
        i_xt = 7 - 0.2 * k - 2 * gain + draw.gauss(0, 0.02)
        i_ty = 0.5 + 2.5 * gain + draw.gauss(0, 0.02)
        values: dict[str, Any] = {"epoch": epoch, "step": 100 * epoch, "i_xt": i_xt, "h_t": i_xt}
        values |= {"h_x": 13.287712379549449}
        values |= {"i_ty": i_ty, "h_y": 3.321928094887362, "h_y_given_t": 3.321928094887362 - i_ty, "i_ty_se": 0.011}
        values |= {"i_xt_given_y": i_xt - i_ty, "saturation": i_xt / 13.29, "n_codes": 256, "i_xt_se": 0.0123}
        values |= {"h_t_se": 0.0123, "i_ty_permuted": 0.0432, "singleton_fraction": 0.001, "verdict": "ok"}
        values |= {"explained_variance": 0.8 + draw.gauss(0, 0.01), "i_ty_fano": 2.0 * gain, "fano_shortfall": 0.0}
        points.append(InformationPoint.missing(layer, n_samples=10_000, unit="bits")._replace(**values))
        for quantity, unit in (("I_TY", "bits"), ("accuracy", "")):
            value = min(1.0, 0.1 + gain) if quantity == "accuracy" else i_ty + 0.1
            estimates.append(Record(epoch, 100 * epoch, layer, "probe", quantity, value, unit=unit, n_samples=10_000))
    return History.of(points, estimates)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """TensorBoard on a folder, once it has read all of it; yields the address of the page."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(_PORT)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            base = f"http://localhost:{_PORT}/data/plugin/information_plane"
            before = ""
            while True:
                time.sleep(3)
                try:
                    now = urllib.request.urlopen(f"{base}/runs").read().decode()
                except OSError:
                    continue
                if now == before and "version" in now:
                    break
                before = now
            yield f"{base}/page.html"
        finally:
            server.terminate()


def timed(address: str, n_steps: int) -> dict[str, Any]:
    """The times of opening the page and of steps, in milliseconds."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        before = time.perf_counter()
        page.goto(address)
        page.wait_for_selector(".point", timeout=120_000)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        opened = 1e3 * (time.perf_counter() - before)
        found = {"open": opened}
        for mode in ("overlaid", "mean", "beside"):
            if page.locator("#mode").count():
                page.select_option("#mode", mode)
                page.wait_for_timeout(500)
            steps = page.evaluate(_STEP, n_steps)
            found[f"step, {mode}"] = statistics.median(steps)
            found[f"slowest step, {mode}"] = max(steps)
        browser.close()
    return found


def main() -> None:
    """Make runs, open the page, step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--measurements", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--tensorboard", action="store_true", help="serve it by TensorBoard, not from one file")
    args = parser.parse_args()
    runs = {
        f"seed_{seed}": [
            measurement_to_json(measurement(epoch, args.layers, seed), discretized={})
            for epoch in range(args.measurements)
        ]
        for seed in range(args.runs)
    }
    with tempfile.TemporaryDirectory() as folder:
        if args.tensorboard:
            for name, texts in runs.items():
                write_events(Path(folder) / name, texts)
            with served(Path(folder)) as address:
                found = timed(address, args.steps)
        else:
            file = Path(folder) / "page.html"
            file.write_text(self_contained_html(runs), encoding="utf-8")
            print(f"{file.stat().st_size / 1e6:.1f} MB")
            found = timed(file.as_uri(), args.steps)
    for name, milliseconds in found.items():
        print(f"{name:24} {milliseconds:8.1f} ms")


def write_events(folder: Path, texts: list[str]) -> None:
    """The measurements as an event file."""
    from types import SimpleNamespace

    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step, text in enumerate(texts):
            log_measurement([SimpleNamespace(experiment=writer)], "ib", text, step, WarnOnce())


if __name__ == "__main__":
    main()
