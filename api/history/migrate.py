"""Brings a database's schema to the newest revision. All steps or none: they run in the caller's
transaction.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from api.history.store import StoreError

_SCRIPTS = Path(__file__).parent / "migrations"


def _config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(connection: Connection) -> tuple[str | None, str | None]:
    """The revision before and after. The caller keeps other processes from doing the same."""
    config = _config(connection)
    before = MigrationContext.configure(connection).get_current_revision()
    newest = ScriptDirectory.from_config(config).get_current_head()
    try:
        command.upgrade(config, "head")
    except (CommandError, ResolutionError) as error:
        raise StoreError(
            f"the database has revision {before}, which this version does not know "
            f"(it knows up to {newest}); a newer version has written it"
        ) from error
    return before, newest
