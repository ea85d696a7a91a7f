"""No training at all: a model in the tags in which others are tuned, as their baseline."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from tilth.method import Kind, Method, ModelRef, Outcome, Work
from tilth.models.tags import TagSet

__all__ = ["Tags"]


class Tags(Method):
    """Gives a model the turn tags of a tuned one without training: its baseline in the same form.

    A base model asked in another form than the tuned one differs from it in two things. The weights
    are saved as they are, with the template of ``tags`` beside them. TagSet are those of
    Hewitt et al. 2024 (arXiv:2409.14254, section 3).

    Example:
        >>> Tags(model="seedling:small").to("base")  # doctest: +SKIP
    """

    verb: ClassVar[str] = "tune"
    name: ClassVar[str] = "tags"
    kind: ClassVar[Kind] = "model"
    example: ClassVar[dict[str, Any]] = {"model": "{model}"}

    model: ModelRef = Field(description="the model that gets the tags")
    tags: TagSet = Field(
        "paper", description="the paper's tags, joined, letters without meaning, or its own"
    )

    def run(self, work: Work) -> Outcome:
        """Writes ``model/``.

        Raises:
            ModelError: The model cannot be loaded, or its template has no assistant tag.
        """
        from tilth.models.load import load
        from tilth.models.tags import with_tags
        from tilth.tune._adapters import save_plain

        model, tokenizer = load(self.model, "cpu", "auto")
        with_tags(tokenizer, self.tags)
        save_plain(model, tokenizer, work.folder / "model")
        return Outcome(metrics={"tags": self.tags, "parameters": model.num_parameters()})
