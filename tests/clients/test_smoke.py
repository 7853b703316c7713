"""`k8s/smoke.sh`: says that a well installation is well, and which promise another one breaks."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import Servers, StartApi
from tests.ports import free_port

SCRIPT = Path(__file__).resolve().parents[2] / "k8s" / "smoke.sh"
KEY = "sk-a-first-key-of-thirty-two-signs-or-more"


def smoke(url: str, *arguments: str | Path, **environ: str) -> tuple[int, dict[str, str], str]:
    """The exit code, what each check that failed saw, and all that was said."""
    done = subprocess.run(
        [SCRIPT, url, *map(str, arguments)],
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FAIL ")]
    failed = {line[5:39].strip(): line[50:].strip() for line in lines}
    return done.returncode, failed, done.stdout + done.stderr


@pytest.fixture(scope="module")
def nobody() -> Iterator[str]:
    yield f"http://127.0.0.1:{free_port()}"


def test_an_installation_that_is_well(servers: Servers, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, failed, said = smoke(servers.api, "--json", report)
    assert (code, failed) == (0, {}), said
    written = json.loads(report.read_text())
    assert written["held"]
    assert written["seconds"] < 60
    assert all(check["held"] for check in written["checks"])
    assert len(written["checks"]) >= 10


def test_it_leaves_no_chat_behind(servers: Servers, start_api: StartApi, tmp_path: Path) -> None:
    url = start_api(servers.host)
    assert smoke(url)[0] == 0
    done = subprocess.run(
        ["curl", "-s", f"{url}/chats"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["chats"] == []


def test_nobody_is_there(nobody: str) -> None:
    code, failed, said = smoke(nobody)
    assert code == 1
    assert list(failed) == ["alive and ready"]
    assert "refused" in said


def test_a_model_host_that_is_gone(start_api: StartApi, nobody: str) -> None:
    code, failed, said = smoke(start_api(nobody))
    assert code == 1
    assert {"chat answers", "chat streams", "several at once"} <= failed.keys(), said
    assert "alive and ready" not in failed


def test_a_model_that_is_not_served(servers: Servers) -> None:
    code, failed, said = smoke(servers.api, "--model", "gpt-4")
    assert code == 1
    assert "gpt-4 is not among the models" in said
    assert "chat answers" not in failed


def test_keys(servers: Servers, start_api: StartApi, tmp_path: Path) -> None:
    url = start_api(servers.host, API_AUTH="on", API_ADMIN_KEY=KEY)
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert smoke(url, "--key-file", file)[0] == 0
    assert smoke(url, API_KEY=KEY)[0] == 0
    code, _, said = smoke(url)
    assert code == 1
    assert "a key is needed: set API_KEY" in said
    assert KEY not in said


@pytest.mark.parametrize("url", ["ftp://x", "http://"])
def test_what_is_no_address(url: str) -> None:
    code, _, said = smoke(url)
    assert code == 2
    assert "is not an address" in said
