"""What README.md and docs/clients.md tell a user to type is typed, and gives what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import ROOT, Servers

ADDRESS = "http://127.0.0.1:8000"
EXAMPLE = re.compile(r"```(sh|python)\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
EXAMPLES = EXAMPLE.findall((ROOT / "docs/clients.md").read_text())
CURL = re.compile(r"^    (curl -s .*(?:\n      .*)*)\n\n    (\{.*\})$", re.MULTILINE)


def run(kind: str, code: str, api: str, folder: Path) -> str:
    code = code.replace(ADDRESS, api)
    command = [sys.executable, "-c", code] if kind == "python" else ["bash", "-euc", code]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        env={"PATH": path, "HOME": str(folder), "LLM_USER_PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("kind", "code", "said"), EXAMPLES, ids=[f"{i}-{kind}" for i, (kind, *_) in enumerate(EXAMPLES)]
)
def test_an_example_gives_what_it_says(
    kind: str, code: str, said: str, servers: Servers, tmp_path: Path
) -> None:
    assert run(kind, code, servers.api, tmp_path).strip() == said.strip()


def test_the_examples_were_found() -> None:
    kinds = [kind for kind, *_ in EXAMPLES]
    assert (kinds.count("sh"), kinds.count("python")) == (4, 2)


def test_the_readmes_curl_gives_what_it_says(servers: Servers, tmp_path: Path) -> None:
    ((command, said),) = CURL.findall((ROOT / "README.md").read_text())
    assert run("sh", command, servers.api, tmp_path) == said
