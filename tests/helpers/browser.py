"""The page in Debian's Chromium, from TensorBoard or from one file."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

# As a reader has them: details that make the page longer must not have it drawn anew.
WITH_SCROLLBARS = ["--hide-scrollbars"]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


@contextmanager
def tensorboard(folder, *options, ready):
    """A TensorBoard that has read a folder; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            address, until = f"http://localhost:{port}", time.monotonic() + 60
            while not _is_ready(address, ready):
                assert server.poll() is None, server.stdout.read()
                assert time.monotonic() < until, "TensorBoard did not read the runs within a minute"
                time.sleep(0.2)
            yield address
        finally:
            server.terminate()


def _is_ready(address, ready):
    try:
        with urllib.request.urlopen(f"{address}/data/plugin/information_plane/runs", timeout=5) as answer:
            return ready(answer.read().decode())
    except OSError:
        return False


@contextmanager
def opened(browser, address, **options):
    """A page, with all that it asked for and complained of; an error in it fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    page = context.new_page()
    seen = SimpleNamespace(requests=[], errors=[])
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: message.type == "error" and seen.errors.append(message.text))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.goto(address)
    found = next((frame for frame in page.frames if "plugin_entry" in frame.url), None)
    if found is None and "#information_plane" in address:
        page.wait_for_selector("iframe", state="attached")
        found = page.query_selector("iframe").content_frame()
    part = page if found is None else found
    part.wait_for_selector("main .planes svg")
    yield SimpleNamespace(page=page, part=part, **vars(seen))
    elsewhere = [url for url in seen.requests if not url.startswith((address.split("/data")[0].split("#")[0], "blob:"))]
    assert [url for url in elsewhere if not url.startswith("data:")] == []
    assert seen.errors == []
    context.close()


def places(part):
    """Layer and run → where its marker is."""
    return {
        (one.get_attribute("data-layer"), one.get_attribute("data-run")): one.get_attribute("transform")
        for one in part.query_selector_all(".point")
    }


def values(part):
    """Source/quantity → value in the table of details."""
    return {
        one.get_attribute("data-quantity"): float(one.get_attribute("data-value"))
        for one in part.query_selector_all(".details section:first-of-type tr[data-quantity]")
    }
