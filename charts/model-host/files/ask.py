"""Run by `helm test`: asks the model host one question through two doors and checks the answers.

Standard library only; everything it needs to know is in its environment.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

HOST = os.environ["MODEL_HOST"]
KEY = os.environ.get("API_KEY", "").partition(",")[0].strip()
QUESTION = os.environ["QUESTION"]
EXPECTED = os.environ["ANSWER"]  # empty: any answer will do
# A NetworkPolicy lets a new pod through a moment after its start.
CONNECT_UNTIL = time.monotonic() + 30


def post(path: str, body: object) -> dict[str, object]:
    request = urllib.request.Request(  # noqa: S310 - the address comes from the chart
        HOST + path,
        json.dumps(body).encode(),
        {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {KEY}"} if KEY else {}),
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            sys.exit(f"{path} answered {error.code}: {error.read().decode(errors='replace')}")
        except OSError as error:
            if time.monotonic() > CONNECT_UNTIL:
                sys.exit(f"{path} did not answer: {error}")
            time.sleep(0.5)


def check(path: str, answer: object) -> None:
    text = answer.get("response") if isinstance(answer, dict) else None
    if not text or (EXPECTED and text != EXPECTED):
        sys.exit(f"{path} answered {answer!r}, but {EXPECTED or 'some text'!r} was expected")
    sys.stdout.write(f"{path}: {text}\n")


item = {
    "chat_id": "helm-test",
    "system_prompt": "You are a helpful assistant.",
    "user_prompt": QUESTION,
}
check("/generate", post("/generate", item))

predict = f"/v1/models/{os.environ['MODEL_NAME']}:predict"
merged = post(predict, {"instances": [item]})
predictions = merged.get("predictions")
# KServe's agent reports a failed batch as 200 with a message.
if not isinstance(predictions, list) or len(predictions) != 1:
    sys.exit(f"{predict} answered {merged!r}")
check(predict, predictions[0])
