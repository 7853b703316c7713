"""Holds an answer against a case of tests/contract/."""

import json
import re
from pathlib import Path
from typing import Any

import httpx

from tests.model.hosts import events_of

FOLDER = Path(__file__).parents[1] / "contract"
FILES = sorted(FOLDER.glob("*.json"))


def cases(*given: str) -> list[Any]:
    found = []
    for path in FILES:
        for case in json.loads(path.read_text()):
            if case["given"] in given:
                found.append({**case, "name": f"{path.stem}: {case['name']}"})
    return found


def request_of(case: dict[str, Any]) -> dict[str, Any]:
    asked = case["request"]
    content = None
    if "raw_body" in asked:
        content = asked["raw_body"].encode()
    elif "body_bytes" in asked:
        content = b'"' + b"a" * (asked["body_bytes"] - 2) + b'"'
    elif "body" in asked:
        content = json.dumps(asked["body"]).encode()
    return {
        "method": asked["method"],
        "url": asked["path"],
        "headers": asked["headers"],
        "content": content,
    }


def check(case: dict[str, Any], answer: httpx.Response) -> None:
    expected = case["answer"]
    assert answer.status_code == expected["status"], answer.text
    for name, pattern in expected["headers"].items():
        assert re.fullmatch(pattern, answer.headers.get(name, "")), (name, answer.headers)
    if "events" in expected:
        _check_events(expected["events"], events_of(answer.text), expected["varies"])
    else:
        _same(expected["body"], answer.json(), set(expected["varies"]))


def _check_events(expected: list[Any], found: list[Any], varies: list[str]) -> None:
    wanted = _joined([(item["event"], item["data"]) for item in expected])
    got = _joined(found)
    assert [name for name, _ in got] == [name for name, _ in wanted]
    for (_, left), (_, right) in zip(wanted, got, strict=True):
        _same(left, right, set(varies))


def _joined(events: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Neighbouring pieces of text as one: how a text is cut is nobody's business."""
    joined: list[tuple[str, Any]] = []
    for name, data in events:
        if joined and _piece(data) is not None and _piece(joined[-1][1]) is not None:
            _extend(joined[-1][1], _piece(data) or "")
        else:
            joined.append((name, json.loads(json.dumps(data))))
    return joined


def _piece(data: Any) -> str | None:
    if not isinstance(data, dict):
        return None
    if "delta" in data:
        return str(data["delta"])
    delta = (data.get("choices") or [{}])[0].get("delta", {})
    return str(delta["content"]) if set(delta) == {"content"} else None


def _extend(data: dict[str, Any], text: str) -> None:
    if "delta" in data:
        data["delta"] += text
    else:
        data["choices"][0]["delta"]["content"] += text


def _same(expected: Any, found: Any, varies: set[str], path: str = "") -> None:
    if path in varies:
        number = (int, float)
        kind = number if isinstance(expected, number) else type(expected)
        assert isinstance(found, kind), (path, found)
    elif isinstance(expected, dict):
        assert isinstance(found, dict), (path, found)
        assert found.keys() == expected.keys(), (path, found)
        for name, value in expected.items():
            _same(value, found[name], varies, f"{path}.{name}" if path else name)
    elif isinstance(expected, list):
        assert isinstance(found, list), (path, found)
        assert len(found) == len(expected), (path, found)
        for index, value in enumerate(expected):
            _same(value, found[index], varies, f"{path}[{index}]")
    else:
        assert found == expected, path
