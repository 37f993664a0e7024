"""A stand-in of a model hub on this machine: repositories in memory, as much of the API as pushing and loading need."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TOKEN = "hf_secretsecretsecret"


@dataclass
class Repo:
    """One repository: its files, and what the hub says of it."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = True
    messages: list[str] = field(default_factory=list)

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()


@dataclass
class Hub:
    """The hub: repositories by id, and the requests that came."""

    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    writers: tuple[str, ...] = ("org",)
    """Names under which the token may write."""
    url: str = ""
    broken: bool = False
    """Whether every question about a repository is answered with an error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, code: int, content: bytes = b"{}", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, code: int, kind: str) -> None:
        self._answer(code, json.dumps({"error": f"{kind} {TOKEN}"}).encode(), X_Error_Code=kind, X_Error_Message=kind)

    def _may_read(self, repo: Repo | None) -> bool:
        return repo is not None and (not repo.private or self.headers.get("Authorization") == f"Bearer {TOKEN}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        if path == "/":
            self._answer(200)
            return
        if path.startswith("/api/models/"):
            if self.hub.broken:
                self._answer(500)
                return
            name = "/".join(path.split("/")[3:5])
            repo = self.hub.repos.get(name)
            if repo is None or not self._may_read(repo):
                self._refuse(401, "RepoNotFound")
                return
            siblings = [{"rfilename": file} for file in repo.files]
            facts = {"id": name, "modelId": name, "sha": repo.commit, "private": repo.private, "siblings": siblings}
            self._answer(200, json.dumps(facts).encode(), Content_Type="application/json")
            return
        if path.count("/") < 4:
            self._refuse(404, "RepoNotFound")
            return
        org, name, _, revision, *rest = path.strip("/").split("/")
        repo, file = self.hub.repos.get(f"{org}/{name}"), "/".join(rest)
        if repo is None or not self._may_read(repo):
            self._refuse(401, "RepoNotFound")
        elif revision not in ("main", repo.commit):
            self._refuse(404, "RevisionNotFound")
        elif file not in repo.files:
            self._answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=repo.commit)
        else:
            content = repo.files[file]
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            self._answer(200, content, ETag=etag, X_Repo_Commit=repo.commit)

    def do_POST(self) -> None:
        self.hub.requests.append(f"POST {self.path.partition('?')[0]}")
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            self._answer(200, b'{"errors": [], "warnings": []}')
            return
        if self.path == "/api/repos/create":
            self._create(json.loads(sent))
            return
        name, action = "/".join(self.path.split("/")[3:5]), self.path.split("/")[5]
        if name.split("/")[0] not in self.hub.writers or self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(403, "Forbidden")
        elif action == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(sent)["files"]
            ]
            self._answer(200, json.dumps({"files": files}).encode())
        else:
            self._commit(name, sent)

    def _create(self, sent: dict[str, Any]) -> None:
        if sent.get("organization") not in self.hub.writers:
            self._refuse(403, "Forbidden")
            return
        name = f"{sent['organization']}/{sent['name']}"
        hidden = sent.get("private", sent.get("visibility") == "private")
        self.hub.repos.setdefault(name, Repo(private=bool(hidden)))
        self._answer(200, json.dumps({"url": f"{self.hub.url}/{name}", "name": name}).encode())

    def _commit(self, name: str, sent: bytes) -> None:
        repo = self.hub.repos[name]
        for line in sent.splitlines():
            entry = json.loads(line)
            if entry["key"] == "header":
                repo.messages.append(entry["value"]["summary"])
            elif entry["key"] == "file":
                repo.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "deletedFile":
                del repo.files[entry["value"]["path"]]
        facts = {"success": True, "commitOid": repo.commit, "commitUrl": f"{self.hub.url}/{name}/commit/{repo.commit}"}
        self._answer(200, json.dumps(facts).encode())


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Run a hub on a free port within the block."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def use_hub(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, token: str | None = TOKEN) -> None:
    """Let huggingface_hub talk to this hub, with a cache and a token of its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    else:
        monkeypatch.setenv("HF_TOKEN", token)
