"""Writes the Grafana dashboards that the charts carry.

python -m scripts.dashboards            # charts/*/dashboards/*.json
python -m scripts.dashboards --check    # 1 when one of them is not what this would write
"""

import sys
from pathlib import Path

from scripts.dashboards import api_server, model_host
from scripts.dashboards.grafana import written

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    ROOT / "charts/api-server/dashboards/api-server.json": api_server.DASHBOARD,
    ROOT / "charts/model-host/dashboards/model-host.json": model_host.DASHBOARD,
}


def main(arguments: list[str]) -> int:
    old = [
        path
        for path, dashboard in FILES.items()
        if not path.exists() or path.read_text() != written(dashboard)
    ]
    if "--check" in arguments:
        for path in old:
            print(f"{path.relative_to(ROOT)} is not current: run make dashboards", file=sys.stderr)
        return 1 if old else 0
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.write_text(written(FILES[path]))
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
