"""The tables. The owner stands first in every primary key, so that no query can forget it."""

from sqlalchemy import BigInteger, Dialect, ForeignKeyConstraint, Index, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class AnswerText(TypeDecorator[str]):
    """What a model wrote, any character. PostgreSQL cannot keep U+0000: it gets its picture."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is not None and dialect.name == "postgresql":
            return value.replace("\0", "\u2400")
        return value


class Base(DeclarativeBase):
    pass


class ChatRow(Base):
    __tablename__ = "chats"

    owner: Mapped[str] = mapped_column(Text, primary_key=True, server_default="")
    chat_id: Mapped[str] = mapped_column(Text, primary_key=True)
    system_prompt: Mapped[str | None] = mapped_column(Text)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    updated_ms: Mapped[int] = mapped_column(BigInteger)
    next_position: Mapped[int] = mapped_column(BigInteger)
    complete_turns: Mapped[int] = mapped_column(BigInteger)
    title: Mapped[str | None] = mapped_column(Text)
    """As a person gave it; None: it is made from the first question when it is read."""
    branched_from_chat: Mapped[str | None] = mapped_column(Text)
    branched_from_position: Mapped[int | None] = mapped_column(BigInteger)
    hidden_turns: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Attempts at an answer that do not stand; never more than one of a question does."""

    __table_args__ = (Index("chats_by_update", "owner", "updated_ms", "chat_id"),)


class TurnRow(Base):
    __tablename__ = "turns"

    owner: Mapped[str] = mapped_column(Text, primary_key=True, server_default="")
    chat_id: Mapped[str] = mapped_column(Text, primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    turn_id: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    system_prompt: Mapped[str | None] = mapped_column(Text)
    user_prompt: Mapped[str] = mapped_column(Text)
    response: Mapped[str | None] = mapped_column(AnswerText)
    finish_reason: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(Text)
    prompt_tokens: Mapped[int | None] = mapped_column(BigInteger)
    completion_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cached_tokens: Mapped[int | None] = mapped_column(BigInteger)
    own_tokens: Mapped[int] = mapped_column(BigInteger)
    request_id: Mapped[str] = mapped_column(Text)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    finished_ms: Mapped[int | None] = mapped_column(BigInteger)
    replaces: Mapped[int | None] = mapped_column(BigInteger)
    """The position of the turn that asked the same question before."""
    folded: Mapped[str | None] = mapped_column(AnswerText)
    """Question and answer as a search compares them (`api.history.text.fold`)."""

    __table_args__ = (
        ForeignKeyConstraint(
            ["owner", "chat_id"], ["chats.owner", "chats.chat_id"], ondelete="CASCADE"
        ),
        Index(
            "turns_pending",
            "turn_id",
            sqlite_where=text("status = 'pending'"),
            postgresql_where=text("status = 'pending'"),
        ),
    )


class LeaseRow(Base):
    """Who writes a chat now. `turn_id` is the fence: a turn is ended only by the one that began
    it.
    """

    __tablename__ = "leases"

    owner: Mapped[str] = mapped_column(Text, primary_key=True, server_default="")
    chat_id: Mapped[str] = mapped_column(Text, primary_key=True)
    turn_id: Mapped[str] = mapped_column(Text)
    holder: Mapped[str] = mapped_column(Text)
    expires_ms: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        ForeignKeyConstraint(
            ["owner", "chat_id"], ["chats.owner", "chats.chat_id"], ondelete="CASCADE"
        ),
        Index("leases_by_holder", "holder"),
    )


class KeyRow(Base):
    """An Idempotency-Key and the turn that it was sent for. `answer` is set with the turn's
    ending, in the same commit: the parts of the answer that the turn does not hold.
    """

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(Text, primary_key=True, server_default="")
    idempotency_key: Mapped[str] = mapped_column(Text, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(Text)
    chat_id: Mapped[str] = mapped_column(Text)
    position: Mapped[int] = mapped_column(BigInteger)
    turn_id: Mapped[str] = mapped_column(Text)
    answer: Mapped[str | None] = mapped_column(Text)
    created_ms: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        ForeignKeyConstraint(
            ["owner", "chat_id"], ["chats.owner", "chats.chat_id"], ondelete="CASCADE"
        ),
        Index("idempotency_keys_by_chat", "owner", "chat_id"),
        Index("idempotency_keys_by_age", "created_ms"),
    )
