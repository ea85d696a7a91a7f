"""Real questions for the check of selection without training: who finds GSM8K among other tests?

The pool is made of extracts of GSM8K's training part, BIG-Bench Hard and MMLU, which are no part of
this package: they are looked for in ``../shared/data/tulu`` beside the checkout. The queries are
the eight worked examples that everybody prompts GSM8K with.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tilth.data import Example
from tilth.errors import DataError
from tilth.seeds import stream

__all__ = ["DATA", "exemplars", "real_pool"]

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "tulu"

_EXEMPLARS = (
    (
        "There are 15 trees in the grove. Grove workers will plant trees in the grove today. "
        "After they are done, there will be 21 trees. How many trees did the grove workers "
        "plant today?",
        "There are 15 trees originally. Then there were 21 trees after some more were "
        "planted. So there must have been 21 - 15 = 6. The answer is 6.",
    ),
    (
        "If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in "
        "the parking lot?",
        "There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The answer is 5.",
    ),
    (
        "Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do "
        "they have left in total?",
        "Originally, Leah had 32 chocolates. Her sister had 42. So in total they had 32 + 42 "
        "= 74. After eating 35, they had 74 - 35 = 39. The answer is 39.",
    ),
    (
        "Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. "
        "How many lollipops did Jason give to Denny?",
        "Jason started with 20 lollipops. Then he had 12 after giving some to Denny. So he "
        "gave Denny 20 - 12 = 8. The answer is 8.",
    ),
    (
        "Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How "
        "many toys does he have now?",
        "Shawn started with 5 toys. If he got 2 toys each from his mom and dad, then that is "
        "4 more toys. 5 + 4 = 9. The answer is 9.",
    ),
    (
        "There were nine computers in the server room. Five more computers were installed "
        "each day, from monday to thursday. How many computers are now in the server room?",
        "There were originally 9 computers. For each of 4 days, 5 more computers were added. "
        "So 5 * 4 = 20 computers were added. 9 + 20 is 29. The answer is 29.",
    ),
    (
        "Michael had 58 golf balls. On tuesday, he lost 23 golf balls. On wednesday, he lost "
        "2 more. How many golf balls did he have at the end of wednesday?",
        "Michael started with 58 golf balls. After losing 23 on tuesday, he had 58 - 23 = 35."
        " After losing 2 more, he had 35 - 2 = 33 golf balls. The answer is 33.",
    ),
    (
        "Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
        "Olivia had 23 dollars. 5 bagels for 3 dollars each will be 5 x 3 = 15 dollars. So "
        "she has 23 - 15 dollars left. 23 - 15 is 8. The answer is 8.",
    ),
)


def exemplars() -> list[Example]:
    """The eight worked examples of Wei et al. 2022 (arXiv:2201.11903, appendix G)."""
    return [Example.pair(question, answer, task="gsm8k") for question, answer in _EXEMPLARS]


def real_pool(gsm8k: int, bbh: int, mmlu: int, seed: int, data: Path = DATA) -> list[Example]:
    """Rows of GSM8K among rows of BIG-Bench Hard and MMLU, in random order.

    ``meta["source"]`` says where a row comes from.

    Args:
        gsm8k: Rows of GSM8K's training part; of each at most what the extract has.
        bbh: Rows of BIG-Bench Hard.
        mmlu: Rows of MMLU.
        seed: Names the draw.
        data: The folder of the extracts.

    Raises:
        DataError: The extracts are not there.
    """
    if not data.is_dir():
        raise DataError(
            "the extracts of GSM8K, BIG-Bench Hard and MMLU are not here",
            where=str(data),
            fix="put gsm8k_train_2000, bbh_all and mmlu_dev_full_test_30_per_subject there",
        )
    parts = (
        ("gsm8k", list(_gsm8k(data)), gsm8k),
        ("bbh", list(_bbh(data)), bbh),
        ("mmlu", list(_mmlu(data)), mmlu),
    )
    rows = [
        row
        for name, found, count in parts
        for row in (found[i] for i in stream(seed, name).permutation(len(found))[:count])
    ]
    return [rows[i] for i in stream(seed, "order").permutation(len(rows))]


def _gsm8k(data: Path) -> Iterator[Example]:
    for row in _lines(data / "gsm8k_train_2000.jsonl.xz"):
        yield Example.pair(row["question"], row["answer"], source="gsm8k")


def _bbh(data: Path) -> Iterator[Example]:
    for row in _lines(data / "bbh_all.jsonl.xz"):
        if "input" in row:  # the first line is a canary
            yield Example.pair(row["input"], row["target"], source="bbh")


def _mmlu(data: Path) -> Iterator[Example]:
    for row in _lines(data / "mmlu_dev_full_test_30_per_subject.jsonl.xz"):
        choices = [f"{letter}. {text}" for letter, text in zip("ABCD", row["choices"], strict=True)]
        answer = choices["ABCD".index(row["answer"])]
        yield Example.pair("\n".join([row["question"], *choices]), answer, source="mmlu")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
