"""The tables of usage, in the chats' database."""

from sqlalchemy import BigInteger, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from api.history.models import Base


class UsageRow(Base):
    __tablename__ = "usage"

    hour_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    key_id: Mapped[str] = mapped_column(Text, primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    errors: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("usage_by_tenant", "tenant", "hour_ms"),)


class UsageWriterRow(Base):
    """One for each process: the last batch that it has added."""

    __tablename__ = "usage_writers"

    writer: Mapped[str] = mapped_column(Text, primary_key=True)
    batch: Mapped[int] = mapped_column(BigInteger)
    written_ms: Mapped[int] = mapped_column(BigInteger)
