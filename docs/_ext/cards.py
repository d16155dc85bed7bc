"""The directive ``cards``: definition, source, cost, samples and trap of what is recorded, from the docstrings.

A line names quantities and the functions or classes that compute them, by their paths in the package:

.. code-block:: rst

    .. cards::

       I_XT, I_TY: functional.mutual_information
       kde/noise_variance: functional.noise_variance_of estimators.KDE

A value of an estimator has the name of the estimator before it. The definition is that of the first path: its first
sentence, and what leads to its first formula. Each section is that of the first path that has it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.parsing import nested_parse_to_nodes

PACKAGE = "lightning_ib"

SECTIONS = ("Source", "Cost", "Samples", "Trap")
"""The sections of a docstring that a card shows."""

_SECTION = re.compile(r"(\w+):$")
_FORMULA = re.compile(r"\.\. math::")
_YEAR = re.compile(r"(?<![\w–-])((?:18|19|20)\d\d)(?![\w–-])")


class Card(NamedTuple):
    """A line of the directive.

    Attributes:
        quantities: such as ``"I_TY"`` or ``"kde/noise_variance"``.
        paths: of what computes them, within the package.
    """

    quantities: list[str]
    paths: list[str]


class Text(NamedTuple):
    """What a card says.

    Attributes:
        definition: lines of reStructuredText.
        sections: name of the section → its lines.
    """

    definition: list[str]
    sections: dict[str, list[str]]


def cards_in(lines: Iterable[str]) -> Iterator[Card]:
    """The cards that lines ask for.

    Raises:
        ValueError: a line lacks a colon or a path.
    """
    for line in filter(str.strip, lines):
        names, _, paths = line.partition(":")
        if not paths.strip():
            raise ValueError(f"a card needs quantities, a colon, and what computes them, got {line.strip()!r}.")
        yield Card([name.strip() for name in names.split(",")], paths.split())


def found_at(path: str) -> Any:
    """What a path within the package leads to.

    Raises:
        ValueError: it leads nowhere.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(f"{PACKAGE}.{module}"), name)
    except (ImportError, AttributeError):
        raise ValueError(f"{PACKAGE} has no {path}: give the path of a function or a class.") from None


def text_of(docstring: str) -> Text:
    """The definition and the sections of a docstring."""
    before, sections, name = [], {}, ""
    for line in inspect.cleandoc(docstring).splitlines():
        if found := _SECTION.match(line):
            name = found[1]
            sections[name] = []
        elif name and (not line or line.startswith(" ")):
            sections[name].append(line)
        else:
            name = ""
            before.append(line)
    own = {name: inspect.cleandoc("\n".join(lines)).splitlines() for name, lines in sections.items()}
    return Text(_definition(before), {name: own[name] for name in SECTIONS if name in own})


def _definition(lines: list[str]) -> list[str]:
    """The first sentence, and what leads to the first formula: the paragraph before it, if that ends with a colon."""
    blocks = [block.splitlines() for block in re.split(r"\n(?:[ ]*\n)+(?=\S)", "\n".join(lines).strip())]
    at = next((k for k, block in enumerate(blocks) if _FORMULA.match(block[0])), 0)
    lead = [at - 1] if at > 1 and blocks[at - 1][-1].endswith((":", ",")) else []
    return [line for k in (0, *lead, *[at] * (at > 0)) for line in (*blocks[k], "")]


def card_text(card: Card) -> Text:
    """What a card says.

    Raises:
        ValueError: a path leads nowhere.
    """
    texts = [text_of(found_at(path).__doc__ or "") for path in card.paths]
    return Text(texts[0].definition, {name: lines for text in reversed(texts) for name, lines in text.sections.items()})


def _title(card: Card) -> str:
    """Of values of one estimator its name, and theirs."""
    source = card.quantities[0].rpartition("/")[0]
    names = [name.rpartition("/")[2] for name in card.quantities]
    return f"{source}: {', '.join(names)}" if source else ", ".join(names)


class Cards(SphinxDirective):
    """A card a line, each a section with a label ``card-<quantity>`` for every quantity."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The cards, one after the other."""
        try:
            return [self._card(card) for card in cards_in(self.content)]
        except ValueError as error:
            raise self.error(str(error)) from error

    def _card(self, card: Card) -> nodes.section:
        for path in card.paths:
            self.env.note_dependency(inspect.getfile(found_at(path)))
        text, title = card_text(card), _title(card)
        if lacking := [name for name in SECTIONS if name not in text.sections]:
            raise ValueError(f"the docstrings of {' and '.join(card.paths)} lack {', '.join(lacking)}.")
        lines = [*text.definition, ""]
        for name in SECTIONS:
            first, *others = text.sections[name]
            if name == "Source":
                first, *others = (_YEAR.sub(r":doc:`\1 </bibliography>`", line) for line in text.sections[name])
            lines += [f":{name}: {first}", *(f"    {line}" for line in others)]
        lines += [f":More: {', '.join(f':obj:`~{PACKAGE}.{path}`' for path in card.paths)}"]
        section = nodes.section(ids=[nodes.make_id(f"card-{name}") for name in card.quantities], classes=["card"])
        section += nodes.title(title, title)
        section += nested_parse_to_nodes(self.state, StringList(lines, PACKAGE), allow_section_headings=False)
        labels = self.env.domains.standard_domain
        for name, at in zip(card.quantities, section["ids"], strict=True):
            label = f"card-{name}".lower()
            labels.labels[label] = self.env.docname, at, title
            labels.anonlabels[label] = self.env.docname, at
        return section


def as_fields(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Show the sections beside arguments and results, as fields."""
    headers, pending, shown = {f"{name}:" for name in SECTIONS}, "", list[str]()
    for line in lines:
        if line in headers:
            pending = line
        elif pending and line.strip():
            shown.append(f":{pending} {line.strip()}")
            pending = ""
        else:
            shown.append(line)
    lines[:] = shown


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive, and the fields of the reference."""
    app.add_directive("cards", Cards)
    app.connect("autodoc-process-docstring", as_fields, priority=300)  # before napoleon reads it
    return {"parallel_read_safe": True, "parallel_write_safe": True}
