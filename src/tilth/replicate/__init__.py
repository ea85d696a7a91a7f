"""Replication: published claims as runnable experiments, each with its verdict.

A system's file holds one :class:`Replication`: its arms, its claims, and a module-level function
that computes one *cell*, the scores of one arm under one seed. The frame runs the cells in worker
processes, resumes what was killed, judges each claim by the interval of a paired difference, and
writes ``results/<system>.json``.

    >>> from tilth.replicate import load, replicate
    >>> result = replicate(load("quickstart"), quick=True)              # doctest: +SKIP
    >>> result.verdicts                                                 # doctest: +SKIP
    {'tuned beats base-chat': 'reproduced', ...}
"""

from tilth.replicate.claims import Claim, Finding, Greater, Monotone, Verdict, Within, judge
from tilth.replicate.console import show
from tilth.replicate.figures import Curve, Frontier
from tilth.replicate.frame import Arm, Measured, Replication, Scores, load, names, shared_folder
from tilth.replicate.pages.index import papers
from tilth.replicate.results import Result, replicate

__all__ = [
    "Arm",
    "Claim",
    "Curve",
    "Finding",
    "Frontier",
    "Greater",
    "Measured",
    "Monotone",
    "Replication",
    "Result",
    "Scores",
    "Verdict",
    "Within",
    "judge",
    "load",
    "names",
    "papers",
    "replicate",
    "shared_folder",
    "show",
]
