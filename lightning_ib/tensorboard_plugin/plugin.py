"""The plugin: which runs have measurements, those measurements as they were logged, and the files of the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from tensorboard import plugin_util
from tensorboard.data.provider import RunTagFilter
from tensorboard.plugins import base_plugin
from werkzeug import Request, Response

from lightning_ib.records.tags import PLUGIN
from lightning_ib.tensorboard_plugin.files import PAGE, page_html

_NO_CACHE = {"Cache-Control": "no-cache, must-revalidate", "X-Content-Type-Options": "nosniff"}
_CSP = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; object-src 'none'"
_ALL = 10**9
# Written down: a system's own table may call a script plain text, which browsers then refuse.
_TYPES = {".js": "text/javascript", ".css": "text/css"}

App = Callable[..., Any]


class InformationPlanePlugin(base_plugin.TBPlugin):  # type: ignore[misc]
    """Serves the page and its data; it is active where a run has measurements.

    Args:
        context: TensorBoard's.
    """

    plugin_name = PLUGIN

    def __init__(self, context: base_plugin.TBContext) -> None:
        super().__init__(context)
        self._provider = context.data_provider

    def get_plugin_apps(self) -> dict[str, App]:
        """Route → what answers it."""
        files = {f"/{path.name}": _file(path.name) for path in PAGE.iterdir() if path.suffix in _TYPES}
        return files | {
            "/page.html": _answering(lambda request: (page_html(), "text/html")),
            "/runs": _answering(self._runs),
            "/measurements": _answering(self._measurements),
        }

    def is_active(self) -> bool:
        """Whether it is active without data under its name: never. TensorBoard looks for the data by itself."""
        return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The module that TensorBoard loads, and the name of the tab."""
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Information plane")

    def _runs(self, request: Request) -> tuple[str, str]:
        """The runs: ``name`` to show, ``run``, ``tag``, and a ``version`` that changes with every measurement."""
        found = self._provider.list_tensors(_context(request), experiment_id=_experiment(request), plugin_name=PLUGIN)
        runs = [
            {
                "name": shown_name(run, tag, tags),
                "run": run,
                "tag": tag,
                "version": f"{series.max_step} {series.max_wall_time}",
            }
            for run, tags in found.items()
            for tag, series in tags.items()
        ]
        return json.dumps({"runs": sorted(runs, key=lambda one: _natural(one["name"]))}), "application/json"

    def _measurements(self, request: Request) -> tuple[str, str]:
        """The measurements of ``?run=…&tag=…``, as they were logged, and ``until``, the wall time of the last.

        With ``&after=…``, those after a wall time.
        """
        run, tag = request.args.get("run", ""), request.args.get("tag", "")
        after = request.args.get("after", 0.0, type=float)
        found = self._provider.read_tensors(
            _context(request),
            experiment_id=_experiment(request),
            plugin_name=PLUGIN,
            downsample=_ALL,
            run_tag_filter=RunTagFilter(runs=[run], tags=[tag]),
        )
        data = found.get(run, {}).get(tag, ())
        texts = (_text(datum.numpy) for datum in data if datum.wall_time > after)
        until = max((datum.wall_time for datum in data), default=0.0)
        return f'{{"until":{until!r},"measurements":[{",".join(filter(None, texts))}]}}', "application/json"


def shown_name(run: str, tag: str, tags: Iterable[str]) -> str:
    """The name of a run; with its prefix, where several callbacks logged into it.

    Example:
        >>> shown_name("version_0", "ib/measurement", ["ib/measurement"])
        'version_0'
        >>> shown_name(".", "train/measurement", ["ib/measurement", "train/measurement"])
        '. (train)'
    """
    return run if len(list(tags)) == 1 else f"{run} ({tag.rsplit('/', 1)[0]})"


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts ``version_10`` after ``version_9``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _text(value: Any) -> str:
    """The JSON in a tensor of one string; empty if it is none, as where a file was cut off."""
    one = value.item() if getattr(value, "size", 0) == 1 else b""
    text = one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one)
    try:
        made = json.loads(text, parse_constant=_no_json)
    except ValueError:
        return ""
    return text if isinstance(made, dict) else ""


def _no_json(name: str) -> None:
    """NaN and infinities, which Python reads and browsers refuse."""
    raise ValueError(name)


def _context(request: Request) -> Any:
    return plugin_util.context(request.environ)


def _experiment(request: Request) -> str:
    return str(plugin_util.experiment_id(request.environ))


def _answering(answer: Callable[[Request], tuple[str, str]]) -> App:
    """A route that answers with a text and its type."""

    @Request.application
    def app(request: Request) -> Response:
        content, kind = answer(request)
        policy = {"Content-Security-Policy": _CSP} if kind == "text/html" else {}
        return Response(content, content_type=f"{kind}; charset=utf-8", headers=_NO_CACHE | policy)

    return app


def _file(name: str) -> App:
    path = PAGE / name
    return _answering(lambda request: (path.read_text("utf-8"), _TYPES[path.suffix]))
