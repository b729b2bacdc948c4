"""A server as a child process: started on a free port, waited for, and treated badly on purpose by the fault tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

HOST = "127.0.0.1"


class Unavailable(Exception):
    """The server is not to be had on this machine; the message says why and how to get it. Tests skip with it."""


class NotStarted(Exception):
    """The server is installed but did not become ready; the message carries the end of its log."""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Server(ABC):
    """One server on the loopback interface with its state and log in `folder`; a context manager that starts and stops it.

    `port` is fixed when the object is made, so that a server comes back under the same address after a restart.
    The process leads a group of its own, which every signal reaches, and dies with the process that started it.

    Attributes:
        name: used in messages and as the log's file name.
        deadline: seconds that it may take until it is ready, on a machine as busy as it gets; one that ended is told at once.
        grace: seconds that it may take to end after SIGTERM.
    """

    name: str
    deadline: float = 120.0
    grace: float = 15.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / f"{self.name}.log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """The address as the settings take it."""

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """The command line.

        Raises:
            Unavailable: the program is not on this machine.
        """

    @abstractmethod
    def check(self) -> None:
        """Raises whatever it meets unless the server answers."""

    def environment(self) -> Mapping[str, str]:
        """Variables beside this process's own."""
        return {}

    def start(self) -> Self:
        """Starts the process and waits until it answers.

        Raises:
            Unavailable: not on this machine.
            NotStarted: it ended or did not answer before the deadline.
        """
        command = [str(part) for part in self.command()]
        if keeper := shutil.which("setpriv"):
            command = [keeper, "--pdeathsig", "KILL", *command]
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **self.environment()},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.wait_ready()
        except NotStarted:
            self.kill()
            raise
        return self

    def wait_ready(self, deadline: float | None = None) -> float:
        """Waits until the server answers; returns the seconds that it took."""
        started = time.perf_counter()
        deadline = self.deadline if deadline is None else deadline
        while True:
            try:
                self.check()
                return time.perf_counter() - started
            except Exception as error:  # whatever it is: not ready yet; the last one is told
                assert self.process is not None, "wait_ready is for a started server"
                status = self.process.poll()
                if status is not None:
                    raise NotStarted(f"{self.name}: ended with status {status}:\n{self.last_words()}") from error
                if time.perf_counter() - started > deadline:
                    raise NotStarted(
                        f"{self.name}: not ready in {deadline} s ({error}):\n{self.last_words()}"
                    ) from error
            time.sleep(0.05)

    def last_words(self, characters: int = 2000) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else "(no log)"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """Asks it to end, and makes it end when it has not after its grace."""
        if self.process is None:
            return
        if self.running:
            self._signal(signal.SIGCONT)
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self.grace)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole group, as when the machine's memory runs out."""
        if self.process is None:
            return
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, as when a machine swaps or its network drops packets."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self) -> Self:
        """Stops it and starts it again on the same port and the same state."""
        self.stop()
        return self.start()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Paused inside of the block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
