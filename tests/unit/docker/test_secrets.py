"""No secret in the repository, and a scan of an image that finds one when there is one."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from benchmarks import security
from benchmarks.security import file_findings, layer_files, secrets_in_files, tracked_files


def test_no_tracked_file_holds_a_secret() -> None:
    paths = tracked_files()
    assert len(paths) > 100
    assert secrets_in_files(paths) == []


def test_a_secret_in_a_file_is_found(tmp_path: Path, monkeypatch: object) -> None:
    path = tmp_path / "settings.py"
    path.write_text('password = "cGFzc3dvcmQtMTIz"\n')  # pragma: allowlist secret
    root, security.ROOT = security.ROOT, tmp_path
    try:
        assert secrets_in_files([path]) == ["settings.py:1 Secret Keyword"]
    finally:
        security.ROOT = root


def test_what_should_not_be_in_a_layer_is_found() -> None:
    known = [b"the-password-in-env"]  # pragma: allowlist secret
    content = {
        "app/online/fine.py": b"x = 1\n",
        "usr/share/any.bin": b"\0\1the-password-in-env\2",
        "app/.env": b"",
        "opt/venv/lib/site-packages/gevent/tests/server.key": b"-----BEGIN PRIVATE KEY-----",  # pragma: allowlist secret
        "app/key.py": b"-----BEGIN RSA PRIVATE KEY-----\n",  # pragma: allowlist secret
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as layer:
        for name, data in content.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            layer.addfile(member, io.BytesIO(data))
    stream.seek(0)
    with tarfile.open(fileobj=stream) as layer:
        found = {place: file_findings(place, data, known) for place, data in layer_files(layer)}
    assert found == {
        "app/online/fine.py": [],
        "usr/share/any.bin": ["usr/share/any.bin: a value of docker/.env (0)"],
        "app/.env": ["app/.env: a file that keys or settings usually lie in"],
        "opt/venv/lib/site-packages/gevent/tests/server.key": [],
        "app/key.py": ["app/key.py:1 Private Key"],
    }
