"""Settings: flags before environment before defaults; a wrong value is one line that names it."""

import dataclasses

import pytest

from api.settings import Settings, SettingsError, env_name, read


def test_a_flag_wins_over_the_environment() -> None:
    assert read({}, [])[1].port == 8000
    assert read({"API_PORT": "9000"}, [])[1].port == 9000
    assert read({"API_PORT": "9000"}, ["--port", "9001"])[1].port == 9001


def test_an_empty_variable_is_not_set() -> None:
    assert read({"API_PORT": "", "API_LOG_LEVEL": ""}, [])[1] == Settings()


@pytest.mark.parametrize("spec", dataclasses.fields(Settings), ids=lambda spec: spec.name)
def test_every_setting_is_a_flag_and_a_variable(spec: dataclasses.Field[object]) -> None:
    value = {"log_level": "debug", "log_format": "text", "model_host_url": "http://a:1"}.get(
        spec.name, "sqlite:///x" if spec.name == "database_url" else "1"
    )
    if spec.name == "max_body_bytes":
        value = "2048"
    by_flag = read({}, ["--" + spec.name.replace("_", "-"), value])[1]
    by_variable = read({env_name(spec.name): value}, [])[1]
    assert by_flag == by_variable
    assert getattr(by_flag, spec.name) == type(spec.default)(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "8000.5"),
        ("REQUEST_TIMEOUT_S", "0"),
        ("REQUEST_TIMEOUT_S", "nan"),
        ("REQUEST_TIMEOUT_S", "inf"),
        ("MAX_IN_FLIGHT", "0"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("MODEL_HOST_URL", "localhost:8001"),
        ("MODEL_HOST_URL", "ftp://a"),
        ("MODEL_HOST_URL", "http://"),
        ("MODEL_HOST_URL", "http://[::1"),
        ("MODEL_HOST_URL", "http://a:99999"),
        ("MODEL_HOST_URL", "http://user:secret@a:1"),
        ("MODEL_HOST_URL", "http://secret@a:1"),
        ("DATABASE_URL", "mysql://user:secret@host/db"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read({f"API_{name}": value}, [])
    text = str(caught.value)
    assert text.startswith(f"API_{name}: ")
    assert "\n" not in text
    assert "secret" not in text


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(SettingsError, match="--nonsense"):
        read({}, ["--nonsense"])


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]
