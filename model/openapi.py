"""`python -m model.openapi` writes the host's OpenAPI document to docs/openapi/.

Makes the application without loading a model.
"""

import json
from pathlib import Path

from model.app import create_app
from model.config import load_settings

PATH = Path(__file__).parent.parent / "docs" / "openapi" / "model-host.json"


def render() -> str:
    app = create_app(load_settings(environ={}))
    return json.dumps(app.openapi(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(render())
