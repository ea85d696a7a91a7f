"""The models that a server offers, by their reference."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tilth.decode.composition import composition_of
from tilth.decode.engine import open_composed
from tilth.decode.serve.requests import Refusal
from tilth.errors import ModelError, nearest
from tilth.models.reference import Reference, resolve

if TYPE_CHECKING:
    from tilth.decode._engine import ComposedEngine

__all__ = ["WEIGHTS", "Shelf"]

WEIGHTS = {
    "eft": ("weight", 1.0),
    "dexperts": ("alpha", 1.0),
    "interpolate": ("lambda", 0.5),
    "contrastive": ("alpha", 0.1),
    "guidance": ("scale", 1.5),
}
"""Kind of composed model -> the setting that ``weight`` of a request moves, and its default."""

_KEPT = 16  # compositions with a weight of their own that stay assembled


class Shelf:
    """Loaded models; all but :meth:`names` is for the desk's thread.

    Args:
        references: What to offer; the first is the default of the page.
        device: Where models live.

    Raises:
        ModelError: A reference means nothing, or its model cannot be loaded.
    """

    def __init__(self, references: Sequence[str], device: str = "auto") -> None:
        self._references: dict[str, Reference] = {ref: resolve(ref) for ref in references}
        self._engines = {
            name: open_composed(ref, device=device, progress=False)
            for name, ref in self._references.items()
        }
        self._weighted: OrderedDict[tuple[str, float], ComposedEngine] = OrderedDict()

    def names(self) -> list[str]:
        """The models' names: their references."""
        return list(self._references)

    def weight(self, name: str) -> float | None:
        """The weight that a model has without a request's own; None where it has none."""
        reference = self._references[name]
        if reference.base not in WEIGHTS or reference.kind != "composed":
            return None
        key, default = WEIGHTS[reference.base]
        return float(reference.settings.get(key, default))

    def find(self, name: str, weight: float | None = None) -> None:
        """Checks that a request's model is here and takes the weight.

        Raises:
            Refusal: It is not, or does not.
        """
        if name not in self._references:
            raise Refusal(
                404,
                f"there is no model {name!r}; "
                + (nearest(name, self.names()) or f"there are: {', '.join(self.names())}"),
                "model",
                "model_not_found",
            )
        if weight is None:
            return
        if self.weight(name) is None:
            raise Refusal(400, f"{name!r} has no weight to move", "weight")
        try:
            composition_of(self._with(name, weight))
        except ModelError as error:
            raise Refusal(400, " ".join(str(error).split()), "weight") from None

    def engine(self, name: str, weight: float | None = None) -> ComposedEngine:
        """The engine of a model, with another weight where one is given."""
        engine = self._engines[name]
        if weight is None or weight == self.weight(name):
            return engine
        key = (name, weight)
        if key not in self._weighted:
            self._weighted[key] = engine.recomposed(composition_of(self._with(name, weight)))
            if len(self._weighted) > _KEPT:
                self._weighted.popitem(last=False)
        self._weighted.move_to_end(key)
        return self._weighted[key]

    def _with(self, name: str, weight: float) -> Reference:
        reference = self._references[name]
        key, _ = WEIGHTS[reference.base]
        settings = {k: v for k, v in reference.settings.items() if k != "amplification"}
        return replace(reference, settings={**settings, key: repr(weight)})
