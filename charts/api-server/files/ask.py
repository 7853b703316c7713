"""Run by `helm test`: asks the API server one question in a chat of its own and deletes the chat.

Standard library only; everything it needs to know is in its environment.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

SERVER = os.environ["API_SERVER"]
KEY = os.environ.get("API_KEY")
EXPECTED = os.environ["ANSWER"]  # empty: any answer will do
# A NetworkPolicy lets a new pod through a moment after its start.
CONNECT_UNTIL = time.monotonic() + 30
CHAT = f"helm-test-{uuid.uuid4()}"


def call(method: str, path: str, body: object = None) -> bytes:
    request = urllib.request.Request(  # noqa: S310 - the address comes from the chart
        SERVER + path,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {KEY}"} if KEY else {}),
        method=method,
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            sys.exit(f"{method} {path} answered {error.code}: {said}")
        except OSError as error:
            if time.monotonic() > CONNECT_UNTIL:
                sys.exit(f"{method} {path} did not answer: {error}")
            time.sleep(0.5)


question = {
    "chat_id": CHAT,
    "system_prompt": "You are a helpful assistant.",
    "user_prompt": os.environ["QUESTION"],
}
answer = json.loads(call("POST", "/chat", question))
text = answer.get("response")
if set(answer) != {"chat_id", "response"} or answer["chat_id"] != CHAT or not text:
    sys.exit(f"POST /chat answered {answer!r}")
if EXPECTED and text != EXPECTED:
    sys.exit(f"POST /chat answered {text!r}, but {EXPECTED!r} was expected")
call("DELETE", f"/chats/{CHAT}")
sys.stdout.write(f"/chat: {text}\n")
