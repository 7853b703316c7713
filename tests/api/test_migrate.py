"""Migrations: they make the schema that the models describe, all of it or nothing."""

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from api.__main__ import main
from api.history import SqlStore, StoreError, migrate
from api.history.database import make_database
from api.history.models import Base
from api.metrics import Metrics


def test_the_migrations_make_what_the_models_say(database_url: str) -> None:
    engine = make_database(database_url, timeout_s=5, connections=1).engine
    with engine.begin() as connection:
        assert migrate.upgrade(connection) == (None, "0001")
        assert migrate.upgrade(connection) == ("0001", "0001")
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


@pytest.mark.anyio
async def test_a_migration_that_fails_leaves_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / "chats.db"
    old = sqlite3.connect(path)
    # The second of the tables is there already, so the migration fails after the first.
    old.execute("CREATE TABLE turns (a)")
    old.commit()
    store = SqlStore(f"sqlite:///{path}", Metrics(), lease_s=1, timeout_s=1)
    with pytest.raises(StoreError):
        await store.open()
    await store.close()
    tables = [name for (name,) in old.execute("SELECT name FROM sqlite_master")]
    old.close()
    assert tables == ["turns"]


def test_the_command_migrates(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "chats.db"
    assert main(["migrate", "--database-url", f"sqlite:///{path}"]) == 0
    database = sqlite3.connect(path)
    assert database.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
    database.close()
