"""Whose request it is, as far as the queue must know to serve tenants by turns.

The header comes from the API server, which knows by the caller's key and hands no header of the
caller's on. It names nobody: the API server sends a hash. A request without it shares its turn
with all others that have none.
"""

import re
from collections.abc import Mapping

from model.errors import InvalidRequest

HEADER = "X-Tenant"
_FORM = re.compile(r"[A-Za-z0-9._-]{1,64}")


def tenant_of(headers: Mapping[str, str]) -> str | None:
    """`headers` has lower-case names."""
    text = headers.get(HEADER.lower())
    if text is not None and not _FORM.fullmatch(text):
        raise InvalidRequest(
            f"{HEADER}: must be 1 to 64 letters, digits, dots, underscores and hyphens",
            param=HEADER,
        )
    return text
