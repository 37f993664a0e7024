"""Connections of clients that are slow, silent, broken or too many.

uvicorn's connection reads a request and writes its response; this one bounds what a client may take meanwhile: the
time of a request's head, the time in which a response is read, the rest of a body that nobody reads, and the number of
connections. A client that has closed its writing side still gets its answer, unless it turns out to be gone.
"""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from fullbake.serving.bodies import BROKEN_BODY

HEAD_SECONDS: Final = 10.0
"""Time in which the head of a request must have come, from its first byte, or from the connection; also the time for
the rest of a body after its answer."""

READ_SECONDS: Final = 20.0
"""Time in which a client must read LEAST_READ bytes of a response."""

LEAST_READ: Final = 65_536

_GOODBYE_SECONDS: Final = 1.0
"""Time in which what a refused client still sends is read and dropped. Closing at once would lose the refusal."""

_PROBE_SECONDS: Final = 0.1
"""Time until a client that closed its writing side is asked again whether it is still there; it doubles each time."""


class ConnectionBounds(ServerState):
    """The connections of one server.

    Args:
        most: How many there may be. Beyond, the one that has been idle for longest is closed for a new one; if none is
            idle, the new one is refused.
        on_refusal: Called with the status of what is refused before it is a request.
    """

    def __init__(self, most: int, on_refusal: Callable[[int], object] = lambda _: None) -> None:
        super().__init__()
        self.most, self.on_refusal = most, on_refusal
        self.peak = 0
        """Most connections at a time, since whoever reads it set it to 0."""

        self.idle: dict[BoundedConnection, None] = {}
        """Connections without a request, the one that has been so for longest first."""

    def make_room(self) -> bool:
        """Close the connection that has been idle for longest. Return False if there is none."""
        if not self.idle:
            return False
        oldest = next(iter(self.idle))
        del self.idle[oldest]
        self.connections.discard(oldest)
        oldest.close()
        return True


class BoundedConnection(H11Protocol):
    """A connection with bounds. Its `server_state` is a ConnectionBounds."""

    _timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None
    _unread: int = 0
    """Bytes of responses that waited when the time of the reader began."""

    _ended: bool = False
    """Whether the client closed its writing side."""

    _refused: bool = False
    """Whether what still comes is dropped."""

    def connection_made(self, transport: Any) -> None:
        """Start the time of the first request, or refuse the connection."""
        super().connection_made(transport)
        bounds = self._bounds
        bounds.peak = max(bounds.peak, len(self.connections))
        if len(self.connections) > bounds.most and not bounds.make_room():
            self._refuse(503, "unavailable", f"The server has {bounds.most:,} connections, and takes no more for now.")
            return
        bounds.idle[self] = None
        self._start()

    def data_received(self, data: bytes) -> None:
        """Take bytes. The time runs as long as a head is incomplete, or a body whose answer was given."""
        if self._refused:
            return
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.IDLE or (state is h11.SEND_BODY and self.cycle.response_complete):
            if not self.transport.is_closing():
                self._start()
        else:
            self._stop()
            self._bounds.idle.pop(self, None)

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn always closes, so it returns nothing
        """Take the end of what a client sends: return True to keep the connection until the answer is written.

        TLS has no half-closed connections; there a client that ends is gone.
        """
        if not self._is_waiting() or self.scheme != "http":
            return False
        self._ended = True
        if self.cycle.more_body:
            self._break_body("the client closed the connection before its end")
        self._probe(_PROBE_SECONDS)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop()
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None
        self._bounds.idle.pop(self, None)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Go on to the next request, and see that the client reads the response, and sends no endless body."""
        self._bounds.idle[self] = None
        super().on_response_complete()
        if self._is_waiting():  # a request that came behind this one
            self._bounds.idle.pop(self, None)
            return
        if self.transport.get_write_buffer_size():
            self._watch_reader()
        if self._ended:
            self.transport.close()
        elif self.conn.their_state is h11.SEND_BODY:
            self._start()

    def pause_writing(self) -> None:
        """Start the time in which the client must read."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """End that time: nearly all was read."""
        super().resume_writing()
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long."""
        self.close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's words say nothing)
        """Refuse what is no HTTP: a head at once; of a body the request hears, in the shape of its dialect."""
        error = sys.exception()
        if self._is_waiting():
            if self.cycle.response_started:
                self.transport.abort()
                return
            self._break_body(_without_input(error))
        elif self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            status = getattr(error, "error_status_hint", 400)
            what = "its head is too large" if status == 431 else _without_input(error)
            self._refuse(status, "invalid", f"This is no request that is read here: {what}.")
        else:  # the answer was given already
            self.close()

    def close(self) -> None:
        """Close the connection. What the client did not read until now is dropped."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.close()

    @property
    def _bounds(self) -> ConnectionBounds:
        return cast(ConnectionBounds, self.server_state)

    def _is_waiting(self) -> bool:
        """Return True if a request waits for its answer."""
        return self.cycle is not None and not self.cycle.response_complete

    def _break_body(self, what: str) -> None:
        """End the body of the request that waits, and tell whoever reads it what is wrong."""
        self.scope.setdefault("state", {})[BROKEN_BODY] = what
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def _start(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._time_is_up)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_up(self) -> None:
        self._timer = None
        self.close()

    def _refuse(self, status: int, kind: str, message: str) -> None:
        """Answer without a request, in the shape of fullbake's own protocol, and drop what still comes."""
        self._refused = True
        self._stop()
        self._bounds.idle.pop(self, None)
        self._bounds.on_refusal(status)
        body = json.dumps({"error": {"kind": kind, "message": message}}).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n" + ("retry-after: 1\r\n" if status == 503 else "")
        )
        self.transport.write(head.encode() + b"\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(_GOODBYE_SECONDS, self._time_is_up)

    def _watch_reader(self) -> None:
        if self._reader_timer is None:
            self._unread = self._count_unread()
            self._reader_timer = self.loop.call_later(READ_SECONDS, self._check_reader)

    def _count_unread(self) -> int:
        """Return how many bytes the client has not taken: those that wait here, and in the system where it tells."""
        waiting = self.transport.get_write_buffer_size()
        wire = self.transport.get_extra_info("socket")
        if wire is None or sys.platform != "linux":
            return waiting
        import fcntl
        import termios

        held = fcntl.ioctl(wire.fileno(), termios.TIOCOUTQ, bytes(4))
        return waiting + int.from_bytes(held, sys.byteorder)

    def _check_reader(self) -> None:
        """Cut off a client that reads nearly nothing."""
        self._reader_timer = None
        left = self._count_unread()
        if left > max(0, self._unread - LEAST_READ):
            self.transport.abort()
        elif left:
            self._watch_reader()

    def _probe(self, pause: float) -> None:
        """Find out whether a client that closed its writing side is still there.

        Both look alike until something is sent to it: 100 Continue, which any client leaves out of account. If it is
        gone, its system answers with a reset.
        """
        if not self._is_waiting() or self.transport.is_closing():
            return
        wire = self.transport.get_extra_info("socket")
        if wire is not None and wire.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        if not self.cycle.response_started and self.conn.their_http_version != b"1.0":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.loop.call_later(pause, self._probe, 2 * pause)


def _without_input(error: BaseException | None) -> str:
    """Return what h11 says of a client's bytes, without the bytes."""
    return str(error).partition(": bytearray")[0]


def raise_open_files(wanted: int) -> int:
    """Raise the number of files that this process may have open, as far as it may. Return that number.

    Args:
        wanted: How many are needed.
    """
    if os.name == "nt":
        return wanted
    import resource

    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    if now == resource.RLIM_INFINITY or now >= wanted:
        return wanted if now == resource.RLIM_INFINITY else now
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return wanted
