"""The command line: what must be quick to start, and what is refused in one line."""

import subprocess
import sys

import pytest

from bench.registry import ENGINES, make_engine
from bench.spec import NotForThis, Spec
from bench.workloads import WORKLOADS

MAIN = """\
import contextlib, sys
from bench.__main__ import main
for words in sys.argv[1:]:
    with contextlib.suppress(SystemExit):
        main(words.split())
    assert "torch" not in sys.modules, words
"""


def test_what_measures_no_engine_waits_for_no_torch() -> None:
    commands = ("list", "load --help", "api --help", "report nowhere")
    done = subprocess.run([sys.executable, "-c", MAIN, *commands], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, known in ENGINES.items():
        assert f"  {name:16} {known.about}" in done.stdout
        assert ", ".join(known.options) in done.stdout


def test_an_unknown_engine_or_option_is_refused_with_those_that_there_are() -> None:
    w1 = WORKLOADS["w1"]()
    with pytest.raises(NotForThis, match=r"no engine other; there are: ours, .*llama\.cpp"):
        make_engine(Spec("other"), w1)
    with pytest.raises(NotForThis, match=r"no option speed; there are: model, .*max_num_seqs"):
        make_engine(Spec.parse("ours:speed=11"), w1)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_is_made_where_the_registry_says(name: str) -> None:
    options = dict.fromkeys(ENGINES[name].options)
    assert make_engine(Spec(name, options), WORKLOADS["w1"]()).given == options
