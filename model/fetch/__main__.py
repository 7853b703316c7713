"""`python -m model.fetch SOURCE FOLDER`: what the chart's Job runs. Main thread.

Ends with 0 when the folder is complete, 1 when another try may help, 2 when none will.
"""

import argparse
import os
import sys
from pathlib import Path

from model.fetch.errors import FetchError, TryAgain
from model.fetch.folder import fill


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m model.fetch", description=__doc__)
    parser.add_argument("source", help="hf://ORGANISATION/NAME, or https://… of a folder")
    parser.add_argument("folder", type=Path, help="the folder that is there when all is")
    parser.add_argument("--revision", default="", help="of the Hub: branch, tag or commit")
    parser.add_argument(
        "--file", action="append", default=[], metavar="PATH=SHA256", help="a file, and what it is"
    )
    given = parser.parse_args()
    expected = dict(item.rpartition("=")[::2] for item in given.file)
    try:
        fill(
            given.folder,
            given.source,
            say=lambda line: print(f"fetch: {line}", flush=True),
            revision=given.revision,
            expected=expected,
        )
    except FetchError as error:
        print(f"fetch: {error}", file=sys.stderr)
        return 2
    except TryAgain as error:
        print(f"fetch: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"fetch: {given.folder}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    # The lines of all threads are out; nothing is worth waiting for.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
