"""A release is whole, immutable and checked before anything is read from it."""

import json
from pathlib import Path

import pytest

from data_exchange_center.errors import ReleaseError
from data_exchange_center.release import (
    MANIFEST,
    REQUIRED_FILES,
    Kind,
    Release,
    find_release,
    list_releases,
    new_release,
    open_release,
)
from data_exchange_center.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(environment={"MARQUEE_DATA__STORE": str(tmp_path), "MARQUEE_SERVE__ADMIN_TOKEN": "s3cret"})


def write_release(settings: Settings, leave_out: str = "", kind: Kind = "chain") -> Release:
    with new_release(settings, {"metrics": {"auc": 0.8}}, kind) as (release, folder):
        for name in REQUIRED_FILES[kind]:
            if name != leave_out:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(f"content of {name}")
    return find_release(settings, release)


def test_a_release_opens_as_it_was_written(settings: Settings) -> None:
    release = write_release(settings)
    assert release.id in list_releases(settings)
    assert release.file("model/model.onnx").read_text() == "content of model/model.onnx"
    promised = {"release", "created", "dataset", "seed", "code_version", "feature_spec_sha256", "files", "metrics"}
    assert promised <= set(release.manifest)


@pytest.mark.parametrize(
    ("dataset", "begins"), [("日志.yaml", "log-2"), ("My Log ü.yaml", "my-log-2"), ("ml-100k", "ml-100k-2")]
)
def test_a_release_is_named_after_its_dataset_in_letters_that_every_store_takes(
    settings: Settings, dataset: str, begins: str
) -> None:
    release = write_release(settings.with_values(**{"data.dataset": dataset}))
    assert release.id.startswith(begins)


def test_a_release_made_before_there_were_kinds_is_a_chain(settings: Settings) -> None:
    release = write_release(settings)
    manifest = json.loads((release.path / MANIFEST).read_text())
    del manifest["kind"]
    (release.path / MANIFEST).write_text(json.dumps(manifest))
    assert open_release(release.path).kind == "chain"


def test_a_release_of_a_kind_that_is_not_known_is_refused(settings: Settings) -> None:
    release = write_release(settings, kind="scorer")
    manifest = json.loads((release.path / MANIFEST).read_text())
    (release.path / MANIFEST).write_text(json.dumps({**manifest, "kind": "oracle"}))
    with pytest.raises(ReleaseError, match="'oracle' is none of chain, scorer"):
        open_release(release.path)


def test_a_scorer_needs_no_tables_and_a_chain_does(settings: Settings) -> None:
    assert write_release(settings, kind="scorer").kind == "scorer"
    with pytest.raises(ReleaseError, match=r"tables/users\.parquet"):
        write_release(settings, leave_out="tables/users.parquet")


def test_the_manifest_holds_no_secret_and_no_path_of_the_machine(settings: Settings) -> None:
    text = (write_release(settings).path / MANIFEST).read_text()
    assert "s3cret" not in text
    assert settings.data.store not in text


def test_an_incomplete_release_never_appears(settings: Settings) -> None:
    with pytest.raises(ReleaseError, match=r"model/model\.onnx"):
        write_release(settings, leave_out="model/model.onnx")
    assert list_releases(settings) == []


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, files in REQUIRED_FILES.items() for name in files])
def test_a_missing_or_altered_file_is_named(settings: Settings, kind: Kind, name: str) -> None:
    release = write_release(settings, kind=kind)
    file = release.path / name
    content = file.read_text()
    file.write_text(content.replace("content", "contend"))
    with pytest.raises(ReleaseError, match=f"{name}: checksum"):
        open_release(release.path)
    file.write_text(content[:-1])
    with pytest.raises(ReleaseError, match=f"{name}: .* bytes"):
        open_release(release.path)
    file.unlink()
    with pytest.raises(ReleaseError, match=f"{name}: missing"):
        open_release(release.path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"release": 1}', '{"files": 3}'])
def test_a_broken_manifest_is_named(settings: Settings, text: str) -> None:
    release = write_release(settings)
    (release.path / MANIFEST).write_text(text)
    with pytest.raises(ReleaseError, match=MANIFEST):
        open_release(release.path)


def test_a_manifest_that_points_out_of_the_release_is_refused(settings: Settings) -> None:
    release = write_release(settings)
    manifest = json.loads((release.path / MANIFEST).read_text())
    manifest["files"]["../outside"] = {"sha256": "0" * 64, "bytes": 1}
    (release.path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ReleaseError, match="outside of the release"):
        open_release(release.path)


@pytest.mark.parametrize("name", ["../elsewhere", "absent", ".hidden"])
def test_a_release_that_is_not_there_is_an_error(settings: Settings, name: str) -> None:
    with pytest.raises(ReleaseError):
        find_release(settings, name)
