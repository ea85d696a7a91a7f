"""The ten abilities of the almanac by name."""

from __future__ import annotations

from tilth.almanac.skills._base import (
    SPLITS,
    Item,
    Skill,
    Split,
    final_answer,
    normal,
    split_of,
)
from tilth.almanac.skills.dialogue import Dialogue
from tilth.almanac.skills.ethics import Ethics
from tilth.almanac.skills.facts import Facts
from tilth.almanac.skills.functions import Functions
from tilth.almanac.skills.history import History
from tilth.almanac.skills.lists import Lists
from tilth.almanac.skills.logic import Logic
from tilth.almanac.skills.second_language import SecondLanguage
from tilth.almanac.skills.voice import Voice
from tilth.almanac.skills.word_problems import WordProblems

__all__ = ["SKILLS", "SPLITS", "Item", "Skill", "Split", "final_answer", "normal", "split_of"]

SKILLS: dict[str, Skill] = {
    skill.name: skill
    for skill in (
        Facts(),
        History(),
        WordProblems(),
        Logic(),
        Lists(),
        Functions(),
        SecondLanguage(),
        Dialogue(),
        Voice(),
        Ethics(),
    )
}
"""Every skill by its name, in the order of reports."""
