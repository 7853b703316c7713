"""Runs in a pod of the cluster: asks the API server without pause until its standard input ends.

Every request is one JSON line on standard output, told from the client's side: a chat counts only
with the right answer, a stream only with its terminator and the right text. Each request has a
connection of its own, as from many callers. Arguments: address, number of chat clients, of stream
clients, the Authorization header. A line on standard input is the header from then on.
"""

import json
import sys
import threading
import time

import httpx

QUESTION = "Capital of India?"
ANSWER = "The capital of India is New Delhi."
PAUSE_S = 0.05
# Whoever cannot even connect learns it soon, as with any careful client.
TIMEOUT = httpx.Timeout(60, connect=3)
EACH_ITS_OWN = httpx.Limits(max_keepalive_connections=0)

address, chats, streams, key = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
authorization = [key]
stopping = threading.Event()
printing = threading.Lock()


def ask(client: httpx.Client, stream: bool) -> dict[str, object]:
    body = {"user_prompt": QUESTION, "stream": stream}
    headers = {"Authorization": authorization[-1]}
    text, begun, terminated = "", False, False
    with client.stream("POST", f"{address}/chat", json=body, headers=headers) as answer:
        if answer.status_code != 200:
            said = answer.read().decode(errors="replace")
            return {"status": answer.status_code, "why": said, "headers": dict(answer.headers)}
        if not stream:
            text = json.loads(answer.read())["response"]
            return {"status": 200, "ok": text == ANSWER, "why": text}
        begun = True
        try:
            for line in answer.iter_lines():
                if line == "data: [DONE]":
                    terminated = True
                elif line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    text += event.get("delta", "")
                    if "error" in event:
                        return {"status": 200, "cut": True, "why": line}
        except httpx.HTTPError as error:
            return {"status": 200, "cut": begun, "why": repr(error)}
    complete = terminated and text == ANSWER
    return {"status": 200, "ok": complete, "cut": not terminated, "why": text}


def worker(stream: bool) -> None:
    client = httpx.Client(timeout=TIMEOUT, limits=EACH_ITS_OWN, verify=False)
    while not stopping.is_set():
        started = time.time()
        try:
            record = ask(client, stream)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            record = {"status": None, "why": repr(error)}
        record |= {"kind": "stream" if stream else "chat", "at": started}
        record["seconds"] = round(time.time() - started, 3)
        with printing:
            sys.stdout.write(json.dumps(record) + "\n")
            sys.stdout.flush()
        stopping.wait(PAUSE_S)


kinds = [False] * chats + [True] * streams
threads = [threading.Thread(target=worker, args=(stream,)) for stream in kinds]
for thread in threads:
    thread.start()
for line in sys.stdin:
    authorization.append(line.strip())
stopping.set()
for thread in threads:
    thread.join()
