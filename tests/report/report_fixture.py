"""A realistic run folder, written through the artefact store as a run would write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tilth.artefacts import Store, step_key
from tilth.method import Outcome
from tilth.seeds import SeedPlan, stream
from tilth.stats import mean_interval, paired_difference, permutation_test

SKILLS = ("fact_recall", "word_problems", "logic", "python_functions", "second_language")
ARMS = {"base": 0.12, "base_plain": 0.22, "tuned": 0.5, "shuffled": 0.11}
EVIL = "<script>alert('sown')</script>"


class RunBuilder:
    """Writes steps into a run folder one by one."""

    def __init__(self, folder: Path, name: str = "quickstart") -> None:
        self.folder, self.name = folder, name
        self.plan = SeedPlan()
        self.store = Store(folder / "artefacts", say=lambda line: None)
        self.steps: list[dict[str, Any]] = []

    def step(
        self,
        id: str,
        do: str,
        kind: str,
        files: dict[str, list[dict[str, Any]] | dict[str, Any]],
        outcome: Outcome | None = None,
        settings: dict[str, Any] | None = None,
        seconds: float = 12.0,
        **cost: float,
    ) -> str:
        """Writes one finished step and returns its artefact's folder."""

        def work(folder: Path, scratch: Path, ledger: Any) -> Outcome:
            for name, rows in files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                listed = rows if isinstance(rows, list) else [rows]
                path.write_text("".join(json.dumps(r) + "\n" for r in listed), encoding="utf-8")
            ledger.seconds += seconds
            ledger.cpu_seconds += 1.6 * seconds
            ledger.add(**cost)
            return outcome or Outcome()

        fields = {
            "step": id,
            "method": do,
            "kind": kind,
            "settings": settings or {},
            "seed": len(self.steps),
            "seeds": self.plan.as_dict(),
        }
        key = step_key(do, "1", {**(settings or {}), "id": id}, {})
        artefact = self.store.produce(id, key, fields, work)
        self.steps.append(
            {
                "id": id,
                "do": do,
                "artefact": str(artefact.folder.relative_to(self.folder)),
                "status": "finished",
                "cached": False,
                "seconds": 1.0,
            }
        )
        return str(artefact.folder)

    def finish(self, status: str = "finished", **more: Any) -> Path:
        """Writes ``run.json``."""
        record = {
            "name": self.name,
            "recipe": f"recipes/{self.name}.yaml",
            "seeds": self.plan.as_dict(),
            "status": status,
            "steps": self.steps,
            "versions": {"tilth": "0.1.0", "python": "3.11.2"},
            "started": "2026-11-22T10:00:00.000+00:00",
            "finished": "2026-11-22T10:04:31.000+00:00",
            **more,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "run.json").write_text(json.dumps(record))
        return self.folder


def example_rows(count: int, method: str, evil: bool = False) -> list[dict[str, Any]]:
    """Instruction rows in the form of :class:`tilth.data.example.Example`."""
    rows = []
    for n in range(count):
        asked = f"A sack holds {n + 3} kg of Harrow wheat. How much do {n % 7 + 2} sacks hold?"
        rows.append(
            {
                "id": f"{n:016x}",
                "messages": [
                    {"role": "user", "content": EVIL if evil else asked},
                    {
                        "role": "assistant",
                        "content": f"{n + 3} times {n % 7 + 2} is {(n + 3) * (n % 7 + 2)}. "
                        f"The answer is {(n + 3) * (n % 7 + 2)}.",
                    },
                ],
                "meta": {
                    "method": method,
                    "teacher": "seedling:teacher",
                    "parents": ["9f3a01c2", "77ab4410"],
                    "seed": 17,
                },
            }
        )
    return rows


def score_rows(arm: str, mean: float, per_skill: int = 24) -> list[dict[str, Any]]:
    """Scores of an arm on every skill and test seed."""
    rng = stream(0, "fixture", arm)
    rows = []
    for seed in (101, 102, 103, 104, 105):
        for rank, skill in enumerate(SKILLS):
            for item in range(per_skill):
                chance = float(np.clip(mean + 0.12 * (2 - rank), 0.01, 0.97))
                score = float(rng.random() < chance)
                rows.append(
                    {
                        "seed": seed,
                        "item": f"{skill}/1/testing/{seed}/{item}",
                        "skill": skill,
                        "level": 1 + item % 3,
                        "score": score,
                        "prompt": f"Question {item} of {skill}: which field is sown first?",
                        "output": "The north field." if score else "Wheat wheat wheat",
                        "answer": "the north field",
                    }
                )
    return rows


def comparison_of_rows(arms: dict[str, list[dict[str, Any]]], baseline: str) -> dict[str, Any]:
    """What ``evaluate.compare`` writes."""

    def by_seed(rows: list[dict[str, Any]], skill: str = "") -> dict[int, list[float]]:
        found: dict[int, list[float]] = {}
        for row in rows:
            if skill in ("", row["skill"]):
                found.setdefault(row["seed"], []).append(row["score"])
        return found

    few: dict[str, Any] = {"resamples": 400}
    base = arms[baseline]
    return {
        "metric": "score",
        "baseline": baseline,
        "level": 0.95,
        "arms": {
            name: {
                "estimate": mean_interval(by_seed(rows), **few).as_dict(),
                "by_skill": {s: mean_interval(by_seed(rows, s), **few).as_dict() for s in SKILLS},
                "chance": {"logic": 0.5, "fact_recall": 0.05},
            }
            for name, rows in arms.items()
        },
        "differences": {
            name: {
                "estimate": paired_difference(by_seed(rows), by_seed(base), **few).as_dict(),
                "p": permutation_test(by_seed(rows), by_seed(base), resamples=400),
                "by_skill": {
                    s: paired_difference(by_seed(rows, s), by_seed(base, s), **few).as_dict()
                    for s in SKILLS
                },
            }
            for name, rows in arms.items()
            if name != baseline
        },
        "seeds": [101, 102, 103, 104, 105],
        "items_per_seed": 24 * len(SKILLS),
    }


def quickstart_run(
    folder: Path, *, evil: bool = False, tuned: float = 0.5, upto: str = ""
) -> RunBuilder:
    """The steps of a whole quickstart; `upto` stops before that step."""
    run = RunBuilder(folder)
    pool = example_rows(800, "generate.self_instruct", evil)
    rejected = [
        {"file": "pool", "line": n, "field": "messages", "reason": reason, "row": {}}
        for n, reason in enumerate(["too like an earlier one"] * 61 + [EVIL] * evil + ["empty"] * 9)
    ]
    run.step(
        "write",
        "generate.self_instruct",
        "rows",
        {"rows.jsonl": pool, "rejected.jsonl": rejected},
        Outcome(
            {"rows_out": 800, "mean_rouge": 0.2134567},
            [("asked for", 870), ("rejected", 70), ("kept", 800)],
            ["Whether the written answers are true."],
        ),
        {"teacher": "seedling:teacher", "count": 800, "seeds": "seeds.jsonl"},
        seconds=74.0,
        tokens_read=412_000,
        tokens_generated=61_300,
        flops=3.1e12,
    )
    run.step(
        "keep",
        "select.length",
        "rows",
        {"rows.jsonl": example_rows(500, "generate.self_instruct")},
        Outcome({"rows_out": 500}, [("read", 800), ("kept", 500)]),
        {"count": 500},
    )
    if upto == "tuned":
        return run
    for name, last in (("tuned", 0.6), ("control", 1.9)):
        rng = stream(0, "loss", name)
        loss = [
            {
                "step": n,
                "loss": last + 2.2 * float(np.exp(-n / 40)) + 0.12 * float(rng.normal()),
                "lr": 1e-3,
                "grad_norm": 1.0,
                "tokens": 1000 * n,
                "seconds": 0.1 * n,
            }
            for n in range(1, 251)
        ]
        run.step(
            name,
            "tune.sft",
            "model",
            {"metrics.jsonl": loss, "model/adapter_config.json": {"r": 16}},
            Outcome({"loss_last": last}, [("read", 500), ("over-long", 4), ("trained on", 496)]),
            {"model": "seedling:small", "adapter": "lora", "rank": 16, "learning_rate": 0.002},
            tokens_trained=250_000,
            flops=1.5e12,
        )
    arms = {**ARMS, "tuned": tuned}
    rows = {arm: score_rows(arm, mean) for arm, mean in arms.items()}
    exams = {
        arm: run.step(
            f"exam_{arm}",
            "evaluate.exams",
            "scores",
            {"scores.jsonl": rows[arm]},
            Outcome({"score": float(np.mean([r["score"] for r in rows[arm]]))}),
            {"model": "seedling:small", "form": "plain" if arm == "base_plain" else "chat"},
            tokens_read=50_000,
            tokens_generated=9_000,
            flops=2e11,
        )
        for arm in arms
    }
    order = ("base_plain", "shuffled", "tuned")
    run.step(
        "verdict",
        "evaluate.compare",
        "comparison",
        {"comparison.json": comparison_of_rows({a: rows[a] for a in ("base", *order)}, "base")},
        Outcome(not_measured=["How the models do on questions that no exam asks."]),
        {"baseline": exams["base"], "arms": {a: exams[a] for a in order}},
    )
    return run
