"""The job files of docs/how-to/jobs load, and fullbake and torchrun understand the commands in them."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fullbake.cli.main import app

FOLDER = Path(__file__).parent.parent / "docs" / "how-to" / "jobs"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
MANIFESTS = sorted(FOLDER.glob("*.yaml"))


def commands_of(script: str) -> list[list[str]]:
    """Return the words of each command that runs fullbake, with variables replaced by a word."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*$", "", script))
    lines = [line for line in joined.splitlines() if re.search(r"\bfullbake (train|predict|compare)\b", line)]
    return [shlex.split(re.sub(r"\$\{?\w+\}?", "4", line)) for line in lines]


def containers(manifest: Path) -> list[dict[str, Any]]:
    loaded = list(yaml.safe_load_all(manifest.read_text("utf-8")))
    jobs = [part for part in loaded if part["kind"] == "Job"]
    assert jobs
    return [container for job in jobs for container in job["spec"]["template"]["spec"]["containers"]]


def require_understood(words: list[str]) -> None:
    """Parse a command line of fullbake, and that of torchrun before it if there is one."""
    start = words.index("fullbake")
    end = words.index("&") if "&" in words else len(words)
    app.parse_args(words[start + 1 : end], exit_on_error=False, print_error=False)
    if "torchrun" in words:
        from torch.distributed.run import get_args_parser

        given = get_args_parser().parse_args(words[words.index("torchrun") + 1 : end])
        assert given.module
        assert given.training_script == "fullbake"
        assert re.fullmatch(r"1:\d+", given.nnodes)
        assert given.rdzv_backend == "c10d"


def test_there_are_job_files_of_both_kinds() -> None:
    assert len(SCRIPTS) == 3
    assert len(MANIFESTS) == 2


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_valid_and_its_commands_are_understood(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    found = commands_of(script.read_text("utf-8"))
    assert found
    for words in found:
        require_understood(words)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_manifest_loads_and_its_commands_are_understood(manifest: Path) -> None:
    for container in containers(manifest):
        if container["command"] == ["torchrun"]:
            require_understood(["torchrun", *container["args"]])
        else:
            (script,) = container["args"]
            subprocess.run(["bash", "-n"], input=script, text=True, check=True)
            for words in commands_of(script):
                require_understood(words)


@pytest.mark.parametrize("name", ["slurm-train.sh", "kubernetes-train.yaml"])
def test_torchrun_meets_anew_in_each_round(name: str) -> None:
    """Otherwise processes look for each other in different stores after a machine has come or gone."""
    text = (FOLDER / name).read_text("utf-8")
    assert re.search(r"TORCH_DISABLE_SHARE_RDZV_TCP_STORE(=1|.*\n\s+value: \"1\")", text)


def test_the_pods_meet_where_the_service_is() -> None:
    loaded = list(yaml.safe_load_all((FOLDER / "kubernetes-train.yaml").read_text("utf-8")))
    service, job = loaded
    name, spec = job["metadata"]["name"], job["spec"]
    assert service["metadata"]["name"] == spec["template"]["spec"]["subdomain"] == name
    arguments = spec["template"]["spec"]["containers"][0]["args"]
    assert f"--rdzv-endpoint={name}-0.{name}:29500" in arguments
    assert f"--nnodes=1:{spec['parallelism']}" in arguments
    assert spec["completions"] == spec["parallelism"]
