"""Usage by hour, tenant, key and model."""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("hour_ms", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "key_id", "model")),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in (
                "requests", "errors", "prompt_tokens", "completion_tokens", "cached_tokens",
            )
        ),
        sa.PrimaryKeyConstraint("hour_ms", "tenant", "key_id", "model"),
    )  # fmt: skip
    op.create_index("usage_by_tenant", "usage", ["tenant", "hour_ms"])


def downgrade() -> None:
    op.drop_table("usage")
