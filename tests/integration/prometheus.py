"""A real Prometheus, which scrapes servers of tests every second."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from tests.integration.serving import until

_CONFIGURATION = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
scrape_configs:
  - job_name: tamis
    static_configs:
      - targets: [{target}]
"""
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
_TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)
_NAME = re.compile(r"\b(?:tamis|process)_\w+\b(?!\()")


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    client: httpx2.Client

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of an expression, now; fails where it is not accepted."""
        answer = self.client.get("/api/v1/query", params={"query": expression})
        body = answer.json()
        assert body["status"] == "success", (expression, body)
        result = body["data"]["result"]
        assert isinstance(result, list)
        return result

    def value(self, expression: str) -> float:
        """Of the one series that an expression has; 0 where there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0


@contextmanager
def scraping(url: str, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a server until the block ends."""
    configuration = folder / "prometheus.yml"
    configuration.write_text(_CONFIGURATION.format(target=json.dumps(urlsplit(url).netloc)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            prometheus = Prometheus(client)
            until(lambda: _is_ready(client) and prometheus.value('up{job="tamis"}') == 1)
            yield prometheus
    finally:
        process.kill()
        process.wait()


def names_of(text: str) -> set[str]:
    """The names of all series that a server can have, by its /metrics."""
    return {
        name + suffix for name, kind in _TYPE.findall(text) for suffix in _SUFFIXES.get(kind, ("",))
    }


def names_in(expression: str) -> set[str]:
    """The names of a server's metrics that an expression asks for."""
    return set(_NAME.findall(expression))


def _is_ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx2.TransportError:
        return False
