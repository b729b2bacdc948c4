"""A gunicorn worker whose threads take ready connections straight from the kernel.

gunicorn's own threaded worker watches idle connections in its main thread and hands each request to a pool: two changes of
thread and a dozen system calls a request, in a process whose threads share one interpreter lock. Here all threads wait in one
`epoll`, the kernel wakes one of them per ready connection, and that thread reads, answers and arms the connection again. The main
thread only tells the arbiter that the process is alive, closes connections that were idle for too long, and ends the others.

Parsing, limits, errors and closing are gunicorn's. What its worker can do and this server does not use is left out: request hooks,
the access log, a limit of requests, and files as answers.

Source: D. Schmidt et al., "Leader/Followers", Pattern Languages of Programs, 2000.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from gunicorn.http import wsgi
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

# one thread is woken; nobody else until the connection is armed again
READY_ONCE = select.EPOLLIN | select.EPOLLONESHOT
HEARTBEAT_S = 1.0
PAUSE_S = 0.05
# another process of this server was faster, or the client left
GONE_AGAIN = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED)


class WholeAnswer(wsgi.Response):
    """Writes the head together with the first piece of the body: one system call, and one wake-up of the client."""

    headers_sent: bool

    def default_headers(self) -> list[str]:
        """As gunicorn makes them, but that the date is written once a second."""
        connection = "close" if self.should_close() else "keep-alive"
        major, minor = self.req.version
        lines = [f"HTTP/{major}.{minor} {self.status}\r\n", f"Server: {self.version}\r\n"]
        lines += [f"Date: {_date(int(time.time()))}\r\n", f"Connection: {connection}\r\n"]
        return [*lines, "Transfer-Encoding: chunked\r\n"] if self.chunked else lines

    def send_headers(self) -> None:
        """Keeps the head until there is a body, or the answer ends without one."""

    def _emit_body(self, data: bytes) -> None:
        if self.headers_sent or self.chunked:
            self._send_head()
            super()._emit_body(data)
        else:
            self.headers_sent = True
            self.sock.sendall(self._head() + data)

    def close(self) -> None:
        self._send_head()
        super().close()

    def _head(self) -> bytes:
        lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
        return "".join(lines).encode("latin-1")

    def _send_head(self) -> None:
        if not self.headers_sent:
            self.headers_sent = True
            self.sock.sendall(self._head())


@lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


class PollingWorker(ThreadWorker):
    """See the module's docstring. `threads`, `keepalive`, `graceful_timeout` and `worker_connections` mean what gunicorn says."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.keepalived_conns: dict[int, TConn] = {}  # armed, by file descriptor; whoever pops one has it to itself
        self._listening: dict[int, socket.socket] = {}
        self._counting = threading.Lock()
        self._ended = False

    def run(self) -> None:
        """Serves until the arbiter ends this process."""
        self._ready = select.epoll()
        for listener in self.sockets:
            listener.setblocking(False)
            self._listening[listener.fileno()] = listener
            self._ready.register(listener, READY_ONCE)
        for number in range(self.cfg.threads):
            threading.Thread(target=self._follow, name=f"requests-{number}", daemon=True).start()
        awake = select.poll()
        awake.register(self.PIPE[0], select.POLLIN)  # gunicorn writes to it when a signal comes
        while self.alive and self.is_parent_alive():
            self.notify()
            self._pause(awake, HEARTBEAT_S)
            self._end_idle(time.monotonic())
        self._stop(awake)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: no new connections, and those at hand come to an end."""
        self.alive = False

    def handle_request(self, req: Any, conn: TConn) -> bool:
        """Answers one request; returns whether the connection goes on."""
        answer, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, response_class=WholeAnswer)
        environ["wsgi.multithread"] = True
        try:
            pieces = self.wsgi(environ, answer.start_response)
            if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
                answer.force_close()
            try:
                for piece in pieces:
                    answer.write(piece)
                answer.close()
            finally:
                if hasattr(pieces, "close"):
                    pieces.close()
        except OSError:
            raise
        except Exception:
            if not answer.headers_sent:
                raise
            self.log.exception("an answer broke off")  # another one behind its head would be read as its end
            return False
        return not answer.should_close()

    def _follow(self) -> None:
        """One thread: waits for any connection, answers it, waits again."""
        while not self._ended:
            try:
                for place, _ in self._ready.poll(HEARTBEAT_S, 1):
                    if place in self._listening:
                        self._accept(place)
                    else:
                        self._serve(place)
            except Exception:
                if not self._ended:
                    self.log.exception("a thread that serves requests met an error and goes on")

    def _accept(self, place: int) -> None:
        listener = self._listening[place]
        try:
            accepted, client = listener.accept()
        except OSError as error:
            if error.errno not in GONE_AGAIN:  # no descriptor is free: the connection waits, and is ready at once again
                self.log.error("a connection cannot be taken: %s", error)
                time.sleep(PAUSE_S)
            self._listen(place)
            return
        with self._counting:
            self.nr_conns += 1
        self._listen(place)
        accepted.setblocking(True)
        conn = TConn(self.cfg, accepted, client, listener.getsockname())
        conn.data_ready = True
        self._arm(conn, self._ready.register)

    def _listen(self, place: int) -> None:
        """Lets the next connection in, unless there are as many as there may be: then the first that ends does so."""
        if self.alive and self.nr_conns < self.worker_connections:
            with contextlib.suppress(OSError):  # closed a moment ago
                self._ready.modify(place, READY_ONCE)

    def _serve(self, place: int) -> None:
        conn = self.keepalived_conns.pop(place, None)
        if conn is None:  # ended a moment ago
            return
        goes_on = self.handle(conn)
        while goes_on and conn.parser.unreader.buf.getvalue():  # the next request came along; the kernel will not tell
            goes_on = self.handle(conn)
        if goes_on:
            self._arm(conn, self._ready.modify)
        else:
            self._end(conn, graceful=True)

    def _arm(self, conn: TConn, arm: Any) -> None:
        place = conn.sock.fileno()
        conn.set_timeout()
        self.keepalived_conns[place] = conn  # first: another thread may be woken by the next line
        try:
            arm(place, READY_ONCE)
        except (OSError, ValueError):
            if self.keepalived_conns.pop(place, None) is conn:
                self._end(conn)

    def _end(self, conn: TConn, *, graceful: bool = False) -> None:
        conn.close(graceful)
        with self._counting:
            self.nr_conns -= 1
            was_full = self.nr_conns == self.worker_connections - 1
        if was_full:
            for place in self._listening:
                self._listen(place)

    def _end_idle(self, until: float) -> None:
        """Closes the connections whose time without a request was over at `until`."""
        for place, conn in list(self.keepalived_conns.items()):
            if conn.timeout <= until and self.keepalived_conns.pop(place, None) is conn:
                self._end(conn)

    def _stop(self, awake: select.poll) -> None:
        """Lets requests under way end. A connection stays open a moment longer: its client may have sent one already."""
        for place in self._listening:
            self._ready.unregister(place)
        last = time.monotonic() + self.cfg.graceful_timeout
        lingering = time.monotonic() + STOP_KEEPALIVE_LINGER
        while self.nr_conns > 0 and time.monotonic() < last:
            self.notify()
            self._pause(awake, PAUSE_S)
            now = time.monotonic()
            self._end_idle(now if now < lingering else float("inf"))
        self._ended = True
        for listener in self.sockets:
            listener.close()

    def _pause(self, awake: select.poll, seconds: float) -> None:
        if awake.poll(seconds * 1000):
            with contextlib.suppress(BlockingIOError):
                os.read(self.PIPE[0], 4096)
