"""The `llm` command line, as its users set up any OpenAI address: one entry in a YAML file."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

ENTRY = """\
- model_id: qna
  model_name: qna-demo
  api_base: {base_url}
"""


class Llm(Protocol):
    def __call__(self, *arguments: str) -> str: ...


@pytest.fixture
def llm(base_url: str, tmp_path: Path) -> Llm:
    (tmp_path / "extra-openai-models.yaml").write_text(ENTRY.format(base_url=base_url))

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            env={"PATH": os.environ["PATH"], "LLM_USER_PATH": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_question_is_answered_whole_and_streamed(llm: Llm) -> None:
    for how in (["--no-stream"], []):
        assert llm("-m", "qna", *how, "Capital of India?") == "The capital of India is New Delhi.\n"


def test_a_conversation_is_continued(llm: Llm) -> None:
    llm("-m", "qna", "-s", "You are a helpful assistant.", "Capital of India?")
    assert llm("-c", "And of Japan?") == "The capital of Japan is Tokyo.\n"


def test_options_are_passed_on_and_usage_is_kept(llm: Llm) -> None:
    cut = llm("-m", "qna", "-o", "max_tokens", "2", "-o", "temperature", "0", "Capital of India?")
    assert cut.strip() == "The capital"
    assert '"output_tokens": 2' in llm("logs", "--json", "-n", "1")
