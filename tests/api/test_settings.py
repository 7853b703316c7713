"""Settings: flags before environment before defaults; a wrong value is one line that names it."""

import dataclasses
from pathlib import Path

import pytest

from api.settings import Settings, SettingsError, env_name
from api.settings_sources import read

VALUES = {
    "log_level": "debug",
    "log_format": "text",
    "model_host_url": "http://a:1",
    "model_host_pods_url": "http://a:1",
    "database_url": "sqlite:///x",
    "max_body_bytes": "2048",
    "max_buffered_bytes": "2097152",
    "auth": "on",
    "open_docs": "off",
    "admin_key": "k" * 32,
    "metrics_key": "k" * 32,
    "limits_url": "redis://h:6379",
    "limits_when_away": "closed",
    "access_log": "off",
    "peers_url": "http://servers:8000",
    "traces_url": "http://a:4318/v1/traces",
}


def test_a_flag_wins_over_the_environment() -> None:
    assert read({}, []).settings.port == 8000
    assert read({"API_PORT": "9000"}, []).settings.port == 9000
    assert read({"API_PORT": "9000"}, ["--port", "9001"]).settings.port == 9001


def test_an_empty_variable_is_not_set() -> None:
    assert read({"API_PORT": "", "API_LOG_LEVEL": ""}, []).settings == Settings()


@pytest.mark.parametrize("spec", dataclasses.fields(Settings), ids=lambda spec: spec.name)
def test_every_setting_is_a_flag_and_a_variable(spec: dataclasses.Field[object]) -> None:
    value = VALUES.get(spec.name, "1")
    by_flag = read({}, ["--" + spec.name.replace("_", "-"), value]).settings
    by_variable = read({env_name(spec.name): value}, []).settings
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
        ("MODEL_HOST_PODS_URL", "a:1"),
        ("MODEL_HOST_PODS_URL", "https://a"),
        ("AUTH", "yes"),
        ("ADMIN_KEY", "secret-too-short"),
        ("METRICS_KEY", "secret with space 0123456789 0123456789"),
        ("KEY_CACHE_S", "-1"),
        ("LIMITS_URL", "http://secret@h"),
        ("LIMITS_WHEN_AWAY", "ajar"),
        ("KEY_TOKENS_PER_DAY", "-1"),
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


def test_a_bound_is_told_in_whole_figures() -> None:
    with pytest.raises(
        SettingsError, match=r"API_MAX_BUFFERED_BYTES: want 1048576 to 1099511627776$"
    ):
        read({"API_MAX_BUFFERED_BYTES": "1"}, [])


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(SettingsError, match="--nonsense"):
        read({}, ["--nonsense"])


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("port = 'secret'", "API_PORT"),
        ("nonsense = 1", "nonsense"),
        ("port = [1]", "port"),
        ("port = true", "port"),
        ("admin_key = secret", "not valid TOML"),
        ("[port]\nsecret = 1", "port"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    for given in ({"API_CONFIG": str(path)}, {}):
        with pytest.raises(SettingsError) as caught:
            read(given, [] if given else ["--config", str(path)])
        assert named in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    for name in ("API_CONFIG", "API_ADMIN_KEY_FILE"):
        with pytest.raises(SettingsError, match=f"{name}: .*No such file"):
            read({name: str(tmp_path / "none")})


def test_a_variable_wins_over_the_file_of_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("f" * 32 + "\n")
    environ = {"API_ADMIN_KEY_FILE": str(path)}
    assert read(environ).settings.admin_key == "f" * 32
    assert read(environ | {"API_ADMIN_KEY": "e" * 32}).settings.admin_key == "e" * 32
    # Only secrets have files of their own.
    assert read({"API_PORT_FILE": str(path)}).settings.port == 8000
