"""Which database a server on this machine has, where nobody named one.

`make run` beside another one keeps its chats in a file of its own, named by its port: a key that is
made in the other's file opens nothing.
"""

import fcntl
from pathlib import Path

from api.settings import SettingsError

_SCHEME = "sqlite:///"


def url_of_the_running(default_url: str, port: int | None) -> str:
    """The default, or the file of the server at that port. SettingsError when no server has the
    default and others have theirs.
    """
    default = Path(default_url.removeprefix(_SCHEME))
    if port is not None:
        own = default.with_stem(f"{default.stem}-{port}")
        return f"{_SCHEME}{own}" if in_use(own) else default_url
    others = [one for one in sorted(default.parent.glob("chats-*.db")) if in_use(one)]
    if others and not in_use(default):
        ports = ", ".join(one.stem.removeprefix(f"{default.stem}-") for one in others)
        raise SettingsError(
            f"no server has {default}, but others run with files of their own: name one by "
            f"--port (of {ports}), or a database by --database-url"
        )
    return default_url


def in_use(database: Path) -> bool:
    """A server that runs holds the file's lock (`api.history.sqlite`)."""
    try:
        with database.with_name(database.name + ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
