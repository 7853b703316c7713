"""`python -m api keys` and `python -m api settings`, as an operator runs them."""

import asyncio
import contextlib
import fcntl
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.__main__ import main
from api.keys import cli
from tests.api.conftest import StartApi
from tests.api.keyed import bearer, start_keyed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/chats.db"


def keys(capsys: pytest.CaptureFixture[str], url: str, *words: str) -> dict[str, object]:
    assert main(["keys", *words, "--database-url", url]) == 0
    printed: dict[str, object] = json.loads(capsys.readouterr().out)
    return printed


def test_a_key_s_life(capsys: pytest.CaptureFixture[str], url: str) -> None:
    made = keys(
        capsys, url, "create", "--tenant", "a", "--name", "n", "--scopes", "chat,metrics",
        "--expires-in", "30d", "--models", "m1,m2", "--tokens-per-day", "100",
    )  # fmt: skip
    key_id = str(made["key_id"])
    assert made["scopes"] == ["chat", "metrics"]
    assert made["models"] == ["m1", "m2"]
    assert made["expires_at"]
    listed = keys(capsys, url, "list", "--tenant", "a")
    assert listed == {"keys": [{name: made[name] for name in made if name != "key"}]}
    assert keys(capsys, url, "list", "--tenant", "b") == {"keys": []}
    rotated = keys(capsys, url, "rotate", key_id, "--grace", "15m")
    assert rotated["key"] != made["key"]
    assert rotated["old_valid_until"]
    changed = keys(capsys, url, "change", key_id, "--requests-per-minute", "3")
    limits = {"requests_per_minute": 3, "tokens_per_minute": None, "tokens_per_day": 100}
    assert changed["limits"] == limits | {"max_concurrent": None}
    assert keys(capsys, url, "revoke", key_id)["revoked_at"]
    tenant = keys(capsys, url, "tenant", "a", "--max-concurrent", "2")
    assert keys(capsys, url, "tenants") == {"tenants": [tenant]}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["create"], "--tenant"),
        (["create", "--tenant", "a b"], "tenant"),
        (["create", "--tenant", "a", "--scopes", "root"], "scopes"),
        (["create", "--tenant", "a", "--expires-in", "soon"], "--expires-in"),
        (["rotate", "none"], "no such key"),
        (["rotate", "none", "--grace", "99d"], "grace_s"),
        (["revoke", "none"], "no such key"),
        (["burn"], "burn"),
        ([], "ACTION"),
    ],
)
def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], url: str, words: list[str], named: str
) -> None:
    assert main(["keys", *words, *(["--database-url", url] if words else [])]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert named in said.err


def test_all_tenants_are_listed(
    capsys: pytest.CaptureFixture[str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_PAGE", 2)
    for name in "abcde":
        keys(capsys, url, "tenant", name)
    listed: Any = keys(capsys, url, "tenants")
    assert [one["tenant"] for one in listed["tenants"]] == list("abcde")


@contextlib.contextmanager
def served(path: Path) -> Iterator[None]:
    """As a running server holds its file."""
    with path.with_name(path.name + ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def test_a_key_goes_to_the_file_of_the_server_that_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("API_DATABASE_URL", raising=False)
    monkeypatch.delenv("API_PORT", raising=False)
    default, other = (tmp_path / "data" / name for name in ("chats.db", "chats-8010.db"))
    default.parent.mkdir()
    other.touch()

    def create(*words: str) -> str:
        assert main(["keys", "create", "--tenant", "a", *words]) == 0
        return str(json.loads(capsys.readouterr().out)["key_id"])

    def ids(path: Path) -> set[str]:
        found: Any = keys(capsys, f"sqlite:///{path}", "list")
        return {one["key_id"] for one in found["keys"]}

    first = create()
    with served(other):
        assert main(["keys", "create", "--tenant", "a"]) == 1
        said = capsys.readouterr().err
        assert "--port (of 8010)" in said
        second = create("--port", "8010")
        monkeypatch.setenv("API_PORT", "8010")
        third = create()
        monkeypatch.delenv("API_PORT")
        with served(default):
            fourth = create()
            # The server at that port has the default file, or none at all.
            fifth = create("--port", "8000")
    assert ids(default) == {first, fourth, fifth}
    assert ids(other) == {second, third}


@pytest.mark.anyio
async def test_a_key_from_the_command_line_opens_a_running_server(
    start_api: StartApi, database_url: str
) -> None:
    api = await start_keyed(start_api, database_url=database_url)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", "keys", "create", "--tenant", "a", "--database-url",
        database_url, cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, _ = await asyncio.wait_for(process.communicate(), 60)
    key = json.loads(printed)["key"]
    assert (await api.client.get("/chats", headers=bearer(key))).status_code == 200


def test_settings_tell_where_they_come_from(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "admin"
    secret.write_text("file-canary-0123456789-0123456789\n")
    config = tmp_path / "settings.toml"
    config.write_text('port = 9000\nlease_s = 3\nlog_level = "debug"\n')
    monkeypatch.setenv("API_ADMIN_KEY_FILE", str(secret))
    monkeypatch.setenv("API_METRICS_KEY", "env-canary-0123456789-0123456789")
    monkeypatch.setenv("API_LEASE_S", "4")
    arguments = ["settings", "--config", str(config), "--log-level", "error"]
    assert main([*arguments, "--database-url", "postgresql://u:url-canary@h/d"]) == 0
    printed = capsys.readouterr().out
    assert "canary" not in printed
    rows = {row[0]: (row[1], row[2]) for row in map(_cells, printed.splitlines())}
    assert rows["port"] == ("9000", "file")
    assert rows["lease_s"] == ("4.0", "environment")
    assert rows["log_level"] == ('"error"', "flag")
    assert rows["host"] == ('"127.0.0.1"', "default")
    assert rows["admin_key"] == ('"********"', "file of its own")
    assert rows["metrics_key"] == ('"********"', "environment")


def _cells(line: str) -> tuple[str, str, str]:
    name, rest = line.split(" = ")
    value, source = rest.rsplit("  # ")
    return name, value.strip(), source
