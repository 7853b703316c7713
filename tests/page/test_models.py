"""Several models: the page lets its reader choose, and the question goes where it was sent."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from playwright.sync_api import expect

from tests.api.conftest import serving_api, serving_host
from tests.api.stub_host import StubHost
from tests.page.conftest import Opener
from tests.page.sites import answers


@pytest.fixture
def models(tmp_path: Path) -> Iterator[tuple[str, dict[str, StubHost]]]:
    """The address of an API server, and the model hosts behind it by the models' names."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving_host()) as large,
        portal.wrap_async_context_manager(serving_host()) as small,
    ):
        hosts = {"large": large, "small": small}
        entries = [{"name": name, "addresses": [host.url]} for name, host in hosts.items()]
        file = tmp_path / "models.yaml"
        # JSON is YAML.
        file.write_text(json.dumps({"models": entries}))
        serving = serving_api(large, tmp_path, models_file=str(file))
        with portal.wrap_async_context_manager(serving) as api:
            yield api.url, hosts


def test_a_model_is_chosen(models: tuple[str, dict[str, StubHost]], opener: Opener) -> None:
    url, hosts = models
    for name, host in hosts.items():
        host.always = answers(f"I am {name}")
    chat = opener(url)
    choice = chat.page.get_by_label("Model", exact=True)
    expect(choice.get_by_role("option")).to_have_text(["large", "small"])
    chat.ask("Who are you?")
    expect(chat.prose).to_have_text("I am large")
    choice.select_option("small")
    chat.button("Another answer").click()
    expect(chat.prose).to_have_text("I am small")
    chat.finished()
    chat.reload()
    # The chat is fetched again; only then is there an answer to count from.
    expect(chat.prose).to_have_text("I am small")
    expect(choice).to_have_value("small")
    chat.ask("And now?")
    expect(chat.prose).to_have_text("I am small")
    assert len(hosts["large"].generated) == 1
    assert chat.has_no_sideways_scroll()
