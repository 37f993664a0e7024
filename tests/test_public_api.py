"""The public names are a fixed list, and importing them is fast."""

import subprocess
import sys

import fullbake

PUBLIC = {
    "Classifier",
    "Dataset",
    "Error",
    "Recipe",
    "adapt",
    "compare",
    "distill",
    "evaluate",
    "further_pretrain",
    "make_cascade",
    "predict_file",
    "predict_frame",
    "read_dataset",
}
HEAVY = ("torch", "transformers", "pyarrow", "sklearn", "scipy", "matplotlib", "datasets", "accelerate")


def test_public_names_are_these() -> None:
    assert set(fullbake.__all__) == PUBLIC
    assert len(fullbake.__all__) <= 13


def test_every_public_name_exists_and_has_a_docstring() -> None:
    for name in fullbake.__all__:
        assert (getattr(fullbake, name).__doc__ or "").strip(), name


def test_dir_lists_the_public_names() -> None:
    assert set(dir(fullbake)) >= PUBLIC


def test_unknown_name_raises_attribute_error() -> None:
    assert not hasattr(fullbake, "Clasifier")


def loaded_after(code: str) -> list[str]:
    """Return the heavy libraries that a new interpreter has loaded after it ran `code`."""
    probe = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return done.stderr.split()


def test_import_loads_no_heavy_library() -> None:
    assert loaded_after("import fullbake; fullbake.Error") == []


def test_help_loads_no_heavy_library() -> None:
    for command in ("--help", "train --help", "pretrain --help", "recipes"):
        run = f"try: main({command.split()!r})\nexcept SystemExit as end: assert not end.code"
        assert loaded_after(f"from fullbake.cli.main import main\n{run}") == [], command


def test_heavy_imports_are_detected() -> None:
    assert "pyarrow" in loaded_after("import pyarrow")
