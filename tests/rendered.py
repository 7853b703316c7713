"""The charts as helm renders them, for tests that look at the result.

Where CI is set, helm must be there.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
NEEDS_HELM = pytest.mark.skipif(
    not shutil.which("helm") and not os.environ.get("CI"), reason="helm is not on the PATH"
)


def rendered(chart: str, *arguments: str) -> dict[tuple[str, str], Any]:
    """Every object by kind and name."""
    done = subprocess.run(
        ["helm", "template", chart, ROOT / "charts" / chart, "--namespace", "qna", *arguments],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    return {(found["kind"], found["metadata"]["name"]): found for found in objects}


def pods(objects: dict[tuple[str, str], Any]) -> dict[str, dict[str, Any]]:
    """Every pod's spec that the objects make, by who makes it."""
    found = {}
    for (kind, name), made in objects.items():
        if kind == "Pod":
            found[f"{kind} {name}"] = made["spec"]
        elif kind in ("Deployment", "Job"):
            found[f"{kind} {name}"] = made["spec"]["template"]["spec"]
        elif kind == "CronJob":
            job = made["spec"]["jobTemplate"]["spec"]
            found[f"{kind} {name}"] = job["template"]["spec"]
        elif kind == "InferenceService":
            found[f"{kind} {name}"] = made["spec"]["predictor"]
    return found
