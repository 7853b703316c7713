"""`make package`: charts, bills of materials, versions.json, SHA256SUMS, in build/package/."""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.package import sbom
from scripts.package.charts import IMAGES, ROOT, archive
from scripts.package.images import NoImage, about, inventory

VERSION = (ROOT / "VERSION").read_text().strip()


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def source() -> tuple[str, datetime]:
    """The commit, marked where the files are not quite its own, and its time."""
    commit, at = git("log", "-1", "--format=%H %ct").split()
    changed = git("status", "--porcelain", "--untracked-files=no")
    return commit + ("-dirty" if changed else ""), datetime.fromtimestamp(int(at), UTC)


def tested_with() -> dict[str, str]:
    text = (ROOT / "k8s/versions.env").read_text()
    return dict(re.findall(r"^(\w+_VERSION|KIND_NODE_IMAGE)=(\S+)$", text, flags=re.MULTILINE))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def not_ours(out: Path) -> str:
    """Why a folder cannot be replaced: it holds something, and no release. Empty: it can be."""
    if out.exists() and not out.is_dir():
        return f"--out: {out} is no folder"
    if out.is_dir() and any(out.iterdir()) and not (out / "SHA256SUMS").is_file():
        return f"--out: {out} is not empty and holds no release: name another folder, or empty it"
    return ""


def image_part(image: dict[str, str], at: datetime, out: Path) -> dict[str, Any]:
    held = inventory(image["name"])
    text = sbom.written(sbom.bill(held, image, at))
    if said := sbom.problem(text):
        raise SystemExit(f"package: the bill of {image['name']} is not valid: {said}")
    name = image["name"].rpartition("/")[2].replace(":", "-")
    path = out / f"{name}.cdx.json"
    path.write_text(text)
    return {
        **image,
        "sbom": {"file": path.name, "sha256": sha256(path)},
        "python": held["python"],
        "python_packages": len(held["python_packages"]),
        "debian_packages": len(held["debian_packages"]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.package", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build/package")
    parser.add_argument("--tag", default=VERSION, help="tag of both images (default %(default)s)")
    given = parser.parse_args()
    for program in ("helm", "docker"):
        if not shutil.which(program):
            print(f"package: {program} is not on the PATH", file=sys.stderr)
            return 1
    try:
        images = {chart: about(f"{name}:{given.tag}") for chart, name in IMAGES.items()}
    except NoImage as error:
        print(f"package: {error}", file=sys.stderr)
        return 1
    if said := not_ours(given.out):
        print(f"package: {said}", file=sys.stderr)
        return 1
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    commit, at = source()
    charts = []
    for chart, image in images.items():
        path = archive(chart, given.out, commit=commit, image=image)
        charts.append({"name": chart, "file": path.name, "sha256": sha256(path)})
    versions = {
        "version": VERSION,
        "commit": commit,
        "committed": at.isoformat(),
        "tested_with": tested_with(),
        "charts": charts,
        "images": [image_part(image, at, given.out) for image in images.values()],
    }
    (given.out / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")
    files = sorted(given.out.iterdir())
    sums = "".join(f"{sha256(path)}  {path.name}\n" for path in files)
    (given.out / "SHA256SUMS").write_text(sums)
    print(sums, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
