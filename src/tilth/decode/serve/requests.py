"""Requests of the OpenAI protocol: what is read, what is refused and in which words."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tilth.data.example import Message
from tilth.decode.serve.limits import Limits
from tilth.models.engine import Sampling

__all__ = ["ChatRequest", "Refusal", "TextRequest", "read_request"]


_R = TypeVar("_R", bound=BaseModel)


class Refusal(Exception):
    """A request that cannot be served.

    Args:
        status: The HTTP status.
        message: What is wrong and what to do.
        param: The field.
        code: A short word for programs.
    """

    def __init__(self, status: int, message: str, param: str = "", code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's form."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param or None}
        return {"error": {**error, "code": self.code or None}}


class _Part(BaseModel):
    type: Literal["text"]
    text: str


class _Turn(BaseModel):
    """A turn; text alone is understood, given whole or in parts."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]

    @field_validator("content", mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> Any:
        parts = value if isinstance(value, list) else []
        if any(isinstance(p, dict) and p.get("type", "text") != "text" for p in parts):
            raise ValueError("only text is read, no images or sounds")
        return value

    def message(self) -> Message:
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _Request(BaseModel):
    """What both forms share. Unknown fields are ignored, as OpenAI's own clients expect."""

    model_config = ConfigDict(extra="ignore")

    model: str
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: int = Field(1, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None
    weight: float | None = Field(None, allow_inf_nan=False)
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[str, float] | None = None
    suffix: str | None = None
    best_of: int | None = None
    functions: list[Any] | None = None
    modalities: list[str] | None = None

    @field_validator("suffix", "functions")
    @classmethod
    def _not_offered(cls, value: object) -> object:
        if value:
            raise ValueError("this is not offered")
        return value

    @field_validator("best_of")
    @classmethod
    def _no_choice(cls, value: int | None) -> int | None:
        if value not in (None, 1):
            raise ValueError("best_of is not offered; ask for n answers and choose")
        return value

    @field_validator("modalities")
    @classmethod
    def _text_alone(cls, value: list[str] | None) -> list[str] | None:
        if value not in (None, ["text"]):
            raise ValueError("only text is offered")
        return value

    @field_validator("frequency_penalty", "presence_penalty")
    @classmethod
    def _no_penalty(cls, value: float) -> float:
        if value:
            raise ValueError("penalties are not offered; a rule set can penalise used tokens")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _no_bias(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value:
            raise ValueError("logit_bias is not offered; write it into a rule set")
        return value

    def sampling(self, limits: Limits) -> Sampling:
        """How to choose tokens; OpenAI's default temperature is 1.

        Raises:
            Refusal: More tokens or answers are asked for than the server gives.
        """
        # 256 where nothing is said is our choice: small models seldom end by themselves.
        limit = self.max_completion_tokens or self.max_tokens or min(256, limits.new_tokens)
        if limit > limits.new_tokens:
            raise Refusal(
                400, f"at most {limits.new_tokens} tokens an answer, not {limit}", "max_tokens"
            )
        if self.n > limits.choices:
            raise Refusal(400, f"at most {limits.choices} answers at once, not {self.n}", "n")
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_new_tokens=limit,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=tuple(text for text in stop if text),
        )


class ChatRequest(_Request):
    """``/v1/chat/completions``; ``weight`` is ours: the weight of a composed model."""

    messages: list[_Turn] = Field(min_length=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)
    tools: list[Any] | None = None
    response_format: dict[str, Any] | None = None

    @field_validator("tools")
    @classmethod
    def _no_tools(cls, value: list[Any] | None) -> list[Any] | None:
        if value:
            raise ValueError("tools are not offered")
        return value

    @field_validator("response_format")
    @classmethod
    def _only_text(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and value.get("type", "text") != "text":
            raise ValueError("only text is offered")
        return value

    def conversation(self) -> list[Message]:
        """The turns.

        Raises:
            Refusal: The last turn is the assistant's.
        """
        if self.messages[-1].role == "assistant":
            raise Refusal(400, "the last turn must not be the assistant's", "messages")
        return [turn.message() for turn in self.messages]


class TextRequest(_Request):
    """``/v1/completions``: plain text that is continued."""

    prompt: str | list[str]
    max_tokens: int | None = Field(16, ge=1)
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: bool = False

    @field_validator("echo")
    @classmethod
    def _no_echo(cls, value: bool) -> bool:
        if value:
            raise ValueError("echo is not offered")
        return value

    def texts(self) -> list[str]:
        """The prompts."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


def read_request(kind: type[_R], body: bytes) -> _R:
    """The request in `body`.

    Raises:
        Refusal: It is no JSON, or a field is wrong; the first one is named.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise Refusal(400, f"{place or 'body'}: {said}", place) from None
