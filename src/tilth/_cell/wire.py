"""Messages between tilth and the warden: a length and a JSON object."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

__all__ = ["receive", "send"]


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Writes one message."""
    body = json.dumps(message).encode()
    connection.sendall(struct.pack(">I", len(body)) + body)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Reads one message; None where the other end is closed."""
    head = connection.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        return None
    size = struct.unpack(">I", head)[0]
    body = connection.recv(size, socket.MSG_WAITALL)
    return dict(json.loads(body)) if len(body) == size else None
