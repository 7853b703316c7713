"""The OpenAPI document in the repository is the one that the code makes, and it says the truth."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from api.app import create_app
from api.schemas import ChatItem, ChatQuery
from api.settings import Settings
from tests.api.conftest import Api

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "openapi" / "api-server.json"


def test_the_document_is_current() -> None:
    made = create_app(Settings()).openapi()
    assert json.loads(DOCUMENT.read_text()) == made, "run: make openapi"


def test_every_route_and_body_is_in_it() -> None:
    document = json.loads(DOCUMENT.read_text())
    routes = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert routes >= {
        ("POST", "/chat"),
        ("POST", "/chat/batch"),
        ("GET", "/chats"),
        ("GET", "/chats/{chat_id}"),
        ("DELETE", "/chats/{chat_id}"),
        ("GET", "/chats/{chat_id}/export"),
        ("PATCH", "/chats/{chat_id}"),
        ("POST", "/chats/{chat_id}/branch"),
        ("POST", "/chats/{chat_id}/regenerate"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{model}"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("POST", "/admin/keys"),
        ("DELETE", "/admin/keys/{key_id}"),
        ("POST", "/admin/keys/{key_id}/rotate"),
        ("PUT", "/admin/tenants/{tenant}"),
        ("GET", "/metrics"),
        ("GET", "/load"),
        ("GET", "/"),
    }
    fields = document["components"]["schemas"]["ChatQuery"]["properties"]
    assert set(fields) == set(ChatQuery.model_fields)
    assert set(ChatItem.model_fields) == set(fields) - {"stream"}
    assert "HTTPValidationError" not in json.dumps(document["paths"])


def test_every_reference_leads_somewhere() -> None:
    document = json.loads(DOCUMENT.read_text())
    names = {part.split('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]}
    assert names <= set(document["components"]["schemas"])


@pytest.mark.anyio
async def test_real_answers_fit_the_document(api: Api) -> None:
    document = json.loads(DOCUMENT.read_text())

    def check(name: str, value: object) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(value)

    check("ChatAnswer", (await api.chat(chat_id="1", user_prompt="q")).json())
    check("ChatAnswer", (await api.chat(chat_id="1", user_prompt="q", details=True)).json())
    check("ErrorEnvelope", (await api.chat(user_prompt=1)).json())
    check("LoadView", (await api.client.get("/load")).json())
    check("ChatList", (await api.client.get("/chats")).json())
    check("ChatView", (await api.client.get("/chats/1")).json())
    check("ChatView", (await api.client.get("/chats/1/export")).json())


@pytest.mark.anyio
async def test_the_docs_page_loads_nothing_from_elsewhere(api: Api) -> None:
    page = (await api.client.get("/docs")).text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(sources) >= 3
    for source in sources:
        assert (await api.client.get(source)).status_code == 200, source
        assert source.startswith("/docs/"), source
