"""Prepares the stack's volumes before the servers start: certificates for Elasticsearch, and an empty Feast registry.

Runs as a job of the compose file, in the application's image. What is already there is left alone.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from typing import Any

from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from online.stores.open import open_features

DAYS = 1095
GROUP_READABLE = 0o640


def make_certificates(folder: Path, host: str, *, renew: bool = False) -> bool:
    """An authority (`ca.crt`) and a server's certificate that it signed (`server.crt`, `server.key`) for `host`, localhost and
    127.0.0.1.

    The authority's key is not kept: a certificate that expires is replaced together with its authority.

    Args:
        renew: also when there are some already.

    Returns:
        whether they were made now.
    """
    if (folder / "server.crt").exists() and not renew:
        return False
    (folder / "server.crt").unlink(missing_ok=True)  # comes back last: whoever is cut off here begins anew
    key: list[str | Path] = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        str(DAYS),
    ]
    authority: list[str | Path] = [
        "-keyout",
        folder / "ca.key",
        "-out",
        folder / "ca.crt",
        "-subj",
        "/CN=Marquee stack",
    ]
    names = f"subjectAltName=DNS:{host},DNS:localhost,IP:127.0.0.1"
    server: list[str | Path] = [
        "-keyout",
        folder / "server.key",
        "-out",
        folder / "server.new",
        "-subj",
        f"/CN={host}",
        "-addext",
        names,
    ]
    _openssl(*key, *authority)
    _openssl(*key, *server, "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key")
    (folder / "ca.key").unlink()
    (folder / "server.key").chmod(GROUP_READABLE)
    (folder / "server.new").rename(folder / "server.crt")
    return True


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--certificates", type=Path, help="folder for the certificates; none are made without it")
    arguments.add_argument(
        "--renew", action="store_true", help="replace the certificates; restart their users afterwards"
    )
    arguments.add_argument("--host", default="elasticsearch", help="name under which clients reach the server")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        made = bool(parsed.certificates) and make_certificates(parsed.certificates, parsed.host, renew=parsed.renew)
        features = open_features(settings)
        published = features.releases()  # asking makes the registry, which the feature server can only read
        features.close()
        return {"certificates_made": made, "published": published}

    run_step("setup_volumes", arguments, step, argv)


if __name__ == "__main__":
    main()
