"""The answer cache: what makes an engine resumable.

One JSON line per answer, appended as soon as it is there. The key is a hash of all that the answer
depends on: the model's content, the text asked, the sampling, the row's seed. A line that a kill
tore off is left out on the next start. Answers that failed are not kept, so that they are tried
again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tilth.errors import EngineError
from tilth.models.engine import Completion, NextTokens, Sampling, Score

__all__ = ["AnswerCache"]

Answer = Completion | Score | NextTokens


class AnswerCache:
    """Answers on disk by the content of their question.

    Args:
        path: The JSONL file, made with its folder where it is missing; None keeps nothing.
        model: Digest of the model, part of every key.

    Example:
        >>> cache = AnswerCache(None, "model")
        >>> cache.get(cache.key("complete", "2 + 2 =", Sampling(), seed=0)) is None
        True
    """

    def __init__(self, path: Path | str | None, model: str) -> None:
        self._model = model
        self._file: int | None = None
        self._known: dict[str, Answer] = {}
        if path is None:
            return
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise EngineError(
                f"the answer cache cannot be written: {error.strerror}",
                where=str(path),
                fix="choose a folder that can be written to",
            ) from error
        self._read(path)

    def _read(self, path: Path) -> None:
        content = path.read_bytes()
        for line in content.splitlines():
            try:
                row = json.loads(line)
                self._known[row["key"]] = _answer(row["answer"])
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill: the answer is simply asked for again
        if content and not content.endswith(b"\n"):
            self._write(b"\n")  # the next answer must not join the torn line

    def __len__(self) -> int:
        return len(self._known)

    def key(self, form: str, asked: Any, sampling: Sampling | None = None, seed: int = 0) -> str:
        """The key of a question; greedy answers do not depend on the seed."""
        greedy = sampling is None or sampling.temperature == 0
        whole = {
            "model": self._model,
            "form": form,
            "asked": asked,
            "sampling": sampling.as_dict() if sampling else None,
            "seed": None if greedy else seed,
        }
        text = json.dumps(whole, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def get(self, key: str) -> Any:
        """The answer of that key, or None."""
        return self._known.get(key)

    def put(self, key: str, answer: Answer) -> None:
        """Keeps an answer; one that failed is not kept.

        Raises:
            EngineError: The disk is full.
        """
        self.put_all([(key, answer)])

    def put_all(self, answers: Iterable[tuple[str, Answer]]) -> None:
        """Keeps several answers in one write, so that a kill keeps all of them or none."""
        if self._file is None:
            return
        lines = b""
        for key, answer in answers:
            if isinstance(answer, Completion) and answer.finish == "error":
                continue
            self._known[key] = answer
            row = {"key": key, "answer": dataclasses.asdict(answer)}
            lines += json.dumps(row).encode() + b"\n"
        self._write(lines)

    def _write(self, line: bytes) -> None:
        if self._file is None:
            return
        try:
            os.write(self._file, line)
        except OSError as error:
            raise EngineError(
                f"the answer cache cannot be written: {error.strerror}", fix="free some disk space"
            ) from error

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]
            self._file = None


def _answer(fields: dict[str, Any]) -> Answer:
    if "logprobs" in fields:
        return NextTokens(tuple(fields["logprobs"]))
    return Score(**fields) if "logprob" in fields else Completion(**fields)
