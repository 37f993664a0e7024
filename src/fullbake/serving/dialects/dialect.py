"""What a protocol is: its routes, and the shape of its errors."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeVar

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fullbake.core.errors import Error, one_line
from fullbake.serving.batcher import request_deadline
from fullbake.serving.limits import Limits
from fullbake.serving.metrics import Metrics
from fullbake.serving.refusals import Refusal, invalid
from fullbake.serving.scorer import AS_TRAINED, Reading
from fullbake.serving.service import Pooled, Scored, ServedModel, Service

_log = logging.getLogger("fullbake.serving")

_Result = TypeVar("_Result")

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Operation:
    """What a protocol answers at one path, and what the documentation says of it."""

    method: str
    path: str
    """As Starlette writes it: `/v2/models/{name}`."""

    handler: Handler
    summary: str
    """One sentence."""

    request: Any = None
    """The pydantic model of the body; None if there is none."""

    response: Any = None
    """The type of the JSON response: a TypedDict, or what pydantic makes a schema of; None if there is no body."""

    example: Any = None
    """A body, for the documentation."""

    content_types: tuple[str, ...] = ("application/json",)
    """What the body may be."""

    chooses_model: bool = False
    """Whether the query parameter `model` names the model."""


class ServerDialect(ABC):
    """A protocol. Handlers raise `Refusal`; `refuse` gives it the shape that clients of the protocol expect.

    Args:
        service: The models.
        metrics: Where labels are counted.
    """

    title: ClassVar[str]
    """The protocol's name, for people."""

    error: ClassVar[Any]
    """The type of the JSON body of a refusal."""

    impossible: ClassVar[Mapping[str, str]] = {}
    """Paths of the protocol that a classifier has no answer for -> why, and what to do instead."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service, self._metrics = service, metrics

    @abstractmethod
    def operations(self) -> list[Operation]:
        """Return what the protocol answers."""

    @abstractmethod
    def refuse(self, refusal: Refusal) -> Response:
        """Return the response of a refusal."""

    async def _score(
        self,
        request: Request,
        model: ServedModel,
        texts: Sequence[str],
        text_pair: Sequence[str] | None = None,
        reading: Reading = AS_TRAINED,
    ) -> Scored:
        """Score the texts of a request within its time, as long as its client is there, and count the labels.

        Args:
            request: Whose header `x-timeout` may ask for less time than the server allows, in seconds.
            model: By whom.
            texts: The texts.
            text_pair: The second texts of pairs.
            reading: How the texts are read.

        Raises:
            Refusal: See `Service.score`; or the time was up (504), or the client went away (499).
        """
        scored = await in_time(model.limits, request, self._service.score(model, texts, text_pair, reading))
        request.state.log = log_entry(self._service, model, (texts, text_pair), scored.tokens)
        self._metrics.count_labels(model.name, (label for labels in scored.labels for label in labels))
        return scored

    async def _pool(
        self, request: Request, model: ServedModel, texts: Sequence[str], reading: Reading = AS_TRAINED
    ) -> Pooled:
        """Compute what the head reads of the texts of a request; arguments and errors as for `_score`."""
        pooled = await in_time(model.limits, request, self._service.pool(model, texts, reading))
        request.state.log = log_entry(self._service, model, (texts, None), pooled.tokens)
        return pooled


def status_without_422(refusal: Refusal) -> int:
    """Return the status of a refusal in a protocol that answers a wrong body with 400."""
    return 400 if refusal.status == 422 else refusal.status


class _ModelName(Convertor[str]):
    """A name in a path, up to what this server answers below a model."""

    regex = r"(?:(?!/(?:infer|ready)$).)+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("model", _ModelName())


def owned_path(operation: Operation) -> str:
    """Return the path whose errors have the shape of the operation's dialect, with all that is below it."""
    return operation.path.partition("/{")[0]


def route_of(dialect: ServerDialect, operation: Operation) -> Route:
    """Return the route of an operation. A model's name may have slashes, as ids of the hub have."""
    return Route(
        operation.path.replace("{name}", "{name:model}"),
        endpoint(dialect, operation.handler),
        methods=[operation.method],
    )


def endpoint(dialect: ServerDialect, handler: Handler) -> Handler:
    """Return a handler whose failures become responses in the dialect's shape, without a trace of the stack."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return dialect.refuse(refusal)
        except Error as error:
            return dialect.refuse(invalid(one_line(error)))
        except Exception as error:  # the client gets the number under which the log has it
            number = request.state.request_id
            _log.exception("request %s failed", number, exc_info=error)
            return dialect.refuse(
                Refusal(500, "internal", f"The server failed on this request; its log has it as {number}.")
            )

    return answer


async def in_time(limits: Limits, request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Do a request's work within its time, and as long as its client is there.

    Args:
        limits: Those of the model.
        request: Whose header `x-timeout` may ask for less time than they allow, in seconds.
        work: What is done.

    Raises:
        Refusal: The time was up (504), the client went away (499), or what the work raises.
    """
    try:
        seconds = _timeout(request, limits.timeout)
    except Refusal:
        work.close()
        raise
    request_deadline.set(time.monotonic() + seconds)  # the queue reads it: the task has a copy of this context
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise Refusal(_CLIENT_CLOSED, "timeout", "The client went away.")
        raise Refusal(504, "timeout", f"The answer was not ready within {seconds:g} seconds.")
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


_LOGGED_CHARACTERS: Final = 1_000
"""Characters of a text that the log has at most."""


def log_entry(
    service: Service, model: ServedModel, texts: tuple[Sequence[str], Sequence[str] | None], tokens: int
) -> dict[str, Any]:
    """Return what the log has of a request, beside what it has of all: the texts only if the server logs them.

    Args:
        service: The models.
        model: Which answered.
        texts: The texts, and the second texts of pairs.
        tokens: How many were computed.
    """
    firsts, seconds = texts
    entry: dict[str, Any] = {"model": model.name, "texts": len(firsts), "tokens": tokens}
    if service.log_texts:
        entry["read"] = [text[:_LOGGED_CHARACTERS] for text in firsts]
        if seconds is not None:
            entry["read_pair"] = [text[:_LOGGED_CHARACTERS] for text in seconds]
    return entry


_CLIENT_CLOSED: Final = 499
"""The status of a request whose client went away; only the log sees it."""


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _timeout(request: Request, most: float) -> float:
    """Return the seconds that a request has."""
    given = request.headers.get("x-timeout")
    if given is None:
        return most
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise Refusal(400, "invalid", f"The header x-timeout is {given[:40]!r}; a number of seconds is expected.")
    return min(seconds, most)


def json_response(value: Any, status: int = 200, **headers: str) -> Response:
    """Return a value as JSON."""
    return JSONResponse(value, status, {name.replace("_", "-"): text for name, text in headers.items()})
