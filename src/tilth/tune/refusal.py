"""Refusal-aware tuning: a model learns to say whether it knows what it answers (R-Tuning)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tilth.data.questions import Match
from tilth.method import DataRef, Kind, Method, ModelRef, Outcome, Work
from tilth.models.probe import ProbeRef
from tilth.models.wording import Form
from tilth.tune.adapters import Adapter, LoRA

__all__ = ["Refusal"]


class Refusal(Method):
    """Teaches a model to say that it is sure of what it knows, and unsure of the rest.

    R-Tuning (Zhang et al. 2024, arXiv:2311.09677): the *untouched* model is asked every training
    question; what it knows is told from what it does not; and it is tuned on texts that end in a
    certainty that matches.

        R-Tuning    split: supervised  sure where the answer is right
        R-Tuning-U  split: entropy     sure where sampled answers agree
        R-Tuning-R  texts: replace     a refusal instead of what is unsure
        vanilla     texts: plain       every answer, and nothing of certainty

    The entropy is ``H = -sum p_i ln p_i`` over the exact strings of ``samples`` answers; the
    ``certain_fraction`` of lowest entropy is sure, equal entropies by how probable the greedy
    answer was. ``shuffle_labels`` deals the same labels out at random: the control that shows that
    knowledge is learnt, and not a share of "unsure".

    The probe is kept in ``probe.jsonl`` with its labels and a fingerprint of the model, and is
    continued after a kill. ``probes`` takes tables of ``evaluate.probe`` instead, one per shard;
    then their samples count, and not those of the settings. Rows of several tasks, each with its
    ``task``, may stand in one file: they are split and mixed together.
    ``texts.jsonl`` holds the training texts. Beside the weights lies ``refusal.json``, from which
    ``evaluate.refusal`` knows how the model was asked. The metrics count near-duplicate questions
    (by their words: paraphrases are not seen) with opposite labels, which make a model refuse too
    much.

    ``loss: text`` learns every token, the question included, as the official code does;
    ``completion`` learns answer and certainty word only. The gold answer stands also where the
    label is unsure, as in the paper, which teaches facts and doubt of them at once;
    ``d0_answer`` offers the model's own answer, or none.

    Defaults: 15 new tokens, 5 samples at temperature 0.7 and half of the questions sure are those
    of the official code; learning rate 2e-5, 1 epoch and batches of 4 are said of the paper but
    unverified, and ours are the adapter's own rate, 1 epoch and batches of 16.

    Example:
        >>> Refusal(model="seedling:large", data="questions.jsonl").to("tuned")  # doctest: +SKIP
    """

    verb: ClassVar[str] = "tune"
    name: ClassVar[str] = "refusal"
    kind: ClassVar[Kind] = "model"
    version: ClassVar[str] = "2"
    example: ClassVar[dict[str, Any]] = {
        "model": "{model}",
        "data": "{rows}",
        "split": "entropy",
        "samples": 2,
        "max_new_tokens": 4,
        "max_steps": 4,
        "batch_size": 4,
        "adapter": {"rank": 4},
        "save_every": 2,
    }

    model: ModelRef = Field(description="the untouched model, which is probed and tuned")
    data: DataRef = Field(description="questions with right answers")
    probes: list[ProbeRef] = Field(
        default_factory=list, description="probe tables of this model and data; empty: probe here"
    )
    split: Literal["supervised", "entropy"] = Field(
        "supervised", description="sure where the answer is right, or where sampled ones agree"
    )
    texts: Literal["padding", "replace", "plain"] = Field(
        "padding", description="append a certainty, replace by a refusal, or leave the answer plain"
    )
    d0_answer: Literal["gold", "model_prediction", "omit"] = Field(
        "gold", description="what stands as the answer of an unsure question in padded texts"
    )
    certain_fraction: float | Literal["validated"] = Field(
        0.5, description="share of questions that is sure by entropy, or validated on a fifth"
    )
    entropy_threshold: float | None = Field(
        None, ge=0, description="largest entropy that is sure, in nats; replaces the fraction"
    )
    shuffle_labels: bool = Field(False, description="control: the same labels, dealt at random")
    match: Match = Field("words", description="words, exact, or official: a substring, case kept")
    wording: str = Field("lines", description="fixed words: lines, sentence or short")
    form: Form = Field("plain", description="plain text, or chat turns")
    samples: int = Field(5, ge=2, description="sampled answers per open question, for entropy")
    temperature: float = Field(0.7, gt=0, description="of the sampled answers")
    max_new_tokens: int = Field(15, ge=1, description="tokens of an answer")
    loss: Literal["text", "completion"] = Field(
        "text", description="learn every token, or answer and certainty word only"
    )
    adapter: Adapter = Field(LoRA(), description="what is trained: full, lora, lora:rank=32, ...")
    epochs: int = Field(1, ge=1, description="passes over the data")
    max_steps: int | None = Field(
        None, ge=1, description="optimiser steps; replaces epochs where it is given"
    )
    batch_size: int = Field(16, ge=1, description="texts of a batch")
    learning_rate: float | None = Field(
        None, gt=0, description="highest learning rate; by default that of the adapter"
    )
    max_length: int = Field(2048, ge=2, description="longest text in tokens")
    save_every: int = Field(100, ge=1, description="optimiser steps between checkpoints")
    trainer: dict[str, Any] = Field(
        default_factory=dict, description="further transformers.TrainingArguments"
    )

    @model_validator(mode="after")
    def _fraction_is_one(self) -> Refusal:
        fraction = self.certain_fraction
        if fraction != "validated" and not 0 < float(fraction) < 1:
            raise ValueError(f"certain_fraction is {fraction}; use a share between 0 and 1")
        return self

    def run(self, work: Work) -> Outcome:
        """Probes, splits, writes the texts and tunes: ``model/``, ``probe.jsonl``, ``texts.jsonl``.

        Raises:
            DataError: No question can be used, a right answer is missing, a probe table belongs to
                another model, or all questions are sure or all unsure.
            TrainingError: Training diverged.
        """
        from tilth.tune._refusal_run import tune_refusal

        return tune_refusal(self, work)
