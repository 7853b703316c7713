"""Which part of the API server may know what: read from the source, nothing is run."""

import ast
from collections.abc import Iterator
from pathlib import Path

API = Path(__file__).resolve().parents[2] / "api"
WIRE = {"aiohttp", "httpcore", "httpx"}


def imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def importers_of(names: set[str]) -> set[str]:
    return {
        path.relative_to(API).as_posix()
        for path in API.rglob("*.py")
        if names & set(imported(path.read_text(encoding="utf-8")))
    }


def test_only_the_way_to_the_model_host_knows_the_wire() -> None:
    found = importers_of(WIRE)
    assert {path for path in found if not path.startswith("upstream/")} == set()
    # The rule above looks at what is there.
    assert "upstream/client.py" in found


# What keeps something in the chats' database says in files of these names what it does there.
STATEMENTS = {"rows.py", "statements.py"}


def test_only_the_history_and_statements_know_the_database() -> None:
    found = importers_of({"alembic", "sqlalchemy", "sqlite3"})
    others = {path for path in found if not path.startswith("history/")}
    assert {path for path in others if Path(path).name not in STATEMENTS} == set()
    assert "history/sql.py" in found
