"""Start a server with the embedded model, rerank the README's example, and keep serving.

Usage: python examples/serve_and_rerank.py [--once] [--end-with-parent]

TAMIS_SERVER__PORT sets the port; 0 picks a free one. With --once, the server stops after the
example. The server stops when this program ends, for any reason. With --end-with-parent, this
program stops when its parent process ends, as `make run` needs.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from types import FrameType
from urllib.error import HTTPError

EXAMPLE = {
    "query": "苹果公司最新发布的AI功能",
    "documents": [
        "苹果发布会介绍新款iPhone和健康功能",
        "Apple Intelligence 是苹果推出的人工智能系统，可以改写文字、生成图片，并让 Siri 更聪明",
        "苹果的营养价值与种植技术",
    ],
}
START_SECONDS = 60.0
STOP_SECONDS = 30.0
_SIGNAL_WHEN_PARENT_ENDS = 1  # Linux's PR_SET_PDEATHSIG


def main() -> int:
    """Run the example; returns the server's exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, stop_as_ctrl_c_does)
    if "--end-with-parent" in sys.argv:
        end_with_parent()
    port = usable_port(os.environ.get("TAMIS_SERVER__PORT", "8000"))
    url = f"http://127.0.0.1:{port}"
    # there is no load balancer to wait for
    options = ("--host", "127.0.0.1", "--port", str(port), "--server.drain-delay-seconds", "0")
    server = subprocess.Popen(
        [sys.executable, "-m", "tamis", "serve", *options],
        preexec_fn=end_with_parent,  # noqa: PLW1509 - this program has one thread
    )
    try:
        wait_until_ready(url, server)
        print(f"\nPOST {url}/rerank\n{_pretty(EXAMPLE)}\n\n{_pretty(rerank(url, EXAMPLE))}\n")
        if "--once" not in sys.argv:
            print(f"Serving on {url}; the API is at {url}/docs. Ctrl-C stops.", flush=True)
            server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        stop(server)
    return server.returncode if server.returncode >= 0 else 1


def stop_as_ctrl_c_does(_number: int, _frame: FrameType | None) -> None:
    """Handle every signal like Ctrl-C."""
    raise KeyboardInterrupt


def end_with_parent() -> None:
    """Have SIGTERM sent to this process when its parent ends, even by SIGKILL."""
    ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_ENDS, signal.SIGTERM)


def usable_port(text: str) -> int:
    """Check that the port is free; port 0 becomes a free one."""
    try:
        with socket.create_server(("127.0.0.1", int(text))) as free:
            return int(free.getsockname()[1])
    except (ValueError, OverflowError):
        sys.exit(f"port {text!r} is not a number from 0 to 65535; `make run PORT=9000` uses 9000")
    except OSError as error:
        sys.exit(
            f"cannot listen on port {text}: {error.strerror}; `make run PORT=9000` uses another"
        )


def stop(server: subprocess.Popen[bytes]) -> None:
    """Stop the server; kill it after a timeout or a second Ctrl-C."""
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        server.kill()
        server.wait()


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    """Poll /readyz until it answers 200."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.exit(f"no server became ready on {url}; its log above says why")


def rerank(url: str, body: dict[str, object]) -> dict[str, object]:
    """Send one request with the standard library."""
    request = urllib.request.Request(
        f"{url}/rerank", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except HTTPError as error:
        sys.exit(f"{url}/rerank answers {error.code}: {error.read().decode()}")
    except OSError as error:
        sys.exit(f"{url}/rerank does not answer: {error}")


def _pretty(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


if __name__ == "__main__":
    sys.exit(main())
