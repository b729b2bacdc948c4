"""Triton from the PyPI wheel: its virtual environment, made once and kept outside of the checkout.

The wheel bundles the real server and its Python backend, linked against Python 3.11's shared library. The environment is
its own because that backend needs numpy < 2. It lies in `$MARQUEE_CACHE` (default `~/.cache/marquee`) under a name that
changes with its requirements.
"""

from __future__ import annotations

import ctypes.util
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import Unavailable

DOCKER = Path(__file__).resolve().parents[2] / "docker" / "triton"
REQUIREMENTS = DOCKER / "requirements-wheel.txt"
OUR_BACKENDS = DOCKER / "backends"


@dataclass(frozen=True)
class Wheel:
    """Where the parts of an installed wheel lie."""

    environment: Path

    @property
    def site_packages(self) -> Path:
        return self.environment / "lib" / "python3.11" / "site-packages"

    @property
    def home(self) -> Path:
        return self.site_packages / "pytriton" / "tritonserver"

    @property
    def program(self) -> Path:
        return self.home / "bin" / "tritonserver"

    @property
    def libraries(self) -> Path:
        return self.site_packages / "nvidia_pytriton.libs"

    def assemble_backends(self, folder: Path) -> Path:
        """Makes a backend directory of the wheel's Python backend, with its stub for 3.11 beside it, and of ours."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(OUR_BACKENDS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(self.home / "backends" / "python", folder / "python")
        stub = "triton_python_backend_stub"
        shutil.copy2(self.home / "python_backend_stubs" / "3.11" / stub, folder / "python" / stub)
        return folder


def triton_wheel() -> Wheel:
    """The installed wheel; installs it on first use (330 MB, ten seconds with a warm package cache).

    Raises:
        Unavailable: this platform has no such wheel, Python's shared library is missing, or the installation failed.
    """
    if sys.version_info[:2] != (3, 11) or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Unavailable("triton: the wheel with the server is for Python 3.11 on Linux x86_64")
    if not ctypes.util.find_library("python3.11"):
        raise Unavailable("triton: its Python backend needs libpython3.11.so (apt-get install libpython3.11)")
    cache = Path(os.environ.get("MARQUEE_CACHE") or Path.home() / ".cache" / "marquee")
    wanted = REQUIREMENTS.read_bytes()
    folder = cache / f"triton-{hashlib.sha256(wanted).hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "triton.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes may want it at once
        done = folder / ".installed"
        if not done.exists():
            _install(folder)
            done.touch()
    return Wheel(folder)


def _install(folder: Path) -> None:
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    installed = subprocess.run(
        [*pip, "--no-deps", "-r", str(REQUIREMENTS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if installed.returncode:
        raise Unavailable(f"triton: cannot install {REQUIREMENTS}: {installed.stdout[-1000:]}")
