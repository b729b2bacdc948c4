"""Settings: precedence, and errors that say what, where and what to do."""

from pathlib import Path

import pytest

from data_exchange_center.errors import SettingsError
from data_exchange_center.settings import environment_for, load_settings


def test_environment_wins_over_the_file_which_wins_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "marquee.toml"
    file.write_text('seed = 7\n[serve]\nport = 6000\nworkers = 3\n[data]\ndataset = "ml-1m"\n')
    settings = load_settings(file, {"MARQUEE_SERVE__PORT": "7000"})
    assert (settings.seed, settings.serve.port, settings.serve.workers) == (7, 7000, 3)
    assert settings.data.dataset == "ml-1m"
    assert settings.serve.threads == load_settings(environment={}).serve.threads


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("MARQUEE_SERVE__PORTT", "1", "did you mean 'serve.port'"),
        ("MARQUEE_SERV__PORT", "1", "unknown setting 'serv'"),
        ("MARQUEE_SERVE__PORT", "seventy", "setting 'serve.port'"),
        ("MARQUEE_SERVE__PORT", "70000", "less than or equal to 65535"),
        ("MARQUEE_SPLIT__PROTOCOL", "random", "setting 'split.protocol'"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(variable: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says.replace(".", r"\.")):
        load_settings(environment={variable: value})


def test_variables_of_the_tests_are_not_settings() -> None:
    assert load_settings(environment={"MARQUEE_TEST_DATA": "/data"}) == load_settings(environment={})


def test_a_named_file_that_is_missing_or_broken_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such settings file"):
        load_settings(environment={"MARQUEE_SETTINGS": str(tmp_path / "absent.toml")})
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = \n")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_settings(broken, {})


def test_with_values_replaces_and_validates() -> None:
    settings = load_settings(environment={}).with_values(**{"data.dataset": "own/log.yaml", "seed": 3})
    assert (settings.dataset_name, settings.seed) == ("log", 3)
    with pytest.raises(SettingsError, match="rank.epochs"):
        settings.with_values(**{"rank.epochs": 0})


def test_the_scene_is_the_datasets_own_unless_a_spec_is_named() -> None:
    settings = load_settings(environment={"MARQUEE_DATA__DATASET": "criteo"})
    assert settings.scene == "criteo"
    assert settings.with_values(**{"data.dataset": "ml-1m"}).scene == "movielens"
    named = load_settings(environment={"MARQUEE_FEATURES__SPEC": "own/shop.yaml"})
    assert named.with_values(**{"data.dataset": "criteo"}).scene == "shop"


def test_a_program_started_with_settings_sees_exactly_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_SERVE__PORT", "6000")
    settings = load_settings(environment={}).with_values(
        **{"seed": 4, "serve.log_answers": False, "data.store": str(tmp_path), "split.holdout": "none"}
    )
    assert load_settings(environment=environment_for(settings)) == settings


def test_features_are_stale_only_when_an_age_is_set_and_exceeded() -> None:
    day = 86_400.0
    assert not load_settings(environment={}).features.stale(0, 10**9), "an archived log is never stale"
    daily = load_settings(environment={"MARQUEE_FEATURES__MAX_AGE_HOURS": "24"}).features
    assert not daily.stale(1000, 1000 + day)
    assert daily.stale(1000, 1001 + day)
