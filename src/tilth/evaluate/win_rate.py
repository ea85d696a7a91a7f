"""Win rates of tuned models against a tuned reference, paired by the seed of their training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from tilth.artefacts import Artefact
from tilth.data import read
from tilth.errors import DataError
from tilth.evaluate._judging import Verdict, judged, length_controlled
from tilth.method import Input, Method, ModelRef, Outcome, Work
from tilth.models import engine
from tilth.stats import mean_interval

__all__ = ["Answered", "WinRate", "paired", "read_outputs"]

OutputsRef = Annotated[str, Input("files")]
"""The folder of an ``evaluate.outputs`` artefact, AlpacaEval's list of answers, or any rows."""


@dataclass(frozen=True)
class Answered:
    """The answers of one model.

    Attributes:
        ref: Where they stand.
        answers: By instruction.
        seed: The seed under which the model was tuned; None where nothing says one.
    """

    ref: str
    answers: Mapping[str, str]
    seed: int | None

    def digest(self) -> str:
        """The hash of all instructions and answers."""
        text = json.dumps(dict(sorted(self.answers.items())), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


class WinRate(Method):
    """Says how often a judge prefers an arm's answers to those of the reference.

    Arm and reference are lists of answers, one per training seed: seed s is compared with seed s,
    as the manifests say. An arm with one set of answers and no training seed (a base model, a rule
    adapter) is compared with every reference, and a single reference without one (the answers of
    another system) with every set of an arm. Each pair is judged in both orders and the mean
    counts; where the judge fails in either order the pair is *missing*, not a tie.

    A win rate is mean and standard deviation over the seeds, as the paper prints it, with a
    bootstrap interval over seeds and instructions beside it; it means nothing against another
    reference, so the hash of the reference's answers is kept. ``length_controlled`` is the win rate
    at equal lengths (:func:`tilth.evaluate._judging.length_controlled`). For AlpacaEval's own
    annotators hand ``outputs.json`` to ``alpaca_eval``.

    Hewitt et al. 2024 (arXiv:2409.14254, section 3): five seeds, AlpacaEval 2, reference: the
    instruction-tuned model of the same seed.

    Example:
        >>> WinRate(arms={"response": ["r1", "r2"]}, reference=["i1", "i2"],  # doctest: +SKIP
        ...         judge="openai:judge@http://localhost:8000/v1").to("wins")
    """

    verb: ClassVar = "evaluate"
    name: ClassVar = "win_rate"
    kind: ClassVar = "files"
    judges: ClassVar = True
    example: ClassVar[dict[str, Any]] = {
        "arms": {"same": ["{rows}"]},
        "reference": ["{rows}"],
        "judge": "{model}",
        "limit": 3,
    }

    arms: dict[str, list[OutputsRef]] = Field(
        min_length=1, description="Answers by the arm's name, one set per training seed."
    )
    reference: list[OutputsRef] = Field(
        min_length=1, description="Answers of the reference, one set per training seed."
    )
    judge: ModelRef = Field(description="Who decides: any model, local or behind an endpoint.")
    limit: int = Field(0, ge=0, description="Judge only so many instructions; 0: all.")
    level: float = Field(0.95, gt=0, lt=1, description="Confidence level of the intervals.")
    batch_size: int = Field(8, ge=1, description="Pairs in a local judge at once; speed only.")

    def run(self, work: Work) -> Outcome:
        """Writes ``win_rate.json`` and ``verdicts.jsonl``.

        Raises:
            DataError: A seed of an arm has no reference, the instructions differ, or a file cannot
                be read.
            EngineError: The judge failed on every pair of an arm.
        """
        references = [read_outputs(ref) for ref in self.reference]
        pairs = {
            name: paired(name, [read_outputs(ref) for ref in refs], references)
            for name, refs in self.arms.items()
        }
        judge = engine(
            self.judge,
            ledger=work.ledger,
            cache=work.scratch / "verdicts.jsonl",
            batch_size=self.batch_size,
            long_prompts="cut",
        )
        lines: list[str] = []
        arms = {}
        for name, both in pairs.items():
            verdicts = []
            for ours, theirs in both:
                triples = [(q, a, theirs.answers[q]) for q, a in ours.answers.items()]
                triples = triples[: self.limit or None]
                said = judged(judge, triples)
                verdicts.append((triples, said))
                lines += [
                    _line(name, ours, theirs, t, v) for t, v in zip(triples, said, strict=True)
                ]
            arms[name] = _rate(name, both, verdicts, self.level)
            work.say(_told(name, arms[name]))
        result = {
            "judge": self.judge,
            "reference": [{"seed": r.seed, "sha256": r.digest()} for r in references],
            "arms": arms,
        }
        text = json.dumps(result, indent=1, ensure_ascii=False)
        (work.folder / "win_rate.json").write_text(f"{text}\n", encoding="utf-8")
        (work.folder / "verdicts.jsonl").write_text("".join(lines), encoding="utf-8")
        metrics: dict[str, Any] = {f"{name}_win_rate": arm["mean"] for name, arm in arms.items()}
        metrics["missing"] = sum(int(arm["missing"]) for arm in arms.values())
        return Outcome(
            metrics=metrics,
            not_measured=["the judge's own taste: win rates of other judges or references differ"],
        )


def read_outputs(ref: str) -> Answered:
    """Answers with the training seed that the artefact's manifest says.

    Raises:
        DataError: The file is missing, holds no answers, or answers an instruction twice.
    """
    path, seed = Path(ref), None
    if (path / "outputs.json").is_file():
        found = Artefact.open(path).manifest.metrics.get("training_seed")
        seed = None if found is None else int(found)
        path = path / "outputs.json"
    form = "alpaca" if path.name == "outputs.json" else "auto"
    rows = list(read(path, form=form, require="prompt"))
    answers: dict[str, str] = {}
    for row in rows:
        if row.prompt in answers:
            raise DataError(
                "an instruction is answered twice", where=f"{path}: {row.prompt[:60]!r}"
            )
        answers[row.prompt] = row.answer
    return Answered(ref, answers, seed)


def paired(
    name: str, arm: Sequence[Answered], references: Sequence[Answered]
) -> list[tuple[Answered, Answered]]:
    """Each set of answers with the reference of its own seed.

    Raises:
        DataError: A seed has no reference or two, or the instructions differ; both are named.
    """
    by_seed: dict[int | None, Answered] = {}
    for reference in references:
        if reference.seed in by_seed:
            raise DataError(
                f"two references have the training seed {reference.seed}",
                where=f"{by_seed[reference.seed].ref} and {reference.ref}",
                fix="give one reference per seed",
            )
        by_seed[reference.seed] = reference
    if len(arm) == 1 and arm[0].seed is None:
        both = [(arm[0], reference) for reference in references]
    elif len(references) == 1 and references[0].seed is None:
        both = [(ours, references[0]) for ours in arm]
    else:
        both = []
        for ours in arm:
            if ours.seed is None or ours.seed not in by_seed:
                known = ", ".join(str(seed) for seed in by_seed)
                raise DataError(
                    f"the arm {name!r} has training seed {ours.seed}, the references have {known}",
                    where=ours.ref,
                    fix="compare seed s with seed s: tune both under the same seeds",
                )
            both.append((ours, by_seed[ours.seed]))
    for ours, theirs in both:
        different = ours.answers.keys() ^ theirs.answers.keys()
        if different:
            raise DataError(
                f"{len(different)} instructions are answered on one side only",
                where=f"{ours.ref} and {theirs.ref}: {sorted(different)[0][:60]!r}",
                fix="let both answer the same file",
            )
    return both


def _rate(
    name: str,
    both: Sequence[tuple[Answered, Answered]],
    judgements: Sequence[tuple[list[tuple[str, str, str]], list[Verdict]]],
    level: float,
) -> dict[str, Any]:
    """Everything that is said of one arm."""
    rates, controlled, missing, flips = [], [], 0, 0
    kept: dict[int | str, np.ndarray] = {}
    for (ours, theirs), (triples, verdicts) in zip(both, judgements, strict=True):
        given = [
            (t, v.preference)
            for t, v in zip(triples, verdicts, strict=True)
            if v.preference is not None
        ]
        if not given:
            raise DataError(
                f"the judge failed on all {len(verdicts)} pairs: {verdicts[0].error}",
                where=f"arm {name!r}, {ours.ref}",
            )
        missing += len(verdicts) - len(given)
        flips += sum(_flips(v) for v in verdicts)
        preferences = np.array([preference for _, preference in given])
        lengths = np.array([[len(t[1]), len(t[2])] for t, _ in given])
        seed = ours.seed if theirs.seed is None else theirs.seed
        kept[f"set {len(kept)}" if seed is None else seed] = preferences
        rates.append(float(preferences.mean()))
        controlled.append(length_controlled(preferences, lengths[:, 0], lengths[:, 1]))
    return {
        "mean": float(np.mean(rates)),
        "sd": float(np.std(rates, ddof=1)) if len(rates) > 1 else None,
        "by_seed": {str(seed): rate for seed, rate in zip(kept, rates, strict=True)},
        "length_controlled": float(np.mean(controlled)),
        "length_controlled_sd": float(np.std(controlled, ddof=1)) if len(rates) > 1 else None,
        "estimate": mean_interval(kept, level=level).as_dict(),
        "judged": int(sum(len(p) for p in kept.values())),
        "missing": missing,
        "order_decided": flips,
    }


def _flips(verdict: Verdict) -> bool:
    """Whether the judge preferred the same place in both orders, not the same answer."""
    if verdict.first is None or verdict.second is None:
        return False
    return (verdict.first > 0.5) != (verdict.second > 0.5)


def _line(
    name: str, ours: Answered, theirs: Answered, triple: tuple[str, str, str], verdict: Verdict
) -> str:
    row = {
        "arm": name,
        "seed": ours.seed if theirs.seed is None else theirs.seed,
        "instruction": triple[0],
        "preference": verdict.preference,
        "first": verdict.first,
        "second": verdict.second,
        "error": verdict.error,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def _told(name: str, arm: Mapping[str, Any]) -> str:
    spread = "" if arm["sd"] is None else f" ± {100 * arm['sd']:.1f} (sd over seeds)"
    missing = f"; {arm['missing']} pairs missing" if arm["missing"] else ""
    return f"{name}: win rate {100 * arm['mean']:.1f} %{spread}{missing}"
