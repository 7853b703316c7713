"""Settings: flags, environment, defaults, and one clear line for what is wrong."""

from pathlib import Path
from typing import Any

import pytest

from model.config import BUNDLED_MODEL, SettingsError, load_settings


def settings(*argv: str, **environ: str) -> Any:
    return load_settings(argv, environ)


def test_without_anything_the_bundled_model_is_served_on_loopback() -> None:
    found = settings()
    assert (found.model, found.model_name) == (str(BUNDLED_MODEL), "qna-demo")
    assert (found.host, found.port, found.trust_remote_code) == ("127.0.0.1", 8001, False)


def test_flags_win_over_the_environment() -> None:
    found = settings("--port", "9001", MODEL_HOST_PORT="9002", MODEL_HOST_DEVICE="cpu")
    assert (found.port, found.device) == (9001, "cpu")


def test_an_empty_variable_is_as_none() -> None:
    assert settings(MODEL="", MODEL_HOST_PORT="").port == 8001


@pytest.mark.parametrize(
    ("model", "name"),
    [("/mnt/models", "models"), ("Qwen/Qwen3-0.6B", "Qwen3-0.6B"), ("a/b c!", "b-c")],
)
def test_the_name_is_the_last_part_of_the_path(model: str, name: str) -> None:
    assert settings(MODEL=model).model_name == name


def test_the_home_folder_is_meant_by_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    found = settings(MODEL="~/models/tiny")
    assert (found.model, found.model_name) == ("/home/somebody/models/tiny", "tiny")
    assert found.engine_config().model == found.model


@pytest.mark.parametrize(
    ("text", "size"), [("512MiB", 512 * 2**20), ("2GiB", 2**31), ("1g", 10**9), ("4096", 4096)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert settings(MODEL_HOST_KV_CACHE_MEMORY=text).kv_cache_memory == size


@pytest.mark.parametrize(
    ("text", "on"), [("true", True), ("1", True), ("False", False), ("0", False), ("", True)]
)
def test_the_prefix_cache_is_on_unless_it_is_switched_off(text: str, on: bool) -> None:
    assert settings(MODEL_HOST_PREFIX_CACHE=text).engine_config().prefix_cache is on


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL_HOST_PORT", "70000"),
        ("MODEL_HOST_PORT", "eight"),
        ("MODEL_HOST_DTYPE", "int4"),
        ("MODEL_HOST_DEVICE", "tpu"),
        ("MODEL_HOST_KV_CACHE_MEMORY", "much"),
        ("MODEL_HOST_KV_CACHE_MEMORY", "0"),
        ("MODEL_HOST_DRAIN_TIMEOUT_S", "nan"),
        ("MODEL_HOST_REQUEST_TIMEOUT_S", "-1"),
        ("MODEL_HOST_MAX_NUM_SEQS", "0"),
        ("MODEL_HOST_MODEL_NAME", "a b"),
        ("MODEL_HOST_LOG_LEVEL", "loud"),
        ("MODEL_HOST_PREFIX_CACHE", "maybe"),
    ],
)
def test_a_wrong_value_names_its_setting_in_one_line(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**{name: value})
    assert str(caught.value).startswith(f"{name}: must be")
    assert "\n" not in str(caught.value)


def test_settings_that_contradict_each_other_are_named() -> None:
    with pytest.raises(SettingsError, match="MODEL_HOST_MAX_NUM_BATCHED_TOKENS"):
        settings(MODEL_HOST_MAX_NUM_SEQS="64", MODEL_HOST_MAX_NUM_BATCHED_TOKENS="8")


def test_a_wrong_flag_names_itself() -> None:
    with pytest.raises(SettingsError, match="--port"):
        settings("--port", "x")
    with pytest.raises(SettingsError, match="--no-such-flag"):
        settings("--no-such-flag")


def test_remote_code_is_a_flag_and_no_variable() -> None:
    assert settings("--trust-remote-code").trust_remote_code
    assert not settings(MODEL_HOST_TRUST_REMOTE_CODE="1").trust_remote_code


def test_what_kubernetes_injects_for_a_service_is_not_our_port() -> None:
    assert settings(MODEL_HOST_PORT="tcp://10.0.0.7:80").port == 8001


def test_the_bundled_model_is_found_from_any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path("/"))
    assert Path(settings().model).is_absolute()
