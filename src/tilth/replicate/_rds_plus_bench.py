"""What the arms of the RDS+ replication share: pools, queries, choices, tuned models, exams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilth.almanac.pool import pool as almanac_pool
from tilth.almanac.skills import SKILLS
from tilth.artefacts import Artefact, Store
from tilth.cost import Ledger, forward_flops
from tilth.data import Example, read, write_rows
from tilth.evaluate.exams import Exams
from tilth.models.sizes import parameters_of
from tilth.registry import methods
from tilth.replicate._real_text import exemplars, real_pool
from tilth.replicate.frame import Arm, Measured
from tilth.seeds import Seed, SeedPlan, TestSeed
from tilth.tune.sft import SFT

__all__ = ["MODEL", "TARGETS", "Bench"]

MODEL = "seedling:small"
TARGETS = ("word_problems", "lists", "second_language")
RELEVANT, NOISY = 0.05, 0.10  # shares of the pool, from the specification of the experiment
CHOSEN, QUERIES = 200, 8  # rows; queries per target skill
SIZES = {"2k": 2_000, "10k": 10_000}
TEXT = {"gsm8k": 2000, "bbh": 4000, "mmlu": 1995}  # real rows; every seed draws three quarters
TEXT_CHOSEN = 100

LEARNING_RATE, STEPS = 3e-4, 40  # all weights, batches of 16; see the replication's docstring
PER_LEVEL = 30  # questions per target skill and each of the levels 1 and 2


@dataclass(frozen=True)
class Bench:
    """What the arms of a seed share."""

    shared: Path
    seed: Seed
    quick: bool

    @property
    def home(self) -> Path:
        phase = "testing" if isinstance(self.seed, TestSeed) else "tuning"
        home = self.shared / f"{phase}-{int(self.seed)}"
        home.mkdir(parents=True, exist_ok=True)
        return home

    @property
    def plan(self) -> SeedPlan:
        number, judges = int(self.seed), isinstance(self.seed, TestSeed)
        return SeedPlan.of(number, tuning=[] if judges else [number], testing=[number] * judges)

    def make(self, method: Any, label: str) -> Artefact:
        """The artefact of `method`, computed once for all arms that need the same."""
        made: Artefact = method.make(Store(self.home / "artefacts"), label, self.plan)
        return made

    def pool(self, size: str) -> Path:
        """The pool of that size; its rows are the first of the larger one's."""
        path = self.home / f"pool-{size}.jsonl"
        if not path.is_file():
            wanted = SIZES[size] // (10 if self.quick else 1)
            write_rows(path, _different(wanted, self.seed.derive("pool")))
        return path

    def queries(self) -> Path:
        """A few items of every target skill, from a split of their own."""
        path = self.home / "queries.jsonl"
        if not path.is_file():
            root = self.seed.derive("queries")
            items = [
                SKILLS[skill].item(n, level=levels[n % len(levels)], split="validation", seed=root)
                for skill in TARGETS
                for n in range(QUERIES)
                for levels in [SKILLS[skill].levels]
            ]
            rows = [Example.pair(i.prompt, i.worked or i.answer, task=i.skill) for i in items]
            write_rows(path, rows)
        return path

    def chosen(self, arm: Arm) -> tuple[Artefact, Ledger]:
        """The rows that the arm trains on, and what choosing them costs if nothing is shared."""
        size, name = str(arm.settings["pool"]), str(arm.settings["select"])
        pool = self.pool(size)
        given = {"count": CHOSEN // (5 if self.quick else 1), **arm.settings["with"]}
        if name == "oracle":
            pool, name = self._relevant(pool), "random"
        if name == "rds_plus":
            pooling = given.get("pooling", "weighted")
            given |= {"queries": str(self.queries()), "index": str(self.home / f"{pooling}-{size}")}
        method: Any = methods()[f"select.{name}"].load()
        if "model" in method.model_fields:
            given["model"] = MODEL
        made = self.make(method(pool=str(pool), **given), f"{name}-{size}")
        return made, charged(made)

    def _relevant(self, pool: Path) -> Path:
        path = pool.with_name(f"relevant-{pool.name}")
        if not path.is_file():
            write_rows(path, (row for row in read(pool) if row.meta["skill"] in TARGETS))
        return path

    def examined(self, chosen: Artefact) -> tuple[Artefact, Artefact]:
        """The model tuned on those rows, and its exam."""
        tuned = self.make(
            SFT.model_validate(
                {
                    "model": MODEL,
                    "data": str(chosen.folder),
                    "adapter": "full",
                    "learning_rate": LEARNING_RATE,
                    "max_steps": 5 if self.quick else STEPS,
                }
            ),
            "tuned",
        )
        exam = Exams.model_validate(
            {
                "model": str(tuned.folder),
                "skills": TARGETS,
                "levels": (1, 2),
                "per_level": 2 if self.quick else PER_LEVEL,
                "phase": "testing" if isinstance(self.seed, TestSeed) else "tuning",
            }
        )
        return tuned, self.make(exam, "exam")

    def on_text(self, arm: Arm) -> Measured:
        """The share of GSM8K among the chosen rows of the real-text pool."""
        part = 10 if self.quick else 1
        path = self.home / "text.jsonl"
        if not path.is_file():
            # All seeds draw from one set of rows, so that these are embedded once.
            gsm8k, bbh, mmlu = (count // part for count in TEXT.values())
            rows = real_pool(gsm8k, bbh, mmlu, seed=0)
            kept: list[int] = []
            for name in TEXT:
                there = [i for i, row in enumerate(rows) if row.meta["source"] == name]
                drawn = self.seed.stream("text", name).permutation(there)
                kept += drawn[: len(there) * 3 // 4].tolist()
            write_rows(path, [rows[i] for i in sorted(kept)])
        given = dict(arm.settings["with"])
        if "model" in given:
            queries = self.home / "exemplars.jsonl"
            if not queries.is_file():
                write_rows(queries, exemplars())
            index = self.shared / ("text-" + given["model"].replace(":", "-"))
            given |= {"queries": str(queries), "index": str(index)}
        method: Any = methods()[f"select.{arm.settings['select']}"].load()
        made = self.make(method(pool=str(path), count=TEXT_CHOSEN // part, **given), arm.name)
        found = [float(row.meta["source"] == "gsm8k") for row in read(made.folder)]
        return Measured({"gsm8k_share": [sum(found) / len(found)]}, charged(made))


def _different(count: int, seed: int) -> Iterator[Example]:
    """The first `count` rows of the almanac's endless pool that are not said twice."""
    others = [skill for skill in SKILLS if skill not in TARGETS]
    # Noise is drawn before the skill, so that a skill's share is one of what noise leaves.
    shares = {skill: RELEVANT / len(TARGETS) for skill in TARGETS}
    shares |= {skill: (1 - RELEVANT - NOISY) / len(others) for skill in others}
    seen: set[str] = set()
    rows = almanac_pool(
        count * 4, shares, qualities={"worked": 1.0}, noisy=NOISY, seed=seed % 2**32
    )
    for row in rows:
        if row.id not in seen and len(seen) < count:
            seen.add(row.id)
            yield row


def charged(made: Artefact) -> Ledger:
    """What a selection cost, as if no other arm had embedded the pool before it.

    FLOPs of embedding are counted as 2 per weight and token for all arms, whoever made the index.
    """
    ledger = Ledger.from_dict(made.manifest.cost)
    metrics = made.manifest.metrics
    if metrics.get("index_tokens"):
        reused = 0 if metrics["index_rows_new"] else int(metrics["index_tokens"])
        weights = parameters_of(str(made.manifest.settings["model"]))
        ledger.tokens_read += reused
        ledger.flops = forward_flops(weights, ledger.tokens_read)
    return ledger
