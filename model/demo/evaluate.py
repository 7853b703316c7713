"""Measures the demo model on held-out questions: `python -m model.demo.evaluate`.

Transformers answers them, and the engine in each kind of numbers: all have to reach the floors.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from model.demo import DEMO_MODEL, cases
from model.demo.data import outofscope
from model.engine import EngineConfig, SamplingParams
from model.engine.admission import new_request

LONGEST_ANSWER = 48
TRANSFORMERS = "transformers"


class Responder:
    """Answers chats greedily, in batches of similar length."""

    def __init__(self, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    def answer(self, chats: Sequence[Sequence[cases.Message]], *, batch: int = 64) -> list[str]:
        """Return the model's answer to each chat, in order."""
        prompts = [
            self._tokenizer.apply_chat_template(list(c), tokenize=False, add_generation_prompt=True)
            for c in chats
        ]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers = [""] * len(prompts)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            inputs = self._tokenizer(
                [prompts[i] for i in chosen],
                return_tensors="pt",
                padding=True,
                add_special_tokens=False,
                return_token_type_ids=False,
            )
            with torch.inference_mode():
                output = self._model.generate(**inputs, max_new_tokens=LONGEST_ANSWER)
            new = output[:, inputs["input_ids"].shape[1] :]
            texts = self._tokenizer.batch_decode(new, skip_special_tokens=True)
            for i, text in zip(chosen, texts, strict=True):
                answers[i] = text
        return answers


FORMS: dict[str, dict[str, str]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"quantize": "int8"},
}


class EngineResponder:
    """The same by the engine, with the numbers of one of FORMS."""

    def __init__(self, folder: Path, form: str) -> None:
        from model.engine.build import build_engine

        config = EngineConfig(model=str(folder), device="cpu", max_queued_requests=1, **FORMS[form])  # type: ignore[arg-type]
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._engine = build_engine(config, lambda _: None)

    def answer(self, chats: Sequence[Sequence[cases.Message]]) -> list[str]:
        engine, params = self._engine, SamplingParams(max_tokens=LONGEST_ANSWER, temperature=0.0)
        tokens: list[list[int]] = [[] for _ in chats]
        for number, chat in enumerate(chats):
            ids = self._tokenizer.apply_chat_template(
                list(chat), add_generation_prompt=True, return_dict=False
            )
            engine.add(new_request(str(number), ids, params, engine.info, now=time.monotonic()))
        while engine.has_requests:
            for output in engine.step():
                tokens[int(output.request_id)] += output.token_ids
        return [self._tokenizer.decode(ids, skip_special_tokens=True) for ids in tokens]


@dataclass(frozen=True)
class Score:
    """How many of a category's questions were answered word for word."""

    category: str
    right: int
    asked: int
    floor: float

    @property
    def share(self) -> float:
        """The share of right answers."""
        return self.right / self.asked


@dataclass(frozen=True)
class Report:
    """All scores, the wrong answers, and how many in-scope questions were refused."""

    scores: list[Score]
    refused_wrongly: int
    asked_in_scope: int
    wrong: list[dict[str, str]]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every category reaches its floor and few questions are refused wrongly."""
        few = self.refused_wrongly <= 0.02 * self.asked_in_scope
        return few and all(score.share >= score.floor for score in self.scores)


def evaluate(
    answer: Callable[[Sequence[Sequence[cases.Message]]], list[str]],
    *,
    sample: int | None = None,
    seed: int = 7,
) -> Report:
    """Ask `answer` the held-out questions and return the scores."""
    started = time.monotonic()
    asked = cases.make(seed, sample)
    answers = answer([case.messages for case in asked])
    scores = []
    for category, floor in cases.FLOORS.items():
        marks = [
            got == case.expected
            for case, got in zip(asked, answers, strict=True)
            if case.category == category
        ]
        scores.append(Score(category, sum(marks), len(marks), floor))
    pairs = list(zip(asked, answers, strict=True))
    inside = [(c, got) for c, got in pairs if c.expected != outofscope.REFUSAL]
    wrong = [
        {
            "category": case.category,
            "question": case.messages[-1]["content"],
            "expected": case.expected,
            "got": got,
        }
        for case, got in pairs
        if got != case.expected
    ]
    refused = sum(got == outofscope.REFUSAL for _, got in inside)
    return Report(scores, refused, len(inside), wrong, time.monotonic() - started)


def show(report: Report) -> str:
    """Return the report as a table."""
    lines = [f"{'category':22} {'right':>6} {'asked':>6} {'share':>8} {'floor':>7}"]
    for s in report.scores:
        mark = "" if s.share >= s.floor else "  below the floor"
        lines.append(f"{s.category:22} {s.right:6} {s.asked:6} {s.share:8.1%} {s.floor:7.0%}{mark}")
    lines.append(
        f"in-scope questions refused: {report.refused_wrongly} of {report.asked_in_scope}; "
        f"{report.seconds:.0f} s"
    )
    return "\n".join(lines)


def main() -> int:
    """Read the command line, evaluate, and return 1 when a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEMO_MODEL)
    parser.add_argument("--sample", type=int, help="about so many questions instead of all")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--by",
        action="append",
        choices=(TRANSFORMERS, *FORMS),
        help="who answers: transformers, or the engine with these numbers; default all, in turn",
    )
    parser.add_argument("--json", type=Path, help="write scores and wrong answers here")
    parser.add_argument("--wrong", type=int, default=0, help="print so many wrong answers")
    args = parser.parse_args()
    reports = {}
    for form in args.by or (TRANSFORMERS, *FORMS):
        responder = Responder(args.model) if form == TRANSFORMERS else None
        answer = (responder or EngineResponder(args.model, form)).answer
        reports[form] = report = evaluate(answer, sample=args.sample, seed=args.seed)
        print(f"{form}\n{show(report)}", flush=True)
        for item in report.wrong[: args.wrong]:
            print(f"  [{item['category']}] {item['question']!r} -> {item['got']!r}")
    if args.json:
        found = {form: asdict(report) for form, report in reports.items()}
        args.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return 0 if all(report.passed for report in reports.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
