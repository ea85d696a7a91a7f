"""Adapters: what is trained of a model, as one setting of every tuning method.

    adapter: lora                                    # a member with its defaults
    adapter: lora:rank=32,alpha=64                   # the same with settings, for a command line
    adapter: {kind: lora, rank: 32, alpha: 64}       # the same in a recipe

A member is a small settings model; :data:`Adapter` is the type of a field that takes any of them.
What they do to a model is in :mod:`tilth.tune._adapters`, so that this module imports nothing
heavy.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field

from tilth.errors import nearest

__all__ = [
    "MEMBERS",
    "Adapter",
    "DoRA",
    "Full",
    "LoRA",
    "Member",
    "adapter_settings",
]


class Member(BaseModel):
    """Base of all members.

    Class attributes:
        learning_rate: The highest learning rate of supervised tuning where none is given; a start
            for a search on tuning seeds.
        at_base: Whether the tuned model is the base model, to the last bit, before its first step.
            QLoRA is the base model with its weights rounded to four bits.
        merges: Whether what was learnt can be added to the base model's weights.
        sees_images: Whether it is defined for vision transformers here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    learning_rate: ClassVar[float]
    at_base: ClassVar[bool] = True
    merges: ClassVar[bool] = True
    sees_images: ClassVar[bool] = True

    def __str__(self) -> str:
        """The short form: the kind, and what is not as by default."""
        given = self.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
        shown = ",".join(f"{k}={_shown(v)}" for k, v in given.items())
        return f"{self.kind}:{shown}" if shown else self.kind


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


class Full(Member):
    """All weights; no adapter.

    The result is a whole model. Learning rate 2e-5: Tulu (Wang et al. 2023, arXiv:2306.04751,
    appendix D).
    """

    kind: Literal["full"] = "full"
    learning_rate: ClassVar[float] = 2e-5
    merges: ClassVar[bool] = False


class _Saving(Member):
    """A member that is saved as an adapter folder."""

    modules_to_save: list[str] = Field(
        default_factory=list,
        description="further modules trained whole and saved with it, e.g. a new classifier",
    )


class LoRA(_Saving):
    """Low-rank updates of linear layers: ``y = W x + (alpha / rank) B A x``.

    B starts at zero. Hu et al. 2021, arXiv:2106.09685. All linear layers and learning rate 2e-4:
    QLoRA (Dettmers et al. 2023, arXiv:2305.14314, section 4 and table 9). Rank 16 and alpha 32: the
    released adapter files of the 13 models of arXiv:2411.02462. No dropout: our choice.
    """

    kind: Literal["lora"] = "lora"
    learning_rate: ClassVar[float] = 2e-4
    rank: int = Field(default=16, ge=1, description="rank of the two matrices")
    alpha: float = Field(
        default=32, gt=0, description="scale: the update is multiplied by alpha/rank"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the adapter's input")
    targets: str | list[str] = Field(
        default="all-linear", description="modules that get an adapter: names, or all-linear"
    )


class DoRA(_Saving):
    """LoRA on the direction of each weight column, with its length trained apart.

    ``W' = m (W + (alpha / rank) B A) / ||W + (alpha / rank) B A||``, where m starts as the length
    of W (Liu et al. 2024, arXiv:2402.09353). Defaults as for LoRA.
    """

    kind: Literal["dora"] = "dora"
    learning_rate: ClassVar[float] = 2e-4
    rank: int = Field(default=16, ge=1, description="rank of the two matrices")
    alpha: float = Field(
        default=32, gt=0, description="scale: the update is multiplied by alpha/rank"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the adapter's input")
    targets: str | list[str] = Field(
        default="all-linear", description="modules that get an adapter: names, or all-linear"
    )


MEMBERS: dict[str, type[Member]] = {m.model_fields["kind"].default: m for m in (Full, LoRA, DoRA)}
"""Every member by its kind."""

_OTHER_NAMES = {"none": "full"}


def adapter_settings(given: Any) -> Member:
    """The member that `given` means.

    Args:
        given: A member; a text such as ``lora`` or ``lora:rank=32,targets=q_proj+v_proj``; or a
            mapping of settings, whose ``kind`` is ``lora`` unless it is given.

    Raises:
        ValueError: There is no such member or setting; the nearest is named. A settings model that
            holds the field turns it into its own error.
    """
    if isinstance(given, Member):
        return given
    settings = _spelled(given) if isinstance(given, str) else given
    if not isinstance(settings, dict):
        raise ValueError(f"an adapter is one of {', '.join(MEMBERS)}, with its settings")
    kind = str(settings.get("kind", "lora"))
    member = MEMBERS.get(_OTHER_NAMES.get(kind, kind))
    if member is None:
        hint = nearest(kind, MEMBERS) or f"there are {', '.join(MEMBERS)}"
        raise ValueError(f"no adapter is called {kind!r}; {hint}")
    settings = {name: value for name, value in settings.items() if name != "kind"}
    for name in settings:
        if name not in member.model_fields:
            known = [field for field in member.model_fields if field != "kind"]
            hint = nearest(name, known) or f"its settings are {', '.join(known) or 'none'}"
            raise ValueError(f"the adapter {kind!r} has no setting {name!r}; {hint}")
    return member(**settings)


def _spelled(text: str) -> dict[str, Any]:
    """The settings in ``kind:name=value,name=value``; pydantic turns the values into numbers."""
    kind, _, rest = text.partition(":")
    settings: dict[str, Any] = {"kind": kind.strip()}
    for pair in filter(None, rest.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r} in {text!r} is not name=value")
        settings[name.strip()] = value.split("+") if "+" in value else value.strip()
    return settings


Adapter = Annotated[
    Annotated[Full | LoRA | DoRA, Discriminator("kind")],
    BeforeValidator(adapter_settings),
]
"""The type of a setting that takes any member, in any of the forms of the module's docstring."""
