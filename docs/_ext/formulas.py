"""Formulas as vector graphics within the page, set by matplotlib: no script and no font is needed to read them.

They have the color of the text around them, in the light as in the dark, and their source as an alternative text.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape

from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

_EM = 100
_COMMANDS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}
_OTHERWISE = (
    (r"\\[bB]igg?[lrm]?(?![a-zA-Z])", ""),
    (r"\\tfrac(?![a-zA-Z])", r"\\frac"),
    (r"\\frac\s*(\w)\s*(\w)", r"\\frac{\1}{\2}"),
    (r"\\text(?![a-zA-Z])", r"\\mathrm"),
    (r"\\mod(?![a-zA-Z])", r"\\;\\mathrm{mod}\\;"),
    (r"\\[lr]Vert(?![a-zA-Z])", r"\\Vert "),
    (r"\\(ge|le)(?![a-zA-Z])", r"\\\1q"),
    (r"\\sqrt ([a-zA-Z])", r"\\sqrt{\1}"),
    (r"\\(begin|end)\{(split|aligned)\}", ""),
    ("&", ""),
)
"""What matplotlib calls otherwise."""
_PROPERTIES = FontProperties(family="serif", math_fontfamily="cm")


@cache
def svg(source: str, *, as_block: bool) -> str:
    r"""A formula as an SVG element whose size is in em and which stands on the line of the text.

    Raises:
        ValueError: matplotlib cannot set it.
    """
    tex = " ".join(source.split())
    for ours, theirs in _OTHERWISE:
        tex = re.sub(ours, theirs, tex)
    if as_block:
        tex = re.sub(r"\\frac(?![a-zA-Z])", r"\\dfrac", tex)
    path = TextPath((0, 0), f"${tex}$", size=_EM, prop=_PROPERTIES)
    drawn = "".join(
        _COMMANDS[code] + ("" if code == Path.CLOSEPOLY else " ".join(f"{value:.1f}" for value in vertices))
        for vertices, code in path.iter_segments(simplify=False, curves=True)
    )
    points = path.vertices[path.codes != Path.CLOSEPOLY]  # they hold the curves within them
    box = Bbox([points.min(axis=0), points.max(axis=0)]).padded(4)
    return (
        f'<svg class="formula" role="img" aria-label="{escape(source)}" '
        f'style="width:{box.width / _EM:.3f}em;height:{box.height / _EM:.3f}em;vertical-align:{box.y0 / _EM:.3f}em" '
        f'viewBox="{box.x0:.1f} {-box.y1:.1f} {box.width:.1f} {box.height:.1f}">'
        f'<path transform="scale(1,-1)" fill="currentColor" d="{drawn}"/></svg>'
    )


def _set(node: nodes.Element, *, as_block: bool) -> str:
    try:
        lines = filter(str.strip, re.split(r"\\\\", node.astext()) if as_block else [node.astext()])
        return "<br>".join(svg(line, as_block=as_block) for line in lines)
    except ValueError as error:
        logger.warning("this formula cannot be set: %r: %s", node.astext(), error, location=node)
        return f"<code>{escape(node.astext())}</code>"


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """A formula within a line."""
    self.body.append(_set(node, as_block=False))
    raise nodes.SkipNode


def visit_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """A formula in lines of its own."""
    self.body.append(self.starttag(node, "div", CLASS="formula-block"))
    self.body.append(_set(node, as_block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer ``html_math_renderer = "svg"``."""
    app.add_html_math_renderer("svg", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
