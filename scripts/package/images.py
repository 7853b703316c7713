"""What Docker knows of an image, and the inventory that the image gives of itself."""

import json
import subprocess
from pathlib import Path
from typing import Any

INVENTORY = Path(__file__).with_name("inventory.py")


class NoImage(Exception):
    """The image is not on this machine."""


def about(name: str) -> dict[str, str]:
    found = subprocess.run(
        ["docker", "image", "inspect", name], capture_output=True, text=True, check=False
    )
    if found.returncode != 0:
        raise NoImage(f"{name} is not here; `make images` or `k8s/images.sh build` builds it")
    (facts,) = json.loads(found.stdout)
    known = {
        "name": name,
        "id": facts["Id"],
        "created": facts["Created"],
        "platform": f"{facts['Os']}/{facts['Architecture']}",
        "size": str(facts["Size"]),
    }
    # Of an image that was pushed: what a cluster pins it by.
    if facts.get("RepoDigests"):
        known["digest"] = facts["RepoDigests"][0]
    return known


def inventory(name: str) -> dict[str, Any]:
    """Runs without a network and without a right to write."""
    done = subprocess.run(
        ["docker", "run", "--rm", "--interactive", "--network=none", "--read-only",
         "--cap-drop=ALL", "--entrypoint=python", name, "-"],
        input=INVENTORY.read_text(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found
