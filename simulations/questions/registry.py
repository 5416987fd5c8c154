"""All questions by name."""

from __future__ import annotations

from difflib import get_close_matches

from . import dht, swarms
from .question import BadQuestion, Question


def questions() -> dict[str, Question]:
    """Return all questions by name."""
    return {question.name: question for question in (*swarms.QUESTIONS, *dht.QUESTIONS)}


def question(name: str) -> Question:
    """Return a question.

    Raises:
        BadQuestion: There is none of this name.
    """
    known = questions()
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise BadQuestion(f"there is no question {name!r}; {hint}")
    return known[name]
