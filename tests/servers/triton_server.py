"""Triton on the CPU, from the PyPI wheel, with explicit model control: models are loaded over gRPC."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import tritonclient.grpc as triton

from tests.servers.process import HOST, Server, free_port
from tests.servers.triton_wheel import Wheel, triton_wheel


class TritonServer(Server):
    """Serves the model repository in `repository` (made empty when absent); after a restart, all models in it are loaded again."""

    name = "triton"
    deadline = 240.0

    def __init__(self, folder: Path, repository: Path) -> None:
        super().__init__(folder)
        self.repository = repository
        self.http_port = free_port()
        self._shared_memory = f"marquee-{self.port}-"
        self._wheel: Wheel | None = None

    @property
    def url(self) -> str:
        return f"grpc://{HOST}:{self.port}"

    def command(self) -> Sequence[str | Path]:
        self._wheel = triton_wheel()
        self.repository.mkdir(parents=True, exist_ok=True)
        backends = self._wheel.assemble_backends(self.folder / "triton-backends")
        return [
            self._wheel.program,
            f"--model-repository={self.repository}",
            f"--backend-directory={backends}",
            f"--grpc-address={HOST}",
            f"--grpc-port={self.port}",
            f"--http-address={HOST}",
            f"--http-port={self.http_port}",
            "--allow-metrics=false",
            "--allow-gpu-metrics=false",
            "--model-control-mode=explicit",
            "--load-model=*",
            "--strict-readiness=false",
            "--exit-on-error=false",
            "--disable-auto-complete-config",
            "--pinned-memory-pool-byte-size=0",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory}",
        ]

    def environment(self) -> Mapping[str, str]:
        assert self._wheel is not None, "environment is asked for after command"
        path = f"{self._wheel.environment / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        return {"PATH": path, "LD_LIBRARY_PATH": str(self._wheel.libraries)}

    def check(self) -> None:
        client = triton.InferenceServerClient(f"{HOST}:{self.port}")
        try:
            if not client.is_server_live(client_timeout=2):
                raise ConnectionError("not live")
        finally:
            client.close()

    def kill(self) -> None:
        """Kills it and removes what its Python backend left in shared memory."""
        super().kill()
        for left in Path("/dev/shm").glob(f"{self._shared_memory}*"):  # noqa: S108 - the system's own name for it
            left.unlink(missing_ok=True)
