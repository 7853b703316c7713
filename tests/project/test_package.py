"""What `make package` makes: archives that install as charts do, bills that name what is there."""

import json
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.package import sbom
from scripts.package.__main__ import not_ours
from scripts.package.charts import archive
from scripts.package.inventory import canonical, debian_packages, required
from tests.rendered import NEEDS_HELM, ROOT

VERSION = (ROOT / "VERSION").read_text().strip()
AT = datetime(2026, 1, 2, tzinfo=UTC)
IMAGE = {"name": f"registry.example/qna-model-host:{VERSION}", "id": "sha256:" + "a" * 64}
STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u10
Description: GNU C Library
 with more lines: of text

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2025b-0+deb12u1
"""


@pytest.fixture(scope="module")
def inventory() -> dict[str, Any]:
    """Of this environment, asked as an image is asked: a script on standard input."""
    script = (ROOT / "scripts/package/inventory.py").read_text()
    done = subprocess.run(
        [sys.executable, "-"], input=script, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    found["debian_packages"] = debian_packages(STATUS)
    found["system"] = {"ID": "debian", "VERSION_ID": "12"}
    return found


@pytest.fixture(scope="module")
def bill(inventory: dict[str, Any]) -> dict[str, Any]:
    text = sbom.written(sbom.bill(inventory, IMAGE, AT))
    assert sbom.problem(text) is None
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def test_every_python_package_is_named_with_its_version(bill: dict[str, Any]) -> None:
    urls = {component["purl"] for component in bill["components"]}
    for name in ("torch", "kserve", "fastapi", "transformers"):
        version = metadata.version(name)
        found = [url for url in urls if url.startswith(f"pkg:pypi/{name}@")]
        assert [url.replace("%2B", "+") for url in found] == [f"pkg:pypi/{name}@{version}"]
    assert f"pkg:generic/python@{platform.python_version()}" in urls


def test_debians_packages_are_those_that_are_installed(bill: dict[str, Any]) -> None:
    found = {one["purl"] for one in bill["components"] if one["purl"].startswith("pkg:deb/")}
    assert found == {
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12&upstream=glibc",
        "pkg:deb/debian/tzdata@2025b-0%2Bdeb12u1?arch=all&distro=debian-12",
    }


def test_licenses_and_needs_are_told(bill: dict[str, Any]) -> None:
    by_name = {component["name"]: component for component in bill["components"]}
    assert by_name["fastapi"]["licenses"]
    needs = {one["ref"]: one.get("dependsOn", []) for one in bill["dependencies"]}
    fastapi = needs[by_name["fastapi"]["bom-ref"]]
    assert by_name["starlette"]["bom-ref"] in fastapi
    root = needs[bill["metadata"]["component"]["bom-ref"]]
    assert by_name["libc6"]["bom-ref"] in root
    assert by_name["starlette"]["bom-ref"] not in root


def test_the_same_image_gives_the_same_bill(inventory: dict[str, Any]) -> None:
    first, second = (sbom.written(sbom.bill(inventory, IMAGE, AT)) for _ in range(2))
    assert first == second


def test_a_bill_that_is_none_is_refused(bill: dict[str, Any]) -> None:
    broken = {**bill, "components": [{"name": "torch"}]}
    assert sbom.problem(json.dumps(broken))


def test_extras_are_no_needs() -> None:
    lines = ['Foo_bar>=1; python_version > "3"', 'baz; extra == "all"', "qux[x] (>=2)"]
    assert required(lines) == ["foo-bar", "qux"]
    assert canonical("A.b_C") == "a-b-c"


@NEEDS_HELM
@pytest.mark.parametrize("chart", ["api-server", "model-host"])
def test_an_archive_installs_as_the_chart_does(chart: str, tmp_path: Path) -> None:
    image = {**IMAGE, "digest": "registry.example/x@sha256:" + "b" * 64}
    path = archive(chart, tmp_path, commit="0123456789abcdef", image=image)
    assert path.name == f"{chart}-{VERSION}.tgz"

    def helm(*arguments: str | Path) -> str:
        return subprocess.run(
            ["helm", *arguments], capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def template(what: Path) -> list[Any]:
        made = yaml.safe_load_all(helm("template", "x", what, "--namespace", "qna"))
        # Keys are drawn anew each time.
        return [one for one in made if one and one["kind"] != "Secret"]

    assert template(path) == template(ROOT / "charts" / chart)
    facts = yaml.safe_load(helm("show", "chart", path))
    about = facts["annotations"]
    assert about["org.opencontainers.image.revision"] == "0123456789abcdef"
    assert about["qna.image-id"] == IMAGE["id"]
    (named,) = yaml.safe_load(about["artifacthub.io/images"])
    assert named["image"] == image["digest"]
    assert (facts["version"], facts["appVersion"]) == (VERSION, VERSION)
    # Tests of the chart itself are not what a user installs.
    assert shutil.which("tar")
    listed = subprocess.run(["tar", "-tzf", path], capture_output=True, text=True, check=True)
    assert f"{chart}/values.schema.json" in listed.stdout


@NEEDS_HELM
def test_what_is_not_in_the_repository_is_not_in_an_archive(tmp_path: Path) -> None:
    own = ROOT / "charts/api-server/of-somebody.txt"
    own.write_text("hunter2")
    try:
        path = archive("api-server", tmp_path, commit="0", image=None)
    finally:
        own.unlink()
    listed = subprocess.run(["tar", "-tzf", path], capture_output=True, text=True, check=True)
    assert "api-server/values.yaml" in listed.stdout
    assert own.name not in listed.stdout


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    release, other, file = tmp_path / "release", tmp_path / "other", tmp_path / "file"
    for folder, name in ((release, "SHA256SUMS"), (other, "notes.txt")):
        folder.mkdir()
        (folder / name).write_text("")
    file.write_text("")
    assert not_ours(release) == "" == not_ours(tmp_path / "new")
    assert "is not empty and holds no release" in not_ours(other)
    assert "is no folder" in not_ours(file)
