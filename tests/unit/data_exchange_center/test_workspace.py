"""Artifacts are whole or absent."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_exchange_center.errors import DataError
from data_exchange_center.settings import load_settings
from data_exchange_center.workspace import (
    Workspace,
    atomic_folder,
    atomic_path,
    folder_once,
    read_array,
    read_json,
    read_table,
    write_array,
    write_json,
    write_table,
)


def test_a_write_that_fails_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "value.json"
    write_json(target, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half a val")
        raise RuntimeError("power cut")
    assert read_json(target) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_a_folder_appears_whole_and_is_never_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "release"
    with pytest.raises(RuntimeError), atomic_folder(target) as folder:
        (folder / "part").write_text("1")
        raise RuntimeError("power cut")
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(target) as folder:
        (folder / "part").write_text("1")
    with pytest.raises(DataError, match="never overwritten"), atomic_folder(target):
        pass
    assert (target / "part").read_text() == "1"


def test_of_two_that_make_the_same_folder_at_once_the_second_takes_the_first_ones(tmp_path: Path) -> None:
    target = tmp_path / "rows"

    def second(folder: Path) -> None:
        folder_once(target, "whole", lambda made: (made / "whole").write_text("first"))
        (folder / "whole").write_text("second")

    assert folder_once(target, "whole", second) == target
    assert (target / "whole").read_text() == "first" and list(tmp_path.iterdir()) == [target]


def test_a_folder_that_could_not_be_made_says_why(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        folder_once(tmp_path / "rows", "whole", full)


def test_json_refuses_values_that_are_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "nan.json", {"auc": float("nan")})
    assert not (tmp_path / "nan.json").exists()


@pytest.mark.parametrize("read", [read_json, read_table, read_array])
def test_absent_and_broken_files_are_named(read, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="absent"):
        read(tmp_path / "absent")
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x93NUMPY\x01\x00garbage")
    with pytest.raises(DataError, match="broken"):
        read(broken)


def test_arrays_and_tables_come_back_as_written(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_array(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy", mmap=True), array)
    table = pa.table({"genres": pa.array([["a", "b"], []], pa.list_(pa.string())), "n": [1, 2]})
    write_table(tmp_path / "t.parquet", table)
    assert read_table(tmp_path / "t.parquet").equals(table)


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        write_array(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object))


def test_an_unknown_cut_is_an_error() -> None:
    with pytest.raises(DataError, match="unknown cut 'tran'"):
        Workspace(load_settings(environment={})).recall("tran")
