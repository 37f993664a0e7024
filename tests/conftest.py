"""What every test stands on: no hub, a cache folder of this run's own, and random-weight bases made once."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before any import of transformers, datasets or fullbake: they read these when they load.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# One thread a test process: two workers of two threads each on two cores wait for each other more than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_CACHE = tempfile.TemporaryDirectory(prefix="fullbake-tests-")
os.environ["FULLBAKE_CACHE_DIR"] = _CACHE.name

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# A busy machine is no fault of an example.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`bases("bert")` is a random-weight base folder of that family, made once; keywords as in `make_base`.

    The folder is shared between tests: copy it before changing anything in it.
    """
    from helpers.bases import make_base  # torch only when a test asks for a base

    made: dict[str, Path] = {}

    def base(family: str, **options: Any) -> Path:
        key = repr((family, sorted(options.items())))
        if key not in made:
            made[key] = make_base(family, tmp_path_factory.mktemp(family), **options)
        return made[key]

    return base


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """`run("train", ...)` is the command as typed: (exit code, stdout, stderr)."""
    from fullbake.cli.main import main

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        typed = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", ["fullbake", *typed])
        with pytest.raises(SystemExit) as end:
            main(typed)
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err
        assert "Traceback" not in said.err or "--debug" in words
        return int(end.value.code or 0), said.out, said.err

    return call
