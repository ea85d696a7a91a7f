"""The server as an ASGI application."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tilth.decode.serve.answers import DONE, Letter, event
from tilth.decode.serve.desk import Busy, Closed, Desk, Ticket
from tilth.decode.serve.limits import Limits
from tilth.decode.serve.requests import ChatRequest, Refusal, TextRequest, read_request
from tilth.decode.serve.shelf import Shelf
from tilth.errors import TilthError
from tilth.seeds import derive

if TYPE_CHECKING:
    from tilth.decode._asked import Piece

__all__ = ["LOOPBACK", "application"]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")

_PAGE = "page.html"


def application(
    shelf: Shelf, limits: Limits = Limits(), *, key: str = "", hosts: Sequence[str] = LOOPBACK
) -> Starlette:
    """The server.

    Args:
        shelf: The models.
        limits: How much it takes on.
        key: What clients must send as ``Authorization: Bearer KEY``; empty for none.
        hosts: Names under which it may be asked, against pages that rebind their name to this
            machine; ``("*",)`` for any.
    """
    server = _Server(shelf, limits, key)
    app = Starlette(
        routes=[
            Route("/", server.page),
            Route("/health", server.health),
            Route("/v1/models", server.models),
            Route("/v1/models/{name:path}", server.model),
            Route("/v1/chat/completions", server.chat, methods=["POST"]),
            Route("/v1/completions", server.text, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={Refusal: _refused, 404: _unknown, 405: _unknown},
        lifespan=server.lifespan,
    )
    app.state.desk = server.desk
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    headers = {"Retry-After": "1"} if error.status == 429 else None
    return JSONResponse(error.body(), error.status, headers=headers)


async def _unknown(request: Request, error: Exception) -> Response:
    status = int(getattr(error, "status_code", 404))
    refusal = Refusal(status, f"{request.method} {request.url.path} is not offered")
    return JSONResponse(refusal.body(), status)


class _Server:
    def __init__(self, shelf: Shelf, limits: Limits, key: str) -> None:
        self.shelf, self.limits, self.key = shelf, limits, key
        self.desk = Desk(limits.waiting, limits.seconds)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self.desk.close, self.limits.grace)

    async def page(self, request: Request) -> Response:
        html = (files("tilth.decode.serve") / _PAGE).read_text("utf-8")
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        policy += "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "waiting": self.desk.waiting})

    async def models(self, request: Request) -> Response:
        self._admit(request)
        offered = [self._card(name) for name in self.shelf.names()]
        return JSONResponse({"object": "list", "data": offered})

    async def model(self, request: Request) -> Response:
        self._admit(request)
        name = request.path_params["name"]
        self.shelf.find(name)
        return JSONResponse(self._card(name))

    def _card(self, name: str) -> dict[str, object]:
        weight = self.shelf.weight(name)
        return {"id": name, "object": "model", "created": 0, "owned_by": "tilth", "weight": weight}

    async def chat(self, request: Request) -> Response:
        asked = read_request(ChatRequest, await self._body(request))
        self.shelf.find(asked.model, asked.weight)
        sampling, turns = asked.sampling(self.limits), asked.conversation()
        letter = Letter("chat", asked.model, asked.n, asked.logprobs)
        top = asked.top_logprobs if asked.logprobs else 0

        def work() -> Iterator[Piece]:
            engine = self.shelf.engine(asked.model, asked.weight)
            letter.address(engine, [engine.ensemble.prompts(turns)])
            seeds = _seeds(asked.seed, asked.n)
            yield from engine.stream([turns] * asked.n, sampling, seeds, top=top)

        return await self._answer(request, letter, work, asked)

    async def text(self, request: Request) -> Response:
        asked = read_request(TextRequest, await self._body(request))
        self.shelf.find(asked.model, asked.weight)
        sampling = asked.sampling(self.limits)
        texts = [text for text in asked.texts() for _ in range(asked.n)]
        if not 0 < len(texts) <= self.limits.choices:
            raise Refusal(400, f"from 1 to {self.limits.choices} texts at once", "prompt")
        letter = Letter("text", asked.model, len(texts), asked.logprobs is not None)

        def work() -> Iterator[Piece]:
            engine = self.shelf.engine(asked.model, asked.weight)
            letter.address(engine, [engine.ensemble.texts(text) for text in asked.texts()])
            seeds = _seeds(asked.seed, len(texts))
            yield from engine.stream_text(texts, sampling, seeds, top=asked.logprobs or 0)

        return await self._answer(request, letter, work, asked)

    def _admit(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.key and not hmac.compare_digest(given.encode(), self.key.encode()):
            raise Refusal(401, "the key is missing or wrong", code="invalid_api_key")

    async def _body(self, request: Request) -> bytes:
        """The body, within its bound; only JSON, so that a foreign page cannot post a form."""
        self._admit(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind != "application/json":
            raise Refusal(415, "send application/json", code="content_type")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.limits.body_bytes:
                raise Refusal(413, f"the body has more than {self.limits.body_bytes} bytes")
        return bytes(body)

    async def _answer(
        self,
        request: Request,
        letter: Letter,
        work: Callable[[], Iterator[Piece]],
        asked: ChatRequest | TextRequest,
    ) -> Response:
        try:
            ticket = self.desk.ask(work)
        except Busy:
            raise Refusal(429, "too many requests wait; try again", code="busy") from None
        except Closed:
            raise _refusal(Closed()) from None
        if asked.stream:
            # The first piece decides whether this can be answered at all, and with what status.
            pieces = aiter(ticket)
            first = await _first(pieces)
            parts = _events(letter, ticket, first, pieces, _usage(asked))
            return StreamingResponse(parts, media_type="text/event-stream")
        try:
            async for piece in ticket:
                letter.take(piece)
                if await request.is_disconnected():
                    break
        except Exception as error:
            raise _refusal(error) from error
        finally:
            ticket.dropped.set()
        return JSONResponse(letter.whole())


async def _first(pieces: AsyncIterator[Piece]) -> Piece | None:
    try:
        return await anext(pieces)
    except StopAsyncIteration:
        return None
    except Exception as error:
        raise _refusal(error) from error


async def _events(
    letter: Letter,
    ticket: Ticket,
    first: Piece | None,
    pieces: AsyncIterator[Piece],
    usage: bool,
) -> AsyncIterator[bytes]:
    for opening in letter.openings():
        yield event(opening)
    try:
        piece = first
        while piece is not None:
            if (chunk := letter.chunk(piece, letter.take(piece))) is not None:
                yield event(chunk)
            piece = await anext(pieces, None)
    except Exception as error:
        yield event(_refusal(error).body())
        return
    finally:
        ticket.dropped.set()
    if ticket.timed_out:
        for end in letter.cut():
            yield event(end)
    if usage:
        yield event(letter.last())
    yield DONE


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, Closed):
        return Refusal(503, "the server is stopping", code="stopping")
    if isinstance(error, TilthError):
        return Refusal(400, " ".join(str(error).split()))
    return Refusal(500, f"{type(error).__name__}: {error}")


def _usage(asked: ChatRequest | TextRequest) -> bool:
    return asked.stream_options is not None and asked.stream_options.include_usage


def _seeds(seed: int | None, rows: int) -> list[int]:
    """A seed per answer; without one of the client's every request draws anew."""
    import secrets

    root = secrets.randbits(62) if seed is None else seed
    return [derive(root, "answer", row) for row in range(rows)]
