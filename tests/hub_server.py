"""A stand-in for the Hub on this machine: the requests that pushing a folder makes, and what it received."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HASH = "a" * 40


@dataclass
class Hub:
    """Repositories by name: private or not, and their files; and every request."""

    url: str = ""
    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    who: dict[str, Any] = field(
        default_factory=lambda: {"name": "me", "type": "user", "orgs": [{"name": "us"}]}
    )
    refuses: int = 0
    """The status of every upload, where it is to fail; of who one is, for 401."""

    def files(self, repo: str) -> dict[str, bytes]:
        """What a repository holds."""
        found: dict[str, bytes] = self.repos[repo]["files"]
        return found


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A server on a free port, until the end of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Answers(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._note()
        if self.path == "/api/whoami-v2":
            if self.hub.refuses == 401:
                return self._say({"error": "Invalid credentials"}, 401)
            return self._say(self.hub.who)
        repo = self._repo()
        if repo not in self.hub.repos:
            return self._say({"error": "Repository not found"}, 404, "RepoNotFound")
        held = self.hub.repos[repo]
        if "/tree/" in self.path:
            entries = [{"type": "file", "path": name, "oid": HASH, "size": 1} for name in held["files"]]
            return self._say(entries)
        siblings = [{"rfilename": name} for name in held["files"]]
        return self._say(
            {"id": repo, "private": held["private"], "sha": HASH, "siblings": siblings, "tags": []}
        )

    def do_PUT(self) -> None:
        self._note()
        asked = json.loads(self._body())
        private = asked.get("private", asked.get("visibility") == "private")
        self.hub.repos[self._repo()]["private"] = private
        self._say({})

    def do_POST(self) -> None:
        self._note()
        body = self._body()
        if self.path == "/api/validate-yaml":
            return self._say({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.hub.refuses:
            return self._say({"error": "the disk is full"}, self.hub.refuses)
        if "/preupload/" in self.path:
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            return self._say({"files": files})
        return self._commit(body)

    def _create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked.get('organization') or self.hub.who['name']}/{asked['name']}"
        private = asked.get("private", asked.get("visibility") == "private")
        if repo in self.hub.repos:
            return self._say({"error": "exists", "url": f"{self.hub.url}/{repo}"}, 409)
        self.hub.repos[repo] = {"private": private, "files": {".gitattributes": b""}}
        return self._say({"url": f"{self.hub.url}/{repo}", "id": repo, "name": repo})

    def _commit(self, body: bytes) -> None:
        held = self.hub.files(self._repo())
        for line in body.splitlines():
            each = json.loads(line)
            if each["key"] == "file":
                held[each["value"]["path"]] = base64.b64decode(each["value"]["content"])
            elif each["key"] == "deletedFile":
                del held[each["value"]["path"]]
        url = f"{self.hub.url}/{self._repo()}/commit/{HASH}"
        self._say({"commitUrl": url, "commitOid": HASH, "success": True})

    def _repo(self) -> str:
        return "/".join(self.path.partition("/api/models/")[2].split("?")[0].split("/")[:2])

    def _note(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path.split('?')[0]}")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _say(self, content: Any, status: int = 200, code: str = "") -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
