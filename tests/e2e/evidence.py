"""What is kept of a run: a report of every test, and of each failed one all that tells why."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.cluster import CONTEXT, NAMESPACE, ROOT

FOLDER = ROOT / "reports" / "e2e"
COLUMNS = ("requests", "failed", "cut", "recovery_s")


@dataclass
class Row:
    """One test's line in the report."""

    outcome: str = ""
    seconds: float = 0.0
    facts: dict[str, object] = field(default_factory=dict)


def write_report(rows: dict[str, Row]) -> None:
    lines = [
        "# Cluster tests",
        "",
        "| Test | Outcome | Seconds | Requests | Failed | Cut | Recovery (s) | Facts |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        known = [str(row.facts.get(column, "")) for column in COLUMNS]
        rest = [f"{key} {value}" for key, value in row.facts.items() if key not in COLUMNS]
        cells = [name, row.outcome, f"{row.seconds:.1f}", *known, "; ".join(rest)]
        lines.append("| " + " | ".join(cells) + " |")
    passed = sum(row.outcome == "passed" for row in rows.values())
    total = sum(row.seconds for row in rows.values())
    lines += ["", f"{passed} of {len(rows)} passed in {total:.0f} s.", ""]
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "report.md").write_text("\n".join(lines))


def write_records(name: str, lines: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"load-{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return "no answer within 20 s\n"
    return done.stdout + done.stderr


def _log_commands(kubectl: list[str]) -> dict[str, list[str]]:
    """One command for the log of each container, and one for the log of its life before."""
    template = "{range .items[*]}{.metadata.name}{range .spec.containers[*]} {.name}{end};{end}"
    listed = _output([*kubectl, "get", "pods", "-o", f"jsonpath={template}"])
    commands = {}
    for line in listed.split(";"):
        pod, *containers = line.split() or [""]
        for container in containers if re.fullmatch(r"[a-z0-9.-]+", pod) else []:
            logs = [*kubectl, "logs", pod, "-c", container, "--tail=2000"]
            commands[f"{pod}.{container}.log"] = logs
            commands[f"{pod}.{container}.previous.log"] = [*logs, "--previous"]
    return commands


def keep(test: str, story: str) -> Path:
    """Writes the cluster's state into a folder named after the test, whatever answers."""
    folder = FOLDER / re.sub(r"[^A-Za-z0-9._-]+", "-", test).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "failure.txt").write_text(story)
    kubectl = ["kubectl", "--context", CONTEXT, "-n", NAMESPACE]
    helm = ["helm", "--kube-context", CONTEXT, "-n", NAMESPACE]
    described = "inferenceservices,deployments,replicasets,pods,services,networkpolicies,pvc"
    commands = {
        "events.txt": [*kubectl, "get", "events", "--sort-by=.lastTimestamp"],
        "objects.txt": [*kubectl, "get", described, "-o", "wide"],
        "describe.txt": [*kubectl, "describe", described],
        "nodes.txt": [*kubectl, "describe", "nodes"],
        "kserve-controller.log": [
            *["kubectl", "--context", CONTEXT, "-n", "kserve", "logs", "--tail=500"],
            *["-l", "control-plane=kserve-controller-manager", "-c", "manager"],
        ],
        "model-host.helm.yaml": [*helm, "get", "all", "model-host"],
        "api-server.helm.yaml": [*helm, "get", "all", "api-server"],
        **_log_commands(kubectl),
    }
    with ThreadPoolExecutor(4) as pool:
        for name, said in zip(commands, pool.map(_output, commands.values()), strict=True):
            never_ended = name.endswith(".previous.log") and "previous terminated" in said
            if not never_ended:
                (folder / name).write_text(said)
    return folder
