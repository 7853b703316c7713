"""The model host: serves one language model over HTTP. Never imports `api`."""

from pathlib import Path

# An image may carry the code without the file.
_VERSION_FILE = Path(__file__).resolve().parent.parent / "VERSION"
__version__ = _VERSION_FILE.read_text().strip() if _VERSION_FILE.exists() else "0+unknown"
