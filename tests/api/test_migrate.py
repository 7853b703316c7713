"""Migrations: they make the schema that the models describe, all of it or nothing."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text

from api.__main__ import main
from api.history import SqlStore, StoreError, migrate
from api.history.database import make_database
from api.history.models import Base, ChatRow
from api.metrics import Metrics
from tests.api.stores import DONE, begin, statuses

HEAD = ScriptDirectory(str(migrate._SCRIPTS)).get_current_head()


def test_the_migrations_make_what_the_models_say(database_url: str) -> None:
    engine = make_database(database_url, timeout_s=5, connections=1).engine
    with engine.begin() as connection:
        assert migrate.upgrade(connection) == (None, HEAD)
        assert migrate.upgrade(connection) == (HEAD, HEAD)
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


BROKEN = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "9998", "{head}", None, None


def upgrade():
    op.add_column("chats", sa.Column("half", sa.Text()))
    op.execute("UPDATE chats SET title = 'half done'")
    op.create_table("whole", sa.Column("a", sa.Text()))
    op.execute("SELECT * FROM nowhere")
"""


@pytest.mark.anyio
async def test_a_migration_that_fails_halfway_leaves_tables_rows_and_revision(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqlStore(database_url, Metrics(), lease_s=15, timeout_s=5)
    await store.open()
    await store.end_turn(await begin(store), DONE)
    await store.close()
    engine = make_database(database_url, timeout_s=5, connections=1).engine

    def state() -> tuple[object, ...]:
        with engine.connect() as connection:
            found = inspect(connection)
            tables = {
                name: [column["name"] for column in found.get_columns(name)]
                for name in found.get_table_names()
            }
            rows = connection.execute(select(ChatRow.chat_id, ChatRow.title)).all()
            revision = connection.execute(text("SELECT version_num FROM alembic_version")).all()
            return tables, rows, revision

    before = state()
    scripts = tmp_path / "migrations"
    shutil.copytree(migrate._SCRIPTS, scripts)
    (scripts / "versions" / "9998_breaks.py").write_text(BROKEN.format(head=HEAD))
    monkeypatch.setattr(migrate, "_SCRIPTS", scripts)
    store = SqlStore(database_url, Metrics(), lease_s=15, timeout_s=5)
    with pytest.raises(StoreError, match="nowhere"):
        await store.open()
    await store.close()
    assert state() == before
    monkeypatch.undo()
    # The version before goes on with it.
    store = SqlStore(database_url, Metrics(), lease_s=15, timeout_s=5)
    await store.open()
    await begin(store)
    assert await statuses(store) == ["complete", "pending"]
    await store.close()
    engine.dispose()


@pytest.mark.anyio
async def test_a_database_of_the_first_version_keeps_its_chats(database_url: str) -> None:
    database = make_database(database_url, timeout_s=5, connections=1)
    with database.engine.begin() as connection:
        command.upgrade(migrate._config(connection), "0001")
        connection.execute(text("INSERT INTO chats VALUES ('', 'a', 's', 1, 2, 1, 1)"))
        connection.execute(
            text(
                "INSERT INTO turns VALUES ('', 'a', 0, 't', 'complete', 's', 'An OLD question', "
                "'Its Answer', 'stop', NULL, 1, 1, 0, 2, 'r', 1, 2)"
            )
        )
    database.engine.dispose()
    store = SqlStore(database_url, Metrics(), lease_s=15, timeout_s=5)
    await store.open()
    for search in ("old", "its answer"):
        page = await store.list_chats("", 9, None, search)
        assert [(head.title, head.turns) for head in page.chats] == [("An OLD question", 1)]
    assert len((await begin(store, "a")).past) == 1
    await store.close()


def test_the_command_migrates(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "chats.db"
    assert main(["migrate", "--database-url", f"sqlite:///{path}"]) == 0
    database = sqlite3.connect(path)
    assert database.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,)
    database.close()
