"""What an image holds: Python's and Debian's packages, as JSON on standard output.

Runs inside the image, `docker run -i IMAGE python - < inventory.py`, so it asks the very
interpreter that serves. Standard library only.
"""

import json
import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

STATUS = Path("/var/lib/dpkg/status")
OS_RELEASE = Path("/etc/os-release")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(lines: list[str] | None) -> list[str]:
    """Names without those that only an extra would want."""
    found = set()
    for line in lines or []:
        name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
        if name and "extra" not in line.partition(";")[2]:
            found.add(canonical(name[0]))
    return sorted(found)


def python_packages() -> list[dict[str, Any]]:
    found = {}
    for one in metadata.distributions():
        about = one.metadata
        name = about["Name"]
        if not name or canonical(name) in found:
            continue  # the first on the path is the one that is imported
        found[canonical(name)] = {
            "name": name,
            "version": one.version,
            "license": about.get("License-Expression") or "",
            "classifiers": [
                text for text in about.get_all("Classifier") or [] if text.startswith("License ::")
            ],
            "requires": required(one.requires),
        }
    return [found[name] for name in sorted(found)]


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    for block in text.split("\n\n"):
        fields = re.findall(r"^([A-Za-z-]+): (.*)$", block, flags=re.MULTILINE)
        if fields:
            yield dict(fields)


def debian_packages(status: str) -> list[dict[str, str]]:
    return [
        {
            "name": one["Package"],
            "version": one["Version"],
            "architecture": one["Architecture"],
            "source": one.get("Source", one["Package"]).partition(" ")[0],
        }
        for one in paragraphs(status)
        if one.get("Status", "").endswith(" installed")
    ]


def system() -> dict[str, str]:
    if not OS_RELEASE.exists():
        return {}
    lines = re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', OS_RELEASE.read_text(), flags=re.MULTILINE)
    return dict(lines)


def main() -> None:
    status = STATUS.read_text() if STATUS.exists() else ""
    json.dump(
        {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "system": system(),
            "python_packages": python_packages(),
            "debian_packages": debian_packages(status),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
