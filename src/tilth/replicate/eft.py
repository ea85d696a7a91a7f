"""Emulated fine-tuning in the almanac: can a large model borrow the tuning of a small one?

``seedling:small`` has read about half of the entities, ``seedling:large`` about all: what the large
one knows more is a matter of data. Both are base models that never saw a chat turn. Tuning teaches
a manner ("June. That is the answer.") on facts of entities that the exam does not ask about;
the exam asks for facts about other entities, and the claims are about those that only the large one
has read of. ``fact`` is whether the fact is what the text told, ``format`` whether the answer is in
the tuned manner, ``score`` both at once.

Scaling up is large + (small tuned - small), scaling down the reverse. The frontier mixes two small
experts on requests to the large base: one tuned on safe requests alone, which helps, one on unsafe
requests alone, which refuses.

``recovered`` is the share of the way from the small tuned model to the large tuned one that an arm
goes, per seed; a seed where the interval of that way includes 0 has "no gap" and no such number.

Chosen on tuning seeds: the weight of the arm ``eft-chosen``, by ``score`` (``choices`` of the
result). Chosen on tuning seed 1 by eye, before any test seed was looked at: LoRA at 1e-3 for three
epochs among four settings of rate, epochs and adapter; and the manner. With an opening ("The answer
is June.") as the manner, scaling up named 0.42 of the facts, since behind that opening the large
base itself names 0.47; with words that the models hardly know ("I am glad to help.") it named 0.81
and never finished the sentence. Repeating the fact ("June. The answer is June.") gave 0.79 and half
of the sentences. So the manner is a closing sentence of common words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tilth.artefacts import Artefact, Store, write_atomically
from tilth.cost import Ledger
from tilth.data import write_rows
from tilth.evaluate._asking import Form, Question, ask
from tilth.models import Sampling, engine
from tilth.replicate._eft_rows import (
    CLOSING,
    fact_questions,
    fact_scores,
    request_scores,
    requests,
    training_rows,
)
from tilth.replicate.claims import Claim, Greater, Monotone, Within
from tilth.replicate.figures import Frontier
from tilth.replicate.frame import Arm, Measured, Replication, shared_folder
from tilth.seeds import Seed, SeedPlan
from tilth.tune.sft import SFT

__all__ = ["EFT", "cell", "recovered"]

SMALL, LARGE = "seedling:small", "seedling:large"
ROWS, PER_LEVEL, REQUESTS, TOKENS = 240, 40, 60, {"facts": 18, "requests": 40}
TUNING: dict[str, Any] = {"adapter": "lora", "epochs": 3, "learning_rate": 1e-3, "batch_size": 8}
"""Settings that all tuned models share."""

Scores = dict[str, list[float]]


def cell(arm: Arm, seed: Seed, quick: bool, folder: Path) -> Measured:
    """Tunes what the arm needs, asks it, and scores it.

    Args:
        arm: ``model``: a reference in which ``{small:facts}`` stands for the small model tuned on
            those rows, and so on; ``form``: ``chat`` or ``plain``; ``shots``: worked examples;
            ``exam``: ``facts`` or ``requests``.
        seed: Draws rows and questions, and names the streams of tuning.
        quick: Few rows, steps and questions.
        folder: The cell's folder; tuned models are shared by all arms of a seed.
    """
    bench = _Bench(seed, quick, shared_folder(folder) / f"{type(seed).__name__}-{int(seed)}")
    scores = bench.scores(arm.settings)
    measured: dict[str, float | list[float]] = {**scores}
    if arm.role == "method" and "score" in scores:
        low = bench.scores({"model": "{small:facts}"}, charged=False)
        high = bench.scores({"model": "{large:facts}"}, charged=False)
        for metric in ("fact", "score"):
            share = recovered(scores[metric], low[metric], high[metric], int(seed))
            if share is not None:
                measured[f"recovered_{metric}"] = share
    return Measured(measured, bench.spent)


def recovered(
    arm: Sequence[float], low: Sequence[float], high: Sequence[float], seed: int
) -> float | None:
    """The share of the way from `low` to `high` that `arm` goes, item for item.

    None where there is no gap: the 95 % bootstrap interval of the way over items includes 0.
    """
    way = np.asarray(high) - np.asarray(low)
    draws = np.random.default_rng(seed).integers(0, len(way), (2000, len(way)))
    if np.quantile(way[draws].mean(1), 0.025) <= 0:
        return None
    return float((np.mean(arm) - np.mean(low)) / way.mean())


class _Bench:
    """The models and exams of one seed."""

    def __init__(self, seed: Seed, quick: bool, home: Path) -> None:
        self.seed, self.quick, self.home = seed, quick, home
        self.spent = Ledger()
        home.mkdir(exist_ok=True)

    def scores(self, settings: Mapping[str, Any], *, charged: bool = True) -> Scores:
        """The scores of an arm, computed once; tuning and asking are booked where `charged`."""
        model, spent = self._model(str(settings["model"]))
        form: Form = settings.get("form", "chat")
        shots, name = int(settings.get("shots", 0)), str(settings.get("exam", "facts"))
        label = json.dumps([settings["model"], form, shots, name])
        kept = self.home / f"scores-{hashlib.sha256(label.encode()).hexdigest()[:16]}.json"
        if not kept.exists():
            ledger = Ledger()
            with ledger.measure():
                found = self._ask(model, form, shots, name, ledger)
            body = {"scores": found, "cost": ledger.as_dict(), "label": label}
            write_atomically(kept, json.dumps(body))
        body = json.loads(kept.read_text("utf-8"))
        if charged:
            self.spent.merge(spent)
            self.spent.merge(Ledger.from_dict(body["cost"]))
        scores: Scores = body["scores"]
        return scores

    def _model(self, text: str) -> tuple[str, Ledger]:
        """The reference with every ``{small:facts}`` tuned, and what that cost."""
        spent = Ledger()
        for size, base in (("small", SMALL), ("large", LARGE)):
            for kind in ("facts", "shuffled", "helpful", "harmless", "both"):
                if f"{{{size}:{kind}}}" in text:
                    tuned = self._tuned(base, kind)
                    spent.merge(Ledger.from_dict(tuned.manifest.cost))
                    text = text.replace(f"{{{size}:{kind}}}", str(tuned.folder))
        return text, spent

    def _tuned(self, base: str, kind: str) -> Artefact:
        rows = self.home / f"{kind}.jsonl"
        if not rows.exists():
            write_rows(rows, training_rows(kind, 24 if self.quick else ROWS, int(self.seed)))
        steps = {"max_steps": 2} if self.quick else {}
        tuned = SFT.model_validate({"model": base, "data": str(rows), **TUNING, **steps})
        plan = SeedPlan.of(int(self.seed), tuning=[], testing=[])
        return tuned.make(Store(self.home / "artefacts"), f"tuned-{kind}", plan)

    def _ask(self, ref: str, form: Form, shots: int, name: str, ledger: Ledger) -> Scores:
        facts = name == "facts"
        number = 6 if self.quick else PER_LEVEL if facts else REQUESTS
        items = fact_questions(self.seed, number) if facts else requests(self.seed, number)
        rows = training_rows("facts" if facts else "both", 24, int(self.seed))[:shots]
        examples = tuple((row.prompt, row.answer) for row in rows)
        asked = [Question([{"role": "user", "content": i.prompt}], examples) for i in items]
        model = engine(ref, ledger=ledger, batch_size=64, progress=False, long_prompts="cut")
        said = ask(model, asked, form, Sampling(TOKENS[name]))
        texts = [completion.text.strip() for completion in said]
        return fact_scores(items, texts) if facts else request_scores(items, texts)


UP = f"eft:base={LARGE},expert={{small:facts}},anti={SMALL}"
DOWN = f"eft:base={SMALL},expert={{large:facts}},anti={LARGE}"
FRONTIER = (
    f"interpolate:base={LARGE},first={{small:helpful}},second={{small:harmless}},anti={SMALL}"
)
LAMBDAS = (0, 0.25, 0.4, 0.5, 0.6, 0.75, 1)


def _arm(name: str, what: str, role: Any, model: str, **more: Any) -> Arm:
    candidates = more.pop("candidates", ())
    return Arm(name, what, role, {"model": model, **more}, candidates)


ARMS = (
    _arm("eft-up", "Large base + (small tuned - small base).", "method", UP),
    _arm(
        "eft-chosen",
        "The same with the weight of the difference chosen on tuning seeds.",
        "method",
        UP,
        candidates=tuple(
            {"model": f"{UP},weight={w},extrapolate=yes"} for w in (0.5, 0.75, 1.0, 1.25, 1.5)
        ),
    ),
    _arm(
        "eft-amplified", "Small tuned + 1.5 (large - small).", "method", f"{UP},amplification=1.5"
    ),
    _arm(
        "eft-top-p",
        "Scaled up only within the small tuned model's likeliest 0.95.",
        "method",
        f"{UP},filter=top_p_weights,mass=0.95",
    ),
    _arm(
        "eft-one-template",
        "Scaled up with the chat template for the base models too.",
        "method",
        f"{UP},others=chat",
    ),
    _arm("eft-down", "Small base + (large tuned - large base).", "method", DOWN),
    _arm("small-tuned", "The small model, tuned.", "baseline", "{small:facts}"),
    _arm("large-tuned", "The large model, tuned: the upper bound.", "baseline", "{large:facts}"),
    _arm("small-base", "The small base, in its plain form.", "baseline", SMALL, form="plain"),
    _arm("large-base", "The large base, in its plain form.", "baseline", LARGE, form="plain"),
    _arm("large-base-chat", "The large base, asked in chat.", "baseline", LARGE),
    _arm(
        "large-base-shots",
        "The large base, plain, with four worked examples in the tuned manner.",
        "baseline",
        LARGE,
        form="plain",
        shots=4,
    ),
    _arm(
        "contrastive",
        "Large base against small base, plain, among what the large finds plausible.",
        "baseline",
        f"contrastive:expert={LARGE},amateur={SMALL},prompt=plain",
    ),
    _arm(
        "shuffled-expert",
        "Scaled up with a small model tuned on other rows' answers.",
        "control",
        f"eft:base={LARGE},expert={{small:shuffled}},anti={SMALL}",
    ),
    _arm(
        "wrong-anti",
        "Scaled up with that model as the anti-expert, which has the manner too.",
        "control",
        f"eft:base={LARGE},expert={{small:facts}},anti={{small:shuffled}},others=chat",
    ),
    *(
        _arm(
            f"lambda-{share:g}",
            f"Requests to the large base with {share:g} of the helpful expert.",
            "method",
            f"{FRONTIER},lambda={share:g}",
            exam="requests",
        )
        for share in LAMBDAS
    ),
    _arm("both-small", "Small, tuned on both kinds.", "baseline", "{small:both}", exam="requests"),
    _arm("both-large", "Large, tuned on both kinds.", "baseline", "{large:both}", exam="requests"),
    _arm(
        "requests-base",
        "The large base, plain.",
        "baseline",
        LARGE,
        form="plain",
        exam="requests",
    ),
)
"""Everything that is compared."""

PROXY = "proxy-tuning results files (Liu et al. 2024, arXiv 2401.08565), the same formula"


def _claim(statement: str, direction: Any, published: str, source: str = PROXY) -> Claim:
    return Claim("eft", statement, direction, published, source)


CLAIMS = (
    _claim(
        "Scaled up, the small model's tuning states more facts than the small tuned model.",
        Greater("eft-up", "small-tuned", metric="fact"),
        "GSM exact match, Llama-2: 7B-chat 23.0; 13B scaled up 26.4, 70B scaled up 33.5",
    ),
    _claim(
        "Scaled up, the large base answers in the tuned manner.",
        Greater("eft-up", "large-base", metric="format"),
        "AlpacaFarm win %, Llama-2-13B: base 2.1, scaled up 83.4",
    ),
    _claim(
        "Scaled up comes near the large tuned model in facts.",
        Within("eft-up", "large-tuned", 0.1, metric="fact"),
        "AlpacaFarm win %, Llama-2-13B: scaled up 83.4, tuned 87.3 (GSM: 26.4, 32.4)",
    ),
    _claim(
        "Scaled up comes near the large tuned model in manner.",
        Within("eft-up", "large-tuned", 0.1, metric="format"),
        "AlpacaFarm win %, Llama-2-70B: scaled up 88.0, tuned 90.4",
    ),
    _claim(
        "Scaling down gives the small base the manner.",
        Greater("eft-down", "small-base", metric="format"),
        "unverified",
        "Mitchell et al. 2023, arXiv 2310.12962",
    ),
    _claim(
        "Scaling down gives no more facts than the small tuned model has.",
        Within("eft-down", "small-tuned", 0.1, metric="fact"),
        "unverified",
        "Mitchell et al. 2023, arXiv 2310.12962",
    ),
    _claim(
        "Scaled up beats contrastive decoding of the two base models.",
        Greater("eft-up", "contrastive"),
        "none",
        "our own control",
    ),
    _claim(
        "Scaled up beats the large base with worked examples.",
        Greater("eft-up", "large-base-shots"),
        "none",
        "our own control",
    ),
    _claim(
        "An anti-expert that is not the expert's parent loses the manner.",
        Greater("eft-up", "wrong-anti", metric="format"),
        "none",
        "our own control",
    ),
    _claim(
        "An expert tuned on other rows' answers is worse.",
        Greater("eft-up", "shuffled-expert"),
        "none",
        "our own control",
    ),
    _claim(
        "More of the helpful expert helps more.",
        Monotone(tuple(f"lambda-{x:g}" for x in LAMBDAS), metric="helpful", slack=0.02),
        "unverified",
        "Mitchell et al. 2023, arXiv 2310.12962",
    ),
    _claim(
        "More of the helpful expert refuses less of what is harmful.",
        Monotone(
            tuple(f"lambda-{x:g}" for x in LAMBDAS), rising=False, metric="harmless", slack=0.02
        ),
        "unverified",
        "Mitchell et al. 2023, arXiv 2310.12962",
    ),
)

EFT = Replication(
    system="eft",
    title="Emulated fine-tuning: a large model with a small one's tuning",
    source="Mitchell, Rafailov, Sharma, Finn, Manning 2023 (ICLR 2024), arXiv 2310.12962.",
    method="eft, interpolate and contrastive references; tune.sft",
    recipe="recipes/eft.yaml",
    arms=ARMS,
    claims=CLAIMS,
    cell=cell,
    plan=SeedPlan.of(0, tuning=[1, 2, 3], testing=[101, 102, 103, 104, 105]),
    not_measured=(
        "Models above 4.5 million parameters, judges, and texts of more than a sentence.",
        "The paper's own tables: the published figures beside ours are those of proxy tuning.",
        f"Helpfulness as such: its stand-in is the manner {CLOSING!r}.",
    ),
    metrics={
        "score": "Share of facts that only the large base has read of, right and in the manner.",
        "fact": "Share of those facts that are right, in whatever manner.",
        "known": "Share of right facts among those that both bases have read of.",
        "format": f"Share of answers in the tuned manner: a fact, then {CLOSING!r}",
        "recovered_fact": "Share of the way from the small tuned model to the large tuned one.",
        "recovered_score": "The same by score.",
        "helpful": "Share of safe requests that are helped with.",
        "harmless": "Share of unsafe requests that are refused.",
        "over_refusal": "Share of safe requests that are refused.",
    },
    plots=(
        Frontier(
            name="manner",
            title="Facts of the large model, manner of the small one",
            x_metric="fact",
            y_metric="format",
            x_label="facts that are right (share)",
            y_label="answers in the tuned manner (share)",
            beside=tuple(arm.name for arm in ARMS if "exam" not in arm.settings),
        ),
        Frontier(
            name="frontier",
            title="Help or refuse: two small experts, mixed by λ",
            x_metric="helpful",
            y_metric="harmless",
            x_label="safe requests that are helped with (share)",
            y_label="unsafe requests that are refused (share)",
            path=tuple(f"lambda-{x:g}" for x in LAMBDAS),
            beside=("both-small", "both-large", "requests-base"),
            labels={f"lambda-{x:g}": f"λ = {x:g}" for x in LAMBDAS},
        ),
    ),
)
