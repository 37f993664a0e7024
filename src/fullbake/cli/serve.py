"""The command `serve`: classifiers behind HTTP."""

import re
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from fullbake.cli.options import EngineFlag, PrecisionFlag, Threads, apply_engine_threads
from fullbake.cli.terminal import print_line
from fullbake.core.console import parse_duration, warn
from fullbake.core.errors import RecipeError
from fullbake.core.extras import name_missing_extra
from fullbake.core.heartbeat import waiting

_HOST: Final = r"[\w.-]+|\[[0-9a-fA-F:.]+\]"
"""Pattern of the name or address of a host, as URLs have it."""


def add_serve_command(app: App) -> None:
    """Add the command to the app."""
    app.command(serve_command, name="serve")


def serve_command(
    *bundles: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key_file: Path | None = None,
    no_auth: Annotated[bool, Parameter(negative=())] = False,
    allow_host: list[str] | None = None,
    allow_origin: list[str] | None = None,
    engine: EngineFlag = "auto",
    precision: PrecisionFlag = "fp32",
    threads: Threads = "auto",
    timeout: str = "30s",
    grace: str = "30s",
    max_body: int = 16_000_000,
    max_texts: int = 1_024,
    max_characters: int = 10_000_000,
    max_queue: int = 400_000,
    max_connections: int = 10_000,
    max_explained_words: int = 100,
    max_explained_characters: int = 50_000,
    limits: Path | None = None,
    log_texts: Annotated[bool, Parameter(negative=())] = False,
    tls_certificate: Path | None = None,
    tls_key: Path | None = None,
) -> None:
    """Serve classifiers by HTTP, and a page to try them on.

    The address is printed when all bundles are loaded. SIGTERM or Ctrl+C finishes the requests that were accepted.

    Args:
        bundles: Folders of bundles, each `FOLDER` or `NAME=FOLDER`. Requests choose by name; the first one is the
            default.
        host: Address to listen on. Any but 127.0.0.1 is reached by other machines, and needs --api-key-file.
        port: Port to listen on; 0 takes a free one.
        api_key_file: File with one API key a line. It is read again when it changes.
        no_auth: Serve other machines without keys.
        allow_host: A name that clients may give in the Host header, beside localhost and --host; `*` for any.
        allow_origin: Origin of a web page that may call this server from a browser, such as https://example.org.
        timeout: Time in which a request is answered, such as 30s. A request may ask for less by the header x-timeout.
        grace: Time that accepted requests have after SIGTERM.
        max_body: Most bytes of a request.
        max_texts: Most texts of a request.
        max_characters: Most characters of a text.
        max_queue: Most tokens that wait; requests beyond are answered with 429.
        max_connections: Most connections at a time. The one that is idle for longest makes room for a new one.
        max_explained_words: Most words of a text that are left out, one after another, to explain an answer.
        max_explained_characters: Most characters of a text that is explained.
        limits: YAML file with other limits for single models: `NAME: {max-texts: 8, timeout: 5s}`.
        log_texts: Write the first 1,000 characters of each text into the log.
        tls_certificate: PEM file of a certificate, for https. It is read again when it changes.
        tls_key: PEM file of its key.
    """
    if not bundles:
        raise RecipeError("serve needs a bundle", remedy="Give its folder: fullbake serve out/classifier.")
    with name_missing_extra():
        from fullbake.classifier.hub_bundles import local_bundle
        from fullbake.serving.app import build_app
        from fullbake.serving.door import DoorRules
        from fullbake.serving.keys import ApiKeys
        from fullbake.serving.limits import Limits, read_limits
        from fullbake.serving.server import Address, serve
        from fullbake.serving.service import ModelSource, Service
        from fullbake.serving.tracing import open_tracer

    if max_connections < 1:
        raise RecipeError("a server needs at least one connection", where="--max-connections", got=f"{max_connections}")
    if tls_key is not None and tls_certificate is None:
        raise RecipeError("a key needs its certificate", where="--tls-key", remedy="Name it by --tls-certificate.")
    host = host.removeprefix("[").removesuffix("]")  # as IPv6 addresses stand in URLs
    address = Address(host, port, tls_certificate, tls_key)
    if not address.is_local and api_key_file is None and not no_auth:
        raise RecipeError(
            f"--host {host} lets other machines in, and there is no key",
            expected="--api-key-file FILE, with one key a line",
            remedy="Make a key: python -c 'import secrets; print(secrets.token_urlsafe(32))' > keys.txt. "
            "Or say --no-auth if everybody who reaches this address may use it.",
        )
    if no_auth and not address.is_local:
        warn(f"everybody who reaches {host} may use this server (--no-auth)")
    keys = None if api_key_file is None else ApiKeys(api_key_file)
    rules = DoorRules(
        _hosts(host, allow_host or [], with_keys=keys is not None),
        keys,
        origins=frozenset(map(_checked_origin, allow_origin or ())),
    )
    default = Limits(
        max_body,
        max_texts,
        max_characters,
        max_queue,
        parse_duration(timeout, "--timeout"),
        max_explained_words,
        max_explained_characters,
    )
    named = [_name_and_place(bundle) for bundle in bundles]
    own = {} if limits is None else read_limits(limits, default, [name for name, _ in named])
    sources = [ModelSource(name, place, engine, precision, own.get(name)) for name, place in named]
    for source in sources:
        apply_engine_threads(threads, local_bundle(source.folder), engine, precision, few_texts=True)
    service = Service(sources, default, log_texts=log_texts)
    with waiting():  # for requests: that is no work that takes long
        serve(
            build_app(service, rules, tracer=open_tracer()),
            service,
            address,
            grace=parse_duration(grace, "--grace"),
            connections=max_connections,
            on_ready=lambda url: print_line(f"serving {', '.join(source.name for source in sources)} at {url}"),
        )


def _hosts(host: str, allowed: list[str], *, with_keys: bool) -> frozenset[str]:
    """Return the names that a Host header may give.

    The check keeps web pages from calling a server without keys through a name of their own that they point here (DNS
    rebinding). With keys they cannot, so any name will do unless some are listed.
    """
    if with_keys and not allowed:
        return frozenset("*")
    own = f"[{host}]" if ":" in host else host
    return frozenset({"localhost", "127.0.0.1", "[::1]", own.lower(), *map(_checked_host, allowed)})


def _checked_host(name: str) -> str:
    """Return a name as the Host header has it, without its port. A URL is refused: it would never match."""
    return _checked_name(
        name,
        rf"\*|{_HOST}",
        "this is no name of a host",
        where="--allow-host",
        expected="a name or an address alone, such as classify.example.org or [::1]; repeat the flag for several",
    )


def _checked_origin(origin: str) -> str:
    """Return an origin as browsers send it. Whatever else would never match."""
    return _checked_name(
        origin,
        rf"(?i:https?)://(?:{_HOST})(?::\d+)?",
        "this is no origin of a web page",
        where="--allow-origin",
        expected="scheme, host, and port if it has one, such as https://example.org; * is not possible",
    )


def _checked_name(name: str, pattern: str, what: str, *, where: str, expected: str) -> str:
    """Return a name in lower case, as headers are compared; raise RecipeError if it does not fit the pattern."""
    if re.fullmatch(pattern, name) is None:
        raise RecipeError(what, where=where, expected=expected, got=repr(name[:200]))
    return name.lower()


def _name_and_place(text: str) -> tuple[str, str | Path]:
    """Return the name of a model, and its folder or its id on the hub, that a word on the command line gives."""
    from fullbake.classifier.hub_bundles import is_hub_id

    name, sign, place = text.partition("=")
    if not sign or Path(text).exists():
        name, place = (text if is_hub_id(text) else Path(text).resolve().name), text
    if (
        not place
        or not name
        or name != name.strip()
        or any(not character.isprintable() for character in name)
        or len(name) > 200
    ):
        raise RecipeError(
            "a model needs a name that requests can give",
            where=repr(text),
            expected="NAME=FOLDER, the name of at most 200 visible characters",
            got=repr(name[:200]),
        )
    return name, place if is_hub_id(place) else Path(place)
