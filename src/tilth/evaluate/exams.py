"""The almanac's exams: a model's score on each of the abilities, on questions nothing has seen."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tilth.errors import RecipeError
from tilth.evaluate._asking import Form, Question, ask
from tilth.evaluate._scores import ScoreRow, estimates, write_scores
from tilth.method import Method, ModelRef, Outcome, Work
from tilth.models import Engine, Sampling, engine
from tilth.seeds import Seed

if TYPE_CHECKING:
    from tilth.almanac.skills import Item

__all__ = ["Exams"]


class Exams(Method):
    """Scores a model on the almanac's exams with the test seeds.

    Each test seed draws its own questions from the testing split, which shares no entity and no
    argument with anything that a model was trained on. Answers are greedy, and each skill verifies
    its own (code runs in the sandbox). ``form: plain`` asks in question-and-answer text with
    ``shots`` examples of the same skill and level from the train split: the way to ask a base
    model, so that a gain from tuning can be told from a gain in format. With ``phase: tuning`` the
    tuning seeds draw from the tuning split, for choices of any kind. All defaults are our choice.

    Example:
        >>> scores = Exams(model="seedling:small", per_level=10).to("exam")  # doctest: +SKIP
        >>> scores.manifest.metrics["score"]                                 # doctest: +SKIP
    """

    verb: ClassVar = "evaluate"
    name: ClassVar = "exams"
    kind: ClassVar = "scores"
    judges: ClassVar = True
    example: ClassVar[dict[str, Any]] = {
        "model": "{model}",
        "skills": ["history"],
        "per_level": 1,
        "max_new_tokens": 8,
    }

    model: ModelRef = Field(description="The model to examine.")
    skills: tuple[str, ...] = Field((), description="Skills; empty: all.")
    levels: tuple[int, ...] = Field((), description="Levels; empty: all that a skill has.")
    per_level: int = Field(10, ge=1, description="Questions per skill, level and seed.")
    form: Form = Field("chat", description="chat: turns; plain: question-and-answer text.")
    shots: int = Field(0, ge=0, description="Worked examples before each question.")
    worked: bool = Field(True, description="Whether shots show the steps, where a skill has them.")
    phase: Literal["testing", "tuning"] = Field("testing", description="Whose seeds are used.")
    max_new_tokens: int = Field(0, ge=0, description="Tokens of an answer; 0: each skill's own.")
    batch_size: int = Field(64, ge=1, description="Questions in the model at once; speed only.")

    def run(self, work: Work) -> Outcome:
        """Writes ``scores.jsonl`` and says the mean with its interval, in all and by skill.

        Raises:
            RecipeError: A skill does not exist, or no skill has the levels.
        """
        from tilth.almanac.exams import exam

        seeds: Sequence[Seed] = work.test_seeds if self.phase == "testing" else work.tuning_seeds
        model = engine(
            self.model,
            ledger=work.ledger,
            cache=work.scratch / "answers.jsonl",
            batch_size=self.batch_size,
            long_prompts="cut" if self.shots else "error",
        )
        rows: list[ScoreRow] = []
        for seed in seeds:
            items = exam(
                list(self.skills) or None, self.per_level, seed, levels=list(self.levels) or None
            )
            if not items:
                raise RecipeError(
                    f"no skill of the exam has the levels {list(self.levels)}",
                    where="levels",
                    fix="levels start at 1; leave the setting out for all of them",
                )
            scored = self._scored(model, items, seed)
            rows += scored
            mean = sum(row["score"] for row in scored) / len(scored)
            work.say(f"seed {int(seed)}: {mean:.3f} on {len(scored)} questions")
        write_scores(work.folder / "scores.jsonl", rows)
        return Outcome(
            metrics={**estimates(rows), "form": self.form, "phase": self.phase},
            funnel=[("questions", len(rows))],
            not_measured=["training randomness: the interval is over exam seeds and questions"],
        )

    def _scored(self, model: Engine, items: Sequence[Item], seed: Seed) -> list[ScoreRow]:
        from tilth.almanac.skills import SKILLS

        outputs: dict[str, tuple[str, str]] = {}
        bounds = [self.max_new_tokens or SKILLS[item.skill].answer_tokens for item in items]
        for bound in sorted(set(bounds)):
            asked = [item for item, b in zip(items, bounds, strict=True) if b == bound]
            questions = [self._question(item, seed) for item in asked]
            said = ask(model, questions, self.form, Sampling(max_new_tokens=bound))
            outputs |= {item.id: (c.text, c.finish) for item, c in zip(asked, said, strict=True)}
        # A code item waits for its own sandbox process, so that two at once use two cores.
        with ThreadPoolExecutor(2) as pool:
            scores = list(
                pool.map(lambda item: SKILLS[item.skill].verify(item, outputs[item.id][0]), items)
            )
        return [
            {
                "seed": int(seed),
                "item": item.id,
                "skill": item.skill,
                "level": item.level,
                "score": float(score),
                "prompt": item.prompt,
                "output": outputs[item.id][0],
                "answer": item.answer,
                "finish": outputs[item.id][1],
            }
            for item, score in zip(items, scores, strict=True)
        ]

    def _question(self, item: Item, seed: Seed) -> Question:
        from tilth.almanac.exams import shots

        examples = shots(item.skill, item.level, self.shots, seed.derive("shots"))
        return Question(
            [{"role": "user", "content": item.prompt}],
            tuple((e.prompt, (self.worked and e.worked) or e.answer) for e in examples),
        )
