"""What `smoke.sh` runs: one pass over an installation's promises, with timings and a verdict.

Knows nothing about the cluster or the model: it asks over HTTP as any client does, keeps to chats
of its own and deletes them. Standard library only, any Python from 3.9.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

AT_ONCE = 8
QUESTION = "Capital of India?"
SYSTEM = "You are a helpful assistant."


class Failed(Exception):
    """One line for the reader: what was asked, what came back."""


class Answer:
    def __init__(self, response: http.client.HTTPResponse, begun: float, deadline: float) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response, self._begun, self._deadline = response, begun, deadline
        self.first_s = 0.0

    def text(self) -> str:
        return self._response.read().decode("utf-8", "replace")

    def json(self) -> Any:
        text = self.text()
        try:
            return json.loads(text)
        except ValueError:
            raise Failed(f"the answer is not JSON: {text[:200]!r}") from None

    def events(self) -> Iterator[tuple[str, str]]:
        """(name, data) of every server-sent event."""
        name = "message"
        for raw in self._response:
            if time.monotonic() > self._deadline:
                raise Failed("the stream did not end in time")
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            if line.startswith("event:"):
                name = line[6:].strip()
            elif line.startswith("data:"):
                if not self.first_s:
                    self.first_s = time.monotonic() - self._begun
                yield name, line[5:].strip()
                name = "message"


class Installation:
    def __init__(self, url: str, key: str, deadline: float) -> None:
        parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an address of the form http(s)://host[:port]")
        self.parts, self.key, self.deadline = parts, key, deadline

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Failed("no time is left")
        connection = self._connection(left)
        sent = {"Accept": "application/json", **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        if key and self.key:
            sent["Authorization"] = f"Bearer {self.key}"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        begun = time.monotonic()
        try:
            connection.request(method, self.parts.path.rstrip("/") + path, data, sent)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{method} {path}: {error or type(error).__name__}") from error
        return Answer(response, begun, self.deadline)

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        host, port = str(self.parts.hostname), self.parts.port
        if self.parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
        return http.client.HTTPConnection(host, port, timeout=timeout)

    def expect(
        self, method: str, path: str, body: object = None, status: int = 200, *, key: bool = True
    ) -> Answer:
        answer = self.ask(method, path, body, key=key)
        if answer.status != status:
            said = answer.text()[:300]
            raise Failed(f"{method} {path} answered {answer.status} instead of {status}: {said}")
        return answer


class Smoke:
    """Each check returns what is worth reading beside its name, or raises `Failed`."""

    def __init__(self, installation: Installation, model: str | None) -> None:
        self.at, self.model = installation, model
        self.chats: list[str] = []

    def new_chat(self) -> str:
        made = f"smoke-{uuid.uuid4()}"
        self.chats.append(made)
        return made

    def question(self, chat: str, **more: object) -> dict[str, object]:
        named = {"model": self.model} if self.model else {}
        return {"chat_id": chat, "system_prompt": SYSTEM, "user_prompt": QUESTION, **named, **more}

    def check_alive_and_ready(self) -> str:
        self.at.expect("GET", "/", key=False).text()
        for path in ("/livez", "/readyz"):
            answer = self.at.ask("GET", path, key=False)
            if answer.status == 404:
                return "the probes are not published here"  # as by an Ingress
            if answer.status != 200:
                raise Failed(f"GET {path} answered {answer.status}: {answer.text()[:300]}")
        return ""

    def check_a_key_is_asked_for(self) -> str:
        answer = self.at.ask("GET", "/chats", key=False)
        if not self.at.key:
            if answer.status == 401:
                raise Failed("a key is needed: set API_KEY, or give --key-file")
            return "no: keys are off"
        if answer.status != 401:
            raise Failed(f"GET /chats without a key answered {answer.status} instead of 401")
        wrong = self.at.ask("GET", "/chats", key=False, headers={"Authorization": "Bearer wrong"})
        if wrong.status != 401:
            raise Failed(f"GET /chats with a wrong key answered {wrong.status} instead of 401")
        return "yes"

    def check_models_are_listed(self) -> str:
        names = [item["id"] for item in self.at.expect("GET", "/v1/models").json()["data"]]
        if not names:
            raise Failed("GET /v1/models lists none")
        if self.model and self.model not in names:
            raise Failed(f"{self.model} is not among the models: {', '.join(names)}")
        self.model = self.model or names[0]
        return ", ".join(names)

    def check_chat_answers(self) -> str:
        chat = self.new_chat()
        said = self.at.expect("POST", "/chat", self.question(chat)).json()
        text = said.get("response")
        if set(said) != {"chat_id", "response"} or said["chat_id"] != chat or not text:
            raise Failed(f"POST /chat answered {said!r}")
        return repr(text if len(text) < 60 else text[:57] + "…")

    def check_the_chat_is_kept(self) -> str:
        chat = self.chats[0]
        self.at.expect("POST", "/chat", self.question(chat, user_prompt="And of Japan?")).json()
        kept = self.at.expect("GET", f"/chats/{chat}").json()
        answered = [turn for turn in kept["items"] if turn["status"] == "complete"]
        if len(answered) != 2:
            raise Failed(f"the chat keeps {len(answered)} answers after two questions")
        return "2 turns"

    def check_chat_streams(self) -> str:
        answer = self.at.expect("POST", "/chat", self.question(self.new_chat(), stream=True))
        pieces, done = 0, False
        for name, data in answer.events():
            if name == "error":
                raise Failed(f"the stream ended with an error: {data}")
            done = data == "[DONE]"
            pieces += not done
        if not done or not pieces:
            raise Failed(f"the stream of {pieces} events has no end marker")
        return f"{pieces} events, the first after {answer.first_s * 1000:.0f} ms"

    def check_openai_streams(self) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": QUESTION}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        answer = self.at.expect("POST", "/v1/chat/completions", body)
        last, usage, text = "", None, ""
        for name, data in answer.events():
            last = data
            if data == "[DONE]":
                break
            chunk = json.loads(data)
            if name == "error" or "error" in chunk:
                raise Failed(f"the stream ended with an error: {data}")
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices", []):
                text += choice.get("delta", {}).get("content") or ""
        if last != "[DONE]" or not text or not usage:
            raise Failed("the stream lacks its text, its usage or its end marker")
        spent = usage["prompt_tokens"], usage["completion_tokens"]
        return f"{spent[0]} + {spent[1]} tokens, the first after {answer.first_s * 1000:.0f} ms"

    def check_bad_input_is_refused_by_name(self) -> str:
        bad = self.question(self.new_chat(), max_tokens=-1)
        answer = self.at.ask("POST", "/chat", bad)
        error = answer.json().get("error") or {}
        if answer.status not in (400, 422) or error.get("param") != "max_tokens":
            raise Failed(f"max_tokens: -1 was answered with {answer.status}: {error!r}")
        answer = self.at.ask("POST", "/chat", b"{")
        if answer.status not in (400, 422) or "error" not in answer.json():
            raise Failed(f"half a JSON document was answered with {answer.status}")
        return str(error.get("message"))[:80]

    def check_several_at_once(self) -> str:
        took: list[float] = []
        wrong: list[str] = []

        def ask() -> None:
            begun = time.monotonic()
            try:
                self.at.expect("POST", "/chat", self.question(self.new_chat())).json()
                took.append(time.monotonic() - begun)
            except (Failed, OSError, http.client.HTTPException) as error:
                wrong.append(str(error) or type(error).__name__)

        threads = [threading.Thread(target=ask) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if wrong:
            raise Failed(f"{len(wrong)} of {AT_ONCE} failed: {wrong[0]}")
        return f"{AT_ONCE} of {AT_ONCE}, the last after {max(took) * 1000:.0f} ms"

    def check_chats_can_be_deleted(self) -> str:
        chat = self.chats[0]
        self.at.expect("DELETE", f"/chats/{chat}", status=204).text()
        self.at.expect("GET", f"/chats/{chat}", status=404).text()
        return ""

    def clean_up(self) -> None:
        for chat in self.chats:
            try:
                self.at.ask("DELETE", f"/chats/{chat}").text()
            except (Failed, OSError, http.client.HTTPException):
                return


def run(smoke: Smoke) -> list[tuple[str, float, str, bool]]:
    """(name, seconds, what is worth reading, whether it held) of each check, in their order."""
    results: list[tuple[str, float, str, bool]] = []
    for attribute in [name for name in vars(Smoke) if name.startswith("check_")]:
        begun = time.monotonic()
        try:
            seen, held = getattr(smoke, attribute)(), True
        except Failed as error:
            seen, held = str(error), False
        except (OSError, http.client.HTTPException) as error:
            seen, held = f"the connection broke: {error or type(error).__name__}", False
        except (KeyError, TypeError, ValueError) as error:
            seen, held = f"an answer is not of the expected form: {error!r}", False
        name = attribute[len("check_") :].replace("_", " ")
        results.append((name, time.monotonic() - begun, seen, held))
        print(f"{'ok  ' if held else 'FAIL'} {name:34} {results[-1][1]:6.2f} s  {seen}", flush=True)
        if not held and len(results) == 1:
            break  # nobody is there: the others would say the same
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="smoke.sh", description="Is this installation well?")
    parser.add_argument("url", help="of the API server, e.g. http://127.0.0.1:8000")
    parser.add_argument("--key-file", type=Path, help="instead of the variable API_KEY")
    parser.add_argument("--model", help="the model to ask by name; default: the first one")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    parser.add_argument("--time-limit", type=float, default=60, help="seconds for all; default 60")
    given = parser.parse_args()
    key = os.environ.get("API_KEY", "")
    if given.key_file:
        try:
            key = (given.key_file.read_text().splitlines() or [""])[0]
        except OSError as error:
            print(f"smoke: {given.key_file}: {error.strerror}", file=sys.stderr)
            return 2
    begun = time.monotonic()
    try:
        installation = Installation(given.url, key.strip(), begun + given.time_limit)
    except ValueError as error:
        print(f"smoke: {error}", file=sys.stderr)
        return 2
    smoke = Smoke(installation, given.model)
    try:
        results = run(smoke)
    finally:
        smoke.clean_up()
    held, seconds = sum(result[3] for result in results), time.monotonic() - begun
    verdict = held == len(results)
    if given.json:
        checks = [
            {"name": name, "seconds": round(took, 3), "seen": seen, "held": held}
            for name, took, seen, held in results
        ]
        report = {"url": given.url, "held": verdict, "seconds": round(seconds, 3), "checks": checks}
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{'PASS' if verdict else 'FAIL'}: {held} of {len(results)} in {seconds:.1f} s")
    return 0 if verdict else 1


if __name__ == "__main__":
    sys.exit(main())
