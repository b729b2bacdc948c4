"""The model repository on disk, without a server."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from data_exchange_center.errors import ReleaseError, StoreError
from data_exchange_center.release import Release
from online.stores.triton_repository import ModelRepository, read_signature
from online.stores.triton_tensors import infer_request
from tests.factories import make_release


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return make_release(tmp_path)


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(tmp_path / "models")


def config_of(tmp_path: Path, model: str) -> model_config_pb2.ModelConfig:
    text = (tmp_path / "models" / model / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_configuration_says_what_the_graph_takes(
    tmp_path: Path, release: Release, repository: ModelRepository
) -> None:
    config = config_of(tmp_path, repository.add(release).model)
    dims = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in config.input}
    assert config.max_batch_size == 0
    assert dims["gender"] == (model_config_pb2.TYPE_STRING, [1])
    assert dims["now"] == (model_config_pb2.TYPE_INT64, [1])
    assert dims["item_events"] == (model_config_pb2.TYPE_FP32, [-1])
    assert dims["genres"] == (model_config_pb2.TYPE_STRING, [-1, 3])
    assert {tensor.name for tensor in config.output} == {"score", "like", "score_logit", "like_logit"}


def test_releases_of_one_signature_are_versions_of_one_model(tmp_path: Path, repository: ModelRepository) -> None:
    releases = [make_release(tmp_path, seed=seed) for seed in range(3)]
    added = [repository.add(release) for release in releases]
    assert len({version.model for version in added}) == 1
    assert [version.number for version in added] == [1, 2, 3]
    assert list(config_of(tmp_path, added[0].model).version_policy.specific.versions) == [1, 2, 3]
    assert set(repository.versions()) == {release.id for release in releases}


def test_a_release_of_other_inputs_begins_another_model(tmp_path: Path, repository: ModelRepository) -> None:
    first = repository.add(make_release(tmp_path, ids="int"))
    assert repository.add(make_release(tmp_path, ids="string", seed=1)).model != first.model


def test_adding_twice_changes_nothing_on_disk(tmp_path: Path, release: Release, repository: ModelRepository) -> None:
    repository.add(release)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*")}
    repository.add(release)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*")} == before


def test_an_altered_model_is_put_right(tmp_path: Path, release: Release, repository: ModelRepository) -> None:
    version = repository.add(release)
    placed = tmp_path / "models" / version.model / "1" / "model.onnx"
    placed.write_bytes(b"altered")
    repository.add(release)
    assert placed.read_bytes() == release.file("model/model.onnx").read_bytes()


def test_a_removed_version_leaves_the_configuration_before_the_disk(
    tmp_path: Path, repository: ModelRepository
) -> None:
    kept, dropped = (make_release(tmp_path, seed=seed) for seed in range(2))
    repository.add(kept)
    version = repository.add(dropped)
    folder = tmp_path / "models" / version.model
    assert repository.remove(dropped.id) == (version, True)
    assert list(config_of(tmp_path, version.model).version_policy.specific.versions) == [1]
    assert (folder / "2").exists()
    repository.clean(version, True)
    assert not (folder / "2").exists()
    assert repository.remove(dropped.id) is None


def test_a_number_is_not_used_again_while_its_files_are_there(tmp_path: Path, repository: ModelRepository) -> None:
    first, second, third = (make_release(tmp_path, seed=seed) for seed in range(3))
    repository.add(first)
    repository.add(second)
    repository.remove(second.id)
    assert repository.add(third).number == 3


def test_a_broken_graph_never_reaches_the_repository(tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"not onnx")
    with pytest.raises(ReleaseError, match="not a valid ONNX graph"):
        read_signature(broken)


def test_a_broken_configuration_is_named(tmp_path: Path, release: Release, repository: ModelRepository) -> None:
    version = repository.add(release)
    (tmp_path / "models" / version.model / "config.pbtxt").write_text("{")
    with pytest.raises(StoreError, match=r"config\.pbtxt"):
        repository.versions()


def test_strings_travel_with_their_length_in_bytes() -> None:
    request = infer_request("m", 3, {"terms": np.array([["é", ""]], object), "ages": np.array([2.0], np.float32)})
    assert request.raw_input_contents[0] == b"\x02\x00\x00\x00\xc3\xa9\x00\x00\x00\x00"
    assert [(tensor.datatype, list(tensor.shape)) for tensor in request.inputs] == [("BYTES", [1, 2]), ("FP32", [1])]
    assert request.model_version == "3"
