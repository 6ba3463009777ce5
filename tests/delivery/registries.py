"""Registries: Debian's docker-registry, started here, and a stand-in that serves what no real one would."""

import hashlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def make_key(folder: Path) -> None:
    """Write key.pem and public.pem, and a self-signed certificate for 127.0.0.1 as tls.pem."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(private)
    public = key.public_key()
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "public.pem").write_bytes(public.public_bytes(serialization.Encoding.PEM, info))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, public, x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@contextmanager
def docker_registry(folder: Path, http: str = "", more: str = "") -> Iterator[str]:
    """Start Debian's docker-registry; yield its host and port."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed: apt-get install docker-registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http:\n  addr: 127.0.0.1:{port}\n{http}{more}"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        for _ in range(300):
            assert process.poll() is None, (folder / "log").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def stored(host: str, path: str) -> tuple[bytes, str]:
    """Return what a registry has at a path below /v2/, and its media type, without edgepack."""
    types = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
    request = urllib.request.Request(f"http://{host}/v2/{path}", headers={"Accept": types})
    with urllib.request.urlopen(request) as answer:
        return answer.read(), answer.headers["Content-Type"]


# -- the stand-in ------------------------------------------------------------------------------------------------------


class Standin(ThreadingHTTPServer):
    """A registry with the referrers API, in memory, that tests make lie.

    A stand-in: docker-registry 2.8 has no referrers API and compares every digest, and no registry that lies exists.

    Attributes:
        blobs: Contents by digest; a test may put anything there.
        manifests: Contents by tag and digest.
        requests: Method and path of each request.
        answer: Called with method and path before anything else; what it returns is sent as status, headers, content.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.answer: Callable[[str, str], tuple[int, dict[str, str], bytes] | None] = lambda method, path: None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Standin

    def _serve(self) -> None:
        self.server.requests.append((self.command, self.path))
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, content = self.server.answer(self.command, self.path) or self._usual(data)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.wfile.write(content)
            except OSError:
                self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = _serve

    def _usual(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        server, name = self.server, self.path.rpartition("/")[2]
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if self.path == "/v2/":
            return 200, {}, b"{}"
        if self.command == "POST":
            return 202, {"Location": "/v2/team/model/blobs/uploads/1"}, b""
        if self.command == "PUT" and "/uploads/" in self.path:
            server.blobs[digest] = data
            return 201, {}, b""
        if self.command == "PUT":
            server.manifests[name] = server.manifests[digest] = data
            subject = json.loads(data).get("subject")
            return 201, {"OCI-Subject": subject["digest"]} if subject else {}, b""
        if "/referrers/" in self.path:
            found = [
                {"digest": one, "artifactType": document.get("artifactType")}
                for one, document in ((key, json.loads(raw)) for key, raw in server.manifests.items())
                if document.get("subject", {}).get("digest") == name
            ]
            return 200, {}, json.dumps({"manifests": found}).encode()
        contents = server.blobs if "/blobs/" in self.path else server.manifests
        return (200, {}, contents[name]) if name in contents else (404, {}, b"{}")

    def log_message(self, *_: object) -> None: ...
