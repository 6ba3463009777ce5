"""Real servers for shared caches: moto's S3 server, an emulator of Google Cloud Storage, Azurite, a shared folder."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: The account that Azurite has from the start; its key is published in Azurite's documentation.
AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(command: list[str], port: int) -> Iterator[str]:
    """Run a server until the end of the block; yield its address when it answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            try:
                urllib.request.urlopen(address, timeout=10).close()
            except urllib.error.HTTPError as answer:
                answer.close()
            except OSError:
                time.sleep(0.1)
                continue
            break
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """Start moto's S3 server with the bucket `team-cache`."""
    pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    port = free_port()
    with serving([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port) as address:
        # moto accepts any credentials and no signature.
        urllib.request.urlopen(urllib.request.Request(f"{address}/team-cache", method="PUT")).close()
        yield address


@pytest.fixture(scope="session")
def gs_address() -> Iterator[str]:
    """The emulator of Google Cloud Storage with the bucket `team-cache`."""
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    pytest.importorskip("gcsfs.core", reason="gcsfs is not installed")
    port = free_port()
    start = "from gcp_storage_emulator.__main__ import main; main()"
    command = [sys.executable, "-c", start, "start", f"--port={port}", "--in-memory", "--default-bucket=team-cache"]
    with serving(command, port) as address:
        yield address


@pytest.fixture(scope="session")
def az_connection() -> Iterator[str]:
    """Azurite with the container `team-cache`; its connection string."""
    pytest.importorskip("adlfs", reason="adlfs is not installed")
    program = os.environ.get("EDGEPACK_TEST_AZURITE") or shutil.which("azurite-blob")
    if not program or not Path(program).exists():
        pytest.skip("azurite-blob is not installed: npm install azurite, and PATH or EDGEPACK_TEST_AZURITE")
    from azure.storage.blob import BlobServiceClient

    port = free_port()
    command = [program, "--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--blobPort", str(port)]
    with serving(command, port) as address:
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName={AZURITE_ACCOUNT};AccountKey={AZURITE_KEY};"
            f"BlobEndpoint={address}/{AZURITE_ACCOUNT};"
        )
        with BlobServiceClient.from_connection_string(connection) as client:
            client.create_container("team-cache")
        yield connection


@pytest.fixture
def s3(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "AWS_ENDPOINT_URL": s3_address,
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE00",
        "AWS_SECRET_ACCESS_KEY": "example-secret-of-the-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return "s3://team-cache"


@pytest.fixture
def gs(gs_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gs_address)
    monkeypatch.setenv("FSSPEC_GCS_TOKEN", "anon")
    import fsspec.config

    monkeypatch.setitem(fsspec.config.conf, "gcs", {"token": "anon"})
    return "gs://team-cache"


@pytest.fixture
def az(az_connection: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", az_connection)
    return "az://team-cache"


@pytest.fixture
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """URL of an empty shared cache of a scheme."""

    def url(scheme: str) -> str:
        if scheme == "file":
            return f"file://{tmp_path}/shared"
        return f"{request.getfixturevalue(scheme)}/{uuid.uuid4().hex}"

    return url
