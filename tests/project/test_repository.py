"""What the repository promises about itself: pins, sizes, targets, links, the README's tree."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1_000_000


def tracked() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).exists()]


def documents() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


def test_pins_name_no_registry_host() -> None:
    pins = [ROOT / "constraints.txt", *(ROOT / "requirements").glob("*.txt")]
    for path in pins:
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert not [line for line in lines if "://" in line or line.startswith("-")], path


def test_every_direct_requirement_is_pinned() -> None:
    constraints = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    pinned = set(re.findall(r"^([a-z0-9.-]+)==", constraints, flags=re.MULTILINE))
    for path in (ROOT / "requirements").glob("*.txt"):
        for line in path.read_text().lower().splitlines():
            if name := re.match(r"[a-z0-9._-]+", line):
                assert name.group().replace("_", "-") in pinned, f"{path.name}: {line}"


def test_weights_and_tree_are_small() -> None:
    weights = [path for path in tracked() if path.suffix == ".safetensors"]
    assert weights, "the bundled demo model is missing"
    assert sum(path.stat().st_size for path in weights) <= 12 * MEGABYTE
    assert sum(path.stat().st_size for path in tracked()) <= 60 * MEGABYTE


def test_every_target_has_a_line_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)", makefile, flags=re.MULTILINE)
    assert phony
    targets = set(phony.group(1).replace("\\", " ").split())
    described = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert targets == set(re.findall(r"^  make (\S+) +\S", described, flags=re.MULTILINE))


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path in documents():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
            if not target.startswith(("http://", "https://", "mailto:")):
                where = path.parent / target
                if not where.exists():
                    broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert not broken


def test_the_tree_in_the_readme_is_the_tree() -> None:
    """Every file or folder that the README names exists, and no top-level folder is left out."""
    block = re.search(r"<!-- tree -->\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block, "README.md has no tree between <!-- tree --> and the end of its code block"
    named: set[str] = set()
    parents: list[str] = []
    for line in block.group(1).splitlines():
        entry = re.match(r"( *)(\S+)", line)
        if not entry:
            continue
        depth, name = len(entry.group(1)) // 2, entry.group(2)
        parents = [*parents[:depth], name]
        named.add("".join(parents).rstrip("/"))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing, f"named in the README, not in the tree: {missing}"
    top = {path.relative_to(ROOT).parts[0] for path in tracked()} - {".gitignore", ".dockerignore"}
    assert not sorted(top - {name for name in named if "/" not in name})
