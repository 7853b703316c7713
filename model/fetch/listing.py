"""Which files a model consists of, where each lies, and by which checksum it is known.

The Hub says so itself; of a folder on a web server the caller has to.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import httpx

from model.fetch.errors import FetchError, TryAgain

HUB = "https://huggingface.co"
SHA256 = re.compile(r"[0-9a-f]{64}")
# In a repository's root, and yet nothing that the model host reads.
NEVER_READ = re.compile(
    r"\..*|consolidated.*|.*\.(bin|pt|pth|ckpt|h5|msgpack|ot|gguf|onnx|tflite|md|png|jpe?g|gif|pdf)"
)


@dataclass(frozen=True)
class Checksum:
    kind: str
    """`sha256`, or `git`: what git calls a file, which is all that the Hub says of small ones."""
    value: str

    def begin(self, size: int | None) -> Any:
        if self.kind == "sha256":
            return hashlib.sha256()
        return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)


@dataclass(frozen=True)
class Wanted:
    path: str
    url: str
    checksum: Checksum
    size: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    version: str
    """The commit on the Hub; of a web server's folder, a hash of what the caller expects."""
    files: tuple[Wanted, ...]


def list_files(
    client: httpx.Client,
    source: str,
    revision: str,
    expected: Mapping[str, str],
    environ: Mapping[str, str],
) -> Listing:
    """`expected` narrows the files to its own, each of which must have the SHA-256 it says."""
    for path, value in expected.items():
        _check_path(path)
        if not SHA256.fullmatch(value):
            raise FetchError(f"{path}: its checksum must be 64 hexadecimal digits of SHA-256")
    if source.startswith("hf://"):
        return _of_hub(client, source, revision, expected, environ)
    if source.startswith(("http://", "https://")):
        if revision:
            raise FetchError(f"{source}: only the Hub has revisions")
        return _of_web(source, expected)
    raise FetchError(f"{source}: must begin with hf://, https:// or http://")


def _of_web(source: str, expected: Mapping[str, str]) -> Listing:
    if not expected:
        raise FetchError(f"{source}: name each file with its SHA-256; a web server lists none")
    files = tuple(
        Wanted(path, f"{source.rstrip('/')}/{quote(path)}", Checksum("sha256", value))
        for path, value in sorted(expected.items())
    )
    version = hashlib.sha256(repr(sorted(expected.items())).encode()).hexdigest()
    return Listing(version, files)


def _of_hub(
    client: httpx.Client,
    source: str,
    revision: str,
    expected: Mapping[str, str],
    environ: Mapping[str, str],
) -> Listing:
    name = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?::([\w./-]+))?", source)
    if not name:
        raise FetchError(f"{source}: must be hf://ORGANISATION/NAME")
    if revision and name[2]:
        raise FetchError(f"{source}: the revision is named twice, there and as {revision}")
    revision = revision or name[2] or "main"
    endpoint = (environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    token = environ.get("HF_TOKEN", "").strip()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    address = f"{endpoint}/api/models/{name[1]}/revision/{quote(revision, safe='')}"
    facts = _ask(client, address, headers, f"hf://{name[1]}", revision)
    commit = str(facts["sha"])
    files = []
    for sibling in facts["siblings"]:
        path = str(sibling["rfilename"])
        if path not in expected and (expected or "/" in path or NEVER_READ.fullmatch(path)):
            continue
        _check_path(path)
        large = sibling.get("lfs")
        checksum = (
            Checksum("sha256", large["sha256"]) if large else Checksum("git", sibling["blobId"])
        )
        if path in expected:
            checksum = Checksum("sha256", expected[path])
        url = f"{endpoint}/{name[1]}/resolve/{commit}/{quote(path)}"
        files.append(Wanted(path, url, checksum, int(sibling["size"]), headers))
    missing = sorted(set(expected) - {file.path for file in files})
    if missing:
        raise FetchError(f"hf://{name[1]} at {revision} has no file {missing[0]}")
    if not any(file.path.endswith(".safetensors") for file in files):
        raise FetchError(f"hf://{name[1]} at {revision} has no .safetensors file")
    return Listing(commit, tuple(files))


def _ask(
    client: httpx.Client, address: str, headers: Mapping[str, str], model: str, revision: str
) -> Any:
    try:
        answer = client.get(address, params={"blobs": "true"}, headers=dict(headers))
    except httpx.HTTPError as error:
        raise TryAgain(f"{model}: {_said(error)}") from error
    if answer.status_code == 200:
        try:
            return answer.json()
        except ValueError as error:
            raise FetchError(f"{model}: what answers at {address} is no Hub") from error
    raise refusal(answer, f"{model} at {revision}")


def refusal(answer: httpx.Response, what: str) -> FetchError | TryAgain:
    """What an answer other than a file means, in one line."""
    code = answer.headers.get("X-Error-Code", "")
    if answer.status_code == 429 or answer.status_code >= 500:
        return TryAgain(f"{what}: the server answers {answer.status_code}")
    if code == "GatedRepo":
        return FetchError(f"{what}: its terms have to be accepted on the Hub by the token's owner")
    if answer.status_code in (401, 403):
        return FetchError(
            f"{what}: the server answers {answer.status_code}: there is no such model, or it wants"
            " the token of somebody who may read it (HF_TOKEN)"
        )
    if code == "RevisionNotFound":
        return FetchError(f"{what}: the Hub has no such revision")
    return FetchError(f"{what}: the server answers {answer.status_code}: there is no such file")


def _said(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _check_path(path: str) -> None:
    """A list from elsewhere must not be able to write outside the folder."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or parts[0][0] == ".":
        raise FetchError(f"{path}: not a path of a file inside the model's folder")
