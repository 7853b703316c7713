"""Both servers against their own OpenAPI documents, by examples that fit them and that do not. The
API server asks for keys here, so each of its operations is asked without one, too.

`SCHEMATHESIS_EXAMPLES` says how many for each operation, 100 when absent; `SCHEMATHESIS_ONLY` which
of the two is asked, `api` or `host`.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import Servers, process, running_api
from tests.ports import free_port

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "100")
ONLY = os.environ.get("SCHEMATHESIS_ONLY", "api,host").split(",")
KEY = "schemathesis-key-0123456789-0123456789"


@pytest.fixture(scope="module")
def small(folder: Path) -> Iterator[Servers]:
    """With a context in which no answer is long, behind a server that asks for keys."""
    port = free_port()
    values = {"MODEL_HOST_PORT": str(port), "MODEL_HOST_MAX_MODEL_LEN": "64"}
    with (
        process("model", folder, f"http://127.0.0.1:{port}", **values) as host,
        running_api(folder, host, API_AUTH="on", API_ADMIN_KEY=KEY) as api,
    ):
        yield Servers(api, host)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_both_servers_do_what_their_documents_say(small: Servers, tmp_path: Path) -> None:
    runs = {name: tmp_path / f"{name}.txt" for name in ONLY}
    # Side by side: the one who asks is the slow part.
    asking = [start(vars(small)[name], output) for name, output in runs.items()]
    codes = [one.wait() for one in asking]
    said = "\n".join(output.read_text() for output in runs.values())
    assert codes == [0] * len(runs), said
    counts = re.findall(r"(\d+) generated, (\d+) passed", said)
    assert len(counts) == len(runs), said
    assert all(int(made) == int(good) > 1000 for made, good in counts), said


def start(url: str, output: Path) -> subprocess.Popen[bytes]:
    command = ["--config-file", str(CONFIG), "run", f"{url}/openapi.json", "--continue-on-failure"]
    options = ["--max-examples", EXAMPLES, "--header", f"Authorization: Bearer {KEY}"]
    with output.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "schemathesis.cli", *command, *options],
            cwd=output.parent,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
