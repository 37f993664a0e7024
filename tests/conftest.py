"""Settings and fixtures of all tests: no hub, a new cache folder, and bases with random weights that are made once."""

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# transformers, datasets and fullbake read these when they are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# One thread in each test process: two workers with two threads each on two cores wait more than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_CACHE = tempfile.TemporaryDirectory(prefix="fullbake-tests-")
os.environ["FULLBAKE_CACHE_DIR"] = _CACHE.name

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# An example may be slow to run, and slow to make, on a busy machine.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return `bases("bert")`, the folder of a base of that family with random weights; keywords as in `make_base`.

    Each base is made once and shared between tests: a test must copy the folder before it changes a file.
    """
    from helpers.bases import make_base  # torch only when a test asks for a base

    made: dict[str, Path] = {}

    def base(family: str, **options: Any) -> Path:
        key = repr((family, sorted(options.items())))
        if key not in made:
            made[key] = make_base(family, tmp_path_factory.mktemp(family), **options)
        return made[key]

    return base


@pytest.fixture(scope="session")
def graph_bundles(bases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return `graph_bundles("bert", pooling="mean")`, a bundle with a graph; keywords as in `rows.train`.

    Each is made once and shared between tests: a test must copy the folder before it changes a file.
    """
    from helpers.rows import train

    from fullbake.classifier.export import export_graph

    made: dict[str, Path] = {}

    def bundle(family: str, name: str = "frozen-linear", **fields: Any) -> Path:
        key = repr((family, name, sorted(fields.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp(f"graph-{family}")
            base = bases(family, initializer_range=0.2)
            train(base, folder, name, **fields).save(folder / "bundle")
            export_graph(folder / "bundle")
            made[key] = folder / "bundle"
        return made[key]

    return bundle


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """Undo what a command or a library changed about the log of fullbake, and about the levels of all logs."""
    logger, root = logging.getLogger("fullbake"), logging.getLogger()
    before = ([*logger.handlers], logger.level, logger.propagate, logger.disabled)
    level, disabled = root.level, logging.root.manager.disable
    yield
    logger.handlers, logger.level, logger.propagate, logger.disabled = before
    root.setLevel(level)
    logging.disable(disabled)


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that may be read but not written to."""
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run `run("train", ...)` as the command of these words; it returns (exit code, stdout, stderr)."""
    from fullbake.cli.main import main

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        typed = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", ["fullbake", *typed])
        with pytest.raises(SystemExit) as end:
            main(typed)
        printed = capsys.readouterr()
        assert "\x1b" not in printed.out + printed.err
        assert "Traceback" not in printed.err or "--debug" in words
        return int(end.value.code or 0), printed.out, printed.err

    return call
