"""The page of cards: every quantity that is recorded, from the docstring of what computes it."""

import importlib.util
import re
from pathlib import Path

import pytest

from lightning_ib.estimators import GaussianChannel
from lightning_ib.estimators.geometry import BY_NAME as COMPANIONS
from lightning_ib.estimators.registry import BY_NAME
from lightning_ib.records.points import _FIELDS
from lightning_ib.records.record import GRADIENT_QUANTITIES, VARIATIONAL

pytest.importorskip("sphinx")

DOCS = Path(__file__).parents[2] / "docs"

spec = importlib.util.spec_from_file_location("cards", DOCS / "_ext" / "cards.py")
cards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cards)

DIRECTIVE = re.compile(r"^\.\. cards::\n\n((?:[ ]+.*\n)+)", re.MULTILINE)
CARDS = [
    card
    for part in DIRECTIVE.findall((DOCS / "quantities.md").read_text(encoding="utf-8"))
    for card in cards.cards_in(part.splitlines())
]
OTHERS = {"IB", "ksg(corrected=True)/I_TY"}
"""What is logged without a record, and a choice of an estimator."""


def recorded():
    """The names of all quantities that the package can record, those of an estimator with its name before them."""
    estimators = [*(make() for make in (*BY_NAME.values(), *COMPANIONS.values())), GaussianChannel(0.01)]
    of_estimators = {f"{one.name}/{name}" for one in estimators for name in one.outputs}
    others = {f"{VARIATIONAL}/I_XT", f"{VARIATIONAL}/I_TY", "drift/cka_to_last"}
    return {*_FIELDS, *GRADIENT_QUANTITIES, *of_estimators, *others}


def test_every_quantity_has_one_card():
    named = [quantity for card in CARDS for quantity in card.quantities]
    assert recorded() - set(named) == set()
    assert set(named) - recorded() == OTHERS
    assert len(named) == len(set(named))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.quantities[0])
def test_a_card_has_a_definition_and_every_section(card):
    text = cards.card_text(card)
    assert "".join(text.definition).strip()
    assert [name for name in cards.SECTIONS if not "".join(text.sections.get(name, [])).strip()] == []


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.quantities[0])
def test_what_a_source_cites_is_in_the_bibliography(card):
    author = r"[A-ZÀ-Ž][\w'’-]+"
    cited = re.findall(
        rf"({author})(?:(?:,| &)? (?:{author}|et al\.))*,? \(?((?:18|19|20)\d\d)",
        " ".join(cards.card_text(card).sections["Source"]),
    )
    entries = (DOCS / "bibliography.md").read_text(encoding="utf-8").splitlines()
    assert [(who, year) for who, year in cited if not any(who in one and f"({year})" in one for one in entries)] == []


def test_the_text_of_a_docstring():
    text = cards.text_of(
        """The mean of numbers.

        It is known to all.

        With N numbers:

        .. math::

            \\frac{1}{N} \\sum_n x_n

        More words.

        Source:
            Someone (1900),
            and others.

        Trap:
            One outlier.

        Args:
            x: the numbers.
        """
    )
    lines = [line for line in text.definition if line]
    assert lines == ["The mean of numbers.", "With N numbers:", ".. math::", "    \\frac{1}{N} \\sum_n x_n"]
    assert text.sections == {"Source": ["Someone (1900),", "and others."], "Trap": ["One outlier."]}


def test_a_line_that_names_nothing_is_refused():
    with pytest.raises(ValueError, match="a colon, and what computes them, got 'I_XT'"):
        list(cards.cards_in(["   I_XT"]))
    with pytest.raises(ValueError, match=r"has no functional\.entropie"):
        cards.found_at("functional.entropie")


def test_sections_are_shown_as_fields():
    lines = ["Words.", "", "Cost:", "    One second", "    or two.", "", "Args:", "    x: it."]
    cards.as_fields(None, "function", "f", None, None, lines)
    assert lines == ["Words.", "", ":Cost: One second", "    or two.", "", "Args:", "    x: it."]
