"""Lint of both Dockerfiles, for machines whose Docker has no `docker build --check`.

Owns our own rules: pinned bases, a numeric user that is not root, code after dependencies, no pip
cache in a layer, and the first stage the same in both, so that both images share its layer.
Standard library only.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ("Dockerfile.api", "Dockerfile.model")


def instructions(text: str) -> list[tuple[str, str]]:
    """Every instruction with its arguments, continued lines joined, comments dropped."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    parts = [line.strip().split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(part[0].upper(), part[1] if len(part) > 1 else "") for part in parts]


def stages(found: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    starts = [index for index, (name, _) in enumerate(found) if name == "FROM"]
    return [found[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def base_problems(found: list[tuple[str, str]]) -> list[str]:
    defaults = dict(text.split("=", 1) for name, text in found if name == "ARG" and "=" in text)
    known = {"scratch"}
    problems = []
    for name, text in found:
        if name != "FROM":
            continue
        image = re.sub(r"\$\{?(\w+)\}?", lambda match: defaults.get(match[1], ""), text.split()[0])
        if image not in known and (":" not in image or image.endswith(":latest")):
            problems.append(f"FROM {image or text}: the base needs a tag that is not latest")
        known.update(text.split()[2:3])
    return problems


def final_stage_problems(final: list[tuple[str, str]]) -> list[str]:
    users = [text for name, text in final if name == "USER"]
    commands = [text for name, text in final if name in ("CMD", "ENTRYPOINT")]
    copies = [text.split()[-1] for name, text in final if name == "COPY"]
    problems = []
    if not users or not re.fullmatch(r"[1-9][0-9]*(:[0-9]+)?", users[-1]):
        problems.append("USER must be a number that is not root's: Kubernetes checks it so")
    if not commands or not all(text.startswith("[") for text in commands):
        problems.append("CMD must be in the exec form: a shell would swallow SIGTERM")
    if not copies or copies[-1] != "/app":
        problems.append("code must be copied last, or every change moves the dependencies too")
    if any(name == "RUN" for name, _ in final):
        problems.append("the last stage only copies: whatever builds belongs in a stage before")
    return problems


def problems_of(text: str) -> list[str]:
    found = instructions(text)
    problems = base_problems(found) + final_stage_problems(stages(found)[-1])
    for name, arguments in found:
        if name == "ADD":
            problems.append("ADD may fetch or unpack: use COPY")
        installs = re.search(r"\bpip install\b|install_torch", arguments)
        if name == "RUN" and installs and "--mount=type=cache" not in arguments:
            problems.append("pip without a cache mount leaves its cache in the layer")
        if name == "ENV" and re.search(r"(?i)(password|token|secret)\w*=", arguments):
            problems.append("ENV must not hold a secret")
    return problems


def main() -> int:
    texts = {name: (ROOT / name).read_text() for name in FILES}
    problems = [f"{name}: {what}" for name, text in texts.items() for what in problems_of(text)]
    first, second = (stages(instructions(text))[0] for text in texts.values())
    if first != second:
        problems.append("the stage `system` differs between both Dockerfiles: no layer is shared")
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
