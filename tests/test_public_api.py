"""The public surface is a list: adding to it is a decision."""

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
    "evaluate",
    "further_pretrain",
    "predict_file",
    "read_dataset",
}
HEAVY = ("torch", "transformers", "pyarrow", "sklearn", "scipy", "matplotlib", "datasets", "accelerate")


def test_the_list() -> None:
    assert set(fullbake.__all__) == PUBLIC
    assert len(fullbake.__all__) <= 10


def test_every_name_is_there_and_documented() -> None:
    for name in fullbake.__all__:
        assert (getattr(fullbake, name).__doc__ or "").strip(), name


def test_dir_shows_the_list() -> None:
    assert set(dir(fullbake)) >= PUBLIC


def test_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(fullbake, "Clasifier")


def loaded_after(code: str) -> list[str]:
    """Which heavy libraries a fresh interpreter has loaded after running `code`."""
    probe = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return done.stderr.split()


def test_import_is_light() -> None:
    assert loaded_after("import fullbake; fullbake.Error") == []


def test_help_is_light() -> None:
    for command in ("--help", "train --help", "pretrain --help", "recipes"):
        run = f"try: main({command.split()!r})\nexcept SystemExit as end: assert not end.code"
        assert loaded_after(f"from fullbake.cli.main import main\n{run}") == [], command


def test_the_probe_itself_sees_heavy_imports() -> None:
    assert "pyarrow" in loaded_after("import pyarrow")
