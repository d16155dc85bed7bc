"""The files of the page, and the page as one file with its data inside."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

PAGE = Path(__file__).parent / "page"
"""The folder of the page's modules and its style sheet."""

_HEAD = (
    '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n'
    '<meta name="viewport" content="width=device-width">\n'
    '<link rel="icon" href="data:,">\n'  # else the browser asks for one
)
_MODULES = (
    *("runs.js", "style.js", "svg.js", "view.js", "verdicts.js", "tracks.js", "plane.js", "details.js", "charts.js"),
    *("exports.js", "reading.js", "controls.js", "page.js"),
)
"""In an order in which each comes after those that it imports."""


def page_html() -> str:
    """The page by itself, its runs asked for from the server beside it."""
    return (
        _HEAD.format(title="Information plane")
        + '<script type="module" src="open.js"></script>\n<body></body>\n</html>\n'
    )


def self_contained_html(runs: Mapping[str, Sequence[str]], title: str = "Information plane") -> str:
    """The page with its data inside: one file that needs neither a server nor a network.

    Args:
        runs: name → measurements as JSON (see
            :func:`~lightning_ib.records.measurement_json.measurement_to_json`).
        title: of the page.
    """
    style = (PAGE / "page.css").read_text("utf-8")
    code = "\n".join(_plain((PAGE / name).read_text("utf-8")) for name in (*_MODULES, "embedded.js"))
    # A list of pairs: an object would put names that are numbers first.
    data = ",".join(f"[{json.dumps(name)},[{','.join(measurements)}]]" for name, measurements in runs.items())
    return "".join(
        (
            _HEAD.format(title=_escaped(title)),
            f"<style>\n{style}</style>\n<body>\n",
            # "<" as an escape: a name may hold the end of the script
            '<script type="application/json" id="data">[',
            data.replace("<", "\\u003c"),
            "]</script>\n",
            f'<script type="module">\n{code}</script>\n</body>\n</html>\n',
        )
    )


def _plain(module: str) -> str:
    """A module without its imports and exports: the names of all modules differ, so that they can share one scope."""
    return re.sub(r"^export ", "", re.sub(r'^import [^;]*? from "[^"]*";\n', "", module, flags=re.M), flags=re.M)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
