"""The desk: one thread that answers requests in turn, in front of it a queue of bounded length.

Models are not made for several threads at once, so one thread owns them. Pieces of an answer go
back to the event loop as they are written; whoever hangs up has the work on his answer stopped.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tilth.errors import TilthError

if TYPE_CHECKING:
    from tilth.decode._asked import Piece

__all__ = ["Busy", "Closed", "Desk", "Ticket"]


class Busy(Exception):
    """The queue is full."""


class Closed(Exception):
    """The server is stopping."""


@dataclass
class Ticket:
    """A request in the queue.

    Attributes:
        work: Gives the pieces; it is called and iterated in the desk's thread.
        loop: Where whoever waits for the pieces runs.
        pieces: Takes the pieces, then ``None`` at the end or an error.
        dropped: Set by whoever no longer wants the answer.
        timed_out: Whether the answer was ended by the limit of time.
    """

    work: Callable[[], Iterator[Piece]]
    loop: asyncio.AbstractEventLoop
    pieces: asyncio.Queue[Piece | Exception | None] = field(default_factory=asyncio.Queue)
    dropped: threading.Event = field(default_factory=threading.Event)
    timed_out: bool = False

    def hand_out(self, piece: Piece | Exception | None) -> None:
        """Gives a piece to whoever waits, unless the loop has ended meanwhile."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """The pieces as they come; leaving the iteration early stops the work.

        Raises:
            TilthError: What went wrong while the answer was written.
            Closed: The server stopped first.
        """
        try:
            while (piece := await self.pieces.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.dropped.set()


class Desk:
    """The thread and its queue.

    Args:
        waiting: Requests that may wait.
        seconds: Longest time for one request once it is its turn.
    """

    def __init__(self, waiting: int, seconds: float) -> None:
        self._seconds = seconds
        self._line: queue.Queue[Ticket | None] = queue.Queue(maxsize=waiting)
        self._open = True
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="desk", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue now."""
        return self._line.qsize()

    def ask(self, work: Callable[[], Iterator[Piece]]) -> Ticket:
        """Puts a request into the queue.

        Raises:
            Busy: The queue is full.
            Closed: The server is stopping.
        """
        if not self._open:
            raise Closed
        ticket = Ticket(work, asyncio.get_running_loop())
        try:
            self._line.put_nowait(ticket)
        except queue.Full:
            raise Busy from None
        return ticket

    def close(self, grace: float) -> bool:
        """Takes no more requests, ends what is under way within `grace` seconds.

        Returns:
            Whether the thread ended in time.
        """
        self._open = False
        while True:  # whoever still waits is told at once
            try:
                ticket = self._line.get_nowait()
            except queue.Empty:
                break
            if ticket is not None:
                ticket.hand_out(Closed())
        self._line.put(None)
        self._thread.join(grace)
        return not self._thread.is_alive()

    def leave(self, patience: float = 10.0) -> None:
        """Ends what is under way at its next token, and the thread with it.

        A process that ends while a thread of it computes is aborted.

        Args:
            patience: Seconds to wait for that token.
        """
        self._left.set()
        self.close(patience)

    def _serve(self) -> None:
        while (ticket := self._line.get()) is not None:
            if ticket.dropped.is_set() or self._left.is_set():
                continue
            try:
                self._answer(ticket)
                ticket.hand_out(None)
            except TilthError as error:
                ticket.hand_out(error)
            except Exception as error:  # the desk must survive whatever one answer meets
                ticket.hand_out(error)

    def _answer(self, ticket: Ticket) -> None:
        end = time.monotonic() + self._seconds
        pieces = ticket.work()
        for piece in pieces:
            ticket.hand_out(piece)
            if ticket.dropped.is_set() or self._left.is_set():
                break
            if time.monotonic() > end and not piece.finish:
                ticket.timed_out = True
                break
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
