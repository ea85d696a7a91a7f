"""A model's answers in the form that judges read, and what can be said of them without a judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from tilth.data import read
from tilth.evaluate._asking import Form, Question, ask
from tilth.evaluate.proxies import proxies
from tilth.method import DataRef, Method, ModelRef, Outcome, Work
from tilth.models import Sampling, engine
from tilth.models.reference import resolve

__all__ = ["Outputs", "training_seed"]


class Outputs(Method):
    """Writes a model's greedy answers as ``{instruction, output, generator}``, AlpacaEval's form.

    ``outputs.json`` can be handed to ``alpaca_eval`` or to
    :class:`~tilth.evaluate.win_rate.WinRate`. The manifest keeps the seed under which the model was
    tuned, so that arms are later paired by it and not by a path. What needs no judge is measured
    here (:mod:`tilth.evaluate.proxies`): how many answers ended within the budget and how many hit
    it, how long and how repetitive they are, how many start a new user turn or echo a tag.

    Hewitt et al. 2024 (arXiv:2409.14254) decode greedily with at most 8,192 new tokens, 512 where
    nothing teaches the model to end (their rule adapter without its first rule); the model's
    context cuts both.

    Example:
        >>> Outputs(model="tuned", data="val.jsonl").to("outputs")  # doctest: +SKIP
    """

    verb: ClassVar = "evaluate"
    name: ClassVar = "outputs"
    kind: ClassVar = "files"
    judges: ClassVar = True
    example: ClassVar[dict[str, Any]] = {"model": "{model}", "data": "{rows}", "max_new_tokens": 8}

    model: ModelRef = Field(description="The model that answers.")
    data: DataRef = Field(description="The instructions; answers in the file are not shown to it.")
    generator: str = Field("", description="Its name in the file; by default the reference's end.")
    form: Form = Field("chat", description="chat: turns; plain: question-and-answer text.")
    max_new_tokens: int = Field(8192, ge=1, description="Tokens of an answer; 512 without an end.")
    batch_size: int = Field(32, ge=1, description="Instructions in the model at once; speed only.")

    def run(self, work: Work) -> Outcome:
        """Writes ``outputs.json``.

        Raises:
            DataError: The file has no instructions.
            EngineError: An instruction got no answer.
        """
        rejected = work.folder / "rejected.jsonl"
        rows = list(read(self.data, require="prompt", rejected_to=rejected, say=work.say))
        model = engine(
            self.model,
            ledger=work.ledger,
            cache=work.scratch / "answers.jsonl",
            batch_size=self.batch_size,
        )
        asked = [[m for m in row.messages if m["role"] in ("system", "user")] for row in rows]
        sampling = Sampling(self.max_new_tokens)
        said = ask(model, [Question(turns) for turns in asked], self.form, sampling)
        name = self.generator or Path(self.model).name
        write_outputs(
            work.folder / "outputs.json",
            [
                {"instruction": row.prompt, "output": c.text, "generator": name}
                for row, c in zip(rows, said, strict=True)
            ],
        )
        metrics: dict[str, Any] = {**proxies(said), "training_seed": training_seed(self.model)}
        work.say(
            f"{name}: {metrics['ended']:.0%} of {len(said)} answers ended, "
            f"{metrics['cap_hits']} hit the cap; {metrics['restarts']:.0%} start a user turn"
        )
        return Outcome(metrics=metrics, not_measured=["whether the answers are any good"])


def write_outputs(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Writes AlpacaEval's list of answers."""
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def training_seed(ref: str) -> int | None:
    """The root seed under which tilth tuned the model, from its manifest; None where it did not."""
    reference = resolve(ref)
    if reference.kind != "folder":
        return None
    folder = reference.adapters[-1] if reference.adapters else reference.folder
    path = folder.parent / "manifest.json"
    if not path.is_file():
        return None
    manifest = json.loads(path.read_text(encoding="utf-8"))
    root = manifest.get("seeds", {}).get("root")
    return None if root is None or manifest.get("method") == "tune.tags" else int(root)
