"""Start a server on the embedded model, rerank the README's example, go on serving.

Usage: python examples/serve_and_rerank.py [--once]

TAMIS_SERVER__PORT chooses the port. With --once the server stops after the example.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from urllib.error import URLError

EXAMPLE = {
    "query": "苹果公司最新发布的AI功能",
    "documents": [
        "苹果发布会介绍新款iPhone和健康功能",
        "Apple Intelligence 是苹果推出的人工智能系统，可以改写文字、生成图片，并让 Siri 更聪明",
        "苹果的营养价值与种植技术",
    ],
}
START_SECONDS = 60.0


def main() -> int:
    """Run the example; returns the server's exit code."""
    url = f"http://127.0.0.1:{os.environ.get('TAMIS_SERVER__PORT', '8000')}"
    at_once = ("--server.drain-delay-seconds", "0")  # no balancer has to see it go
    with subprocess.Popen([sys.executable, "-m", "tamis", "serve", *at_once]) as server:
        try:
            wait_until_ready(url, server)
            print(f"\nPOST {url}/rerank\n{_pretty(EXAMPLE)}\n\n{_pretty(rerank(url, EXAMPLE))}\n")
            if "--once" not in sys.argv:
                print(f"Serving on {url}; the API is at {url}/docs. Ctrl-C stops.", flush=True)
                server.wait()
        except KeyboardInterrupt:
            pass
        finally:
            server.terminate()
    return server.returncode


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    """Ask /readyz until it says yes."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
        except URLError:
            time.sleep(0.1)
        else:
            return
    sys.exit(f"no server became ready on {url}; its log above says why")


def rerank(url: str, body: dict[str, object]) -> dict[str, object]:
    """One call, with nothing but the standard library."""
    request = urllib.request.Request(
        f"{url}/rerank", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _pretty(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


if __name__ == "__main__":
    sys.exit(main())
