"""A library that is not installed is answered with the extra that brings it."""

import pytest

from fullbake.core.errors import MissingExtraError
from fullbake.core.extras import explain_missing, is_installed, name_missing_extra


def test_missing_library_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'fullbake\[train\]'") as caught, name_missing_extra():
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")
    assert caught.value.name == "torch"
    assert isinstance(caught.value, ImportError)
    assert caught.value.exit_code == 2


def test_module_of_no_extra_stays_as_it_was() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), name_missing_extra():
        import no_such_module  # noqa: F401
    assert explain_missing(ModuleNotFoundError("x", name=None)) is None


def test_installed_libraries_are_found_without_importing_them() -> None:
    assert is_installed("numpy")
    assert not is_installed("no_such_module")
