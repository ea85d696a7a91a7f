"""Rules as numbers: what is added to the log-probabilities, for a batch, in O(V) a token.

Axes: B rows, T positions, V tokens.

The state holds, per row, the sum of all that does not change with the position, so that a step adds
one matrix and updates one entry a row. Nothing is computed again when the text grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from tilth.decode.rules import Resolution

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["RuleProcessor", "RuleScores"]


class RuleScores:
    """What the rules add to the next token of each of several rows.

    Args:
        resolution: The rules in the vocabulary.
        vocabulary: Its size, V.
        seen: Per row the tokens that count as seen before the answer begins.
        written: Per row the tokens of the answer so far.
        device: Where the logits are.
    """

    def __init__(
        self,
        resolution: Resolution,
        vocabulary: int,
        seen: Sequence[Sequence[int]],
        written: Sequence[Sequence[int]] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        rows = resolution.rows
        self._hole = resolution.rules.official_hole
        self._ramps = [r for r in rows if r.kind == "eos_ramp" and r.token is not None]
        self._starts = [r for r in rows if r.kind == "start" and r.token is not None]
        self._penalty = sum(row.weight for row in rows if row.kind == "seen_penalty")
        fixed_V = torch.zeros(vocabulary, device=device)
        for row in rows:
            if row.kind == "token_bias" and row.token is not None:
                fixed_V[row.token] += row.weight
        # A mark that ended the user's turn must not keep the answer from ending.
        self._counts_V = torch.ones(vocabulary, dtype=torch.bool, device=device)
        self._counts_V[list(resolution.ends)] = False
        self._seen_BV = torch.zeros(len(seen), vocabulary, dtype=torch.bool, device=device)
        self._added_BV = fixed_V.repeat(len(seen), 1)
        self._age_B = torch.zeros(len(seen), device=device)
        answers = written or [()] * len(seen)
        for i, (before, answer) in enumerate(zip(seen, answers, strict=True)):
            known = torch.tensor(sorted({*before, *answer}), dtype=torch.long, device=device)
            known = known[self._counts_V[known]]
            self._seen_BV[i, known] = True
            self._added_BV[i, known] += self._penalty
            self._age_B[i] = len(answer)

    def scores(self) -> torch.Tensor:
        """``[B, V]``: what to add to the log-probabilities of the next token."""
        scores_BV = self._added_BV.clone()
        for row in self._ramps:
            share_B = self._age_B / row.range
            inside_B = share_B < 1 if self._hole else torch.ones_like(share_B, dtype=torch.bool)
            scores_BV[:, row.token] += row.weight * share_B.clamp(max=1) * inside_B
        for row in self._starts:
            scores_BV[:, row.token] += row.weight * (self._age_B < row.range)
        return scores_BV

    def advance(self, tokens_B: torch.Tensor) -> None:
        """Every row has written one more token."""
        rows_B = torch.arange(len(tokens_B), device=tokens_B.device)
        fresh_B = ~self._seen_BV[rows_B, tokens_B] & self._counts_V[tokens_B]
        self._added_BV[rows_B, tokens_B] += self._penalty * fresh_B
        self._seen_BV[rows_B, tokens_B] |= fresh_B
        self._age_B += 1

    def ahead(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """``[B, T + 1, V]``: the scores now and after each of `tokens_BT`; the state stays."""
        trial = object.__new__(RuleScores)
        trial.__dict__ = {**self.__dict__}
        trial._seen_BV, trial._added_BV = self._seen_BV.clone(), self._added_BV.clone()
        trial._age_B = self._age_B.clone()
        found = [trial.scores()]
        for step in range(tokens_BT.shape[1]):
            trial.advance(tokens_BT[:, step])
            found.append(trial.scores())
        return torch.stack(found, dim=1)

    def keep(self, rows_B: torch.Tensor) -> None:
        """Only these rows go on."""
        self._seen_BV, self._added_BV = self._seen_BV[rows_B], self._added_BV[rows_B]
        self._age_B = self._age_B[rows_B]


class RuleProcessor:
    """The rules as a logits processor of transformers, for any batch.

    Args:
        resolution: The rules in the tokenizer's vocabulary.
        tokenizer: The tokenizer that made the prompts; its padding counts as nothing seen.
        prompt: Columns of the prompt, padding included.

    Example:
        >>> rules = resolve_rules(read_rules(path), tokenizer, ends)         # doctest: +SKIP
        >>> processor = RuleProcessor(rules, tokenizer, ids_BT.shape[1])     # doctest: +SKIP
        >>> model.generate(ids_BT, logits_processor=[processor])             # doctest: +SKIP
    """

    def __init__(
        self, resolution: Resolution, tokenizer: PreTrainedTokenizerBase, prompt: int
    ) -> None:
        self._resolution, self._prompt = resolution, prompt
        self._padding = {tokenizer.pad_token_id} - {None}
        self._state: RuleScores | None = None
        self._columns = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` ``[B, V]`` with the rules added, in float32."""
        grown = self._state is not None and input_ids.shape[1] == self._columns + 1
        if self._state is not None and grown:
            self._state.advance(input_ids[:, -1])
        else:
            rows = input_ids.tolist()
            turn = self._resolution.rules.scope == "turn"
            seen = [[t for t in row[: self._prompt] if t not in self._padding] for row in rows]
            self._state = RuleScores(
                self._resolution,
                scores.shape[-1],
                seen if turn else [()] * len(rows),
                [row[self._prompt :] for row in rows],
                scores.device,
            )
        self._columns = input_ids.shape[1]
        return scores.float() + self._state.scores()
