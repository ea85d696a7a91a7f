"""The decoding loop: rounds of one token a row, or of a draft and its judgement.

Axes: B rows, T positions, V tokens.

A draft is written by the lead alone and judged by all in one pass. There are two ways to accept:

``coupled``    The token that the composed model chooses is computed at every drafted position with
               the row's own uniform draw for that position, and a draft stands as long as it is
               that very token. What is written is therefore, token for token, what would have been
               written without drafting, at any temperature and for any length of draft. The drafter
               chooses with the same draw, which makes agreement likely (coupled by common random
               numbers; for greedy choice it is plain equality).
``rejection``  The rule of Leviathan et al. 2023 (arXiv:2211.17192) and Chen et al. 2023
               (arXiv:2302.01318): accept with probability min(1, p / q), else draw from the
               positive part of p - q. The distribution is exact and more drafts stand, but which
               text is written depends on the length of the draft.

The drafter is part of what it drafts for, so it runs once more after the draft: without its
distribution there the token after a wholly accepted draft could not be chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from tilth.decode._combine import Plan, combine, log_probabilities
from tilth.decode._pace import Pace
from tilth.decode._rejection import judge
from tilth.decode._rows import Job, Said, draws_ahead, draws_of
from tilth.decode._rule_scores import RuleScores
from tilth.decode._tracks import Track, Voice
from tilth.decode.composition import Acceptance
from tilth.decode.rules import Resolution
from tilth.models.choice import choose
from tilth.models.engine import Sampling
from tilth.models.generation import Row

__all__ = ["Decoding"]

_ROUNDING = 5e-5
"""Margins up to this, times the weights' sum, are decided on the row alone: at least ten times the
float32 rounding of logits up to about 20 (our choice, as for single models)."""


@dataclass
class Decoding:
    """How rows are decoded.

    Attributes:
        voices: The voices with a weight, and the lead where a filter needs it.
        plan: The composition in numbers.
        sampling: The rule of choice.
        stop_ids: Tokens that end a row.
        ends: Whether a stop text ends a row; asked after every token.
        rules: The rules in this vocabulary.
        pace: Lengths of drafts.
        acceptance: How drafts are accepted.
        details: Report log-probabilities.
        top: Likeliest alternatives to report.
    """

    voices: Sequence[Voice]
    plan: Plan
    sampling: Sampling
    stop_ids: frozenset[int]
    ends: Callable[[Row], bool]
    rules: Resolution | None = None
    pace: Pace = field(default_factory=Pace)
    acceptance: Acceptance = "coupled"
    details: bool = False
    top: int = 0

    def __post_init__(self) -> None:
        self._exact = all(v.network.forward.exact for v in self.voices)
        self._device = self.voices[0].network.forward.device
        self._rounding = _ROUNDING * self.plan.spread
        self._can_draft = len(self.voices) > 1 and self.plan.lead in {v.index for v in self.voices}

    def run(self, jobs: list[Job]) -> Iterator[Said]:
        """Decodes one batch; yields what every row writes, round by round.

        Args:
            jobs: The rows; no prompt is empty.
        """
        self._jobs = jobs
        self._tracks = self._begin()
        if not jobs:
            return
        logits = {v: x for track in self._tracks for v, x in track.begin().items()}
        self._scores = self._rule_state() if self.rules else None
        yield from self._plain(logits)
        while self._jobs:
            length = self._length()
            if length:
                self._part()
                yield from self._drafted(length)
            else:
                self._join()
                yield from self._plain(self._next_logits())

    # Tracks

    def _begin(self) -> list[Track]:
        networks = dict.fromkeys(voice.network for voice in self.voices)
        tracks = []
        for network in networks:
            own = [voice for voice in self.voices if voice.network is network]
            tracks.append(Track(own, [[j.prompts[v.index] for j in self._jobs] for v in own]))
        return tracks if self._jobs else []

    def _part(self) -> None:
        """The lead on a track of its own."""
        lead = self.plan.lead
        if not any(track.key == (lead,) for track in self._tracks):
            self._tracks = [
                part
                for track in self._tracks
                for part in (track.parted(lead) if lead in track.key else [track])
            ]

    def _join(self) -> None:
        """The lead beside the voices of its network again."""
        lead = next((t for t in self._tracks if t.key == (self.plan.lead,)), None)
        if lead is None:
            return
        network = lead.voices[0].network
        for other in self._tracks:
            if other is not lead and other.voices[0].network is network:
                others = [t for t in self._tracks if t is not lead and t is not other]
                self._tracks = [lead.joined(other), *others]
                return

    def _rule_state(self) -> RuleScores:
        assert self.rules is not None
        vocabulary, seen = self.plan.vocabulary, [job.seen for job in self._jobs]
        return RuleScores(self.rules, vocabulary, seen, device=self._device)

    # Plain rounds

    def _next_logits(self) -> dict[int, torch.Tensor]:
        ids_B1 = torch.tensor([[job.new[-1]] for job in self._jobs], device=self._device)
        found: dict[int, torch.Tensor] = {}
        for track in self._tracks:
            found |= track.run(ids_B1)
            self.pace.took(track.key, 1, track.seconds)
        return found

    def _plain(self, logits: dict[int, torch.Tensor]) -> Iterator[Said]:
        """One token for every row."""
        logits = {v: x[:, -1:] for v, x in logits.items()}
        now = {v: x[:, 0] for v, x in logits.items()}
        rules_BV = self._scores.scores() if self._scores else None
        total_BV = combine(now, self.plan, rules_BV)
        draws_B = draws_of(self._jobs, 0)
        chosen_B = self._chosen(total_BV, draws_B, self._jobs)
        if self._can_draft and self.pace.fixed is None:
            self.pace.judged((self._guess(now[self.plan.lead], draws_B) == chosen_B).tolist())
        self.pace.plain += 1
        said = []
        for i, (job, token) in enumerate(zip(self._jobs, chosen_B.tolist(), strict=True)):
            self._push(job, token)
            said.append(self._told(job, i, [token], total_BV[:, None], logits))
        if self._scores:
            self._scores.advance(torch.as_tensor(chosen_B, device=self._device))
        yield from said
        self._drop_finished()

    def _guess(self, lead_BV: torch.Tensor, draws_B: np.ndarray) -> np.ndarray:
        """What the lead alone would choose."""
        alone = log_probabilities(lead_BV, self.plan)
        return choose(alone, self.sampling, draws_B)[0]

    def _chosen(
        self, total_BV: torch.Tensor, draws_B: np.ndarray, jobs: Sequence[Job]
    ) -> np.ndarray:
        """The composed model's choice; where rounding could change it, from the row alone."""
        chosen_B, margins_B = choose(total_BV, self.sampling, draws_B)
        if self._exact:
            for i in np.flatnonzero(margins_B < self._rounding).tolist():
                chosen_B[i] = self._alone(jobs[i], jobs[i].new, draws_B[i : i + 1])
        return chosen_B

    def _alone(self, job: Job, new: list[int], draw: np.ndarray) -> int:
        """The choice after `new`, from passes without padding, cache or company."""
        logits = {}
        for voice in self.voices:
            voice.network.wear([voice.adapter], 1)
            logits[voice.index] = voice.network.forward.alone(job.prompts[voice.index] + new)
        rules_BV = None
        if self.rules is not None:
            size = self.plan.vocabulary
            state = RuleScores(self.rules, size, [job.seen], [new], self._device)
            rules_BV = state.scores()
        return int(choose(combine(logits, self.plan, rules_BV), self.sampling, draw)[0][0])

    def _push(self, job: Job, token: int) -> None:
        job.new.append(token)
        if token in self.stop_ids or self.ends(job):
            job.finish = "stop"
        elif len(job.new) >= job.limit:
            job.finish = "length"

    # Rounds with a draft

    def _length(self) -> int:
        if not self._can_draft or not all(track.can_roll_back for track in self._tracks):
            return 0
        lead = self.plan.lead
        shape = [(t.voices[0].network, t.key) for t in self._tracks]
        network = next(n for n, key in shape if lead in key)
        family = tuple(sorted(v for n, key in shape if n is network for v in key))
        apart = tuple(v for v in family if v != lead)
        others = [key for n, key in shape if n is not network]
        wanted = self.pace.length([family, *others], lead, [*([apart] if apart else []), *others])
        room = max(job.limit - len(job.new) for job in self._jobs) - 1
        return max(0, min(wanted, room))

    def _drafted(self, length: int) -> Iterator[Said]:
        """Drafts `length` tokens for every row, and keeps what stands."""
        jobs, lead = self._jobs, self.plan.lead
        device = self._device
        room_B = torch.tensor([j.limit - len(j.new) - 1 for j in jobs], device=device)
        drafter = next(track for track in self._tracks if track.key == (lead,))
        ids_B1 = torch.tensor([[job.new[-1]] for job in jobs], device=device)
        block, drafts, own = [ids_B1], [], []
        for step in range(length + 1):
            used_B1 = (room_B >= step)[:, None]
            logits_BV = drafter.run(block[-1], used_B1)[lead][:, -1]
            self.pace.took(drafter.key, 1, drafter.seconds)
            own.append(logits_BV)
            if step < length:
                drafts.append(self._draft(logits_BV, step))
                block.append(torch.as_tensor(drafts[-1], device=device)[:, None])
        ids_BT = torch.cat(block, dim=1)
        used_BT = torch.arange(length + 1, device=device)[None, :] <= room_B[:, None]
        logits = {lead: torch.stack(own, dim=1)}
        for track in self._tracks:
            if track is not drafter:
                logits |= track.run(ids_BT, used_BT)
                self.pace.took(track.key, length + 1, track.seconds)
        rules_BTV = self._scores.ahead(ids_BT[:, 1:]) if self._scores else None
        total_BTV = combine(logits, self.plan, rules_BTV)
        drafts_BT = np.stack(drafts, axis=1)
        said, kept = self._judged(drafts_BT, total_BTV, logits)
        self.pace.rounds += 1
        extra_B = length + 1 - torch.tensor(kept, device=device)
        for track in self._tracks:
            track.take_back(extra_B)
        if self._scores:
            self._follow(said)
        yield from said
        self._drop_finished()

    def _draft(self, logits_BV: torch.Tensor, step: int) -> np.ndarray:
        alone_BV = log_probabilities(logits_BV, self.plan)
        return choose(alone_BV, self.sampling, draws_of(self._jobs, step))[0]

    def _judged(
        self, drafts_BT: np.ndarray, total_BTV: torch.Tensor, logits: dict[int, torch.Tensor]
    ) -> tuple[list[Said], list[int]]:
        """What stands of the drafts, and how many columns each row keeps."""
        length = drafts_BT.shape[1]
        said, kept = [], []
        if self.acceptance == "coupled":
            flat_NV = total_BTV.flatten(0, 1)
            draws_N = np.concatenate([draws_ahead(job, length + 1) for job in self._jobs])
            chosen_N, margins_N = choose(flat_NV, self.sampling, draws_N)
            chosen_BT = chosen_N.reshape(-1, length + 1)
            unsafe_BT = (margins_N < self._rounding).reshape(-1, length + 1) & self._exact
        for i, job in enumerate(self._jobs):
            room = min(length, job.limit - len(job.new) - 1)
            if self.acceptance == "coupled":
                tokens = self._standing(job, drafts_BT[i, :room], chosen_BT[i], unsafe_BT[i])
            else:
                lead_TV = log_probabilities(logits[self.plan.lead][i], self.plan)
                tokens = judge(job, drafts_BT[i, :room], lead_TV, total_BTV[i], self.sampling)
                tokens = self._pushed(job, tokens)
            right = int((np.array(tokens[:room]) == drafts_BT[i, : len(tokens[:room])]).sum())
            right = min(right, len(tokens))
            self.pace.drafted += room
            self.pace.accepted += right
            self.pace.judged([True] * right + [False] * (right < room and not job.finish))
            kept.append(len(tokens))
            said.append(self._told(job, i, tokens, total_BTV, logits))
        return said, kept

    def _standing(
        self, job: Job, draft_T: np.ndarray, chosen_T: np.ndarray, unsafe_T: np.ndarray
    ) -> list[int]:
        """The composed model's own tokens, as far as the draft led it to compute them."""
        tokens: list[int] = []
        for step in range(len(draft_T) + 1):
            token = int(chosen_T[step])
            if unsafe_T[step]:
                draw = draws_of([job], 0)
                token = self._alone(job, job.new, draw)
            self._push(job, token)
            tokens.append(token)
            if job.finish or step == len(draft_T) or token != draft_T[step]:
                break
        return tokens

    def _pushed(self, job: Job, tokens: list[int]) -> list[int]:
        """`tokens` up to the one that ends the row."""
        for count, token in enumerate(tokens, 1):
            self._push(job, token)
            if job.finish:
                return tokens[:count]
        return tokens

    def _follow(self, said: list[Said]) -> None:
        """The rules' state after rows have written different numbers of tokens."""
        assert self.rules is not None
        size = self.plan.vocabulary
        self._scores = RuleScores(
            self.rules,
            size,
            [one.row.seen for one in said],
            [one.row.new for one in said],
            self._device,
        )

    # What is told

    def _drop_finished(self) -> None:
        going = [i for i, job in enumerate(self._jobs) if not job.finish]
        if len(going) == len(self._jobs):
            return
        self._jobs = [self._jobs[i] for i in going]
        if not self._jobs:
            return
        kept_B = torch.tensor(going, device=self._device)
        for track in self._tracks:
            track.keep(kept_B)
        if self._scores:
            self._scores.keep(kept_B)

    def _told(
        self,
        job: Job,
        row: int,
        tokens: list[int],
        total_BTV: torch.Tensor,
        logits: dict[int, torch.Tensor],
    ) -> Said:
        if not self.details:
            return Said(job, tokens)
        composed_TV = total_BTV[row, : len(tokens)].log_softmax(-1)
        ids_T1 = torch.tensor(tokens, device=self._device)[:, None]
        logprobs = composed_TV.gather(1, ids_T1)[:, 0].tolist()
        parts = {}
        for voice, logits_BTV in logits.items():
            alone_TV = log_probabilities(logits_BTV[row, : len(tokens)], self.plan)
            parts[self.plan.names[voice]] = alone_TV.gather(1, ids_T1)[:, 0].tolist()
        top = []
        if self.top:
            best = composed_TV.topk(min(self.top, composed_TV.shape[-1]), dim=-1)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            top = [list(zip(ids, values, strict=True)) for ids, values in pairs]
        return Said(job, tokens, logprobs, parts, top)
