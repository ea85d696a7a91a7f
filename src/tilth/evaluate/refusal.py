"""Does a model refuse what it does not know, and only that?"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tilth.data.questions import Match
from tilth.evaluate._refusal_metrics import Rule
from tilth.method import DataRef, Method, ModelRef, Outcome, Work
from tilth.models.wording import Form

__all__ = ["Refusal"]

By = Literal["p_sure", "p_predict", "confidence", "entropy", "p_true", "p_refusal", "words"]


class Refusal(Method):
    """Asks a model, lets it refuse, and measures what it answers and what it refuses.

    After R-Tuning (Zhang et al. 2024, arXiv:2311.09677). Each question is decoded greedily; the
    same key-value cache is then extended by the certainty question, and

        p_predict  = geometric mean of the likeliest tokens' probabilities
        p_sure     = P(" sure") / (P(" sure") + P(" unsure")), of the whole words
        confidence = weight * p_predict + (1 - weight) * p_sure

    ``refuse_by`` says which number decides: those of a tuned model, or the test-time baselines
    ``p_predict``, ``entropy`` (of sampled answers) and ``p_true`` (the model is asked whether its
    answer is true). After ``texts: replace`` the answer is itself a refusal, in ``words``; since
    greedy decoding weighs one sentence against one answer, though many sentences refuse,
    ``p_refusal`` adds up the probabilities of all of them. The threshold is chosen on
    ``validation`` questions by ``rule`` and never assumed: a tuned model's two words are seldom
    equally likely beforehand. ``balanced`` keeps the highest share of right answers minus that of
    wrong ones; ``coverage`` answers the share ``target`` of the answerable questions; ``risk`` as
    many as it can with a share of at most ``target`` wrong. An answer to an unanswerable question
    is wrong. Answered is what reaches the threshold and is no refusal in words.

    Measured on answerable questions: coverage, refusal rate, accuracy of what is answered
    (``willing_accuracy``) and of all, average precision along falling trust, the risk-coverage
    curve and its area, calibration error of the three numbers in 10 bins. Questions with
    ``answerable: false`` are to be refused; beside their refusal rate stands ``over_refusal``, that
    of their answerable twins (rows of the same ``pair``), or of all answerable ones. ``base``, the
    untouched model, adds ``pretrain_t`` (its accuracy on all) and ``pretrain_w`` (on the questions
    that the model was willing to answer), which tells choosing easy questions from getting better.
    Intervals are bootstrap intervals over questions; those over training seeds need several models.

    ``refusal.jsonl`` is the table of all questions, ``curve.jsonl`` the risk-coverage curve. Where
    the answerable questions are of several tasks (``task``), ``by_task`` has each by itself. In
    ``scores.jsonl`` a right answer scores 1, a refusal 1/2 and a wrong answer 0, so that refusing
    pays where the model would be right less than half the time; a refused unanswerable question
    scores 1, an answered one 0 (our choice).

    Defaults: weight 0.5 as in the official code, which also decides at 0.5 and cuts answers after
    5 to 15 tokens; wording, form and length are those that the model was tuned with.

    Example:
        >>> Refusal(model="tuned", data="test.jsonl",                            # doctest: +SKIP
        ...         validation="validation.jsonl", base="seedling:large").to("refusal")
    """

    verb: ClassVar = "evaluate"
    name: ClassVar = "refusal"
    kind: ClassVar = "scores"
    judges: ClassVar = True
    version: ClassVar = "2"
    shown: ClassVar = ("validation",)
    example: ClassVar[dict[str, Any]] = {
        "model": "{model}",
        "data": "{rows}",
        "threshold": 0.5,
        "max_new_tokens": 4,
        "resamples": 100,
    }

    model: ModelRef = Field(description="The model that may refuse.")
    data: DataRef = Field(description="Questions with right answers, and unanswerable ones.")
    validation: DataRef | None = Field(None, description="Other questions, for the threshold.")
    base: ModelRef | None = Field(None, description="The untouched model, to compare with.")
    refuse_by: By = Field(
        "p_sure", description="p_sure, p_predict, confidence, entropy, p_true, p_refusal, words."
    )
    rule: Rule = Field("balanced", description="How the threshold is chosen.")
    target: float | None = Field(None, ge=0, le=1, description="Of rule: coverage or risk.")
    threshold: float | None = Field(
        None, description="Given instead of chosen: of the entropy the largest, else the least."
    )
    weight: float = Field(0.5, ge=0, le=1, description="Of p_predict in the confidence.")
    match: Match = Field("words", description="words, exact, or official: a substring, case kept.")
    wording: str | None = Field(None, description="Fixed words; those of the tuning by default.")
    form: Form | None = Field(None, description="plain or chat; that of the tuning by default.")
    max_new_tokens: int | None = Field(None, ge=1, description="Tokens of an answer.")
    certainty_tokens: Literal["all", "first"] = Field(
        "all", description="Weigh the whole certainty words, or their first tokens only."
    )
    samples: int = Field(5, ge=2, description="Sampled answers, where the entropy decides.")
    temperature: float = Field(0.7, gt=0, description="Of the sampled answers.")
    resamples: int = Field(2000, ge=100, description="Bootstrap resamples.")
    batch_size: int = Field(64, ge=1, description="Questions in the model at once.")

    @model_validator(mode="after")
    def _threshold_can_be_had(self) -> Refusal:
        if (self.rule == "balanced") != (self.target is None):
            raise ValueError("target belongs to rule: coverage or risk, and they need one")
        if self.refuse_by == "words":
            if self.threshold is not None or self.validation is not None:
                raise ValueError("refuse_by: words has no threshold and needs no validation")
        elif (self.threshold is None) == (self.validation is None):
            raise ValueError(
                f"refuse_by: {self.refuse_by} needs a threshold: give validation questions on "
                "which it is chosen (0.5 means nothing here), or the threshold itself"
            )
        return self

    def run(self, work: Work) -> Outcome:
        """Writes ``scores.jsonl``, ``refusal.jsonl``, ``curve.jsonl`` and ``rejected.jsonl``.

        Raises:
            DataError: No question can be asked, a validation question is a test question, or no
                threshold can be chosen.
            ModelError: The model has no probabilities to read, or both certainty words begin with
                the same token and only that is to be weighed.
        """
        from tilth.evaluate._refusing import evaluate

        return evaluate(self, work)
