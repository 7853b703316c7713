"""`python -m bench api`: what may be chosen on its command line."""

import argparse
import sys
from pathlib import Path

from bench.hop import report
from bench.hop.rounds import ALL, Options, Rounds, command_line, default_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=8.0, help="of load for one figure in one round")
    add("--only", default=",".join(ALL), help=f"of {', '.join(ALL)}; default all")
    add("--no-peers", action="store_true", help="without LiteLLM, though it is installed")
    add("--requests", type=int, default=100_000, help="of the figure of memory")
    add("--out", type=Path, help="folder; default reports/api/<time>")
    add("--report", type=Path, metavar="FOLDER", help="only write a run's report again")
    parser.set_defaults(do=_main)


def _main(arguments: argparse.Namespace) -> int:
    if arguments.report:
        return _tell(arguments.report)
    only = tuple(arguments.only.split(","))
    if unknown := sorted(set(only) - set(ALL)):
        raise ValueError(f"--only: {', '.join(unknown)}: want some of {', '.join(ALL)}")
    for name in ("rounds", "seconds", "requests"):
        if not getattr(arguments, name) > 0:
            raise ValueError(f"--{name}: must be above 0")
    options = Options(
        folder=(arguments.out or default_folder()).resolve(),
        command=command_line(),
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        only=only,
        peers=not arguments.no_peers,
        requests=arguments.requests,
    )
    Rounds(options, sys.stderr).run()
    return _tell(options.folder)


def _tell(folder: Path) -> int:
    for path in report.write(folder):
        print(path)
    print()
    print((folder / "report.md").read_text())
    return 0
