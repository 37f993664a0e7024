"""Give memory back to the system after a storm: the C library keeps what was freed, in case it is needed again."""

import ctypes
import gc
import sys
from typing import Any, Final

LARGE_BODY: Final = 1_000_000
"""Bytes of a body from which on memory is worth giving back afterwards."""

MANY_CONNECTIONS: Final = 1_000
"""Connections at a time, likewise."""

_ARENA_MAX: Final = -8
"""M_ARENA_MAX of GNU's malloc.h."""

_ARENAS: Final = 2


def limit_arenas() -> bool:
    """Let the threads of this process share two stores of free memory, in place of one for each thread.

    Each store keeps what was freed in it, so with fewer of them less is kept after a storm.

    Returns:
        False where the C library has no such call (only that of GNU has).
    """
    return _call("mallopt", _ARENA_MAX, _ARENAS)


def trim_memory() -> bool:
    """Give back memory that is free. Return False where the C library has no such call (only that of GNU has).

    What refers to itself, as closed connections do, is freed before: it would lie in between, and keep the rest.
    """
    gc.collect()
    return _call("malloc_trim", 0)


def _call(name: str, *values: int) -> bool:
    if sys.platform != "linux":
        return False
    try:
        function: Any = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return False
    function(*values)
    return True
