"""A registry that lies, or that serves what somebody else pushed, cannot make `pull` write anything."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from registries import Standin

from edgepack.cli.main import run
from edgepack.delivery.pull import pull
from edgepack.delivery.reference import parse_reference
from edgepack.delivery.registry import MAX_MANIFEST, Registry
from edgepack.errors import DeliveryError

MANIFEST = json.loads((Path(__file__).resolve().parents[1] / "golden" / "cpu" / "manifest.json").read_text())
BUNDLE = "application/vnd.edgepack.bundle.v1"
TITLE = "org.opencontainers.image.title"
ZEROS = f"sha256:{'0' * 64}"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(data: bytes, title: str = "") -> dict[str, Any]:
    entry: dict[str, Any] = {"mediaType": "application/x", "digest": digest(data), "size": len(data)}
    return entry | ({"annotations": {TITLE: title}} if title else {})


def artifact(files: dict[str, bytes]) -> dict[str, Any]:
    """The OCI manifest of a bundle whose own manifest is valid and lists these files."""
    manifest = MANIFEST | {"files": {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}}
    config = json.dumps(manifest).encode()
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": BUNDLE,
        "config": descriptor(config),
        "layers": [descriptor(data, path) for path, data in files.items()],
        "_config": config,
        "_files": files,
    }


def serve(standin: Standin, document: Any) -> str:
    """Let the stand-in serve a manifest with its blobs; return the reference."""
    if isinstance(document, dict):
        for data in [document.pop("_config", b""), *document.pop("_files", {}).values()]:
            standin.blobs[digest(data)] = data
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    standin.manifests["1"] = standin.manifests[digest(raw)] = raw
    return f"oci://{standin.host}/team/model:1"


def refused(reference: str, tmp_path: Path) -> str:
    """Pull; return the error. Nothing is written, nowhere."""
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(DeliveryError) as caught:
        pull(reference, tmp_path / "out", plain_http=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert not (tmp_path / "out").exists()
    assert caught.value.exit_code == 7
    return caught.value.message


GOOD = {"model/model.tflite": b"model", "README.md": b"text"}


def changed(**values: Any) -> dict[str, Any]:
    return artifact(GOOD) | values


def with_layer(**values: Any) -> dict[str, Any]:
    document = artifact(GOOD)
    document["layers"][0] |= values
    return document


DOCUMENTS: dict[str, Any] = {
    "not json": b"{",
    "deep json": b"[" * 100_000,
    "a list": b"[]",
    "no artifact type": changed(artifactType="application/vnd.oci.empty.v1+json"),
    "an image": {"schemaVersion": 2, "config": descriptor(b"{}"), "layers": []},
    "no config": changed(config=None),
    "config of zeros": changed(config={"digest": ZEROS, "size": 10}),
    "config huge": changed(config={"digest": ZEROS, "size": 1 << 40}),
    "config not a manifest": artifact(GOOD) | {"config": descriptor(b"{}"), "_config": b"{}"},
    "config not json": artifact(GOOD) | {"config": descriptor(b"{"), "_config": b"{"},
    "layers a text": changed(layers="x"),
    "layers of numbers": changed(layers=[1]),
    "too many layers": changed(layers=[descriptor(b"x", "a")] * 10_001),
    "no layers": changed(layers=[]),
    "layer without title": with_layer(annotations=None),
    "layer too much": changed(layers=[*artifact(GOOD)["layers"], descriptor(b"text", "more.sh")]),
    "digest of another kind": with_layer(digest="sha512:00"),
    "digest a path": with_layer(digest="sha256:../../../../etc/passwd"),
    "digest missing": with_layer(digest=None),
    "digest of others": with_layer(digest=ZEROS),
    "size negative": with_layer(size=-1),
    "size a text": with_layer(size="5"),
    "size true": with_layer(size=True),
    "size huge": with_layer(size=1 << 50),
    "size smaller": with_layer(size=4),
    "size larger": with_layer(size=6),
    **{
        f"path {path!a}": artifact({**GOOD, path: b"escaped"})
        for path in (
            "../escaped", "/tmp/escaped", "a/../../escaped", "..", ".", "a//b", "a\\..\\b", "C:/escaped", "a\0b",
            "a\nb", "manifest.json", "readme.MD", "README.md/x", "MODEL", "\ud800", "x" * 500,
        )
    },
    "an index of nothing": {"schemaVersion": 2, "manifests": []},
    "an index of texts": {"schemaVersion": 2, "manifests": ["x", 1, None]},
    "an index of a text": {"schemaVersion": 2, "manifests": "x"},
    "an index without digests": {"schemaVersion": 2, "manifests": [{"artifactType": BUNDLE}]},
    "an index of missing": {"schemaVersion": 2, "manifests": [{"artifactType": BUNDLE, "digest": ZEROS, "size": 2}]},
    "an index of paths": {"schemaVersion": 2, "manifests": [{"artifactType": BUNDLE, "digest": "../x", "size": 2}]},
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_hostile_manifest_writes_nothing(name: str, standin: Standin, tmp_path: Path) -> None:
    """Whatever a manifest or an index says, it is one error with exit code 7."""
    document = DOCUMENTS[name]
    message = refused(serve(standin, dict(document) if isinstance(document, dict) else document), tmp_path)
    if name.startswith("path"):
        assert "outside the bundle" in message or "two files of one path" in message
    assert not any("etc" in path or ".." in path for _, path in standin.requests)


def test_nothing_large_is_fetched_before_it_is_refused(standin: Standin, tmp_path: Path) -> None:
    """Sizes above the limits are refused by what the manifest says."""
    for name in ("size huge", "config huge"):
        refused(serve(standin, dict(DOCUMENTS[name])), tmp_path)
    assert not any("/blobs/" in path and ZEROS in path for _, path in standin.requests)


def test_a_valid_artifact_with_a_bad_bundle_is_refused(standin: Standin, tmp_path: Path) -> None:
    """Digests that all match do not make a bundle: it has to pass `verify` before it is written."""
    assert "the pulled bundle" in refused(serve(standin, artifact(GOOD)), tmp_path)


LIES: dict[str, Callable[[str, str], tuple[int, dict[str, str], bytes] | None]] = {
    "other contents": lambda method, path: (200, {}, b"other") if "/blobs/" in path else None,
    "endless contents": lambda method, path: (200, {}, b"x" * (2 << 20)) if "/blobs/" in path else None,
    "compressed contents": lambda method, path: (
        (200, {"Content-Encoding": "gzip"}, b"x" * 100) if "/blobs/" in path else None
    ),
    "endless manifest": lambda method, path: (200, {}, b" " * (MAX_MANIFEST + 2)) if "/manifests/" in path else None,
    "redirect to a file": lambda method, path: (
        (302, {"Location": "file:///etc/passwd"}, b"") if "/blobs/" in path else None
    ),
    "redirects without end": lambda method, path: (302, {"Location": path}, b"") if "/blobs/" in path else None,
    "always failing": lambda method, path: (503, {}, b""),
    "login without end": lambda method, path: (401, {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/"'}, b""),
    "login of nonsense": lambda method, path: (401, {"WWW-Authenticate": "\x01?"}, b""),
    "login for basic": lambda method, path: (401, {"WWW-Authenticate": 'Basic realm="x"'}, b""),
    "denied": lambda method, path: (403, {}, b""),
    "nothing": lambda method, path: (404, {}, b""),
    "a teapot": lambda method, path: (418, {}, b""),
}


@pytest.mark.parametrize("name", LIES)
def test_a_registry_that_lies_writes_nothing(
    name: str, standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other bytes than the digest says, answers without end, redirects, refusals: one error, in bounded time."""
    monkeypatch.setattr("edgepack.delivery.registry.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    reference = serve(standin, artifact(GOOD))
    standin.answer = LIES[name]
    refused(reference, tmp_path)
    assert len(standin.requests) < 100


def test_a_digest_in_the_reference_is_compared(standin: Standin, tmp_path: Path) -> None:
    """A registry that serves another manifest under a digest is noticed."""
    serve(standin, artifact(GOOD))
    standin.manifests[ZEROS] = standin.manifests["1"]
    assert "does not match its digest" in refused(f"oci://{standin.host}/team/model@{ZEROS}", tmp_path)


@pytest.mark.parametrize("place", ["", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_uploads_go_to_the_registry_only(place: str, standin: Standin) -> None:
    """A registry that names another kind of place for an upload gets nothing."""
    standin.answer = lambda method, path: (202, {"Location": place}, b"") if method == "POST" else None
    with (
        Registry(parse_reference(f"oci://{standin.host}/team/model:1"), plain_http=True) as registry,
        pytest.raises(DeliveryError, match="upload"),
    ):
        registry.push_blob(digest(b"secret"), b"secret")
    assert standin.blobs == {}


def test_without_tls_only_when_it_is_allowed(
    standin: Standin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A registry without TLS is refused unless --plain-http is given, and the error names that option."""
    reference = serve(standin, artifact(GOOD))
    assert run(["pull", reference, "-o", str(tmp_path)]) == 7
    assert "--plain-http" in capsys.readouterr().err
    assert standin.requests == []
