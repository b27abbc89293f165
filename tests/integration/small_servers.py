"""Servers that say one thing only: who talks to Docker engines and registries must understand that too."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


class Quiet(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class ClosedRegistry(Quiet):
    """A registry that no user is good enough for."""

    def answer(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="nobody"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815  http.server's names


class OldEngine(Quiet):
    """An engine from before 2014."""

    VERSION: ClassVar[dict[str, str]] = {"ApiVersion": "1.12", "Version": "1.0", "Os": "linux", "Arch": "amd64"}

    def do_GET(self) -> None:
        body = json.dumps(self.VERSION).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
