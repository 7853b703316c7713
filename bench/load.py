"""Open-loop load on any OpenAI address: requests leave when they are due, answered or not.

Owns the schedule, the processes and the report. Several processes send, because one event loop
that is late makes every answer look late; how late the sending was is reported.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import sse
from bench.driver import Record
from bench.metrics import DEFINITIONS, Timing, percentile, summary

LATE_MS = 5.0
"""With the slowest hundredth sent later than this, the client is part of what was measured."""
HEAD_START_S = 3.0
"""From the start of the processes to the first request."""
GOALS = ("ttft", "tpot", "e2el")
WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    url: str
    model: str
    chat: bool = False
    request_rate: float = float("inf")
    burstiness: float = 1.0
    num_prompts: int = 100
    max_concurrency: int | None = None
    input_len: int = 128
    output_len: int = 64
    range_ratio: float = 0.0
    vocab_size: int = 0
    ignore_eos: bool = False
    temperature: float = 0.0
    seed: int = 0
    processes: int = 1
    warm_ups: int = 1
    api_key: str = ""
    goals_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Due:
    """One request and when it should leave, in seconds from the start."""

    at_s: float
    body: dict[str, Any]


def arrivals(count: int, rate: float, burstiness: float, rng: random.Random) -> list[float]:
    """Gamma-distributed gaps, stretched to the stated rate as a whole, as `vllm bench serve` does.

    1 is Poisson; less is burstier, more is steadier. An infinite rate sends all at once.
    """
    if rate == float("inf"):
        return [0.0] * count
    times, now = [], 0.0
    for _ in range(count):
        now += rng.gammavariate(burstiness, 1 / (rate * burstiness))
        times.append(now)
    stretch = count / rate / times[-1]
    return [at * stretch for at in times]


def length(middle: int, ratio: float, rng: random.Random) -> int:
    """Uniform in [middle * (1 - ratio), middle * (1 + ratio)]."""
    return max(1, rng.randint(int(middle * (1 - ratio)), -int(-middle * (1 + ratio) // 1)))


def schedule(options: Options) -> list[Due]:
    rng = random.Random(options.seed)
    times = arrivals(options.num_prompts, options.request_rate, options.burstiness, rng)
    return [Due(at_s, body(options, rng)) for at_s in times]


def body(options: Options, rng: random.Random) -> dict[str, Any]:
    inputs = length(options.input_len, options.range_ratio, rng)
    outputs = length(options.output_len, options.range_ratio, rng)
    asked: dict[str, Any] = {
        "model": options.model,
        "max_tokens": outputs,
        "temperature": options.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if options.ignore_eos:
        asked["ignore_eos"] = True
    if options.chat:
        text = " ".join(rng.choice(WORDS) for _ in range(inputs))
        asked["messages"] = [{"role": "user", "content": text}]
    elif options.vocab_size:
        # The first ids are often control tokens.
        first = min(options.vocab_size // 10, 1000)
        asked["prompt"] = [rng.randrange(first, options.vocab_size) for _ in range(inputs)]
    else:
        asked["prompt"] = " ".join(rng.choice(WORDS) for _ in range(inputs))
    return asked


async def send_all(options: Options, due: Sequence[Due], start_at: float) -> list[Timing]:
    """`start_at` is on time.monotonic(), which all processes of a machine share."""
    path = "/chat/completions" if options.chat else "/completions"
    url = options.url.rstrip("/") + path
    headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
    places = asyncio.Semaphore(options.max_concurrency) if options.max_concurrency else None

    def now() -> float:
        return time.monotonic() - start_at

    async with sse.session() as client:

        async def one(item: Due, timing: Timing) -> None:
            await asyncio.sleep(max(item.at_s - now(), 0.0))
            async with places or contextlib.nullcontext():
                record = Record(timing, now)
                record.sending()
                try:
                    await sse.ask(client, url, item.body, record, headers)
                except Exception as error:  # noqa: BLE001 - a failed request is a figure too
                    timing.error = f"{type(error).__name__}: {error}"[:300]
                finally:
                    record.end()

        timings = [Timing(scheduled_s=item.at_s) for item in due]
        gc.collect()
        gc.disable()  # a collection would make answers look late
        try:
            await asyncio.gather(*map(one, due, timings))
        finally:
            gc.enable()
    return timings


async def warm_up(options: Options) -> None:
    """Raises what the first request runs into, in the words of the server."""
    if not options.warm_ups:
        return
    rng = random.Random(options.seed + 1_000_003)
    due = [Due(0.0, body(options, rng)) for _ in range(options.warm_ups)]
    for timing in await send_all(options, due, time.monotonic()):
        if timing.error:
            raise ValueError(f"the first request failed: {timing.error}")


def _share(options: Options, due: list[Due], start_at: float) -> list[Timing]:
    return asyncio.run(send_all(options, due, start_at))


def run(options: Options) -> dict[str, Any]:
    """Sends all of it and returns the report's figures, with vLLM's names where it has them."""
    asyncio.run(warm_up(options))
    due = schedule(options)
    shares = [due[index :: options.processes] for index in range(options.processes)]
    shared = split_limit(options)
    date = datetime.now().strftime("%Y%m%d-%H%M%S")
    start_at = time.monotonic() + (HEAD_START_S if options.processes > 1 else 0.0)
    if options.processes == 1:
        timings = asyncio.run(send_all(options, due, start_at))
    else:
        timings = _in_processes(shared, shares, start_at)
    duration = max(timing.ended_s for timing in timings) - min(t.scheduled_s for t in timings)
    return figures(options, timings, duration, date)


def split_limit(options: Options) -> list[Options]:
    """Each process's options: the limit on concurrency is shared out."""
    limit, count = options.max_concurrency, options.processes
    if limit is None:
        return [options] * count
    if limit < count:
        raise ValueError("--processes: at most as many as --max-concurrency")
    limits = [limit // count + (index < limit % count) for index in range(count)]
    return [Options(**{**asdict(options), "max_concurrency": one}) for one in limits]


def _in_processes(
    options: Sequence[Options], shares: Sequence[list[Due]], start_at: float
) -> list[Timing]:
    tasks = [(own, due) for own, due in zip(options, shares, strict=True) if due]
    spawn = multiprocessing.get_context("spawn")
    # The pool tells when a process dies; a bare queue would be waited on for ever.
    with ProcessPoolExecutor(len(tasks), mp_context=spawn) as pool:
        found = [pool.submit(_share, own, due, start_at) for own, due in tasks]
        timings = [timing for one in found for timing in one.result()]
    return sorted(timings, key=lambda timing: timing.scheduled_s)


def figures(
    options: Options, timings: Sequence[Timing], duration: float, date: str
) -> dict[str, Any]:
    lags = [1000 * timing.lag_s for timing in timings]
    errors: dict[str, int] = {}
    for timing in timings:
        if timing.error:
            errors[timing.error] = errors.get(timing.error, 0) + 1
    rate = options.request_rate
    return {
        "date": date,
        "backend": "openai-chat" if options.chat else "openai",
        "model_id": options.model,
        "num_prompts": options.num_prompts,
        "request_rate": "inf" if rate == float("inf") else rate,
        "burstiness": options.burstiness,
        "max_concurrency": options.max_concurrency,
        **summary(timings, duration, options.goals_ms),
        "median_send_lag_ms": percentile(lags, 50),
        "p99_send_lag_ms": percentile(lags, 99),
        "errors": errors,
    }


LINES = (
    ("completed", "Requests answered", "{:.0f}"),
    ("failed", "Requests failed", "{:.0f}"),
    ("duration", "Duration, s", "{:.2f}"),
    ("total_input_tokens", "Input tokens", "{:.0f}"),
    ("total_output_tokens", "Output tokens", "{:.0f}"),
    ("request_throughput", "Requests/s", "{:.2f}"),
    ("request_goodput", "Requests/s that meet the goals", "{:.2f}"),
    ("output_throughput", "Output tokens/s", "{:.2f}"),
    ("total_token_throughput", "All tokens/s", "{:.2f}"),
    ("max_concurrent_requests", "Most requests at once", "{:.0f}"),
)
SPREADS = (
    ("ttft", "TTFT"),
    ("tpot", "TPOT"),
    ("itl", "ITL"),
    ("e2el", "E2EL"),
    ("scheduled_ttft", "TTFT from schedule"),
    ("scheduled_e2el", "E2EL from schedule"),
)


def text(found: dict[str, Any]) -> str:
    lines = [
        f"{title:34} {form.format(found[key]):>12}" for key, title, form in LINES if key in found
    ]
    lines += ["", f"{'':22}{'mean':>10}{'p50':>10}{'p90':>10}{'p99':>10}{'std':>10}"]
    for name, title in SPREADS:
        cells = [found[f"{kind}_{name}_ms"] for kind in ("mean", "median", "p90", "p99", "std")]
        lines.append(f"{title + ', ms':22}" + "".join(f"{cell:10.2f}" for cell in cells))
    lag = found["median_send_lag_ms"], found["p99_send_lag_ms"]
    lines += ["", f"Sent after it was due, ms: p50 {lag[0]:.2f}, p99 {lag[1]:.2f}"]
    lines += [f"{count} times: {error}" for error, count in found["errors"].items()]
    return "\n".join([*lines, "", DEFINITIONS])


def warnings(options: Options, found: dict[str, Any]) -> list[str]:
    if options.max_concurrency or found["p99_send_lag_ms"] <= LATE_MS:
        return []
    return [
        f"the slowest hundredth was sent more than {LATE_MS:g} ms late: the client was too slow and"
        " the figures are not the server's alone; use more --processes, or another machine"
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--url", required=True, help="such as http://127.0.0.1:8001/openai/v1")
    add("--model", required=True)
    add("--chat", action="store_true", help="/chat/completions with text, not /completions")
    add("--request-rate", type=float, default=float("inf"), help="per second; default all at once")
    add("--burstiness", type=float, default=1.0, help="1 is Poisson, less is burstier")
    add("--num-prompts", type=int, default=100)
    add("--max-concurrency", type=int, help="at most so many at once; later ones wait here")
    add("--input-len", type=int, default=128, help="tokens (words, where text is sent)")
    add("--output-len", type=int, default=64)
    add("--range-ratio", type=float, default=0.0, help="lengths vary by this share, 0 to below 1")
    add("--vocab-size", type=int, default=0, help="send token ids below this; 0 sends text")
    add("--ignore-eos", action="store_true", help="answers of exactly --output-len tokens")
    add("--temperature", type=float, default=0.0)
    add("--seed", type=int, default=0)
    add("--processes", type=int, default=1, help="that send")
    add("--warm-ups", type=int, default=1, help="requests before, not counted")
    add("--goodput", nargs="*", default=[], metavar="NAME:MS", help="ttft, tpot or e2el")
    add("--api-key", default="")
    add("--out", type=Path, help="write the figures as JSON")
    parser.set_defaults(do=_main)


def _main(arguments: argparse.Namespace) -> int:
    options = _options(arguments)
    found = run(options)
    print(text(found))
    for warning in warnings(options, found):
        print(f"bench: {warning}", file=sys.stderr)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if not found["failed"] else 1


def _options(arguments: argparse.Namespace) -> Options:
    goals = {}
    for goal in ",".join(arguments.goodput).split(","):
        name, _, limit = goal.partition(":")
        if goal and name not in GOALS:
            raise ValueError(
                f"--goodput: {goal!r} is not NAME:MS with a name of {', '.join(GOALS)}"
            )
        if goal:
            goals[name] = float(limit)
    if not 0 <= arguments.range_ratio < 1:
        raise ValueError("--range-ratio: must be at least 0 and below 1")
    for name in (
        "request_rate",
        "burstiness",
        "num_prompts",
        "input_len",
        "output_len",
        "processes",
    ):
        if not getattr(arguments, name) > 0:
            raise ValueError(f"--{name.replace('_', '-')}: must be above 0")
    known = {item for item in Options.__slots__ if hasattr(arguments, item)}
    return Options(**{name: getattr(arguments, name) for name in known}, goals_ms=goals)
