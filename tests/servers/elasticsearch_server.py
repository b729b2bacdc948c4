r"""Elasticsearch 8 through the program that the environment variable MARQUEE_TEST_ELASTICSEARCH names.

The program is called as `PROGRAM PORT DATA_DIR` and runs one node in the foreground on 127.0.0.1. For an unpacked
distribution it is a few lines of shell:

    exec /path/to/elasticsearch-8.18.8/bin/elasticsearch -Ehttp.port=$1 -Epath.data=$2 \
        -Ediscovery.type=single-node -Expack.security.enabled=false
"""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.process import HOST, Server, Unavailable

VARIABLE = "MARQUEE_TEST_ELASTICSEARCH"


class ElasticsearchServer(Server):
    """One node, plain HTTP."""

    name = "elasticsearch"
    deadline = 240.0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def command(self) -> Sequence[str | Path]:
        program = os.environ.get(VARIABLE, "")
        if not program:
            raise Unavailable(
                f"elasticsearch: {VARIABLE} is not set; it names a program that runs a node: PORT DATA_DIR"
            )
        if not shutil.which(program):
            raise Unavailable(f"elasticsearch: {VARIABLE}={program} is not a program")
        if not shutil.which("java"):
            raise Unavailable("elasticsearch: no java on PATH (apt-get install openjdk-17-jre-headless)")
        return [program, str(self.port), self.folder / "elasticsearch"]

    def environment(self) -> Mapping[str, str]:
        return {"ES_JAVA_OPTS": os.environ.get("ES_JAVA_OPTS", "-Xms512m -Xmx512m")}

    def check(self) -> None:
        url = f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=1s"
        with urllib.request.urlopen(url, timeout=3) as answer:  # noqa: S310 - our own loopback address
            answer.read()
