"""Requests that are tried again: what the endpoint engine knows about the network.

Rate limits (429), server errors (5xx), timeouts, dropped connections and answers that are not JSON
are tried again after a wait that doubles, with jitter, and is never shorter than the server's
``Retry-After``. What another try cannot heal is said at once: a refused key or an unknown address
ends the work, a refused row (400, 413, 422) ends only that row.

The key comes from the environment alone. It stands in a request's header and nowhere else: text of
the server that goes into an error is stripped of it first.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from tilth.errors import EngineError

__all__ = ["KEYS", "Caller", "RowFailed"]

KEYS = ("TILTH_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key; the first that is set counts."""

_LONGEST_WAIT = 120.0


class RowFailed(Exception):
    """One row has no answer; the others go on."""


@dataclass
class Caller:
    """Posts JSON to one server.

    Attributes:
        url: The address that paths are appended to.
        retries: How often a failed request is tried again.
        timeout: Seconds for one try.
        first_wait: Seconds before the first new try.
        booked: Called before every request, for the ledger.
    """

    url: str
    retries: int
    timeout: float
    first_wait: float
    booked: Callable[[], None]
    reached: bool = False

    def client(self) -> httpx.AsyncClient:
        """A connection pool that carries the key, if there is one."""
        key = self._key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(headers=headers, timeout=self.timeout, limits=limits)

    async def post(
        self, client: httpx.AsyncClient, path: str, payload: dict[str, Any], rng: random.Random
    ) -> dict[str, Any]:
        """The JSON object that the server answers.

        Raises:
            RowFailed: The row was refused, or every try failed.
            EngineError: No request to this server can succeed.
        """
        problem = ""
        for attempt in range(self.retries + 1):
            self.booked()
            asked_to_wait = 0.0
            try:
                response = await client.post(f"{self.url}/{path}", json=payload)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                problem = f"{type(error).__name__}: {error}".rstrip(": ")
            else:
                self.reached = True
                if response.status_code == 200:
                    answer = _json_object(response)
                    if answer is not None:
                        return answer
                    problem = "the answer is not a JSON object"
                else:
                    problem = self._refusal(response, path)
                    asked_to_wait = _retry_after(response)
            if attempt < self.retries:
                backoff = self.first_wait * 2**attempt * rng.uniform(0.5, 1.5)
                await asyncio.sleep(min(_LONGEST_WAIT, max(backoff, asked_to_wait)))
        problem = self._clean(f"{problem}, {self.retries + 1} tries")
        if not self.reached:
            raise EngineError(
                f"the endpoint does not answer: {problem}",
                where=self.url,
                fix="check the address, and that the server is running",
            )
        raise RowFailed(problem)

    def _refusal(self, response: httpx.Response, path: str) -> str:
        """What a status other than 200 means; raises where another try cannot help."""
        status = response.status_code
        if status in (401, 403):
            # The server's own text is left out: some repeat the key that they refuse.
            raise EngineError(
                f"the endpoint refuses access ({status})",
                where=self.url,
                fix=f"put the right key into the environment variable {' or '.join(KEYS)}",
            )
        text = self._clean(" ".join(response.text.split())[:300])
        if status in (404, 405) or 300 <= status < 400:
            raise EngineError(
                f"the endpoint has no {path} for this model ({status}): {text}",
                where=self.url,
                fix="check the model's name and that the address ends like .../v1",
            )
        if status in (408, 409, 425, 429) or status >= 500:
            return f"status {status}: {text}"
        raise RowFailed(f"status {status}: {text}")

    def _key(self) -> str:
        return next((os.environ[name] for name in KEYS if os.environ.get(name)), "")

    def _clean(self, text: str) -> str:
        for name in KEYS:
            if os.environ.get(name):
                text = text.replace(os.environ[name], "[key]")
        return text


def _json_object(response: httpx.Response) -> dict[str, Any] | None:
    try:
        answer = response.json()
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks to wait: a number, or a date."""
    value = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
