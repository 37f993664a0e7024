"""What registers the model types is imported with transformers: not before, and only once."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from fullbake.core import registration
from fullbake.core.registration import register_with_transformers


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two modules in the places of transformers and of what registers the types."""
    (tmp_path / "waited_for.py").write_text("import sys\nassert 'registers' not in sys.modules\n")
    (tmp_path / "registers.py").write_text("import waited_for\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registration, "_WAITED_FOR", "waited_for")
    monkeypatch.setattr(registration, "_REGISTERS", "registers")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    for name in ("waited_for", "registers"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("modules")
def test_registering_waits_for_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(sys.meta_path)
    register_with_transformers()
    register_with_transformers()
    assert len(sys.meta_path) == before + 1
    import_module("json.tool")
    assert "registers" not in sys.modules
    module = import_module("waited_for")
    assert "registers" in sys.modules
    assert len(sys.meta_path) == before
    assert type(module.__spec__.loader).__name__ == "SourceFileLoader"
    for name in ("waited_for", "registers"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("modules")
def test_registering_is_done_at_once_if_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import_module("waited_for")
    register_with_transformers()
    assert "registers" in sys.modules
    for name in ("waited_for", "registers"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("modules")
def test_nothing_is_registered_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "is_installed", lambda _: False)
    before = len(sys.meta_path)
    register_with_transformers()
    assert len(sys.meta_path) == before
