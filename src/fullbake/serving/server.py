"""Run a server: bind, load, serve, and stop without losing a request."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import State

from fullbake.core.console import warn
from fullbake.core.errors import OutputError
from fullbake.serving.certificate import Certificate
from fullbake.serving.connections import BoundedConnection, ConnectionBounds, raise_open_files
from fullbake.serving.memory import MANY_CONNECTIONS, limit_arenas, trim_memory
from fullbake.serving.service import Service

_KEEP_ALIVE: Final = 30
"""Seconds for which a connection without a request stays open."""

_MOST_HEAD_BYTES: Final = 32_768
_BACKLOG: Final = 1_024
"""Connections that the system holds until they are accepted; in one turn as many are accepted, beyond the bound too."""

_TURNS: Final = 3
"""Turns of the event loop until a connection that makes room is closed."""

_LOOK_TICKS: Final = 50
"""Tenths of a second between looks at what changes seldom."""

_TRIMS: Final = 4
"""Looks at which memory is given back after a storm: what its last requests held is free only later."""

_OTHER_FILES: Final = 128
"""Files that a process has open beside its connections."""

MOST_CONNECTIONS: Final = 10_000
"""Connections at a time, unless another number is given."""


@dataclass(frozen=True)
class Address:
    """Where a server listens, and with which certificate."""

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    """PEM file of the certificate, for TLS."""

    key: Path | None = None

    @property
    def is_local(self) -> bool:
        """True if only this machine reaches it."""
        return self.host in ("127.0.0.1", "localhost", "::1")


def serve(
    app: Starlette,
    service: Service,
    address: Address,
    *,
    grace: float = 30.0,
    connections: int = MOST_CONNECTIONS,
    on_ready: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    The socket is open before the models are loaded; until then requests are answered with 503. After the first signal
    new requests are answered with 503 and accepted ones are finished; a second signal stops at once.

    Args:
        app: As `app.build_app` makes it.
        service: Its models, not yet loaded.
        address: Where to listen.
        grace: Seconds that accepted requests have after the first signal.
        connections: Most connections at a time; fewer where the process may not have so many files open.
        on_ready: Called with the server's URL once all models answer.

    Raises:
        OutputError: The address is taken or cannot be used.
        RecipeError: The certificate cannot be used.
        Error: A bundle cannot be loaded.
    """
    certificate = None if address.certificate is None else Certificate(address.certificate, address.key)
    limit_arenas()
    most, backlog = _affordable(connections)
    with contextlib.closing(listen(address)) as listener:
        config = uvicorn.Config(
            app,
            http=BoundedConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
            log_level="error",  # what else it says of a client's faults is counted, see `Metrics.count_refusal`
            backlog=backlog,
            ssl_context_factory=None if certificate is None else lambda *_: certificate.context,
        )
        bounds = ConnectionBounds(most, app.state.metrics.count_refusal)
        app.state.metrics.connections.set_function(lambda: len(bounds.connections))
        server = _Server(config, bounds, service, grace, lambda: on_ready(_url(address, listener)))
        server.state = app.state
        server.certificate = certificate
        asyncio.run(server.run_until_stopped(listener))


class _Server(uvicorn.Server):
    """uvicorn's server, which loads the models beside its start, and drains before it closes."""

    def __init__(
        self,
        config: uvicorn.Config,
        bounds: ConnectionBounds,
        service: Service,
        grace: float,
        on_ready: Callable[[], object],
    ) -> None:
        super().__init__(config)
        self.server_state = self._bounds = bounds
        self._service, self._grace, self._on_ready = service, grace, on_ready
        self._ending: asyncio.Task[None] | None = None
        self.certificate: Certificate | None = None
        self._trims = 0
        self.state = State({"large_bodies": 0})

    async def run_until_stopped(self, listener: socket.socket) -> None:
        """Serve on a socket until a signal, or until a bundle cannot be loaded."""
        loading = asyncio.create_task(self._load())
        await self.serve(sockets=[listener])
        if not loading.done():
            loading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loading

    async def _load(self) -> None:
        try:
            await self._service.start()
        except BaseException:
            self.should_exit = True
            raise
        gc.freeze()  # what was loaded stays: to look through all of it for garbage holds up requests for 0.2 s
        self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """Do what is done ten times a second; now and then look at the certificate, and give back memory."""
        if counter % _LOOK_TICKS == 0:
            if self.certificate is not None:
                self.certificate.renew()
            many_left = self._bounds.peak >= MANY_CONNECTIONS > len(self._bounds.connections)
            if self.state.large_bodies or many_left:
                self.state.large_bodies, self._bounds.peak = 0, len(self._bounds.connections)
                self._trims = _TRIMS
            if self._trims:
                self._trims -= 1
                await asyncio.to_thread(trim_memory)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as requests to stop. uvicorn's own way ends the process by the signal again."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self._ending is not None:
            self.should_exit = self.force_exit = True
            return
        self.config.timeout_graceful_shutdown = max(1, round(self._grace))
        self._ending = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                await self._service.drain()
        self.should_exit = True


def _affordable(connections: int) -> tuple[int, int]:
    """Raise the number of files that may be open. Return how many connections there may be, and may wait.

    Args:
        connections: How many are wanted; a warning says if they cannot be had.
    """
    files = raise_open_files(connections + _TURNS * _BACKLOG + _OTHER_FILES)
    backlog = max(1, min(_BACKLOG, connections, files // 8))
    possible = max(1, files - _TURNS * backlog - min(_OTHER_FILES, files // 4))
    if possible < connections:
        warn(f"at most {possible:,} connections at a time: this process may have {files:,} files open (ulimit -n)")
    return min(possible, connections), backlog


def listen(address: Address) -> socket.socket:
    """Return a socket that is bound to an address.

    Raises:
        OutputError: The address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # asyncio sends without delay (TCP_NODELAY) only where the protocol is named; with 0 each answer waits 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise OutputError(
            "this address cannot be listened on",
            where=f"{address.host}:{address.port}",
            got=str(error).rstrip("."),
            remedy="Take another one by --port or --host; --port 0 takes a free port.",
        ) from error
    listener.setblocking(False)
    return listener


def _url(address: Address, listener: socket.socket) -> str:
    found: Any = listener.getsockname()
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{'http' if address.certificate is None else 'https'}://{host}:{found[1]}"
