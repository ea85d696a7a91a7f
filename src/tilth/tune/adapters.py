"""Adapters: what is trained of a model, as one setting of every tuning method.

    adapter: lora                                    # a member with its defaults
    adapter: lora:rank=32,alpha=64                   # the same with settings, for a command line
    adapter: {kind: lora, rank: 32, alpha: 64}       # the same in a recipe

A member is a small settings model; :data:`Adapter` is the type of a field that takes any of them.
What they do to a model is in :mod:`tilth.tune._adapters`, so that this module imports nothing
heavy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field

from tilth.errors import nearest

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = [
    "IA3",
    "MEMBERS",
    "AdaptFormer",
    "Adapter",
    "BitFit",
    "DoRA",
    "Full",
    "Head",
    "LoRA",
    "LowRank",
    "Member",
    "Prefix",
    "Prompt",
    "QLoRA",
    "adapt",
    "adapter_settings",
    "save_adapter",
]


Names = Annotated[list[str], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)]
"""Names of modules; one alone needs no brackets."""


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

    modules_to_save: Names = Field(
        default_factory=list,
        description="further modules trained whole and saved with it, e.g. a new classifier",
    )


class LowRank(_Saving):
    """What LoRA and its kin share."""

    learning_rate: ClassVar[float] = 2e-4
    rank: int = Field(default=16, ge=1, description="rank of the two matrices")
    alpha: float = Field(
        default=32, gt=0, description="scale: the update is multiplied by alpha/rank"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the adapter's input")
    targets: str | list[str] = Field(
        default="all-linear", description="modules that get an adapter: names, or all-linear"
    )


class LoRA(LowRank):
    """Low-rank updates of linear layers: ``y = W x + (alpha / rank) B A x``.

    A is random and B zero (Hu et al. 2021, arXiv:2106.09685). All linear layers and learning rate
    2e-4: QLoRA (Dettmers et al. 2023, arXiv:2305.14314, section 4 and table 9). Rank 16 and alpha
    32: the released adapter files of the 13 models of arXiv:2411.02462, which have dropout 0.1; no
    dropout is our choice.
    """

    kind: Literal["lora"] = "lora"


class DoRA(LowRank):
    """LoRA on the direction of each weight row, with its length trained apart.

    ``W' = m (W + (alpha / rank) B A) / ||W + (alpha / rank) B A||``, where m starts as the length
    of W (Liu et al. 2024, arXiv:2402.09353). Defaults as for LoRA.
    """

    kind: Literal["dora"] = "dora"


class QLoRA(LowRank):
    """LoRA on base weights that are rounded to four bits (NF4), which saves their memory.

    Dettmers et al. 2023, arXiv:2305.14314: blocks of 64 weights, scales rounded again in blocks of
    256. Needs bitsandbytes, which does it on processors too, slower than LoRA. The adapter belongs
    to the rounded weights: its folder says so, and loading rounds the base first. Other defaults as
    for LoRA.
    """

    kind: Literal["qlora"] = "qlora"
    at_base: ClassVar[bool] = False
    double_quantization: bool = Field(default=True, description="round the scales as well")


class IA3(_Saving):
    """Keys, values and the input of the feed-forward block's last layer, each times a vector.

    ``k <- l_k * k``, ``v <- l_v * v``, ``h <- l_ff * h``, all vectors start at one (Liu et al.
    2022, arXiv:2205.05638). Layers by their usual names; where keys and values are parts of one
    layer, as peft has it for the architecture. Learning rate 3e-4: the model cards of
    arXiv:2411.02462.
    """

    kind: Literal["ia3"] = "ia3"
    learning_rate: ClassVar[float] = 3e-4


class Prompt(Member):
    """Learnt vectors in front of every text (Lester et al. 2021, arXiv:2104.08691).

    20 vectors, drawn at random: the released adapter files of the 13 models of arXiv:2411.02462.
    Learning rate 3e-3: our choice. The model starts elsewhere than its base, and its context window
    is shorter by the vectors. For language models.
    """

    kind: Literal["prompt"] = "prompt"
    learning_rate: ClassVar[float] = 3e-3
    at_base: ClassVar[bool] = False
    merges: ClassVar[bool] = False
    sees_images: ClassVar[bool] = False
    tokens: int = Field(default=20, ge=1, description="learnt vectors in front of a text")
    start: Literal["random", "vocabulary"] = Field(
        default="random", description="random vectors, or those of tokens drawn by chance"
    )


class Prefix(Member):
    """Learnt keys and values in front of every text, in each layer (Li and Liang 2021,
    arXiv:2101.00190).

    20 positions, as for prompt tuning, without the network that the paper trains them through, and
    learning rate 3e-3: our choice. The model starts elsewhere than its base, and its context window
    is shorter by the positions. For language models.
    """

    kind: Literal["prefix"] = "prefix"
    learning_rate: ClassVar[float] = 3e-3
    at_base: ClassVar[bool] = False
    merges: ClassVar[bool] = False
    sees_images: ClassVar[bool] = False
    tokens: int = Field(default=20, ge=1, description="learnt positions in front of a text")


class BitFit(_Saving):
    """Bias terms alone (Ben Zaken et al. 2021, arXiv:2106.10199); ours.

    Biases of linear and convolution layers and of layer norms. Models of the Llama family have
    none: their linear layers get new ones, which start at zero. Learning rate 1e-3: our choice.
    """

    kind: Literal["bitfit"] = "bitfit"
    learning_rate: ClassVar[float] = 1e-3
    new: Literal["auto", "always", "never"] = Field(
        default="auto", description="new biases in linear layers: auto adds them if there are none"
    )


class AdaptFormer(_Saving):
    """A small branch beside each feed-forward block (Chen et al. 2022, arXiv:2205.13535); ours.

    ``y = MLP(x) + scale * Up(ReLU(Down(x)))`` with Up at zero. Width 8: the released
    example settings of arXiv:2310.01825. Scale 0.1, fixed, and learning rate 1e-3: our choice. It
    cannot be merged.
    """

    kind: Literal["adaptformer"] = "adaptformer"
    learning_rate: ClassVar[float] = 1e-3
    merges: ClassVar[bool] = False
    bottleneck: int = Field(default=8, ge=1, description="width of the branch")
    scale: float = Field(default=0.1, gt=0, description="what the branch is multiplied by")
    learn_scale: bool = Field(default=False, description="train the scale, one number per block")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout inside the branch")
    targets: Names = Field(
        default_factory=list, description="feed-forward blocks by name; found where empty"
    )


class Head(Member):
    """The last layer alone: that over the vocabulary, or the classifier.

    A copy of the layer is trained. Where it shares its weights with the input embedding, it no
    longer does. Learning rate 1e-3: our choice.
    """

    kind: Literal["head"] = "head"
    learning_rate: ClassVar[float] = 1e-3


MEMBERS: dict[str, type[Member]] = {
    member.model_fields["kind"].default: member
    for member in (Full, LoRA, DoRA, QLoRA, IA3, Prompt, Prefix, BitFit, AdaptFormer, Head)
}
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
    Annotated[
        Full | LoRA | DoRA | QLoRA | IA3 | Prompt | Prefix | BitFit | AdaptFormer | Head,
        Discriminator("kind"),
    ],
    BeforeValidator(adapter_settings),
]
"""The type of a setting that takes any member, in any of the forms of the module's docstring."""


def adapt(model: PreTrainedModel, adapter: Any = "lora", *, seed: int = 0) -> PeftModel:
    """`model` with a new adapter to train, for loops of your own and for vision transformers.

    Args:
        model: A language model or a vision transformer; its own weights are frozen.
        adapter: Any member but ``full``, in any form that :func:`adapter_settings` takes.
        seed: Of the adapter's first weights.

    Raises:
        ValueError: There is no such adapter or setting.
        TilthError: It cannot be put on this model.

    Example:
        >>> adapted = adapt(model, "bitfit")               # doctest: +SKIP
        >>> save_adapter(adapted, "tuned")                 # doctest: +SKIP
    """
    from tilth.tune import _adapters

    name = model.name_or_path or ""
    return _adapters.adapt(model, adapter_settings(adapter), seed=seed, base_name=name)


def save_adapter(adapted: PeftModel, folder: str | Path) -> None:
    """Saves an adapter; :func:`tilth.models.adapters.attach.attach` puts it on its base again."""
    from tilth.tune import _adapters

    _adapters.save_adapter(adapted, Path(folder))
