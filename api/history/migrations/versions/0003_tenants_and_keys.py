"""Tenants and keys."""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: None = None
depends_on: None = None


def _limits() -> list[sa.Column[int]]:
    names = ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "max_concurrent")
    return [sa.Column(name, sa.BigInteger()) for name in names]


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        *_limits(),
        sa.PrimaryKeyConstraint("tenant"),
    )
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("models", sa.Text()),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("old_digest", sa.LargeBinary()),
        sa.Column("old_until_ms", sa.BigInteger()),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger()),
        sa.Column("revoked_ms", sa.BigInteger()),
        *_limits(),
        sa.PrimaryKeyConstraint("key_id"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.tenant"]),
    )
    op.create_index("api_keys_by_tenant", "api_keys", ["tenant", "created_ms", "key_id"])


def downgrade() -> None:
    op.drop_table("api_keys")
    op.drop_table("tenants")
