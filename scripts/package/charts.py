"""Charts as archives that `helm push` takes, with where they come from in their annotations."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
IMAGES = {"api-server": "qna-api-server", "model-host": "qna-model-host"}


def tracked(chart: str, into: Path) -> Path:
    """A copy of the chart's files in the repository: what else lies beside them, such as somebody's
    values with a password, is not for others.
    """
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--", f"charts/{chart}"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in listed.split("\0")[:-1]:
        target = into / Path(name).relative_to("charts")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    return into / chart


def archive(chart: str, out: Path, *, commit: str, image: dict[str, str] | None) -> Path:
    """The annotations become those of the OCI manifest when the archive is pushed."""
    with tempfile.TemporaryDirectory() as folder:
        copy = tracked(chart, Path(folder))
        facts: dict[str, Any] = yaml.safe_load((copy / "Chart.yaml").read_text())
        named = IMAGES[chart]
        known = image["digest"] if image and "digest" in image else f"{named}:{facts['appVersion']}"
        facts["annotations"] = {
            **facts.get("annotations", {}),
            "org.opencontainers.image.revision": commit,
            "org.opencontainers.image.licenses": "Apache-2.0",
            "artifacthub.io/license": "Apache-2.0",
            "artifacthub.io/images": yaml.safe_dump([{"name": named, "image": known}]),
        }
        if image:
            facts["annotations"]["qna.image-id"] = image["id"]
        (copy / "Chart.yaml").write_text(yaml.safe_dump(facts, sort_keys=False))
        subprocess.run(
            ["helm", "package", copy, "--destination", out], check=True, capture_output=True
        )
    return out / f"{chart}-{facts['version']}.tgz"
