"""What is pushed is pulled byte for byte, under the same digest each time, from real registries."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from registries import Standin, stored

from edgepack.child import Worker
from edgepack.cli.main import run
from edgepack.delivery.pull import PullResult
from edgepack.delivery.pull import pull as pull_bundles
from edgepack.delivery.push import PushResult, find_bundles
from edgepack.delivery.push import push as push_bundles
from edgepack.delivery.reference import parse_reference
from edgepack.errors import BundleError, DeliveryError, UsageError

pytestmark = pytest.mark.slow


@pytest.fixture
def push(worker: Worker) -> Callable[..., PushResult]:
    return partial(push_bundles, worker=worker)


@pytest.fixture
def pull(worker: Worker) -> Callable[..., PullResult]:
    return partial(pull_bundles, worker=worker)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_bundles_return_byte_for_byte(
    bundles: Path, registry: str, tmp_path: Path, push: Callable[..., PushResult], pull: Callable[..., PullResult]
) -> None:
    """Two bundles under one tag: pushed twice with one digest and no upload; pulled equal, all or one target."""
    out = bundles / "out"
    reference = f"oci://{registry}/team/digits:1.0"
    first = push(find_bundles(out), reference, plain_http=True)
    again = push([out / "digits-edgetpu", out / "digits-cpu"], f"oci://{registry}/team/digits:again", plain_http=True)
    assert first.digest == again.digest
    assert [bundle.uploaded > 0 for bundle in first.bundles] == [True, True]
    assert [bundle.uploaded for bundle in again.bundles] == [0, 0]

    result = pull(reference, tmp_path / "all", plain_http=True)
    assert result.digest == first.digest
    assert contents(tmp_path / "all") == contents(out)
    # By digest and for one target.
    pull(str(first.pinned), tmp_path / "one", target="cpu", plain_http=True)
    assert contents(tmp_path / "one" / "digits-cpu") == contents(out / "digits-cpu")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["digits-cpu"]


def test_the_artifact_describes_the_bundle(bundles: Path, registry: str, push: Callable[..., PushResult]) -> None:
    """One bundle: its manifest as configuration, a layer for each file, annotations from it, SBOM and signature."""
    bundle = bundles / "out" / "digits-cpu"
    result = push([bundle], f"oci://{registry}/team/single:1.0", plain_http=True)
    raw, kind = stored(registry, "team/single/manifests/1.0")
    assert kind == "application/vnd.oci.image.manifest.v1+json"
    document, manifest = json.loads(raw), json.loads((bundle / "manifest.json").read_bytes())
    assert document["artifactType"] == "application/vnd.edgepack.bundle.v1"
    config, _ = stored(registry, f"team/single/blobs/{document['config']['digest']}")
    assert config == (bundle / "manifest.json").read_bytes()
    layers = {layer["annotations"]["org.opencontainers.image.title"]: layer for layer in document["layers"]}
    assert layers.keys() == contents(bundle).keys() - {"manifest.json"}
    assert {path: f"sha256:{digest}" for path, digest in manifest["files"].items()}.items() <= {
        path: layer["digest"] for path, layer in layers.items()
    }.items()
    assert layers[manifest["model"]["runs"]]["mediaType"] == "application/vnd.edgepack.model.v1"
    notes = document["annotations"]
    assert (notes["vnd.edgepack.target"], notes["vnd.edgepack.scheme"]) == ("cpu", manifest["scheme"]["id"])
    assert not any("created" in key for key in notes)
    # This registry has no referrers API: the list is under the referrers tag.
    listed, _ = stored(registry, f"team/single/manifests/{result.digest.replace(':', '-')}")
    types = {entry["artifactType"]: entry["digest"] for entry in json.loads(listed)["manifests"]}
    assert set(types) == {"application/vnd.cyclonedx+json", "application/vnd.dev.sigstore.bundle.v0.3+json"}
    attached = json.loads(stored(registry, f"team/single/manifests/{types['application/vnd.cyclonedx+json']}")[0])
    assert attached["subject"]["digest"] == result.digest
    assert attached["layers"][0]["digest"] == layers["sbom.cdx.json"]["digest"]
    # Pushed again, the list has no entry twice.
    push([bundle], f"oci://{registry}/team/single:1.0", plain_http=True)
    assert stored(registry, f"team/single/manifests/{result.digest.replace(':', '-')}")[0] == listed


def test_a_registry_with_the_referrers_api_gets_no_tag(
    bundles: Path, standin: Standin, tmp_path: Path, push: Callable[..., PushResult], pull: Callable[..., PullResult]
) -> None:
    """Where the answer shows that the subject was understood, no index is written; `pull` lists the referrers."""
    result = push([bundles / "out" / "digits-cpu"], f"oci://{standin.host}/team/model:1", plain_http=True)
    assert not any(name.startswith("sha256-") for name in standin.manifests)
    pulled = pull(f"oci://{standin.host}/team/model:1", tmp_path, plain_http=True).bundles[0]
    assert {digest for _, digest in pulled.referrers} == set(result.bundles[0].referrers)
    assert len(pulled.referrers) == 2


def test_a_signature_is_required_where_one_is_named(
    bundles: Path, registry: str, tmp_path: Path, push: Callable[..., PushResult]
) -> None:
    """With --key, the signed bundle is pulled as valid; an unsigned one, and another key, write nothing."""
    out = bundles / "out"
    key = str(bundles / "public.pem")
    for name in ("digits-cpu", "digits-edgetpu"):
        push([out / name], f"oci://{registry}/team/{name}:signed", plain_http=True)
    common = ["--plain-http", "-o", str(tmp_path / "pulled")]
    assert run(["pull", f"oci://{registry}/team/digits-cpu:signed", "--key", key, *common]) == 0
    assert run(["pull", f"oci://{registry}/team/digits-edgetpu:signed", "--key", key, *common]) == 7
    other = tmp_path / "other"
    other.mkdir()
    from registries import make_key

    make_key(other)
    shutil.rmtree(tmp_path / "pulled")
    assert run(["pull", f"oci://{registry}/team/digits-cpu:signed", "--key", str(other / "public.pem"), *common]) == 7
    assert not list((tmp_path / "pulled").glob("*")) if (tmp_path / "pulled").exists() else True


def test_pull_replaces_as_build_does(
    bundles: Path, registry: str, tmp_path: Path, push: Callable[..., PushResult], pull: Callable[..., PullResult]
) -> None:
    """An existing bundle needs --force, files of the user are never lost, and equal files are not downloaded."""
    reference = f"oci://{registry}/team/replace:1"
    push([bundles / "out" / "digits-edgetpu"], reference, plain_http=True)
    pull(reference, tmp_path, plain_http=True)
    dest = tmp_path / "digits-edgetpu"
    with pytest.raises(BundleError, match="exists"):
        pull(reference, tmp_path, plain_http=True)
    (dest / "model" / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="notes"):
        pull(reference, tmp_path, plain_http=True, force=True)
    (dest / "model" / "notes.txt").unlink()
    damaged = dest / "README.md"
    damaged.write_text("damaged")
    result = pull(reference, tmp_path, plain_http=True, force=True)
    assert contents(dest) == contents(bundles / "out" / "digits-edgetpu")
    manifest = (dest / "manifest.json").stat().st_size
    assert result.bundles[0].downloaded == manifest + damaged.stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits-edgetpu"]


def test_what_does_not_verify_is_not_pushed(
    bundles: Path, standin: Standin, tmp_path: Path, push: Callable[..., PushResult]
) -> None:
    """A changed bundle, a folder without bundles and a reference to a digest end before anything is sent."""
    shutil.copytree(bundles / "out" / "digits-edgetpu", tmp_path / "changed")
    (tmp_path / "changed" / "README.md").write_text("changed")
    reference = f"oci://{standin.host}/team/model:1"
    with pytest.raises(BundleError, match=r"README\.md"):
        push([tmp_path / "changed"], reference, plain_http=True)
    with pytest.raises(UsageError):
        push([], reference, plain_http=True)
    with pytest.raises(UsageError, match="digest"):
        push([tmp_path / "changed"], f"oci://{standin.host}/team/model@sha256:{'0' * 64}", plain_http=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no bundle"):
        find_bundles(tmp_path / "empty")
    assert standin.requests == []


def test_tls_is_the_default(
    bundles: Path,
    own_registry: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    push: Callable[..., PushResult],
    pull: Callable[..., PullResult],
) -> None:
    """A certificate that nobody vouches for is refused; with its authority, push and pull work over TLS."""
    certificate = bundles / "tls.pem"
    host = own_registry(f"  tls: {{certificate: {certificate}, key: {bundles / 'key.pem'}}}\n")
    reference = f"oci://{host}/team/tls:1"
    with pytest.raises(DeliveryError) as caught:
        push([bundles / "out" / "digits-edgetpu"], reference)
    assert "certificate" in caught.value.hint
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    push([bundles / "out" / "digits-edgetpu"], reference)
    pull(reference, tmp_path)
    assert contents(tmp_path / "digits-edgetpu") == contents(bundles / "out" / "digits-edgetpu")


def test_login_data_of_docker_is_used(
    bundles: Path,
    own_registry: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    push: Callable[..., PushResult],
) -> None:
    """Without login a registry's refusal is one error; with ~/.docker/config.json the push works."""
    import base64

    # bcrypt of the password below, as `htpasswd -B` writes it.
    (tmp_path / "htpasswd").write_text("builder:$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e\n")
    host = own_registry(more=f"auth: {{htpasswd: {{realm: team, path: {tmp_path}/htpasswd}}}}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    reference = f"oci://{host}/team/login:1"
    with pytest.raises(DeliveryError, match="refuses access"):
        push([bundles / "out" / "digits-edgetpu"], reference, plain_http=True)
    (tmp_path / ".docker").mkdir()
    login = base64.b64encode(b"builder:correct horse").decode()
    (tmp_path / ".docker" / "config.json").write_text(json.dumps({"auths": {host: {"auth": login}}}))
    push([bundles / "out" / "digits-edgetpu"], reference, plain_http=True)


def test_the_command_line_says_what_it_did(
    bundles: Path, registry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`push --all` and `pull`, for people and as JSON, with the digest to pin."""
    reference = f"oci://{registry}/team/lines:1"
    assert run(["push", "--all", str(bundles / "out"), reference, "--plain-http", "--json"]) == 0
    pushed = json.loads(capsys.readouterr().out)
    assert (pushed["command"], pushed["ok"], len(pushed["results"])) == ("push", True, 2)
    assert run(["pull", pushed["pinned"], "--plain-http", "-o", str(tmp_path), "-t", "edgetpu"]) == 0
    assert pushed["digest"] in capsys.readouterr().out
    assert run(["pull", reference, "--plain-http", "-o", str(tmp_path), "-t", "hexagon"]) == 7
    assert "cpu, edgetpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "oci://host/team/model", "host/team/model:1", "oci://host", "oci://host/Team/model:1", "oci://host/../x:1",
        "oci://user:passw0rd-1@host/team/model:1", "oci://host/team/model:1?x=1", "oci://host/team/model@sha256:00",
        "oci:///team/model:1", "oci://host/team//model:1", "https://host/team/model:1", "oci://ho st/x:1", "oci://host/x:-",
    ],
)  # fmt: skip
def test_references_are_strict(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not a complete reference ends with exit code 2, without repeating a password."""
    with pytest.raises(UsageError):
        parse_reference(text)
    assert run(["pull", text]) == 2
    assert "passw0rd" not in "".join(capsys.readouterr())


def test_references_are_read() -> None:
    """Host, port, repository, tag and digest, and back to the same text."""
    digest = f"sha256:{'0' * 64}"
    for text in (f"oci://[::1]:5000/a/b-c/d_e:1.0@{digest}", "oci://localhost/model:v1", f"oci://host:443/m@{digest}"):
        assert str(parse_reference(text)) == text
