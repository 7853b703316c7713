"""Fetching a model's folder, from a real server with real faults, into real folders."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from model.fetch.errors import FetchError, TryAgain
from model.fetch.folder import RECORD, fill
from tests.api.small_disk import small_disk
from tests.hub import COMMIT, Hub, running

BIG = 3_000_000
NO_PAUSES = (0.0, 0.0, 0.0)
Fill = Callable[..., list[str]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(BIG))
    for name in ("README.md", "pytorch_model.bin", ".gitattributes", "onnx/model.onnx"):
        (folder / name).write_text("never read")
    return folder


@pytest.fixture
def hub(source: Path) -> Iterator[Hub]:
    with running(Hub(models={"org/tiny": source})) as hub:
        yield hub


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path) -> Fill:
    def call(where: str = "hf://org/tiny", **more: Any) -> list[str]:
        said: list[str] = []
        environ = {"HF_ENDPOINT": hub.address, **more.pop("environ", {})}
        target = more.pop("target", tmp_path / "models" / "tiny")
        fill(target, where, say=said.append, environ=environ, pauses_s=NO_PAUSES, **more)
        return said

    return call


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def target_of(tmp_path: Path) -> Path:
    return tmp_path / "models" / "tiny"


def test_what_the_model_host_reads_is_fetched_and_nothing_else(
    fetch: Fill, source: Path, tmp_path: Path
) -> None:
    fetch()
    target = target_of(tmp_path)
    assert names(target) == {"config.json", "tokenizer.json", "model.safetensors", RECORD}
    for name in names(target) - {RECORD}:
        assert (target / name).read_bytes() == (source / name).read_bytes()
    record = json.loads((target / RECORD).read_text())
    assert (record["source"], record["version"]) == ("hf://org/tiny", COMMIT)
    assert record["files"]["model.safetensors"]["sha256"] == sha256(source / "model.safetensors")


def test_a_second_run_asks_nobody(fetch: Fill, hub: Hub) -> None:
    fetch()
    hub.asked.clear()
    assert "complete already" in fetch()[0]
    assert hub.asked == []


def test_a_cut_connection_goes_on_where_it_ended(
    fetch: Fill, hub: Hub, source: Path, tmp_path: Path
) -> None:
    hub.cuts = [BIG // 3, BIG // 3]
    said = fetch()
    ranges = [asked[2] for asked in hub.asked if asked[1].endswith("model.safetensors")]
    assert ranges[0] == ""
    assert len(ranges) == 3
    assert all(text.startswith("bytes=") for text in ranges[1:])
    assert sum("again in" in line for line in said) == 2
    assert sha256(target_of(tmp_path) / "model.safetensors") == sha256(source / "model.safetensors")


def test_a_server_without_ranges_begins_anew(
    fetch: Fill, hub: Hub, source: Path, tmp_path: Path
) -> None:
    hub.cuts, hub.ranges = [BIG // 2], False
    fetch()
    assert sha256(target_of(tmp_path) / "model.safetensors") == sha256(source / "model.safetensors")


def test_what_another_process_left_is_gone_on_with_after_it_was_killed(
    hub: Hub, source: Path, tmp_path: Path
) -> None:
    """A real process, killed in the middle; the next one asks for the rest only."""
    hub.cuts, hub.shuts_after_cut = [BIG // 2], True
    command = [sys.executable, "-m", "model.fetch", "hf://org/tiny", str(target_of(tmp_path))]
    environ = {**os.environ, "HF_ENDPOINT": hub.address}
    first = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    for line in first.stdout:
        if "again in" in line:
            first.send_signal(signal.SIGKILL)
            break
    first.communicate(timeout=30)
    assert not target_of(tmp_path).exists()
    hub.asked.clear()
    hub.open.set()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (rest,) = [asked[2] for asked in hub.asked if asked[1].endswith("model.safetensors")]
    assert rest == f"bytes={BIG // 2}-"
    assert sha256(target_of(tmp_path) / "model.safetensors") == sha256(source / "model.safetensors")


def test_a_file_other_than_the_hub_says_is_refused(
    fetch: Fill, hub: Hub, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = hub.facts("org/tiny")
    weights = next(one for one in facts if one["rfilename"] == "model.safetensors")
    weights["lfs"]["sha256"] = "0" * 64
    monkeypatch.setattr(hub, "facts", lambda model: facts)
    with pytest.raises(FetchError, match=r"model\.safetensors: its sha256 checksum is .* 0000"):
        fetch()
    assert not target_of(tmp_path).exists()


def test_a_small_file_is_known_by_gits_name_of_it(
    fetch: Fill, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = hub.facts("org/tiny")
    next(one for one in facts if one["rfilename"] == "config.json")["blobId"] = "1" * 40
    monkeypatch.setattr(hub, "facts", lambda model: facts)
    with pytest.raises(FetchError, match=r"config\.json: its git checksum"):
        fetch()


def test_a_part_of_another_file_is_thrown_away(
    fetch: Fill, hub: Hub, source: Path, tmp_path: Path
) -> None:
    hub.cuts = [BIG // 2] * 9
    with pytest.raises(TryAgain):
        fill(
            target_of(tmp_path), "hf://org/tiny", say=lambda line: None,
            environ={"HF_ENDPOINT": hub.address}, pauses_s=(),
        )  # fmt: skip
    (part,) = (tmp_path / "models").rglob("model.safetensors.part")
    part.write_bytes(os.urandom(BIG // 2))
    hub.cuts = []
    assert any("of another file" in line for line in fetch())
    assert sha256(target_of(tmp_path) / "model.safetensors") == sha256(source / "model.safetensors")


def test_pins_choose_the_files_and_must_hold(fetch: Fill, source: Path, tmp_path: Path) -> None:
    pins = {name: sha256(source / name) for name in ("config.json", "model.safetensors")}
    fetch(expected=pins)
    assert names(target_of(tmp_path)) == {*pins, RECORD}
    with pytest.raises(FetchError, match="expected was " + "a" * 64):
        fetch(expected={**pins, "config.json": "a" * 64}, target=tmp_path / "models" / "other")


def test_a_folder_of_a_web_server_is_what_the_pins_say(
    fetch: Fill, hub: Hub, source: Path, tmp_path: Path
) -> None:
    where = f"{hub.address}/files/org/tiny"
    with pytest.raises(FetchError, match="name each file with its SHA-256"):
        fetch(where)
    pins = {name: sha256(source / name) for name in ("config.json", "model.safetensors")}
    hub.cuts = [BIG // 2]
    fetch(f"{where}/", expected=pins)
    assert names(target_of(tmp_path)) == {*pins, RECORD}
    with pytest.raises(FetchError, match=r"files/org/tiny/gone\.json.* 404: there is no such file"):
        fetch(where, expected={"gone.json": "a" * 64}, target=tmp_path / "models" / "gone")


@pytest.mark.parametrize(
    ("where", "more", "says"),
    [
        ("hf://org/nobody", {}, "there is no such model, or it wants the token"),
        ("hf://org/tiny", {"revision": "v9"}, "the Hub has no such revision"),
        ("hf://org/tiny:main", {"revision": "main"}, "the revision is named twice"),
        ("hf://tiny", {}, "must be hf://ORGANISATION/NAME"),
        ("s3://bucket/x", {}, "must begin with hf://, https:// or http://"),
        ("hf://org/tiny", {"expected": {"gone.json": "a" * 64}}, r"has no file gone\.json"),
        ("hf://org/tiny", {"expected": {"config.json": "a"}}, "64 hexadecimal digits"),
        ("hf://org/tiny", {"expected": {"../x": "a" * 64}}, r"\.\./x: not a path"),
        ("https://h/x", {"revision": "main", "expected": {"a": "a" * 64}}, "only the Hub has rev"),
    ],
)
def test_what_cannot_be_is_one_line(
    fetch: Fill, tmp_path: Path, where: str, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(FetchError, match=says) as error:
        fetch(where, **more)
    assert "\n" not in str(error.value)
    assert not target_of(tmp_path).exists()


def test_a_gated_model_says_what_to_do(fetch: Fill, hub: Hub) -> None:
    hub.gated.add("org/tiny")
    with pytest.raises(FetchError, match="terms have to be accepted"):
        fetch()


def test_a_hub_that_fails_is_worth_another_try(fetch: Fill, hub: Hub, tmp_path: Path) -> None:
    hub.failures = [503]
    with pytest.raises(TryAgain, match="answers 503"):
        fetch()
    fetch()
    assert target_of(tmp_path).exists()


def test_the_token_goes_to_the_hub_and_never_to_a_web_server(
    fetch: Fill, hub: Hub, source: Path, tmp_path: Path
) -> None:
    hub.token = "hf_secret"
    with pytest.raises(FetchError, match="HF_TOKEN"):
        fetch()
    fetch(environ={"HF_TOKEN": "hf_secret"})
    hub.tokens.clear()
    pins = {"config.json": sha256(source / "config.json")}
    where = f"{hub.address}/files/org/tiny"
    fetch(where, expected=pins, environ={"HF_TOKEN": "hf_secret"}, target=tmp_path / "models" / "w")
    assert hub.tokens == [""]


def test_too_little_room_is_seen_before_anything_is_fetched(
    fetch: Fill, hub: Hub, tmp_path: Path
) -> None:
    hub.announced = {"org/tiny/model.safetensors": 10**18}
    with pytest.raises(FetchError, match=r"are still to come, and .* has room for"):
        fetch()
    assert not [asked for asked in hub.asked if "resolve" in asked[1]]


def test_a_disk_that_fills_is_one_line_and_a_larger_one_goes_on(
    fetch: Fill, hub: Hub, source: Path
) -> None:
    """Of a web server's files the sizes are not known before."""
    pins = {"model.safetensors": sha256(source / "model.safetensors")}
    with small_disk(4) as disk:
        ballast = disk.path / "old"
        ballast.write_bytes(bytes(2_500_000))
        target = disk.path / "models" / "tiny"
        where = f"{hub.address}/files/org/tiny"
        with pytest.raises(FetchError, match=r"no room is left in .*: enlarge the claim"):
            fetch(where, expected=pins, target=target)
        assert not target.exists()
        ballast.unlink()
        fetch(where, expected=pins, target=target)
        assert hub.asked[-1][2].startswith("bytes=")


def test_two_at_once_fetch_once(hub: Hub, tmp_path: Path) -> None:
    """A Job's second pod, while the first has not ended."""
    hub.open.clear()
    waits = threading.Event()

    def say(line: str) -> None:
        if "somebody else" in line:
            waits.set()

    def run() -> None:
        fill(target_of(tmp_path), "hf://org/tiny", say=say, environ={"HF_ENDPOINT": hub.address})

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(run), pool.submit(run)]
        waited = waits.wait(20)
        hub.open.set()
        for future in both:
            future.result()
    assert waited
    assert sum(asked[1].endswith("model.safetensors") for asked in hub.asked) == 1


def test_a_branch_that_moved_on_begins_anew(fetch: Fill, hub: Hub, tmp_path: Path) -> None:
    old = tmp_path / "models" / ".tiny.oldcommit.partial"
    old.mkdir(parents=True)
    (old / "config.json").write_text("of another commit")
    fetch()
    assert not old.exists()
    assert "llama" in (target_of(tmp_path) / "config.json").read_text()


def test_a_folder_that_changed_since_is_not_served_as_it_was(fetch: Fill, tmp_path: Path) -> None:
    fetch()
    (target_of(tmp_path) / "model.safetensors").write_bytes(b"short")
    with pytest.raises(FetchError, match="5 bytes is there now: remove"):
        fetch()
    (target_of(tmp_path) / RECORD).unlink()
    with pytest.raises(FetchError, match="was not filled by this program"):
        fetch()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["hf://org/nobody"], 2, "fetch: hf://org/nobody at main: the server answers 401"),
        (["--file=config.json=1", "hf://org/tiny"], 2, "fetch: config.json: its checksum"),
        (["hf://org/tiny"], 0, ""),
    ],
)
def test_the_command_ends_with_what_the_job_goes_by(
    hub: Hub, tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "model.fetch", *arguments, str(target_of(tmp_path))],
        env={**os.environ, "HF_ENDPOINT": hub.address}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(says)
    assert len(done.stderr.splitlines()) == (code != 0)


def test_a_hub_that_is_away_ends_with_another_try(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "model.fetch", "hf://org/tiny", str(target_of(tmp_path))],
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"}, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("fetch: hf://org/tiny: ConnectError")
