r"""Implicit instruction tuning in the almanac: instructions followed without instruction tuning.

The base is ``seedling:small``, which has read questions with answers, and no chat turn. All arms
speak to it as ``<|user|>\n{instruction}<|assistant|>\n{response}EOS`` (tags ``joined``). There it
does what the paper says of base models: it echoes a tag, answers, and goes on with a next question
instead of ending. In other forms it would not do as a base: after ``User: ... Assistant:`` in plain
words it already answers (0.44 on a tuning seed, since most of its text is a task with its answer
behind it), and with a line break before the assistant tag it always begins another question.

Arms are trained on 480 rows in 60 steps of 8, all weights, learning rate 2e-4, linear after 10 %
warm-up: chosen on tuning seeds among 20 to 100 steps and 1e-4, 2e-4 and 3e-4; LoRA was tried on
responses and lost. They are judged by exact answers to held-out questions of families that no
single-task arm has seen: an answer behind an echoed tag, or before another question, is wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tilth.almanac.skills import SKILLS
from tilth.cost import Ledger
from tilth.replicate.claims import Claim, Greater, Within
from tilth.replicate.frame import Arm, Measured, Replication
from tilth.seeds import Seed, SeedPlan, TestSeed, TuningSeed

__all__ = ["IMPLICIT_TUNING", "cell"]

BASE = "seedling:small"
MAX_NEW_TOKENS = 64
_TUNING = {"batch_size": 8, "learning_rate": 2e-4, "warmup_ratio": 0.1, "max_length": 256}


def cell(arm: Arm, seed: Seed, quick: bool, folder: Path) -> Measured:
    """Makes the model of `arm` under `seed` and scores it.

    Args:
        arm: ``data`` and ``blank`` say what it is tuned on, ``rules`` which rules it decodes with,
            ``penalty`` is a repetition penalty, ``form`` ``plain`` asks without tags with examples,
            ``tags`` are other tags, ``ranks`` measures response ranking too.
        seed: Draws the rows, their order, the questions and the random tokens of a control.
        quick: Fewer rows, steps and questions.
        folder: Holds the cell's models.

    Returns:
        One score per question: ``score``, ``score:SKILL``, ``ended`` (within the budget),
        ``restarts`` (a line opens with a user's tag), ``echoes``, ``tokens``; and ``ranking``,
        ``ranking_per_token``, one per ranked question, of the arms that measure it.
    """
    from tilth.evaluate.proxies import echoes, restarts
    from tilth.models import engine
    from tilth.replicate._implicit_parts import questions, ranked

    settings, ledger = dict(arm.settings), Ledger()
    reference = _model(settings, int(seed), quick, folder, ledger)
    with ledger.measure():
        model = engine(reference, ledger=ledger, batch_size=64)
        items = questions(seed, 1 if quick else 6)
        said = _asked(model, items, settings, seed)
        scores: dict[str, list[float]] = {"score": []}
        for item, completion in zip(items, said, strict=True):
            score = float(SKILLS[item.skill].verify(item, completion.text))
            scores["score"].append(score)
            scores.setdefault(f"score:{item.skill}", []).append(score)
        scores["ended"] = [float(c.finish == "stop") for c in said]
        scores["restarts"] = [float(restarts(c.text)) for c in said]
        scores["echoes"] = [float(echoes(c.text)) for c in said]
        scores["tokens"] = [float(c.new_tokens) for c in said]
        if settings.get("ranks"):
            ranks = ranked(model, seed)
            scores["ranking"] = np.asarray(ranks["sum"], float).tolist()
            scores["ranking_per_token"] = np.asarray(ranks["mean"], float).tolist()
    return Measured(scores, ledger)


def _model(settings: dict[str, Any], seed: int, quick: bool, folder: Path, ledger: Ledger) -> str:
    """The reference of the arm's model; tunes it where it is tuned, and books what that cost."""
    from tilth.data import write_rows
    from tilth.replicate._implicit_parts import rule_file, training_rows
    from tilth.tune import ResponseOnly, SingleTask, Tags

    tags = settings.get("tags", "own" if settings.get("form") == "plain" else "joined")
    if "data" not in settings:
        made = Tags(model=BASE, tags=tags).to(folder / "base", seed=seed)
        if "rules" not in settings:
            return str(made.folder)
        path = rule_file(folder / "rules.yaml", settings["rules"], str(made.folder), seed)
        return f"rules:base={made.folder},rules={path}"
    steps = 4 if quick else 60
    rows = training_rows(settings["data"], 8 * steps, seed)
    write_rows(folder / "rows.jsonl", rows)
    method = ResponseOnly if settings.get("blank") else SingleTask
    tuned = method(
        model=BASE, data=str(folder / "rows.jsonl"), tags=tags, max_steps=steps, **_TUNING
    ).to(folder / "tuned", seed=seed)
    ledger.merge(Ledger.from_dict(tuned.manifest.cost))
    return str(tuned.folder)


def _asked(model: Any, items: list[Any], settings: dict[str, Any], seed: Seed) -> list[Any]:
    """One answer per question, in the arm's form."""
    from tilth.almanac.exams import shots
    from tilth.evaluate._asking import Question, ask
    from tilth.models import Sampling
    from tilth.replicate._implicit_parts import penalised

    turns = [[{"role": "user", "content": item.prompt}] for item in items]
    if "penalty" in settings:
        return penalised(model, turns, MAX_NEW_TOKENS, settings["penalty"])
    sampling = Sampling(MAX_NEW_TOKENS)
    if settings.get("form") != "plain":
        return ask(model, [Question(turn) for turn in turns], "chat", sampling)  # type: ignore[arg-type]
    asked = []
    for item, turn in zip(items, turns, strict=True):
        examples = shots(item.skill, item.level, 2, seed.derive("shots"))
        worked = tuple((e.prompt, e.worked or e.answer) for e in examples)
        asked.append(Question(turn, worked))  # type: ignore[arg-type]
    return ask(model, asked, "plain", sampling)


_ALL = ("eos", "bias", "seen")


def _arm(name: str, what: str, role: Any = "method", **settings: Any) -> Arm:
    return Arm(name, what, role, settings)


_ARMS = (
    _arm("base", "The base in the tags of all arms.", "baseline", ranks=True),
    _arm("base-shots", "The base in plain text with two worked examples.", "baseline",
         form="plain"),
    _arm("instruction", "Tuned on instructions with responses of all families.", "baseline",
         data="all", ranks=True),
    _arm("response", "The same rows, instructions blank.", data="all", blank=True, ranks=True),
    _arm("response-others", "Responses of the six families that are not judged; blank prompts.",
         data="others-left-out", blank=True),
    _arm("response-letters", "Response tuning with tags that mean nothing, <|A|> and <|B|>.",
         "baseline", data="all", blank=True, tags="letters"),
    _arm("word-problems", "Tuned on word problems alone.", data="word_problems"),
    _arm("lists", "Tuned on list work alone.", data="lists"),
    _arm("second-language", "Tuned on translation alone.", data="second_language"),
    _arm("field-plan", "Tuned on a task whose answers all begin alike.", "control",
         data="field_plan"),
    _arm("shuffled", "The rows of instruction tuning, each with another row's instruction.",
         "control", data="shuffled"),
    _arm("rules", "The base with all three rules; no tuning.", rules=_ALL),
    _arm("rules-no-eos", "Without the end ramp.", "baseline", rules=("bias", "seen")),
    _arm("rules-no-bias", "Without the token bias.", "baseline", rules=("eos", "seen")),
    _arm("rules-no-seen", "Without the used-token penalty.", "baseline", rules=("eos", "bias")),
    _arm("rules-random", "Fifteen random tokens in the place of the chosen ones.", "control",
         rules=("eos", "random", "seen")),
    _arm("penalty", "The base with a repetition penalty of 1.3 and a cap; no rules.", "control",
         penalty=1.3),
)  # fmt: skip

_RATE = "win rate in % against the instruction-tuned Llama-2-7B"


def _claim(statement: str, direction: Any, published: str = "none") -> Claim:
    source = "our own control" if published == "none" else "arXiv:2409.14254v1, tables 1 to 5"
    if "%" in published and not published.startswith(_RATE):
        source = "arXiv:2409.14254v1, response ranking"
    return Claim("implicit-tuning", statement, direction, published, source)


_CLAIMS = (
    _claim("Response tuning follows instructions better than the base.",
           Greater("response", "base"), f"{_RATE}: 43.3 ± 1.1 against 2.4 ± 0.14"),
    _claim("With tags that mean nothing, response tuning still beats the base in tags that do.",
           Greater("response-letters", "base"), f"{_RATE}: 41.8 ± 0.84 against 2.4 ± 0.14"),
    _claim("Instruction tuning is better than response tuning.",
           Greater("instruction", "response"), f"{_RATE}: 43.3 ± 1.1, where 50 is equal"),
    _claim("Responses of other families alone make the base follow instructions.",
           Greater("response-others", "base")),
    _claim("Tuning on word problems alone beats the base on other families.",
           Greater("word-problems", "base"), f"{_RATE}: GSM8K 23.7 ± 0.74 against 2.4 ± 0.14"),
    _claim("Tuning on lists alone beats the base on other families.",
           Greater("lists", "base"), f"{_RATE}: MBPP 16.9 ± 0.70 against 2.4 ± 0.14"),
    _claim("Tuning on translation alone beats the base on other families.",
           Greater("second-language", "base"), f"{_RATE}: poetry 22.9 ± 0.97 against 2.4 ± 0.14"),
    _claim("A task whose answers all begin alike does not transfer: no better than the base.",
           Greater("base", "field-plan", by=-0.05), f"{_RATE}: chess 2.1 ± 0.36, base 2.4 ± 0.14"),
    _claim("The rule adapter beats the base.",
           Greater("rules", "base"), f"{_RATE}: 24.4 ± 0.40 against 2.4 ± 0.14"),
    _claim("Response tuning beats the rule adapter.",
           Greater("response", "rules"), f"{_RATE}: 43.3 ± 1.1 against 24.4 ± 0.40"),
    _claim("Without the end ramp the rules lose.",
           Greater("rules", "rules-no-eos"), f"{_RATE}: 24.4 ± 0.40 against 10.4 ± 0.30"),
    _claim("Without the token bias the rules lose.",
           Greater("rules", "rules-no-bias"), f"{_RATE}: 24.4 ± 0.40 against 16.3 ± 0.25"),
    _claim("Without the used-token penalty the rules lose.",
           Greater("rules", "rules-no-seen"), f"{_RATE}: 24.4 ± 0.40 against 14.3 ± 0.58"),
    _claim("The chosen tokens beat as many random ones.", Greater("rules", "rules-random")),
    _claim("The rules beat a repetition penalty with a cap.", Greater("rules", "penalty")),
    _claim("Instruction tuning needs the pairs: shuffled instructions lose.",
           Greater("instruction", "shuffled")),
    _claim("The base ranks responses within ten points of the instruction-tuned model.",
           Within("base", "instruction", 0.1, "ranking"),
           "80.4 % base, 77.4 % tuned (Llama-2-7B); 74.5 % and 74.3 % (OLMo-7B)"),
    _claim("Response tuning teaches to end: more answers end than the base's.",
           Greater("response", "base", metric="ended")),
)  # fmt: skip

IMPLICIT_TUNING = Replication(
    system="implicit-tuning",
    title="Instruction Following without Instruction Tuning",
    source="Hewitt, Liu, Liang and Manning 2024, arXiv:2409.14254v1",
    method="tune.response_only, tune.single_task, decode rules, evaluate.ranking",
    recipe="recipes/implicit-tuning.yaml",
    arms=_ARMS,
    claims=_CLAIMS,
    cell=cell,
    plan=SeedPlan(
        tuning=(TuningSeed(1), TuningSeed(2)),
        testing=tuple(TestSeed(s) for s in (101, 102, 103, 104, 105)),
    ),
    not_measured=(
        "Judged win rates: the almanac scores exact answers instead.",
        "Models of billions of parameters, whose text holds instructions of every kind.",
        "Another base: all cells start from one seedling.",
    ),
    metrics={
        "score": "Share of exact answers, over four families.",
        "score:SKILL": "The same of one family.",
        "ended": "Share of answers that end within the budget.",
        "restarts": "Share of answers in which a line opens with a user's tag.",
        "echoes": "Share of answers in which a line opens with the assistant's tag.",
        "tokens": "Length of an answer in tokens.",
        "ranking": "Share of five random responses that are less likely than the right one.",
        "ranking_per_token": "The same by the mean over tokens.",
    },
)
