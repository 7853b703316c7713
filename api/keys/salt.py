"""What the model host is told of a caller's tenant: whose turn it is, and whose cached prefixes."""

import hashlib

from api.keys.records import Caller

_LENGTH = 32


def tenant_tag(caller: Caller) -> str | None:
    """Whose turn it is in the model host's queue; nothing that a caller sends has a part in it.

    Hashed, as the salt is: no name of a tenant leaves this server. None: keys are off.
    """
    return _hashed(f"tenant:{caller.tenant}") if caller.tenant else None


def cache_salt(caller: Caller, own: str | None = None) -> str | None:
    """The salt for the model host; `own` is what the caller asked for. None: no salt.

    Hashed, so that no text of a caller becomes a key in the host as it is, and no tenant can name
    another's salt.
    """
    if not caller.tenant:
        return own
    return _hashed(f"{len(caller.tenant)}:{caller.tenant}:{own or ''}")


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:_LENGTH]
