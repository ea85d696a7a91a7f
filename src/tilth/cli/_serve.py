"""``tilth serve``: an OpenAI-compatible server, and a page for two models side by side."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from importlib.util import find_spec
from typing import Annotated

import typer

from tilth.cli import _console as console
from tilth.errors import EngineError, MissingExtra

__all__ = ["add"]

_KEY = "TILTH_SERVE_KEY"


def add(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    example = "tilth serve seedling:teacher seedling:large"
    app.command(epilog=f"Example: {example}", rich_help_panel="Models")(serve)


def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Model references, composed ones too.")
    ],
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")
    ] = 8000,
    waiting: Annotated[int, typer.Option(help="Requests that may wait.")] = 16,
    new_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 1024,
    seconds: Annotated[float, typer.Option(help="Longest time for an answer.")] = 120.0,
    grace: Annotated[float, typer.Option(help="Seconds to finish answers when stopped.")] = 10.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Serve models over the OpenAI protocol, and a page to talk to two of them at once.

    It listens on loopback. On another address it wants a key in the environment variable
    TILTH_SERVE_KEY, which clients send as their API key.
    """
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise MissingExtra.of(package, "serve")
    from tilth.decode.serve import Limits
    from tilth.decode.serve.app import LOOPBACK

    key = os.environ.get(_KEY, "")
    inside = host in LOOPBACK
    if not inside and not key:
        raise EngineError(
            f"{host} can be reached from other machines, and there is no key",
            where="tilth serve --host",
            fix=f"set {_KEY}, or leave --host out to serve this machine alone",
        )
    limits = Limits(waiting=waiting, new_tokens=new_tokens, seconds=seconds, grace=grace)
    import uvicorn

    from tilth.decode.serve.app import application
    from tilth.decode.serve.shelf import Shelf

    listening = _bound(host, port)  # before models are loaded: a taken port is said at once
    shelf = Shelf(models, device)
    app = application(shelf, limits, key=key, hosts=LOOPBACK if inside else ("*",))
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=max(1, round(grace)),
    )
    server = uvicorn.Server(config)
    logging.getLogger("uvicorn.error").addFilter(_but_cancelled)
    name = f"[{host.strip('[]')}]" if ":" in host else host
    address = f"http://{name}:{listening.getsockname()[1]}"
    console.say(f"page {address}/   protocol {address}/v1   models {', '.join(shelf.names())}")
    # uvicorn raises the signal that stopped it once more at the end: here it has done its work.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server.run(sockets=[listening])
    finally:  # also after a second Ctrl-C, which leaves no time for the answers under way
        app.state.desk.leave()


def _bound(host: str, port: int) -> socket.socket:
    """A socket of that address, on which nobody listens yet."""
    bare = host.strip("[]")
    bound = socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((bare, port))
    except OSError as error:
        bound.close()
        raise EngineError(
            f"cannot listen there: {error.strerror}",
            where=f"tilth serve --host {host} --port {port}",
            fix="give another port, or --port 0 for any free one",
        ) from None
    return bound


def _but_cancelled(record: logging.LogRecord) -> bool:
    """False for what a second Ctrl-C cuts off: that it ends there is what was asked for."""
    error = record.exc_info[1] if record.exc_info else None
    written = record.getMessage().rstrip().endswith(asyncio.CancelledError.__name__)
    return not (isinstance(error, asyncio.CancelledError) or written)
