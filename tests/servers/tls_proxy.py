"""TLS and a password in front of a plain server, by Debian's nginx: what a production Elasticsearch asks of its clients."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers.process import HOST, Server, Unavailable

USER, PASSWORD = "elastic", "not-a-secret"
CONFIG = """
daemon off;
user {user} {group};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_max_body_size 100m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {host}:{port} ssl;
        ssl_certificate {folder}/server.crt;
        ssl_certificate_key {folder}/server.key;
        auth_basic "stores";
        auth_basic_user_file {folder}/users;
        location / {{ proxy_pass {target}; proxy_http_version 1.1; proxy_set_header Authorization ""; }}
    }}
}}
"""


class TlsProxy(Server):
    """Passes requests on to `target` (http://host:port). Clients must trust `ca_file`, which is made anew at each start."""

    name = "tls-proxy"

    def __init__(self, folder: Path, target: str) -> None:
        super().__init__(folder)
        self.target = target
        self.ca_file = folder / "ca.crt"

    @property
    def url(self) -> str:
        return f"https://{USER}:{PASSWORD}@{HOST}:{self.port}"

    @property
    def address(self) -> str:
        """Host and port alone."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def command(self) -> Sequence[str | Path]:
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if not nginx or not shutil.which("openssl"):
            raise Unavailable("tls-proxy: no nginx or no openssl (apt-get install nginx-light openssl)")
        self.folder.mkdir(parents=True, exist_ok=True)
        make_certificate(self.folder)
        hashed = _openssl("passwd", "-apr1", PASSWORD).strip()
        (self.folder / "users").write_text(f"{USER}:{hashed}\n")
        config = self.folder / "nginx.conf"
        owner = {"user": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
        config.write_text(CONFIG.format(folder=self.folder, host=HOST, port=self.port, target=self.target, **owner))
        return [nginx, "-c", config, "-e", self.folder / "error.log"]

    def check(self) -> None:
        with socket.create_connection((HOST, self.port), timeout=1):
            pass


def make_certificate(folder: Path) -> None:
    """An authority (`ca.crt`) and a certificate for 127.0.0.1 that it signed (`server.crt`, `server.key`)."""
    ca, server = [folder / "ca.key", folder / "ca.crt"], [folder / "server.key", folder / "server.crt"]
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    _openssl(*new, "-keyout", ca[0], "-out", ca[1], "-subj", "/CN=test authority")
    signed = ("-CA", ca[1], "-CAkey", ca[0], "-addext", f"subjectAltName=IP:{HOST}")
    _openssl(*new, "-keyout", server[0], "-out", server[1], "-subj", "/CN=server", *signed)


def _openssl(*arguments: str | Path) -> str:
    command = ["openssl", *(str(argument) for argument in arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
