"""A teacher behind a real OpenAI-compatible endpoint on this machine, with scripted answers."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["serve", "teach"]

_VERBS = ["Name", "Sort", "Count", "Praise", "Compare", "Explain", "Plan", "Describe"]
_THINGS = ["apples", "ploughs", "rivers", "millers", "winters", "fences", "seeds", "barns", "cows"]
_REASONS = ["briefly", "for a child", "in rhyme", "with care", "by age", "at dawn", "in order"]


def teach(prompt: str, seed: int) -> str:
    """What the scripted teacher says: lists of tasks with flaws in them, then instances."""
    if "Continue the series" in prompt:
        return "\n".join(f"{9 + n}. {_task(f'{seed}/{n}')}" for n in range(8))
    if prompt.rstrip().endswith("Classification:"):
        return "yes" if "Compare" in prompt.rsplit("Task:", 1)[1] else "no"
    task = prompt.split("\n", 1)[0].removeprefix("Task: ")
    if "small set of possible outputs" in prompt:
        return f"Output: good\nInput: {task} one\nOutput: bad\nInput: {task} two"
    if task.startswith("Praise"):
        return "Input: none\nOutput:"
    return f"Input: none\nOutput: That is done: {task[5:]}."


def _task(name: str) -> str:
    """A task drawn by a hash: every eighth one breaks a rule."""
    digest = hashlib.sha256(name.encode()).digest()
    verb, thing, reason, more = (d % n for d, n in zip(digest, (8, 9, 7, 9), strict=False))
    flaws = {0: "Too short.", 1: "Draw a picture of a barn with {}.", 2: "- what about {} then?"}
    flaw = flaws.get(digest[9] % 24)
    if flaw:
        return flaw.format(_THINGS[thing])
    return f"{_VERBS[verb]} the {_THINGS[thing]} and {_THINGS[more]} {_REASONS[reason]}."


@contextmanager
def serve(say: Callable[[str, int], str] = teach) -> Iterator[str]:
    """Serves ``say(last user turn, seed)`` and gives the model reference."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = say(asked["messages"][-1]["content"], int(asked.get("seed") or 0))
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
            usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
            body = json.dumps({"choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Keeps the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"openai:scripted@http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
