"""What an operator sees of the model hosts."""

from scripts.dashboards.grafana import Dashboard, Panel
from scripts.dashboards.queries import each, mean, quantile, quantiles, rate, total

DASHBOARD = Dashboard(
    uid="qna-model-host",
    title="qna: model host",
    about="Load, speed and memory of the engines. What to do about an alert: docs/runbook.md.",
    metric="qna_num_requests_running",
    rows={
        "At a glance": [
            Panel(
                title="Running",
                kind="stat",
                shows={"": total("qna_num_requests_running")},
                says="Requests in the step.",
            ),
            Panel(
                title="Waiting",
                kind="stat",
                shows={"": total("qna_num_requests_waiting")},
                says="Requests that wait for the engine: ModelHostRequestsWaiting.",
                warns=64,
            ),
            Panel(
                title="Tokens generated",
                kind="stat",
                unit="cps",
                shows={"": rate("qna_generation_tokens_total")},
                says="Per second, over all hosts.",
            ),
            Panel(
                title="First token, p95",
                kind="stat",
                unit="s",
                shows={"": quantile(0.95, "qna_time_to_first_token_seconds")},
                says="From arrival at the host: ModelHostFirstTokenSlow.",
                warns=5,
            ),
            Panel(
                title="KV cache, fullest",
                kind="stat",
                unit="percentunit",
                shows={"": f"max ({each('qna_kv_cache_usage_ratio')})"},
                says="ModelHostKvCacheFull.",
                warns=0.95,
                most=1,
            ),
            Panel(
                title="Prefix cache hits",
                kind="stat",
                unit="percentunit",
                shows={
                    "": f"{rate('qna_prefix_cache_hits_total')}"
                    f" / {rate('qna_prefix_cache_queries_total')}"
                },
                says="Share of prompt tokens that were not computed again.",
                most=1,
            ),
        ],
        "Load": [
            Panel(
                title="Running and waiting",
                shows={
                    "running {{instance}}": each("qna_num_requests_running"),
                    "waiting {{instance}}": each("qna_num_requests_waiting"),
                },
                says="At most MODEL_HOST_MAX_NUM_SEQS and MODEL_HOST_MAX_QUEUED_REQUESTS.",
            ),
            Panel(
                title="Waiting tokens",
                shows={"{{instance}}": each("qna_num_waiting_tokens")},
                says="Prompt and new tokens of all that wait.",
            ),
            Panel(
                title="Requests by outcome",
                unit="reqps",
                shows={"{{outcome}}": rate("qna_requests_total", "outcome")},
                says="ok, cancelled, or an error's code: ModelHostErrors.",
            ),
            Panel(
                title="Refused and cancelled",
                unit="reqps",
                shows={
                    "refused: {{reason}}": rate("qna_requests_rejected_total", "reason"),
                    "cancelled: {{stage}}": rate("qna_requests_cancelled_total", "stage"),
                },
                says="ModelHostRequestsRejected; cancelled by the client or a deadline.",
            ),
            Panel(
                title="Tokens",
                unit="cps",
                shows={
                    "generated": rate("qna_generation_tokens_total"),
                    "prompts": rate("qna_prompt_tokens_total"),
                },
                says="Prompt tokens include those that the prefix cache had.",
            ),
            Panel(
                title="Merged :predict calls",
                shows={"instances in a call": mean("qna_predict_batch_size")},
                says="What KServe's batcher made of single calls.",
            ),
        ],
        "Speed": [
            Panel(
                title="Time to first token",
                unit="s",
                shows=quantiles("qna_time_to_first_token_seconds"),
                says="The wait in the queue included.",
                warns=5,
            ),
            Panel(
                title="Between two tokens",
                unit="s",
                shows=quantiles("qna_inter_token_latency_seconds"),
                says="As a stream's reader sees it.",
            ),
            Panel(
                title="Whole requests",
                unit="s",
                shows=quantiles("qna_e2e_request_latency_seconds"),
                says="From arrival to the last token.",
            ),
            Panel(
                title="Where the time goes, mean",
                unit="s",
                shows={
                    "queue": mean("qna_request_queue_time_seconds"),
                    "prefill": mean("qna_request_prefill_time_seconds"),
                    "decode": mean("qna_request_decode_time_seconds"),
                },
                says="Queue: too little capacity. Prefill: long prompts. Decode: long answers.",
            ),
            Panel(
                title="Steps",
                unit="ops",
                shows={"{{instance}}": rate("qna_engine_steps_total", "instance")},
                says="0 with requests running: ModelHostStalled.",
            ),
            Panel(
                title="Tokens in a step, mean",
                shows={
                    "{{instance}}": f"{rate('qna_step_batch_tokens_sum', 'instance')}"
                    f" / {rate('qna_step_batch_tokens_count', 'instance')}"
                },
                says="At most MODEL_HOST_MAX_NUM_BATCHED_TOKENS.",
            ),
        ],
        "Memory and process": [
            Panel(
                title="KV cache in use",
                unit="percentunit",
                shows={"{{instance}}": each("qna_kv_cache_usage_ratio")},
                says="By running requests; what only the prefix cache holds counts as free.",
                warns=0.95,
                most=1,
            ),
            Panel(
                title="Preemptions",
                unit="ops",
                shows={"{{instance}}": rate("qna_num_preemptions_total", "instance")},
                says="Requests put back for want of room, and computed again: ModelHostPreempting.",
                warns=0.2,
            ),
            Panel(
                title="Memory",
                unit="bytes",
                shows={"{{instance}}": each("process_resident_memory_bytes")},
                says="Resident memory of each process, weights and cache included on a CPU.",
            ),
            Panel(
                title="CPU",
                shows={"{{instance}}": rate("process_cpu_seconds_total", "instance")},
                says="Cores in use.",
            ),
            Panel(
                title="Event loop lag",
                unit="s",
                shows={"{{instance}}": each("qna_event_loop_lag_seconds")},
                says="Largest delay in ten seconds: ModelHostEventLoopSlow.",
                warns=0.5,
            ),
            Panel(
                title="Starts",
                shows={
                    "{{instance}}": f"changes({each('process_start_time_seconds')}[15m])",
                },
                says="In 15 minutes: ModelHostRestarting.",
            ),
        ],
    },
)
