"""A service with one model, and a client of its app, without a socket."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from fullbake.serving.app import build_app
from fullbake.serving.door import DoorRules
from fullbake.serving.limits import Limits
from fullbake.serving.service import ModelSource, Service

FIXTURES = Path(__file__).parents[1] / "fixtures"

Clients = Callable[..., TestClient]


@pytest.fixture(scope="session")
def served() -> Callable[..., ModelSource]:
    """Return `served("bundle_0_1_0")`, a source of a bundle of tests/fixtures, which is loaded once."""
    loaded: dict[str, Any] = {}

    class Source(ModelSource):
        def load(self) -> Any:
            key = str(self.folder)
            if key not in loaded:
                loaded[key] = super().load()
            return loaded[key]

    def source(fixture: str | Path = "bundle_0_1_0", name: str = "topics") -> ModelSource:
        return Source(name, FIXTURES / fixture)

    return source


@pytest.fixture
def clients(served: Callable[..., ModelSource]) -> Iterator[Clients]:
    """Return `clients("bundle_0_1_0", ...)`, a client of a server of these bundles; keywords are those of DoorRules,
    and `limits`."""
    opened: list[TestClient] = []

    def client(*fixtures: str | Path, limits: Limits | None = None, **rules: Any) -> TestClient:
        sources = [served(fixture, f"m{number}") for number, fixture in enumerate(fixtures or ("bundle_0_1_0",))]
        service = Service(sources, limits or Limits())
        app = build_app(service, DoorRules(**{"hosts": frozenset(("testserver",)), **rules}))
        found = TestClient(app, raise_server_exceptions=False)
        found.__enter__()
        opened.append(found)
        assert found.portal is not None
        found.portal.call(service.start)
        return found

    yield client
    for one in opened:
        one.__exit__(None, None, None)
