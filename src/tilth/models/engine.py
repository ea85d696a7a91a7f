"""What a text engine is: chat, plain completion, log-probabilities, embeddings.

A method asks for an :class:`Engine` by a model reference and never knows whether a local model or
an endpoint answers. Results come in the order of the inputs. The same input with the same seed
gives the same output for any batch size.

    >>> from tilth.models import Sampling, engine                            # doctest: +SKIP
    >>> writer = engine("seedling:small", batch_size=32)                     # doctest: +SKIP
    >>> writer.complete(["Question: How much is 2 and 3?\\nAnswer:"])        # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tilth.cost import Ledger
from tilth.data.example import Message
from tilth.errors import EngineError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Ability", "Completion", "Engine", "NextTokens", "Sampling", "Score", "require"]

Ability = Literal["chat", "complete", "score", "score_chat", "embed"]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to stop.

    Attributes:
        max_new_tokens: Upper bound of generated tokens per row.
        temperature: 0 is greedy.
        top_p: Keep the smallest set of tokens with at least this probability; 1 keeps all.
        top_k: Keep the `top_k` likeliest tokens; 0 keeps all.
        stop: Texts that end the answer; none of them is part of it.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("stop", all(self.stop), "texts that are not empty"),
        ):
            if not good:
                raise EngineError(
                    f"sampling {name} is {getattr(self, name)!r}", fix=f"use {expected}"
                )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a key or a manifest."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Completion:
    """One answer.

    Attributes:
        text: The generated text without the stop that ended it.
        finish: ``stop`` (a stop token or text), ``length`` (`max_new_tokens`) or ``error``.
        prompt_tokens: Tokens of the prompt; 0 where an endpoint does not say.
        new_tokens: Generated tokens, the stop token included.
        error: Why there is no answer; empty unless `finish` is ``error``.
    """

    text: str
    finish: Literal["stop", "length", "error"]
    prompt_tokens: int
    new_tokens: int
    error: str = ""


@dataclass(frozen=True)
class Score:
    """The log-probability of a text given what stands before it.

    Attributes:
        logprob: Sum of natural-log probabilities over the tokens.
        tokens: How many tokens the text has.
    """

    logprob: float
    tokens: int

    @property
    def mean(self) -> float:
        """Log-probability per token; 0 for an empty text."""
        return self.logprob / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class NextTokens:
    """How probable some next tokens are.

    Attributes:
        logprobs: Natural-log probability per option, in the order of the options; None where it is
            not known.
    """

    logprobs: tuple[float | None, ...]


class Engine(Protocol):
    """A model that answers; see the module's docstring.

    Attributes:
        reference: The model reference.
        can: What it can do; :func:`require` checks before any work starts.
        ledger: Books ``tokens_read``, ``tokens_generated``, ``flops`` and ``requests``.
    """

    reference: str
    can: frozenset[Ability]
    ledger: Ledger

    def chat(
        self,
        conversations: Sequence[list[Message]],
        sampling: Sampling = Sampling(),
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]:
        """The next assistant turn of each conversation.

        Args:
            conversations: Each ends with a turn that is not the assistant's.
            sampling: How to choose tokens.
            seeds: One per row; without them row `i` has seed `i`.
        """
        ...

    def complete(
        self,
        texts: Sequence[str],
        sampling: Sampling = Sampling(),
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]:
        """The continuation of each plain text."""
        ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """The log-probability of each continuation after its prompt: ``(prompt, continuation)``."""
        ...

    def score_chat(self, conversations: Sequence[list[Message]]) -> list[Score]:
        """The log-probability of each last assistant turn, its end mark included."""
        ...

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows ``[N, d]`` of float32: the mean of the last hidden states."""
        ...


def require(engine: Engine, *abilities: Ability) -> None:
    """Says before work starts what an engine cannot do.

    Raises:
        EngineError: `engine` lacks one of `abilities`.
    """
    missing = [a for a in abilities if a not in engine.can]
    if missing:
        raise EngineError(
            f"this model cannot {' or '.join(missing)}",
            where=engine.reference,
            fix=f"it can {', '.join(sorted(engine.can))}; use a local model for the rest",
        )
