"""A stand-in for the Hugging Face Hub on this machine: repositories, revisions, commits.

It answers what huggingface_hub asks to download files, and to create and fill a repository.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch
from urllib.parse import unquote

from huggingface_hub import constants

Files = dict[str, bytes]


class Hub:
    """Repositories by name, each with the files of its branches, and the requests received.

    ``refused`` maps a repository to the status and the error code that it answers.
    """

    def __init__(self):
        self.repositories: dict[str, dict[str, Files]] = {}
        self.requests: list[tuple[str, str]] = []
        self.refused: dict[str, tuple[int, str]] = {}
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def add(self, repository: str, folder: Path, branch: str = "main") -> None:
        """Add the files of a folder, as if they had been pushed."""
        files = {p.name: p.read_bytes() for p in folder.iterdir()}
        self.repositories.setdefault(repository, {})[branch] = files

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def commit_of(files: Files) -> str:
    """Return the hash that stands for the state of a branch."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def etag_of(name: str, content: bytes) -> dict[str, str]:
    """Return the header with the hash of a file: git's SHA-1, or in Git LFS the SHA-256."""
    if name.endswith((".bin", ".pth", ".safetensors")):
        return {"X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
    blob = b"blob %d\0" % len(content) + content
    return {"ETag": f'"{hashlib.sha1(blob).hexdigest()}"'}


@contextmanager
def hub_in(folder: Path) -> Iterator[Hub]:
    """Let huggingface_hub, in this process, use a stand-in and a cache in ``folder``."""
    hub = Hub()
    changes = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(folder / "hub"),
    }
    try:
        with patch.multiple(constants, **changes):
            yield hub
    finally:
        hub.close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):  # noqa: N802
            hub.requests.append(("HEAD", self.path))
            self.answer_get()

        def do_GET(self):  # noqa: N802
            hub.requests.append(("GET", self.path))
            self.answer_get()

        def answer_get(self) -> None:
            path = self.path.partition("?")[0]
            if found := re.fullmatch(r"/api/models/(\w+/\w+)/tree/([^/]+)", path):
                if (files := self.branch(*found.groups())) is not None:
                    rows = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in files]
                    self.answer(rows)
            elif found := re.fullmatch(r"/(\w+/\w+)/resolve/([^/]+)/(.+)", path):
                if (files := self.branch(*found.groups()[:2])) is not None:
                    self.answer_file(files, unquote(found[3]))
            else:
                self.refuse(404, "EntryNotFound")

        def answer_file(self, files: Files, name: str) -> None:
            commit = {"X-Repo-Commit": commit_of(files)}
            if name in files:
                self.answer(files[name], headers=commit | etag_of(name, files[name]))
            else:
                self.refuse(404, "EntryNotFound", commit)

        def do_POST(self):  # noqa: N802
            hub.requests.append(("POST", self.path))
            body = self.rfile.read(int(self.headers["Content-Length"]))
            path = self.path
            if path == "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
            elif path == "/api/repos/create":
                sent = json.loads(body)
                repository = f"{sent['organization']}/{sent['name']}"
                self.create(hub.repositories, repository, {"main": {}})
            elif found := re.fullmatch(r"/api/models/(\w+/\w+)/branch/(.+)", path):
                branches = hub.repositories[found[1]]
                self.create(branches, unquote(found[2]), dict(branches["main"]))
            elif found := re.fullmatch(r"/api/models/(\w+/\w+)/preupload/(.+)", path):
                rows = json.loads(body)["files"]
                kind = {"uploadMode": "regular", "shouldIgnore": False}
                self.answer({"files": [{"path": row["path"], **kind} for row in rows]})
            elif found := re.fullmatch(r"/api/models/(\w+/\w+)/commit/(.+)", path):
                files = self.branch(*found.groups())
                if files is not None:
                    self.commit(found[1], files, body)

        def create(self, parent: dict, name: str, content: dict) -> None:
            if name in hub.refused:
                self.refuse(*hub.refused[name])
            else:
                status = 409 if name in parent else 200
                parent.setdefault(name, content)
                self.answer({"url": f"{hub.url}/{name}"}, status)

        def commit(self, repository: str, files: Files, body: bytes) -> None:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    sent = line["value"]
                    files[sent["path"]] = base64.b64decode(sent["content"])
            oid = commit_of(files)
            url = f"{hub.url}/{repository}/commit/{oid}"
            self.answer({"commitUrl": url, "commitOid": oid})

        def branch(self, repository: str, revision: str) -> Files | None:
            """Return the files of a branch or a commit; answer with the error if there is none."""
            if repository in hub.refused:
                return self.refuse(*hub.refused[repository])
            if repository not in hub.repositories:
                return self.refuse(404, "RepoNotFound")
            branches = hub.repositories[repository]
            branches = branches | {commit_of(files): files for files in branches.values()}
            revision = unquote(revision)
            if revision not in branches:
                return self.refuse(404, "RevisionNotFound")
            return branches[revision]

        def refuse(self, status: int, code: str, headers: dict | None = None) -> None:
            self.answer(b"", status, {"X-Error-Code": code, **(headers or {})})

        def answer(self, content: object, status: int = 200, headers: dict | None = None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *args):
            pass

    return Handler
