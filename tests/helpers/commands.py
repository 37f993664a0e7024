"""Commands that have to fail."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]


def refusal(run: Run, *words: object, code: int = 2) -> str:
    """The error of a command that has to fail, its lines joined to one."""
    got, out, error = run(*words)
    assert got == code, error
    assert out == ""
    assert error.startswith("error: ")
    assert error.count("error: ") == 1
    return " ".join(error.split())
