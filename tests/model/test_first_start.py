"""The first start on a machine: what every model needs is compiled beside, and not twice."""

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from model.kernels import ahead, cache

REPORT = """
import sys
import tempfile
from numba.core import event
from model.kernels import ahead
ahead.begin()
assert ("torch" in sys.modules) is False
compiled = set()
class Listener(event.Listener):
    def on_start(self, e):
        function = e.data["dispatcher"].py_func
        if function.__module__.startswith("model."): compiled.add(function.__name__)
    def on_end(self, e): pass
event.register("numba:compile", Listener())
from model.engine.build import build_engine
from model.engine.config import EngineConfig
build_engine(EngineConfig(model="model/demo/weights", device="cpu"), lambda _: None)
print(*sorted(compiled))
"""


def compiled_by_a_start(folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", REPORT],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout.split()


def test_a_second_process_compiles_what_every_model_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What depends on the model is left to the first, and a second start compiles nothing."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "_chosen", None)
    halves = ["into_attention", "out_of_attention"]
    assert compiled_by_a_start(tmp_path) == ["attend", *halves, "product"]
    assert cache.mark(cache.folder()).exists()
    assert list(tmp_path.iterdir()) == [cache.folder()]
    assert compiled_by_a_start(tmp_path) == []


def test_what_nobody_waits_for_ends_without_a_trace(tmp_path: Path) -> None:
    script = f"""
import os, time
os.environ["NUMBA_CACHE_DIR"] = {str(tmp_path)!r}
from model.kernels import ahead
ahead.begin()
child = ahead._process.pid
ahead.give_up()
until = time.monotonic() + 30
while os.path.exists(f"/proc/{{child}}") and time.monotonic() < until:
    time.sleep(0.01)
print(os.path.exists(f"/proc/{{child}}"))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("argument", ["--help", "--port=none"])
def test_a_start_that_ends_at_once_leaves_no_process_behind(tmp_path: Path, argument: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "model", argument],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        check=False,
        timeout=200,
    )
    left = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            left.append(process.read_bytes())
    assert not [line for line in left if bytes(tmp_path) in line]


def test_a_cpu_quota_of_one_core_starts_no_second_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "cpu_threads", lambda: (1, "the cgroup allows 1 of 64 cores"))
    ahead.begin()
    assert ahead._process is None


def test_a_system_that_does_not_say_which_cores_are_ours_is_asked_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    ahead.begin()
    assert ahead._process is None


def in_an_image(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_chosen", None)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp))


def test_a_named_folder_keeps_each_version_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numba would not see that what a function has inlined from another file is of another one."""
    monkeypatch.setattr(cache, "_chosen", None)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    before = cache.folder()
    monkeypatch.setattr(cache, "_version", lambda: "another")
    assert before.parent == cache.folder().parent == tmp_path
    assert before != cache.folder()


def test_an_image_takes_what_its_build_has_compiled_and_nothing_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, temporary = tmp_path / "built", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(cache, "_chosen", None)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(built))
    for place, name in ((cache.folder(), "fresh"), (built / "kernels-older", "stale")):
        place.mkdir(parents=True)
        (place / name).touch()
    in_an_image(temporary, monkeypatch)
    monkeypatch.setattr(cache, "_BUILT", built)
    assert [path.name for path in cache.folder().iterdir()] == ["fresh"]


def test_the_cache_is_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the code cannot be written to, as in an image: a folder that all can write to."""
    in_an_image(tmp_path, monkeypatch)
    place = cache.folder()
    assert (cache.folder(), place.parent) == (place, tmp_path)
    assert list(tmp_path.iterdir()) == [place]
    place.chmod(0o777)
    assert cache.folder() != place
    place.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place.symlink_to(elsewhere)
    assert cache.folder() not in (place, elsewhere)
