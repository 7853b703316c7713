"""The OpenAPI document in the repository is the server's own, and says what can go wrong."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from model.host import Host
from model.openapi import PATH, render
from tests.model import contract
from tests.model.hosts import client_of, settings_for


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(render())


def test_the_document_in_the_repository_is_current() -> None:
    assert PATH.read_text() == render(), "run `make openapi` and commit the result"


def test_every_error_is_the_envelope(document: Any) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                if status != "200":
                    schema = answer["content"]["application/json"]["schema"]
                    where = (path, method, status)
                    assert schema == {"$ref": "#/components/schemas/ErrorResponse"}, where


def test_every_reference_leads_somewhere(document: Any) -> None:
    def references(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    for reference in references(document):
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def operation_of(document: Any, case: Any) -> Any:
    path = case["request"]["path"]
    for name, methods in document["paths"].items():
        if name.replace("{model_name}", "qna-demo").replace("{model}", "qna-demo") == path:
            return methods.get(case["request"]["method"].lower())
    return None


ANSWERED = [case for case in contract.cases("ready") if "body" in case["answer"]]


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case["name"])
def test_the_pinned_answers_fit_the_document(case: Any, document: Any) -> None:
    operation = operation_of(document, case)
    if operation is None:
        return  # another model's path, a wrong path or a wrong method
    answer = operation["responses"][str(case["answer"]["status"])]
    schema = answer["content"]["application/json"].get("schema", {})
    validator = Draft202012Validator({**schema, "components": document["components"]})
    validator.validate(case["answer"]["body"])


@pytest.mark.anyio
async def test_the_docs_page_shows_the_same_document(tmp_path: Path) -> None:
    async with client_of(Host(settings_for(tmp_path))) as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        assert "/openapi.json" in page.text
        served = (await client.get("/openapi.json")).json()
        assert "/generate" in served["paths"]


@pytest.mark.anyio
async def test_the_docs_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with client_of(Host(settings_for(tmp_path))) as client:
        page = (await client.get("/docs")).text
        sources = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(sources) >= 3
        for source in sources:
            assert (await client.get(source)).status_code == 200, source
            assert source.startswith("/docs/"), source
