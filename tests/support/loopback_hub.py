"""A model hub on the loopback interface: the few calls of ``huggingface_hub`` in use.

Repositories are kept in memory. Files of more than ``LFS_ABOVE`` bytes and binary ones
are stored apart, as on the real hub, and faults can be ordered for the next requests.
"""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from base64 import b64decode
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

LFS_ABOVE = 10_000
TOKEN = "hf_loopback"
INVALID = "Invalid credentials in Authorization header"


@dataclass
class Stored:
    """A file of a repository; ``large`` ones are addressed by their SHA-256."""

    content: bytes
    large: bool

    @property
    def oid(self) -> str:
        if self.large:
            return hashlib.sha256(self.content).hexdigest()
        head = b"blob %d\0" % len(self.content)
        return hashlib.sha1(head + self.content).hexdigest()


@dataclass
class Repository:
    """The files of every commit, newest last."""

    commits: list[dict[str, Stored]] = field(default_factory=lambda: [{}])
    private: bool = False

    @property
    def files(self) -> dict[str, Stored]:
        return self.commits[-1]

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(len(self.commits)).encode()).hexdigest()


@dataclass
class Fault:
    """What happens to the next requests whose line matches: a status, or a cut."""

    line: str
    status: int | None
    times: int = 1


class Hub:
    """The server and what it holds; a context manager that runs it."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.storage: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        # Another host, as on the real hub: clients look where a redirect leads.
        self.storage_url = f"http://localhost:{self.server.server_port}/storage"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def clear(self) -> None:
        """Forget everything."""
        for held in (self.repositories, self.storage, self.faults, self.requests):
            held.clear()

    def fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.line, line):
                fault.times -= 1
                return fault
        return None

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """Of a process whose hub this is, and whose caches are in ``home``."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGING_FACE", "TRANSFORMERS_OFFLINE"))
        }
        return {
            **kept,
            "HOME": str(home),
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            # Its storage is a protocol of its own, and this hub does not speak it.
            "HF_HUB_DISABLE_XET": "1",
            **({"HF_TOKEN": token} if token is not None else {}),
        }

    def recipe(
        self,
        home: Path,
        *options: str,
        token: str | None = TOKEN,
        cwd: Path | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """``python3 -m espnet_cif_hkd.recipe`` in a process that uses this hub."""
        return subprocess.run(
            [sys.executable, "-m", "espnet_cif_hkd.recipe", *options],
            env=self.environment(home, token),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal of the tests."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(
        self, status: int, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200) -> None:
        headers = {"Content-Type": "application/json"}
        self._send(status, json.dumps(value).encode(), headers)

    def _error(self, status: int, message: str, code: str = "") -> None:
        headers = {"X-Error-Message": message}
        if code:
            headers["X-Error-Code"] = code
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.hub.requests.append(line)
        fault = self.hub.fault(line)
        if fault is not None and fault.status is None:
            self.rfile.read1(100)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = self._body()
        if fault is not None and fault.status is not None:
            self._error(fault.status, "ordered by the test")
            return
        given = self.headers.get("Authorization")
        # The storage has addresses that are secret, and takes no token.
        if not path.startswith("/storage/") and (
            given not in (None, f"Bearer {TOKEN}")
            or (given is None and self.command not in ("GET", "HEAD"))
        ):
            self._error(401, INVALID)
            return
        for pattern, method in _ROUTES:
            if match := re.fullmatch(pattern, line):
                getattr(self, method)(body, *match.groups())
                return
        self._error(404, "no such address")

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _repository(self, name: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        if found is None:
            self._error(404, "Repository not found", "RepoNotFound")
        return found

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != "user":
            self._error(403, f"You don't have the rights to create {name}")
        elif name in self.hub.repositories:
            self._error(409, "You already created this model repo")
        else:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.repositories[name] = Repository(private=private)
            self._json({"url": f"{self.hub.url}/{name}", "id": name})

    def info(self, body: bytes, name: str) -> None:
        if found := self._repository(name):
            files = [{"rfilename": path} for path in found.files]
            facts = {"id": name, "sha": found.sha, "siblings": files, "tags": []}
            self._json({**facts, "private": found.private})

    def tree(self, body: bytes, name: str) -> None:
        if found := self._repository(name):
            rows = []
            for path, file in found.files.items():
                size = len(file.content)
                row = {"type": "file", "path": path, "size": size, "oid": file.oid}
                if file.large:
                    row["lfs"] = {"oid": file.oid, "size": size, "pointerSize": 130}
                rows.append(row)
            self._json(rows)

    def validate(self, body: bytes) -> None:
        text = json.loads(body)["content"]
        match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        try:
            metadata = yaml.safe_load(match[1]) if match else None
            good = isinstance(metadata, dict) and isinstance(
                metadata.get("license", ""), str
            )
        except yaml.YAMLError:
            good = False
        errors = [] if good else [{"message": '"license" must be a string'}]
        self._json({"errors": errors, "warnings": []}, 200 if good else 400)

    def preupload(self, body: bytes, name: str) -> None:
        if found := self._repository(name):
            answers = []
            for file in json.loads(body)["files"]:
                binary = b"\0" in b64decode(file["sample"])
                large = binary or file["size"] > LFS_ABOVE
                old = found.files.get(file["path"])
                answers.append(
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if large else "regular",
                        "shouldIgnore": False,
                        "oid": old.oid if old else None,
                    }
                )
            self._json({"files": answers})

    def batch(self, body: bytes, name: str) -> None:
        objects = []
        for wanted in json.loads(body)["objects"]:
            if wanted["oid"] not in self.hub.storage:
                upload = {"href": f"{self.hub.storage_url}/{wanted['oid']}"}
                verify = {"href": f"{self.hub.url}/{name}.git/info/lfs/verify"}
                wanted["actions"] = {"upload": upload, "verify": verify}
            objects.append(wanted)
        self._json({"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._error(400, "another content than was announced")
        else:
            self.hub.storage[oid] = body
            self._send(200)

    def verify(self, body: bytes, name: str) -> None:
        self._send(200 if json.loads(body)["oid"] in self.hub.storage else 404)

    def commit(self, body: bytes, name: str) -> None:
        if found := self._repository(name):
            files = dict(found.files)
            for row in map(json.loads, body.splitlines()):
                value = row["value"]
                if row["key"] == "file":
                    files[value["path"]] = Stored(b64decode(value["content"]), False)
                elif row["key"] == "lfsFile":
                    content = self.hub.storage[value["oid"]]
                    files[value["path"]] = Stored(content, True)
            found.commits.append(files)
            url = f"{self.hub.url}/{name}/commit/{found.sha}"
            self._json({"commitUrl": url, "commitOid": found.sha, "success": True})

    def resolve(self, body: bytes, name: str, path: str) -> None:
        if not (found := self._repository(name)):
            return
        file = found.files.get(path)
        if file is None:
            self._error(404, "Entry not found", "EntryNotFound")
            return
        headers = {"ETag": f'"{file.oid}"', "X-Repo-Commit": found.sha}
        if file.large:
            headers["Location"] = f"{self.hub.storage_url}/{file.oid}"
            headers["X-Linked-Etag"] = headers["ETag"]
            headers["X-Linked-Size"] = str(len(file.content))
            self._send(302, b"", headers)
        else:
            self._send(200, file.content, headers)

    def load(self, body: bytes, oid: str) -> None:
        self._send(200, self.hub.storage[oid], {"ETag": f'"{oid}"'})


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate"),
    (rf"GET /api/models/{_NAME}(?:/revision/\w+)?", "info"),
    (rf"GET /api/models/{_NAME}/tree/\w+", "tree"),
    (rf"POST /api/models/{_NAME}/preupload/main", "preupload"),
    (rf"POST /api/models/{_NAME}/commit/main", "commit"),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", "batch"),
    (rf"POST /{_NAME}\.git/info/lfs/verify", "verify"),
    (r"PUT /storage/(\w+)", "store"),
    (r"(?:GET|HEAD) /storage/(\w+)", "load"),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/\w+/(.+)", "resolve"),
)
