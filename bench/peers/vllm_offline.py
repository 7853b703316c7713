"""Run by vLLM's own Python: `python -m bench.peers.vllm_offline ASKED ANSWERED`.

Knows vLLM and two JSON files; nothing of the project is imported, because nothing of it is
installed there.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(asked: dict[str, Any]) -> dict[str, Any]:
    import vllm
    from vllm import LLM, SamplingParams, TokensPrompt

    begun = time.perf_counter()
    llm = LLM(
        model=asked["model"],
        dtype=asked["dtype"],
        max_model_len=asked["max_model_len"],
        max_num_seqs=asked["max_num_seqs"],
        enforce_eager=asked["eager"],
        enable_prefix_caching=asked["prefix_cache"],
        disable_log_stats=False,  # or it keeps no times of single requests
        skip_tokenizer_init=True,
    )
    load_s = time.perf_counter() - begun

    def params(count: int) -> Any:
        return SamplingParams(
            temperature=0, max_tokens=count, min_tokens=count, ignore_eos=True, detokenize=False
        )

    prompts = [TokensPrompt(prompt_token_ids=item["prompt"]) for item in asked["requests"]]
    warm = [TokensPrompt(prompt_token_ids=item["prompt"][:16][::-1]) for item in asked["requests"]]
    llm.generate(warm[:4], params(8), use_tqdm=False)
    started = time.perf_counter()
    outputs = llm.generate(
        prompts, [params(item["max_tokens"]) for item in asked["requests"]], use_tqdm=False
    )
    duration = time.perf_counter() - started
    facts = {"version": vllm.__version__, "dtype": asked["dtype"], "load_s": round(load_s, 1)}
    timings = [timing(output, duration) for output in outputs]
    return {"facts": facts, "duration_s": duration, "timings": timings}


def timing(output: Any, duration: float) -> dict[str, Any]:
    """First and last token only: it tells no other times, so there is no ITL."""
    times = output.metrics
    first = times.first_token_latency if times else duration
    last = first + (times.last_token_ts - times.first_token_ts) if times else duration
    return {
        "scheduled_s": 0.0,
        "sent_s": 0.0,
        "pieces_s": [first],
        "ended_s": last,
        "prompt_tokens": len(output.prompt_token_ids),
        "cached_tokens": output.num_cached_tokens or 0,
        "output_tokens": len(output.outputs[0].token_ids),
    }


if __name__ == "__main__":
    result = main(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(result))
