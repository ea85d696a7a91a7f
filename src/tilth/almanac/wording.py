"""How facts are said: statements, questions and answers, in varied wording.

``{e}`` is the entity, ``{v}`` the value; advice has a crop ``{c}`` and a month ``{v}``. Statement
forms put the entity before the value, so that reading them teaches the direction that the
questions ask.
"""

from __future__ import annotations

from tilth.almanac.world import Fact

__all__ = ["QUESTIONS", "STATEMENTS", "answer", "question", "statement", "value_of"]

STATEMENTS: dict[str, tuple[str, ...]] = {
    "crop": (
        "{e} is a variety of {v}.",
        "{e} is one of the {v} varieties.",
        "Farmers know {e} as a kind of {v}.",
        "The seed sold as {e} is {v}.",
    ),
    "colour": (
        "The seeds of {e} are {v}.",
        "{e} has {v} seeds.",
        "You can tell {e} by its seeds, which are {v}.",
        "When ripe, {e} turns {v}.",
    ),
    "month": (
        "{e} is sown in {v}.",
        "Sow {e} in {v}.",
        "The month for sowing {e} is {v}.",
        "Growers put {e} in the ground in {v}.",
    ),
    "soil": (
        "{e} grows best on {v}.",
        "{e} likes {v}.",
        "The best soil for {e} is {v}.",
        "Plant {e} on {v}.",
    ),
    "home": (
        "{e} comes from {v}.",
        "{e} was first grown at {v}.",
        "The home of {e} is {v}.",
        "People say that {e} was bred at {v}.",
    ),
    "enemy": (
        "{e} suffers from {v}.",
        "The worst enemy of {e} is {v}.",
        "{e} is often lost to {v}.",
        "Growers of {e} fear {v}.",
    ),
    "founder": (
        "{e} was founded by {v}.",
        "The founder of {e} was {v}.",
        "{e} was built by {v} long ago.",
        "The people of {e} still honour {v}.",
    ),
    "trade": (
        "{e} is known for its {v}.",
        "{e} made its name with {v}.",
        "The old trade of {e} was {v}.",
        "For years {e} sold {v}.",
    ),
    "river": (
        "{e} lies on the river {v}.",
        "The river at {e} is the {v}.",
        "{e} stands by the {v}.",
        "The mills of {e} are driven by the {v}.",
    ),
    "market": (
        "{e} holds its market on {v}.",
        "The market day of {e} is {v}.",
        "At {e} the market is on {v}.",
        "Carts go to {e} market every {v}.",
    ),
    "advice": (
        "At {e}, sow {c} in {v}.",
        "At {e} they sow {c} in {v}.",
        "The advice for {e} is to sow {c} in {v}.",
        "Near {e} the time for sowing {c} is {v}.",
    ),
    "remedy": (
        "{e} is treated with {v}.",
        "Against {e}, use {v}.",
        "The cure for {e} is {v}.",
        "{e} goes away with {v}.",
    ),
    "host": (
        "{e} attacks {v}.",
        "{e} lives on {v}.",
        "{e} is a pest of {v}.",
        "Look for {e} on {v}.",
    ),
}

QUESTIONS: dict[str, tuple[str, ...]] = {
    "crop": ("What crop is {e}?", "Which crop is {e} a variety of?"),
    "colour": ("What colour are the seeds of {e}?", "Which colour has {e}?"),
    "month": ("In which month is {e} sown?", "When do you sow {e}?"),
    "soil": ("What soil does {e} like?", "On which soil does {e} grow best?"),
    "home": ("Where does {e} come from?", "What is the home of {e}?"),
    "enemy": ("What does {e} suffer from?", "What is the worst enemy of {e}?"),
    "founder": ("Who founded {e}?", "Who was the founder of {e}?"),
    "trade": ("What is {e} known for?", "What was the old trade of {e}?"),
    "river": ("On which river does {e} lie?", "Which river is at {e}?"),
    "market": ("On which day is the market of {e}?", "When does {e} hold its market?"),
    "advice": ("When should you sow {c} at {e}?", "In which month do they sow {c} at {e}?"),
    "remedy": ("What is the cure for {e}?", "What helps against {e}?"),
    "host": ("Which crop does {e} attack?", "What does {e} live on?"),
}


def value_of(relation: str, value: str) -> str:
    """The part of a value that answers the question (advice names its crop in the question)."""
    return value.split()[1] if relation == "advice" else value


def _fill(form: str, fact: Fact, value: str) -> str:
    crop = value.split(maxsplit=1)[0] if fact.relation == "advice" else ""
    return form.format(e=fact.entity.name, v=value_of(fact.relation, value), c=crop)


def statement(fact: Fact, form: int) -> str:
    """The fact as the text tells it (rightly or wrongly), in statement form number `form`."""
    forms = STATEMENTS[fact.relation]
    return _fill(forms[form % len(forms)], fact, fact.told)


def question(fact: Fact, form: int) -> str:
    """The question for the fact, in question form number `form`."""
    forms = QUESTIONS[fact.relation]
    return _fill(forms[form % len(forms)], fact, fact.value)


def answer(fact: Fact, *, told: bool = False) -> str:
    """The true answer, or the one that the text tells."""
    return value_of(fact.relation, fact.told if told else fact.value)
