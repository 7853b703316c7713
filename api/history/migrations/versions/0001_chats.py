"""Chats, turns and leases."""

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: None = None
depends_on: None = None


def _key() -> list[sa.Column[str]]:
    return [
        sa.Column("owner", sa.Text(), server_default="", nullable=False),
        sa.Column("chat_id", sa.Text(), nullable=False),
    ]


def _of_a_chat() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["owner", "chat_id"], ["chats.owner", "chats.chat_id"], ondelete="CASCADE"
    )


def upgrade() -> None:
    op.create_table(
        "chats",
        *_key(),
        sa.Column("system_prompt", sa.Text()),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.Column("next_position", sa.BigInteger(), nullable=False),
        sa.Column("complete_turns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "chat_id"),
    )
    op.create_index("chats_by_update", "chats", ["owner", "updated_ms", "chat_id"])
    op.create_table(
        "turns",
        *_key(),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("turn_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("system_prompt", sa.Text()),
        sa.Column("user_prompt", sa.Text(), nullable=False),
        sa.Column("response", sa.Text()),
        sa.Column("finish_reason", sa.Text()),
        sa.Column("error_code", sa.Text()),
        sa.Column("prompt_tokens", sa.BigInteger()),
        sa.Column("completion_tokens", sa.BigInteger()),
        sa.Column("cached_tokens", sa.BigInteger()),
        sa.Column("own_tokens", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("finished_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("owner", "chat_id", "position"),
        _of_a_chat(),
    )
    pending = sa.text("status = 'pending'")
    op.create_index(
        "turns_pending", "turns", ["turn_id"], sqlite_where=pending, postgresql_where=pending
    )
    op.create_table(
        "leases",
        *_key(),
        sa.Column("turn_id", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "chat_id"),
        _of_a_chat(),
    )
    op.create_index("leases_by_holder", "leases", ["holder"])


def downgrade() -> None:
    op.drop_table("leases")
    op.drop_table("turns")
    op.drop_table("chats")
