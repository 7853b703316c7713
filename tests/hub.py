"""A stand-in for the Hub and for a web server with models: a real HTTP server, with real faults.

Speaks what huggingface_hub and our own fetcher ask for: a model's facts, its tree, its files, with
ranges and a token. The standard library alone, so that it also runs in a pod of the model host's
image: `python hub.py --model org/name=FOLDER …`.
"""

import argparse
import hashlib
import io
import json
import re
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin")


@dataclass
class Hub:
    """What it serves, what it was asked, and how it misbehaves."""

    models: dict[str, Path] = field(default_factory=dict)
    archives: dict[str, bytes] = field(default_factory=dict)
    token: str = ""
    gated: set[str] = field(default_factory=set)
    revisions: set[str] = field(default_factory=lambda: {"main", COMMIT})
    # Sizes that are announced, whatever a file has.
    announced: dict[str, int] = field(default_factory=dict)
    # Bytes after which a connection ends, once for each entry.
    cuts: list[int] = field(default_factory=list)
    # Whether files are held back once one has been cut.
    shuts_after_cut: bool = False
    # Answers that are given first, once for each entry.
    failures: list[int] = field(default_factory=list)
    ranges: bool = True
    # Files are given only while it is set.
    open: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path, `Range` of every request."""
    tokens: list[str] = field(default_factory=list)
    address: str = ""

    def __post_init__(self) -> None:
        self.open.set()

    def facts(self, model: str) -> list[dict[str, Any]]:
        return [
            self._sibling(model, path)
            for path in sorted(self.models[model].rglob("*"))
            if path.is_file()
        ]

    def _sibling(self, model: str, path: Path) -> dict[str, Any]:
        content = path.read_bytes()
        name = path.relative_to(self.models[model]).as_posix()
        size = self.announced.get(f"{model}/{name}", len(content))
        git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        found: dict[str, Any] = {"rfilename": name, "size": size, "blobId": git}
        if name.endswith(LARGE):
            sha256 = hashlib.sha256(content).hexdigest()
            found["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 130}
        return found


def tree(siblings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same files as the Hub's other route names them."""
    return [
        {
            "type": "file",
            "path": one["rfilename"],
            "size": one["size"],
            "oid": one["blobId"],
            **({"lfs": {**one["lfs"], "oid": one["lfs"]["sha256"]}} if "lfs" in one else {}),
        }
        for one in siblings
    ]


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, code: Any = "-", size: Any = "-") -> None:
            sys.stdout.write(f'hub: "{self.requestline}" {code}\n')
            sys.stdout.flush()

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path, self.headers.get("Range", "")))
            hub.tokens.append(self.headers.get("Authorization", ""))
            if hub.failures:
                return self.refuse(hub.failures.pop(0))
            if path.startswith("/archives/"):
                content = hub.archives.get(path.removeprefix("/archives/"))
                return (
                    self.refuse(404) if content is None else self.give(content, "application/gzip")
                )
            if path.startswith("/files/"):
                return self.file(path.removeprefix("/files/"), {})
            if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.refuse(401, "RepoNotFound")
            about = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree)/([^/]+))?/?", path)
            if about:
                return self.about(about[1], about[2] or "revision", about[3] or "main")
            resolved = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            if resolved and resolved[2] in hub.revisions:
                return self.file(f"{resolved[1]}/{resolved[3]}", {"X-Repo-Commit": COMMIT})
            return self.refuse(404, "EntryNotFound")

        def about(self, model: str, what: str, revision: str) -> None:
            if model in hub.gated:
                return self.refuse(403, "GatedRepo")
            if model not in hub.models:
                return self.refuse(401, "RepoNotFound")
            if revision not in hub.revisions:
                return self.refuse(404, "RevisionNotFound")
            siblings = hub.facts(model)
            facts: Any = {"id": model, "sha": COMMIT, "siblings": siblings, "tags": []}
            facts.update(private=False, downloads=0, likes=0)
            content = json.dumps(tree(siblings) if what == "tree" else facts).encode()
            return self.give(content, "application/json")

        def file(self, name: str, headers: dict[str, str]) -> None:
            model, _, path = name.partition("/")
            model, path = f"{model}/{path.partition('/')[0]}", path.partition("/")[2]
            found = hub.models.get(model, Path("/nowhere")) / path
            if not path or not found.is_file():
                return self.refuse(404, "EntryNotFound")
            hub.open.wait(30)
            content = found.read_bytes()
            etag = hashlib.sha256(content).hexdigest()
            return self.give(content, "application/octet-stream", {**headers, "ETag": f'"{etag}"'})

        def give(self, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start, end = 0, len(content)
            if wanted and hub.ranges:
                start = int(wanted[1])
                end = min(end, int(wanted[2]) + 1) if wanted[2] else end
                if start >= len(content):
                    return self.refuse(416)
            self.send_response(206 if wanted and hub.ranges else 200)
            self.send_header("Content-Length", str(end - start))
            self.send_header("Content-Type", kind)
            if wanted and hub.ranges:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "HEAD":
                return None
            body = content[start:end]
            if hub.cuts and len(body) > hub.cuts[0]:
                self.wfile.write(body[: hub.cuts.pop(0)])
                self.close_connection = True
                if hub.shuts_after_cut:
                    hub.open.clear()
                return None
            self.wfile.write(body)
            return None

        def refuse(self, status: int, code: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if code:
                self.send_header("X-Error-Code", code)
            self.end_headers()

    return Handler


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def archive(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--token", default="")
    parser.add_argument("--model", action="append", default=[], metavar="ORG/NAME=FOLDER")
    parser.add_argument("--archive", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--announce", action="append", default=[], metavar="ORG/NAME/PATH=SIZE")
    given = parser.parse_args()

    def pairs(items: list[str]) -> list[tuple[str, str]]:
        return [(item.partition("=")[0], item.partition("=")[2]) for item in items]

    hub = Hub(token=given.token)
    hub.models = {name: Path(folder) for name, folder in pairs(given.model)}
    hub.archives = {name: archive(Path(folder)) for name, folder in pairs(given.archive)}
    hub.announced = {name: int(size) for name, size in pairs(given.announce)}
    ThreadingHTTPServer(("", given.port), handler_of(hub)).serve_forever()


if __name__ == "__main__":
    main()
