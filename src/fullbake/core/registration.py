"""Tell transformers of the model types of fullbake, as soon as a program imports transformers.

The Auto classes of transformers load a bundle with a head of fullbake only if its type is registered, and that needs
transformers, which a program that only scores with a graph does not load. So nothing is imported here; registering
waits for the import of transformers, wherever that happens.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from fullbake.core.extras import is_installed

_WAITED_FOR = "transformers"
_REGISTERS = "fullbake.models.network"
"""The module whose import registers the types."""


def register_with_transformers() -> None:
    """Register the model types now if transformers is loaded, else when it is imported.

    Another call changes nothing. Without torch there is nothing to register.
    """
    if not is_installed("torch"):
        return
    if _WAITED_FOR in sys.modules:
        import_module(_REGISTERS)
    elif not any(isinstance(finder, _WaitForTransformers) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WaitForTransformers())


class _WaitForTransformers(MetaPathFinder):
    """Finds transformers as Python would, with a loader that registers the types afterwards."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        """Return the spec of transformers, None for any other module."""
        if fullname != _WAITED_FOR:
            return None
        sys.meta_path.remove(self)
        found = find_spec(fullname)
        if found is not None and found.loader is not None:
            found.loader = _RegisteringLoader(found.loader)
        return found


class _RegisteringLoader(Loader):
    """Loads a module as its own loader does, then registers the model types."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what the module's own loader returns."""
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, then register."""
        assert module.__spec__ is not None
        module.__spec__.loader = self._own
        self._own.exec_module(module)
        import_module(_REGISTERS)
