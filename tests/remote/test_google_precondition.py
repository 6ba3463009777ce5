"""gs:// creates an entry only where there is none: the request says so, and the store's refusal is understood.

The emulator of Google Cloud Storage ignores preconditions, so a recording server stands in here. It answers as the
documentation of request preconditions has it: `ifGenerationMatch=0` succeeds only if there is no live version of the
object, else 412 Precondition Failed.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from edgepack.remote_stores import ObjectStore, parse_url


class Recorder(BaseHTTPRequestHandler):
    """Takes uploads of one object."""

    uploads: list[dict[str, list[str]]]
    exists = False

    def do_POST(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.uploads.append(query)
        if type(self).exists and query.get("ifGenerationMatch") == ["0"]:
            self._answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
            return
        type(self).exists = True
        self._answer(200, {"size": "1", "name": "entry"})

    def _answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Recorder]]:
    pytest.importorskip("gcsfs.core", reason="gcsfs is not installed")
    import fsspec.config

    handler = type("Own", (Recorder,), {"uploads": [], "exists": False})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setitem(fsspec.config.conf, "gcs", {"token": "anon"})
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_entry_is_created_once(recorder: type[Recorder]) -> None:
    """The upload carries the precondition; who comes second learns that the entry is there."""
    store = ObjectStore(parse_url("gs://team-cache/folder"), "edgepack-1")
    assert store.create("entry", b"first")
    assert not store.create("entry", b"second")
    assert [query["ifGenerationMatch"] for query in recorder.uploads] == [["0"], ["0"]]


def test_a_large_entry_is_not_even_sent(recorder: type[Recorder]) -> None:
    """The request that starts an upload in pieces carries the precondition too."""
    recorder.exists = True
    assert not ObjectStore(parse_url("gs://team-cache/folder"), "edgepack-1").create("entry", bytes(50 << 20))
    assert [(query["uploadType"], query["ifGenerationMatch"]) for query in recorder.uploads] == [(["resumable"], ["0"])]
