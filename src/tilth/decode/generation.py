"""Combined decoding inside ``transformers``: ``model.generate(custom_generate=...)``.

    >>> together = Combined(                                                 # doctest: +SKIP
    ...     {"expert": tuned_small, "anti": small},                          # doctest: +SKIP
    ...     {"base": 1.0, "expert": 1.0, "anti": -1.0},                      # doctest: +SKIP
    ... )                                                                    # doctest: +SKIP
    >>> large.generate(**inputs, custom_generate=together, do_sample=True)   # doctest: +SKIP

``generate`` prepares prompts, logits processors and stopping criteria as always, and they act on
the combined scores: warpers are applied once, at the end. For drafts, templates per role and
batches that do not change answers use :func:`tilth.decode.engine.open_composed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tilth.decode.composition import Filter
from tilth.errors import EngineError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tilth.decode._combine import Plan
    from tilth.decode._tracks import Track

__all__ = ["Combined"]


class Combined:
    """Other models beside the one whose ``generate`` is called, which has the role ``base``.

    Args:
        models: Role to model, of one vocabulary.
        weights: Role to weight; ``base`` is the model itself.
        lead: The role that a filter looks at; by default ``expert`` where there is one.
        filter: As in :class:`~tilth.decode.composition.Composition`.
        mass: The filter's number.

    Raises:
        EngineError: A weight has no model, or a model no weight.
    """

    def __init__(
        self,
        models: Mapping[str, PreTrainedModel],
        weights: Mapping[str, float],
        *,
        lead: str = "",
        filter: Filter = "none",
        mass: float = 0.95,
    ) -> None:
        unknown = sorted(set(weights) ^ {"base", *models})
        if unknown:
            raise EngineError(
                f"the role {unknown[0]!r} has a model or a weight, but not both",
                where="Combined",
                fix="give every role of models a weight, and 'base' one",
            )
        self.models, self.weights = dict(models), dict(weights)
        self.lead = lead or ("expert" if "expert" in models else "base")
        self.filter, self.mass = filter, mass

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        *,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        prompts: Mapping[str, Sequence[Sequence[int]]] | None = None,
        **more: Any,
    ) -> torch.Tensor:
        """Called by ``generate``; returns prompts and answers, ``[B, T]``.

        Args:
            model: The base.
            input_ids: Its prompts, padded on the left.
            logits_processor: Prepared by ``generate``.
            stopping_criteria: Prepared by ``generate``.
            generation_config: Prepared by ``generate``.
            prompts: Per role and row the ids of another prompt; other roles read the base's.
            more: Of this only ``attention_mask`` is used.

        Raises:
            EngineError: Beams or a dictionary are asked for, or a role computes NaN.
        """
        import torch

        from tilth.decode._combine import combine

        for name in ("num_beams", "return_dict_in_generate"):
            if getattr(generation_config, name) not in (None, 1, False):
                raise EngineError(f"combined decoding has no {name}", where="generate")
        roles = {"base": model, **self.models}
        plan = self._plan(roles)
        mask_BT = more.get("attention_mask")
        mask_BT = torch.ones_like(input_ids) if mask_BT is None else mask_BT
        own = [ids[keep.bool()].tolist() for ids, keep in zip(input_ids, mask_BT, strict=True)]
        tracks = _tracks(roles, own, prompts or {})
        going_B = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        logits = {v: x for track in tracks for v, x in track.begin().items()}
        while True:
            total_BV = combine({v: x[:, -1] for v, x in logits.items()}, plan)
            scores_BV = logits_processor(input_ids, total_BV)
            if generation_config.do_sample:
                chosen_B = torch.multinomial(scores_BV.softmax(-1), 1)[:, 0]
            else:
                chosen_B = scores_BV.argmax(-1)
            pad = generation_config.pad_token_id
            if pad is not None:
                chosen_B = torch.where(going_B, chosen_B, pad)
            input_ids = torch.cat([input_ids, chosen_B[:, None]], dim=1)
            going_B = going_B & ~stopping_criteria(input_ids, scores_BV)
            if not bool(going_B.any()):
                return input_ids
            logits = {v: x for t in tracks for v, x in t.run(chosen_B[:, None]).items()}

    def _plan(self, roles: Mapping[str, PreTrainedModel]) -> Plan:
        from tilth.decode._combine import Plan

        names = dict(enumerate(roles))
        index = {name: i for i, name in names.items()}
        return Plan(
            {index[name]: weight for name, weight in self.weights.items()},
            names,
            index[self.lead],
            self.filter,
            self.mass,
            min(m.config.get_text_config().vocab_size for m in roles.values()),
            (),
        )


def _tracks(
    roles: Mapping[str, PreTrainedModel],
    own: list[list[int]],
    prompts: Mapping[str, Sequence[Sequence[int]]],
) -> list[Track]:
    from tilth.decode._networks import BARE, Network
    from tilth.decode._tracks import Track, Voice

    tracks = []
    for i, (name, model) in enumerate(roles.items()):
        given = [list(row) for row in prompts[name]] if name in prompts else own
        if len(given) != len(own) or not all(given):
            raise EngineError(
                f"the role {name!r} has {len(given)} prompts for {len(own)} rows, or an empty one",
                where="prompts",
                fix="give one prompt per row",
            )
        tracks.append(Track([Voice(i, name, Network(model), BARE, "")], [given]))
    return tracks
