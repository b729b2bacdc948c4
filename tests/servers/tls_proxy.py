"""TLS and a password in front of a plain server, by Debian's nginx: what a production Elasticsearch asks of its clients.

Its certificate is made by the code that makes the Docker stack's.
"""

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

from docker.setup_volumes import make_certificates
from tests.servers.process import HOST, Server, Unavailable

USER, PASSWORD = "elastic", "not-a-secret"  # pragma: allowlist secret
OTHER_HOST = "127.0.0.2"  # answers too, but the certificate is not for it
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
        listen {other_host}:{port} ssl;
        ssl_certificate {folder}/server.crt;
        ssl_certificate_key {folder}/server.key;
        auth_basic "stores";
        auth_basic_user_file {folder}/users;
        location / {{ proxy_pass {target}; proxy_http_version 1.1; proxy_set_header Authorization ""; }}
    }}
}}
"""


class TlsProxy(Server):
    """Passes requests on to `target` (http://host:port). Clients must trust `ca_file`."""

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
        make_certificates(self.folder, "elasticsearch")
        hashed = _openssl("passwd", "-apr1", PASSWORD).strip()
        (self.folder / "users").write_text(f"{USER}:{hashed}\n")
        config = self.folder / "nginx.conf"
        owner = {"user": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
        config.write_text(
            CONFIG.format(
                folder=self.folder, host=HOST, other_host=OTHER_HOST, port=self.port, target=self.target, **owner
            )
        )
        return [nginx, "-c", config, "-e", self.folder / "error.log"]

    def check(self) -> None:
        with socket.create_connection((HOST, self.port), timeout=1):
            pass


def _openssl(*arguments: str | Path) -> str:
    command = ["openssl", *(str(argument) for argument in arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
