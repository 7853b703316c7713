"""Runs in a pod of the cluster: asks for long answers without pause until its standard input ends.

The answers are as long as asked for, whatever the model would say, so that many are under way at
any moment. Every request is one JSON line on standard output; a stream counts only with its
terminator, an answer only with all of its tokens. Arguments: address, number of clients that want
whole answers, of clients that want streams, tokens of an answer, the Authorization header.
"""

import json
import sys
import threading
import time

import httpx

address, key = sys.argv[1], sys.argv[5]
answers, streams, tokens = (int(text) for text in sys.argv[2:5])
stopping = threading.Event()
printing = threading.Lock()


def ask(client: httpx.Client, stream: bool) -> dict[str, object]:
    body = {
        "model": "qna-demo",
        "messages": [{"role": "user", "content": "Capital of India?"}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": stream,
    }
    with client.stream("POST", f"{address}/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            said = answer.read().decode(errors="replace")
            return {"status": answer.status_code, "why": said, "headers": dict(answer.headers)}
        if not stream:
            used = json.loads(answer.read())["usage"]["completion_tokens"]
            return {"status": 200, "ok": used == tokens, "why": f"{used} tokens"}
        terminated = False
        try:
            for line in answer.iter_lines():
                terminated = terminated or line == "data: [DONE]"
                if line.startswith("data: ") and '"error"' in line:
                    return {"status": 200, "cut": True, "why": line}
        except httpx.HTTPError as error:
            return {"status": 200, "cut": True, "why": repr(error)}
    return {"status": 200, "ok": terminated, "cut": not terminated}


def worker(stream: bool) -> None:
    while not stopping.is_set():
        started = time.time()
        try:
            # A connection of its own for each, as from many callers.
            with httpx.Client(timeout=120, headers={"Authorization": key}) as client:
                record = ask(client, stream)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            record = {"status": None, "why": repr(error)}
        record |= {"kind": "stream" if stream else "answer", "at": started}
        record["seconds"] = round(time.time() - started, 3)
        with printing:
            sys.stdout.write(json.dumps(record) + "\n")
            sys.stdout.flush()
        stopping.wait(0.05)


kinds = [False] * answers + [True] * streams
threads = [threading.Thread(target=worker, args=(stream,)) for stream in kinds]
for thread in threads:
    thread.start()
sys.stdin.read()
stopping.set()
for thread in threads:
    thread.join()
