"""How much text rows hold, measured by the database itself, so that a read can end before it is too
much to keep in memory.
"""

from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import BigInteger, func
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

MIB = 1024 * 1024
PAGE_BYTES = 4 * MIB
"""Of one page of turns; one turn always fits."""
EXPORT_BYTES = MIB
"""Of what an export holds at once."""
PAST_BYTES = 4 * MIB
"""Of the earlier turns that a question is given to go along with it."""
BRANCH_TURNS, BRANCH_BYTES = 10_000, 32 * MIB
"""Of what one branch copies, in one transaction."""


class byte_length(FunctionElement[int]):  # noqa: N801  # a function of SQL
    type = BigInteger()
    inherit_cache = True


@compiles(byte_length, "sqlite")
def _in_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    # Of a text it would count characters, and those before a NUL only.
    return f"length(CAST({compiler.process(element.clauses, **options)} AS BLOB))"


@compiles(byte_length, "postgresql")
def _in_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return f"octet_length({compiler.process(element.clauses, **options)})"


def bytes_of(*columns: Any) -> Any:
    """Of all of them together; NULL counts nothing."""
    return reduce(add, (func.coalesce(byte_length(column), 0) for column in columns))
