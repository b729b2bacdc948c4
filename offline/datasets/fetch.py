"""Downloads a file of a dataset from its publisher: resumable, retried, verified, and under its name only when it is whole.

What has arrived lies in `<name>.part` until its MD5 is right, so that an interrupted download goes on where it stopped and no
other program ever reads half an archive. Checksums are the ones that GroupLens publishes beside each archive; those of the
sets that no longer change are pinned here (of the clicks' files in `criteo.py`), that of `ml-latest-small`, which is made anew
from time to time, is read from there.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
from tqdm import tqdm

from data_exchange_center.errors import DataError, DataUnavailable, LockHeld

log = logging.getLogger("marquee")

CONNECT_S, READ_S = 4.0, 20.0
ATTEMPTS = 6  # of one transfer, counted anew whenever bytes arrived
CHUNK = 1 << 18
ADVICE = (
    "point DATA= to a local copy (folder or archive), or run on generated data with DATASET=synthetic "
    "(for clicks: DATASET=criteo-synthetic)"
)


@dataclass(frozen=True)
class Archive:
    """One file at the publisher's: its name, and its MD5 where it never changes."""

    file: str
    md5: str = ""


ARCHIVES = {
    "ml-100k": Archive("ml-100k.zip", "0e33842e24a9c977be4e0107933c0723"),
    "ml-1m": Archive("ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906"),
    "ml-latest-small": Archive("ml-latest-small.zip"),
    "ml-20m": Archive("ml-20m.zip", "cd245b17a1ae2cc31bb14903e1204af3"),
    "ml-25m": Archive("ml-25m.zip", "6b51fb2759a8657d3bfcbfc42b592ada"),
    "ml-32m": Archive("ml-32m.zip", "d472be332d4daa821edc399621853b57"),
}


class Interrupted(Exception):
    """A transfer broke off or the server asked to come again; worth another attempt."""


def fetch(archive: Archive, folder: Path, mirror: str) -> Path:
    """The archive in `folder`, downloaded unless it is there already.

    Args:
        archive: what to fetch.
        folder: where it goes; made when missing.
        mirror: the URL of the folder that holds the archive and, as `<file>.md5`, its checksum.

    Raises:
        DataUnavailable: not reachable, not there, or not whole after all attempts; the message says what to do.
        DataError: the bytes that arrived are not the published ones, twice.
        LockHeld: another process fetches it right now.
    """
    target = folder / archive.file
    if target.exists():
        return target
    url = f"{mirror.rstrip('/')}/{archive.file}"
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder / f".{archive.file}.lock", url), requests.Session() as session:
        if target.exists():
            return target
        _resolve(url)
        wanted = archive.md5 or _published_md5(session, f"{url}.md5")
        part = folder / f"{archive.file}.part"
        for attempt in ("resumed", "from the start"):
            _transfer(session, url, part)
            found = md5_of(part)
            if found == wanted:
                part.replace(target)
                log.info("fetched %s, MD5 %s", target, found)
                return target
            part.unlink()
            log.warning("%s: MD5 is %s, published is %s (%s)", url, found, wanted, attempt)
    raise DataError(f"{url}: MD5 is {found}, but {wanted} is published; nothing was kept. Try later, or {ADVICE}")


def md5_of(path: Path) -> str:
    """Hex MD5 of a file: the checksum that the publisher gives, not a protection against an attacker."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _transfer(session: requests.Session, url: str, part: Path) -> None:
    """Fills `part`, going on where it ends; several attempts, as long as some bring bytes."""
    part.touch()
    while True:
        before = part.stat().st_size
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(Interrupted),
                stop=stop_after_attempt(ATTEMPTS),
                wait=wait_exponential(multiplier=0.2, max=8),
            ):
                with attempt:
                    _continue(session, url, part)
            return
        except RetryError as error:
            if part.stat().st_size <= before:
                reason = error.last_attempt.exception()
                raise DataUnavailable(
                    f"{url}: broke off at {before} bytes ({reason}); what arrived is kept and the next run goes on there. "
                    f"Try again, or {ADVICE}"
                ) from error


def _continue(session: requests.Session, url: str, part: Path) -> None:
    have = part.stat().st_size
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with session.get(url, headers=headers, stream=True, timeout=(CONNECT_S, READ_S)) as response:
            if response.status_code == 416 and have:
                if response.headers.get("Content-Range", "").endswith(f"/{have}"):
                    return  # all of it was there already
                part.write_bytes(b"")
                raise Interrupted("the server has another file than the one begun")
            _check_status(response, url)
            if response.status_code != 206:
                have = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                part.write_bytes(b"")
                raise Interrupted("the server went on at another place than asked")
            total = have + int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
            _write(response, part, have, total)
    except requests.RequestException as error:
        if not part.stat().st_size:
            raise _unreachable(url, error) from error
        raise Interrupted(_reason(error)) from error


def _write(response: requests.Response, part: Path, have: int, total: int | None) -> None:
    bar = tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, unit_divisor=1024)
    with bar, part.open("r+b") as file:
        file.truncate(have)
        file.seek(have)
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise Interrupted(f"{part.stat().st_size} of {total} bytes arrived")


def _published_md5(session: requests.Session, url: str) -> str:
    """The checksum in the publisher's file: `MD5 (name) = …` or `…  name`."""
    try:
        response = session.get(url, timeout=(CONNECT_S, READ_S))
    except requests.RequestException as error:
        raise _unreachable(url, error) from error
    try:
        _check_status(response, url)
    except Interrupted as error:
        raise DataUnavailable(f"{url}: {error}; try again, or {ADVICE}") from error
    found = re.search(r"\b[0-9a-fA-F]{32}\b", response.text)
    if not found:
        raise DataUnavailable(f"{url}: holds no MD5, so the archive could not be verified; {ADVICE}")
    return found.group().lower()


def _check_status(response: requests.Response, url: str) -> None:
    if response.status_code in (429, 500, 502, 503, 504):
        raise Interrupted(f"the server answered {response.status_code} {response.reason}")
    if response.status_code not in (200, 206):
        raise DataUnavailable(f"{url}: the server answered {response.status_code} {response.reason}; {ADVICE}")


def _resolve(url: str) -> None:
    """Fails within `CONNECT_S` when the host has no address: without a network, a resolver may try for half a minute."""
    address = urlsplit(url)
    if requests.utils.get_environ_proxies(url):
        return  # a proxy resolves names itself
    problem: list[OSError] = []

    def look_up() -> None:
        try:
            socket.getaddrinfo(address.hostname, address.port or 443)
        except OSError as error:
            problem.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(CONNECT_S)
    if thread.is_alive() or problem:
        raise _unreachable(url, problem[0] if problem else TimeoutError(f"no address after {CONNECT_S:g} s"))


def _unreachable(url: str, error: Exception) -> DataUnavailable:
    return DataUnavailable(f"could not reach {url} ({_reason(error)}); {ADVICE}")


def _reason(error: BaseException) -> str:
    """The innermost cause, without the layers of library names around it."""
    while True:
        inner = getattr(error, "reason", None) or next(
            (one for one in error.args if isinstance(one, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            return str(error)
        error = inner


@contextmanager
def _only_one(path: Path, url: str) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockHeld(f"another process is fetching {url}; wait for it and run again") from error
        yield
