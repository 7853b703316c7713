"""`python -m bench`: run, report, machine, agreement, load, api. Says what is wrong in one line."""

import argparse
import json
import sys
from pathlib import Path

from bench import agreement, load, machine, report
from bench.hop import cli as api
from bench.registry import ENGINES, known
from bench.rounds import Run, child, default_folder, quiet, run
from bench.spec import NotForThis, Spec, parse_option
from bench.suites import OURS, SUITES, Plan, plan
from bench.workloads import WORKLOADS


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.do(arguments)
    except (NotForThis, ValueError, FileNotFoundError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="engines against each other, in rounds"))
    reporting = commands.add_parser("report", help="tables and plots from a run's rounds.jsonl")
    reporting.add_argument("folder", type=Path, help="the run's folder")
    reporting.set_defaults(do=lambda a: _report(a.folder))
    machines = commands.add_parser("machine", help="what this machine is and can do")
    machines.add_argument("--json", action="store_true")
    machines.set_defaults(do=_machine)
    load.add_arguments(commands.add_parser("load", help="open-loop load on an OpenAI address"))
    api.add_arguments(commands.add_parser("api", help="the API server, beside LiteLLM"))
    agreement.add_arguments(
        commands.add_parser("agreement", help="do rounded numbers choose the same tokens?")
    )
    one = commands.add_parser("round", help="one engine once, in this process")
    one.add_argument("engine")
    one.add_argument("workload", choices=WORKLOADS)
    one.add_argument("out", type=Path, help="file for the result, as JSON")
    one.set_defaults(do=lambda a: child(a.engine, a.workload, a.out))
    listing = commands.add_parser("list", help="engines, workloads and suites")
    listing.set_defaults(do=_list)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--suites", default=",".join(SUITES), help=f"of {', '.join(SUITES)}; default all"
    )
    parser.add_argument("--peers", action="store_true", help="vLLM and llama.cpp as well")
    parser.add_argument(
        "--engine",
        action="append",
        metavar="NAME[:OPTION=VALUE,…]",
        help="instead of the suites; may be given several times",
    )
    parser.add_argument(
        "--workload", action="append", choices=WORKLOADS, help="with --engine; default w1"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field of EngineConfig, for all of our engines",
    )
    parser.add_argument("--out", type=Path, help="folder; default reports/bench/<time>")
    parser.set_defaults(do=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.engine:
        workloads = arguments.workload or ["w1"]
        chosen: Plan = [(e, w) for w in workloads for e in arguments.engine]
    else:
        chosen = plan(arguments.suites.split(","), arguments.peers)
    chosen = [(_with(engine, arguments.set), workload) for engine, workload in chosen]
    if warning := quiet():
        print(f"bench: {warning}", file=sys.stderr)
    folder = (arguments.out or default_folder()).resolve()
    words = ["python -m bench", *sys.argv[1:]]
    run(
        Run(plan=chosen, rounds=arguments.rounds, folder=folder, command=" ".join(words)),
        sys.stderr,
    )
    return _report(folder)


def _with(engine: str, settings: list[str]) -> str:
    spec = Spec.parse(engine)
    known(spec.name)
    if spec.name.split("-")[0] != OURS or not settings:
        return engine
    options = dict(map(parse_option, settings))
    return str(Spec(spec.name, {**options, **spec.options}))


def _report(folder: Path) -> int:
    for path in report.write(folder):
        print(path)
    print()
    print((folder / "report.md").read_text())
    return 0


def _machine(arguments: argparse.Namespace) -> int:
    found = {"machine": machine.describe(), "measured": machine.measure()}
    if arguments.json:
        print(json.dumps(found))
    else:
        print("\n".join(report.machine_lines(found["machine"], found["measured"])))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    print("Engines")
    for name, found in ENGINES.items():
        print(f"  {name:16} {found.about}")
        print(f"  {'':16}   options: {', '.join(found.options)}")
    print("Workloads")
    for name, make in WORKLOADS.items():
        print(f"  {name:16} {make().what}")
    print(f"Suites: {', '.join(SUITES)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
