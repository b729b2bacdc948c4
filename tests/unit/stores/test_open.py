"""One URL per port chooses the adapter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data_exchange_center.errors import SettingsError, StoreUnavailable
from online.stores.open import open_features, open_items, open_scorer, open_stores, open_users
from tests.factories import make_settings


@pytest.mark.parametrize(
    ("setting", "opener"),
    [("user_store", open_users), ("item_index", open_items), ("feature_store", open_features), ("scorer", open_scorer)],
)
@pytest.mark.parametrize("url", ["carrier-pigeon://coop", "embedded", "", "://"])
def test_an_unknown_scheme_is_refused_with_the_known_ones(
    tmp_path: Path, setting: str, opener: object, url: str
) -> None:
    settings = make_settings(tmp_path, **{f"stores.{setting}": url})
    for open_it in (opener, open_stores):
        with pytest.raises(SettingsError, match="known are embedded://") as caught:
            open_it(settings)  # type: ignore[operator]
        assert caught.value.field == f"stores.{setting}"


def test_a_password_in_a_url_never_shows(tmp_path: Path) -> None:
    users = open_users(make_settings(tmp_path, **{"stores.user_store": "redis://:hunter2@127.0.0.1:1/0"}))
    with pytest.raises(Exception, match=r"redis://127\.0\.0\.1:1") as caught:
        users.ping(0.5)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("module", ["online.stores.open", "offline_to_online.publish"])
def test_heavy_libraries_are_imported_only_when_their_adapter_is_opened(module: str) -> None:
    code = f"import sys, {module}; print({{'feast', 'torch', 'ibis'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_opening_feast_does_not_bring_torch_along() -> None:
    code = "import sys, online.stores.feast_embedded; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_started_when_one_url_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        open_stores(make_settings(tmp_path, **{"stores.scorer": "carrier-pigeon://coop"}))
    assert not (tmp_path / "store" / "online").exists()


def test_what_was_opened_is_closed_when_a_later_store_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    def fail(settings: object, url: str) -> None:
        raise StoreUnavailable("no features today")

    monkeypatch.setattr("online.stores.embedded_items.EmbeddedItems.close", lambda self: closed.append("items"))
    monkeypatch.setattr("online.stores.feast_embedded.open_features", fail)
    with pytest.raises(StoreUnavailable, match="no features"):
        open_stores(make_settings(tmp_path, **{"stores.user_store": "redis://127.0.0.1:1/0"}))
    assert closed == ["items"]
