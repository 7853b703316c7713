"""`python -m model`: settings, the port, the application, KServe's server. Main thread."""

import logging
import os
import sys

from model.kernels import ahead

if __name__ == "__main__":
    # Before torch is imported, which takes as long as half of what is to be compiled.
    ahead.begin()

from model.app import build_app
from model.config import SettingsError, load_settings
from model.host import Host
from model.logs import configure
from model.predictor import Predictor
from model.server import Server, listen


def main() -> int:
    try:
        settings = load_settings(sys.argv[1:])
        configure(settings.log_level, settings.log_format, access=settings.access_log)
        sock = listen(settings)
    except SettingsError as error:
        print(f"model: {error}", file=sys.stderr)
        return 1
    host = Host(settings)
    predictor = Predictor(host)
    app = build_app(host, predictor, runs_engine=False)
    failure = Server(settings, app, sock).run(predictor)
    if failure:
        print(f"model: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        code = main()
    finally:
        # A start that has failed, or shown its help, would leave it behind.
        ahead.give_up()
    logging.shutdown()
    sys.stdout.flush()
    # Everything is closed. Taking torch apart would cost seconds, and an engine thread that is
    # still loading cannot be interrupted.
    os._exit(code)
