"""What response tuning and single-task tuning share: constants, tags, and which rows remain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field, model_validator

from tilth.data.example import Example
from tilth.method import Outcome, Work
from tilth.models.tags import TagSet
from tilth.tune.adapters import Adapter, Full
from tilth.tune.sft import SFT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tilth.data.read import Rows
    from tilth.tune._corpus import Encoded

__all__ = ["EPOCHS", "Implicit"]

Constants = Literal["llama-scripts", "llama-paper", "olmo-scripts", "olmo-paper"]

EPOCHS: dict[str, dict[str, int]] = {
    "llama": {
        "instructions": 15,
        "responses": 5,
        "gsm8k": 7,
        "mbpp": 15,
        "chess": 15,
        "poems": 15,
        "recipes": 20,
    },
    "olmo": {
        "instructions": 15,
        "responses": 7,
        "gsm8k": 7,
        "mbpp": 7,
        "chess": 20,
        "poems": 5,
        "recipes": 20,
    },
}
"""Epochs chosen per base model (Llama-2-7B, OLMo-7B-Feb2024) among 5, 7, 10, 15 and 20, the last
epoch always taken: the released ``*_seed1.sh``."""

_RATES = {"llama": 1e-5, "olmo": 3e-6}
_SCHEDULES = {"scripts": ("linear", 0.03), "paper": ("cosine", 0.1)}


class Implicit(SFT):
    """Base of the two: :class:`~tilth.tune.sft.SFT` with the published constants.

    ``constants`` fills what is not given. Paper and released scripts differ in the schedule: cosine
    to zero after 10 % warm-up (appendix A) against linear after 3 % (what the commands run).
    """

    adapter: Adapter = Field(Full(), description="what is trained; the paper trains all weights")
    batch_size: int = Field(64, ge=1, description="rows of a batch; packed rows count as one")
    constants: Constants = Field(
        "llama-scripts", description="whose epochs, rate, schedule and warm-up stand where not set"
    )
    tags: TagSet = Field(
        "paper",
        description="turn tags: the paper's, joined, meaningless letters, or the model's own",
    )
    long_rows: Literal["set_aside", "cut"] = Field(
        "set_aside", description="what becomes of rows above max_length; the official code cuts"
    )

    @model_validator(mode="before")
    @classmethod
    def _published(cls, given: Any) -> Any:
        constants = given.get("constants", "llama-scripts")
        if constants not in get_args(Constants):
            return given  # the field's own error names the choices
        base, source = constants.split("-")
        schedule, warmup = _SCHEDULES[source]
        published = {
            "epochs": EPOCHS[base].get(cls._trained_on(given), 5),
            "learning_rate": _RATES[base],
            "schedule": schedule,
            "warmup_ratio": warmup,
        }
        return {**published, **given}

    @classmethod
    def _trained_on(cls, given: dict[str, Any]) -> str:
        """The entry of :data:`EPOCHS`."""
        return "responses"

    def _tune(
        self, work: Work, view: Callable[[Example], Example], data: str | None = None
    ) -> Outcome:
        """Trains on ``view(row)`` of every row and says what became of all of them."""
        from tilth.tune._run import tune

        told: Counter[str] = Counter()

        def encode(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> Iterator[Encoded | str]:
            from tilth.models.tags import with_tags

            with_tags(tokenizer, self.tags)
            limit = self.max_length if self.long_rows == "cut" else None
            return _encoded(map(view, rows), tokenizer, limit, told)

        settings = self if data is None else self.model_copy(update={"data": data})
        outcome = tune(settings, work, encode=encode, teller=self)
        for name in ("rows_cut", "rows_cut_before_answer"):
            outcome.metrics[name] = told[name]
        if told["rows_cut"]:
            work.say(
                f"{told['rows_cut']:,} rows were cut at {self.max_length} tokens and teach no end; "
                f"{told['rows_cut_before_answer']:,} of them before the first response token"
            )
        return outcome


def _encoded(
    rows: Iterator[Example],
    tokenizer: PreTrainedTokenizerBase,
    limit: int | None,
    told: Counter[str],
) -> Iterator[Encoded | str]:
    """Per row its ids and targets, or why it has none; counts in `told` what is lost."""
    from tilth.errors import DataError
    from tilth.models.chat import encode_chat

    for row in rows:
        try:
            whole = encode_chat(tokenizer, row.messages)
        except DataError as error:
            yield error.problem
            continue
        ids, mask = whole.input_ids, whole.assistant_mask
        if limit is not None and len(ids) > limit:
            told["rows_cut"] += 1
            ids, mask = ids[:limit], mask[:limit]
            if not any(mask):
                told["rows_cut_before_answer"] += 1
                yield f"cut at {limit} tokens, before the first response token"
                continue
        yield ids, mask
