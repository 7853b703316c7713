"""The models file: what it may hold, and that whatever is wrong with it is one line that says
where.
"""

import json
from pathlib import Path

import pytest

from api.metrics import Metrics
from api.settings import Settings, SettingsError
from api.upstream.models_file import AddressSpec, ModelsFileError, Timeouts, load, parse
from api.upstream.registry import Registry

FULL = """
models:
  - name: large
    aliases: [gpt-4o, default]
    served_name: Qwen/Qwen3-8B
    addresses:
      - url: http://large:8080/
        weight: 95
      - url: http://large-next:8080
        weight: 5
        standby: http://large-next/
        resolve: true
    fallback: small
    hold_s: 90
    timeouts: {connect_s: 1, first_byte_s: 20.5, idle_s: 15, total_s: 60}
  - name: small
    addresses: [https://small:8080/base]
"""


def test_everything_that_it_may_hold_is_read() -> None:
    large, small = parse(FULL.encode())
    assert (large.name, large.aliases) == ("large", ("gpt-4o", "default"))
    assert (large.served_name, large.fallback) == ("Qwen/Qwen3-8B", "small")
    assert large.addresses == (
        AddressSpec("http://large:8080", 95),
        AddressSpec("http://large-next:8080", 5, resolve=True, standby="http://large-next"),
    )
    assert (large.hold_s, small.hold_s) == (90, None)
    assert large.timeouts == Timeouts(1, 20.5, 15, 60)
    assert small.addresses == (AddressSpec("https://small:8080/base"),)
    assert small.timeouts == Timeouts()


def test_json_will_do_as_well() -> None:
    data = {"models": [{"name": "a", "addresses": ["http://a:1"]}]}
    assert parse(json.dumps(data).encode())[0].name == "a"


ONE = "models: [{name: a, addresses: [http://a:1], "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file: want a mapping"),
        ("models: []", "models: want a list of 1 to 200 entries"),
        ("model: [a]", "the file: unknown key 'model'; there are models"),
        ("models: [\n  {", "is not YAML at line 2"),
        ("models: [{addresses: [http://a:1]}]", "models[0].name: want 1 to 128"),
        ("models: [{name: a}]", "models[0].addresses: want a list of 1 to 200"),
        ("models: [{name: 'a b', addresses: [http://a:1]}]", "models[0].name: want"),
        ("models: [{name: a, addresses: [a:1]}]", "models[0].addresses[0]: want http://"),
        ("models: [{name: a, addresses: [{url: 'http://u:secret@a'}]}]", "addresses[0].url: want"),
        ("models: [{name: a, addresses: [http://a:99999]}]", "models[0].addresses[0]: want"),
        ("models: [{name: a, addresses: [http://a:1, http://a:1]}]", "addresses[1].url: stands"),
        ("models: [{name: a, addresses: [{url: 'http://a', weight: -1}]}]", "[0].weight: want"),
        ("models: [{name: a, addresses: [{url: 'http://a', weight: 0.5}]}]", "[0].weight: want"),
        ("models: [{name: a, addresses: [{url: 'http://a', weight: yes}]}]", "[0].weight: want"),
        ("models: [{name: a, addresses: [{url: 'http://a', weight: 0}]}]", "one weight at least"),
        ("models: [{name: a, addresses: [{url: 'http://a', resolve: 1}]}]", "[0].resolve: want"),
        (
            "models: [{name: a, addresses: [{url: 'https://a', resolve: true}]}]",
            "[0].resolve: works with http:// only",
        ),
        (
            "models: [{name: a, addresses: [{url: 'http://a', standby: 'http://b'}]}]",
            "[0].standby: goes with resolve only",
        ),
        (
            "models: [{name: a, addresses: [{url: 'http://a', resolve: true, standby: 'http://a'}]}]",
            "a standby must be no other address",
        ),
        (ONE + "fallback: b}]", "models[0].fallback: no model is called b"),
        (ONE + "fallback: a}]", "models[0].fallback: leads back to a"),
        (ONE + "aliases: [a]}]", "models[0]: the name a is taken"),
        (ONE + "timeouts: {total_s: 0}}]", "models[0].timeouts.total_s: want 0.001 to 3600"),
        (ONE + "hold_s: -1}]", "models[0].hold_s: want 0 to 3600 seconds"),
        (ONE + "hold_s: long}]", "models[0].hold_s: want 0 to 3600 seconds"),
        (ONE + "timeouts: {total_s: soon}}]", "models[0].timeouts.total_s: want"),
        (ONE + "timeouts: {all_s: 1}}]", "models[0].timeouts: unknown key 'all_s'"),
        (ONE + "name: b}]", "line 1: 'name' stands twice"),
        ("models: !!python/object/apply:os.system ['true']", "is not YAML at line 1"),
        ("a: &a [*a]", "unknown key 'a'"),
        ("\x00", "is not YAML"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_where(text: str, said: str) -> None:
    with pytest.raises(ModelsFileError) as caught:
        parse(text.encode())
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert "secret" not in message


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelsFileError, match="cannot be read: No such file"):
        load(str(tmp_path / "none"))
    (tmp_path / "large").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ModelsFileError, match="larger than"):
        load(str(tmp_path / "large"))


def test_a_wrong_file_stops_the_start_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("models: 1")
    with pytest.raises(SettingsError) as caught:
        Registry(Settings(models_file=str(path)), Metrics())
    assert str(caught.value).startswith(f"API_MODELS_FILE: {path}: models: want a list")


def test_a_key_is_read_from_the_file_that_an_address_names(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-of-theirs\n")
    text = json.dumps(
        {"models": [{"name": "a", "addresses": [{"url": "http://a:1", "key_file": str(file)}]}]}
    )
    (address,) = parse(text.encode())[0].addresses
    assert address.key == "sk-of-theirs"
    assert "sk-of-theirs" not in repr(address)
    file.write_text("sk-first,sk-second\n")
    (address,) = parse(text.encode())[0].addresses
    assert address.key == "sk-first"
    for content in ("", ",", ",second", "two words", "k" * 1025, "\u00fc"):
        file.write_text(content)
        with pytest.raises(ModelsFileError, match=r"addresses\[0\].key_file: .* must hold a key"):
            parse(text.encode())
    file.unlink()
    with pytest.raises(ModelsFileError, match=r"addresses\[0\].key_file: .* cannot be read"):
        parse(text.encode())
