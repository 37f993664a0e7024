"""An event loop whose time passes only while it waits: a minute of pauses takes no time, and none is ever too long."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Selector(selectors.SelectSelector):
    passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Let the time pass, in place of waiting for it."""
        if timeout is None:
            return super().select()
        self.passed += max(0.0, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._own = _Selector()
        super().__init__(self._own)

    def time(self) -> float:
        return self._own.passed


def run_in_virtual_time(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that waits for nothing but the time."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
