"""A database that cannot be brought up to date holds the upgrade, and what runs goes on."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import (
    API_PODS,
    NAMESPACE,
    ROOT,
    CommandFailed,
    deploy,
    helm,
    kubectl,
    names_of,
    pods,
    secret_text,
)
from tests.e2e.conftest import Record
from tests.e2e.load import assert_nothing_lost, figures, light_load

pytestmark = pytest.mark.e2e
SECRET = "e2e-newer-database"


def psql(database: str, statement: str) -> None:
    command = ["psql", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", statement, database]
    kubectl("-n", NAMESPACE, "exec", "deployment/chats-database", "--", *command)


@pytest.fixture
def newer_database(installed: float) -> Iterator[None]:
    """One that a later version of the server has migrated, and the Secret with its address."""
    psql("postgres", "CREATE DATABASE newer")
    psql("newer", "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    psql("newer", "INSERT INTO alembic_version VALUES ('9999')")
    address = secret_text("chats-database", "url").removesuffix("/chats") + "/newer"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": NAMESPACE},
        "stringData": {"url": address},
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(secret))
    yield
    deploy()
    kubectl("-n", NAMESPACE, "delete", "secret", SECRET)
    kubectl("-n", NAMESPACE, "delete", "job", "api-server-migration", "--ignore-not-found")
    psql("postgres", "DROP DATABASE newer")


@pytest.mark.timeout(400)
def test_a_failed_migration_holds_the_upgrade(newer_database: None, record: Record) -> None:
    before = names_of(pods(API_PODS))
    with light_load("failed-migration") as load:
        with pytest.raises(CommandFailed, match=r"(?i)pre-upgrade hooks failed"):
            helm(
                "upgrade", "api-server", str(ROOT / "charts/api-server"), "--reuse-values",
                "--set", f"database.existingSecret={SECRET}", "--timeout", "3m",
            )  # fmt: skip
        load.wait_for_good(20, timeout_s=60)
        load.stop()
        records = load.records
    record(**figures(records))
    assert names_of(pods(API_PODS)) == before
    assert_nothing_lost(records)
    assert "9999" in kubectl("-n", NAMESPACE, "logs", "job/api-server-migration")
