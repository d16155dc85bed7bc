"""Formulas as MathML, which browsers draw by themselves: no script, no font and no picture is needed."""

from __future__ import annotations

import re
from html import escape

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)


def _converted(node: nodes.Element, *, as_block: bool) -> str:
    source = re.sub(r"\\[bB]igg?[lrm]?(?![a-zA-Z])", "", node.astext())  # brackets grow by themselves
    try:
        return tex2mathml(source, as_block=as_block)
    except MathError as error:
        logger.warning("no MathML for %r: %s", node.astext(), error, location=node)
        return f"<code>{escape(node.astext())}</code>"


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """A formula within a line."""
    self.body.append(_converted(node, as_block=False))
    raise nodes.SkipNode


def visit_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """A formula in lines of its own."""
    self.body.append(self.starttag(node, "div", CLASS="math-block"))
    self.body.append(_converted(node, as_block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
