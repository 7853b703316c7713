"""`make package` as a whole: from the images to files that say what is in them."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.package import sbom
from tests.e2e.cluster import ROOT, VERSION, run
from tests.e2e.conftest import Record

pytestmark = pytest.mark.e2e
NAMED = {
    "qna-model-host": {"torch", "kserve", "transformers", "fastapi"},
    "qna-api-server": {"fastapi", "uvicorn", "sqlalchemy"},
}


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("package") / "out"
    command = [sys.executable, "-m", "scripts.package", "--out", out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_a_release_is_complete_and_its_sums_hold(packaged: Path, record: Record) -> None:
    lines = (packaged / "SHA256SUMS").read_text().splitlines()
    sums = {line.split()[1]: line.split()[0] for line in lines}
    assert set(sums) == {path.name for path in packaged.iterdir()} - {"SHA256SUMS"}
    for name, value in sums.items():
        assert hashlib.sha256((packaged / name).read_bytes()).hexdigest() == value
    versions = json.loads((packaged / "versions.json").read_text())
    assert versions["version"] == VERSION
    assert re.match(r"[0-9a-f]{40}", versions["commit"])
    assert {chart["file"] for chart in versions["charts"]} <= set(sums)
    record(**{one["name"].partition(":")[0]: one["python_packages"] for one in versions["images"]})


@pytest.mark.parametrize("name", NAMED)
def test_a_bill_names_what_the_image_holds(packaged: Path, name: str) -> None:
    """Asked of the image by another way: what its Python imports."""
    text = (packaged / f"{name}-{VERSION}.cdx.json").read_text()
    assert sbom.problem(text) is None
    bill = json.loads(text)
    billed = {one["name"].lower(): one["version"] for one in bill["components"]}
    names = ",".join(repr(one) for one in sorted(NAMED[name]))
    script = (
        "import importlib, json; from importlib.metadata import version;"
        f"names = ({names},); [importlib.import_module(one) for one in names];"
        "print(json.dumps({one: version(one) for one in names}))"
    )
    said = run(
        "docker", "run", "--rm", "--network=none", "--entrypoint=python",
        f"{name}:{VERSION}", "-c", script, timeout_s=120,
    )  # fmt: skip
    held = json.loads(said.splitlines()[-1])
    assert {one: billed[one] for one in NAMED[name]} == held
    image = run("docker", "image", "inspect", "--format={{.Id}}", f"{name}:{VERSION}").strip()
    assert f"{name}@{image}" in bill["metadata"]["component"]["purl"].replace("%3A", ":")
    assert "libc6" in billed
