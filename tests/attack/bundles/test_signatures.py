"""A signature covers every byte of a bundle, is made and checked offline with a key, and nothing passes for one."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepack.bundle.manifest import to_json_bytes
from edgepack.bundle.signature import require_signer, sign
from edgepack.bundle.signers import Signer, Verifier
from edgepack.bundle.verify_result import VerifyResult
from edgepack.cache import sha256
from edgepack.child import Worker
from edgepack.errors import ToolMissingError, UsageError
from edgepack.pipeline.verify import verify

REPOSITORY = Path(__file__).resolve().parents[3]


def said(result: VerifyResult) -> list[str]:
    return [f"{problem.path}: {problem.what}" for problem in result.problems]


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    change(manifest)
    (bundle / "manifest.json").write_bytes(to_json_bytes(manifest))


def start(*arguments: str | Path) -> "subprocess.Popen[str]":
    """Start the command line; several can run side by side."""
    command = [sys.executable, "-m", "edgepack", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgepack", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)


def test_a_signed_bundle_is_verified_with_the_key(signed: Path, child: Worker, keys: dict[str, Path]) -> None:
    """The builder's key verifies the bundle; without a key the result states that nobody checked."""
    result = verify(signed, signer=Verifier(keys["public"]), worker=child)
    assert result.ok and result.signature == "valid" and result.golden
    assert verify(signed, worker=child).signature == "not-checked"
    listed = json.loads((signed / "manifest.json").read_bytes())
    assert listed["signature"] == {"path": "model.sig", "method": "key"} and "model.sig" not in listed["files"]


def test_the_standard_program_verifies_the_bundle(signed: Path, keys: dict[str, Path]) -> None:
    """The signature is in the format of model-signing, whose own program checks it without edgepack."""
    done = subprocess.run(
        [sys.executable, "-m", "model_signing", "verify", "key", signed, "--signature", signed / "model.sig",
         "--public_key", keys["public"]],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def tampered_manifest(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["quality"].update(top1=99.9))


def tampered_reason(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["warnings"].append("all is well"))


def tampered_loader(bundle: Path) -> None:
    loader = next(bundle.glob("linux/src/*/__init__.py"))
    loader.write_bytes(loader.read_bytes() + b"\n# harmless\n")
    path = loader.relative_to(bundle).as_posix()
    edit(bundle, lambda manifest: manifest["files"].update({path: sha256(loader.read_bytes())}))


def extra_listed_file(bundle: Path) -> None:
    (bundle / "extra.py").write_bytes(b"")
    edit(bundle, lambda manifest: manifest["files"].update({"extra.py": sha256(b"")}))


def extra_git_file(bundle: Path) -> None:
    # model-signing leaves Git's folders out unless told otherwise.
    (bundle / ".git/hooks").mkdir(parents=True)
    (bundle / ".git/hooks/post-checkout").write_bytes(b"")
    edit(bundle, lambda manifest: manifest["files"].update({".git/hooks/post-checkout": sha256(b"")}))


def removed_file(bundle: Path) -> None:
    (bundle / "README.md").unlink()
    edit(bundle, lambda manifest: manifest["files"].pop("README.md"))


def renamed_file(bundle: Path) -> None:
    (bundle / "README.md").rename(bundle / "READ.md")
    edit(bundle, lambda manifest: manifest["files"].update({"READ.md": manifest["files"].pop("README.md")}))


def linked_file(bundle: Path) -> None:
    shutil.copy(bundle / "README.md", bundle.parent / "README.md")
    (bundle / "README.md").unlink()
    (bundle / "README.md").symlink_to(bundle.parent / "README.md")


@pytest.mark.parametrize(
    "tamper",
    [
        tampered_manifest, tampered_reason, tampered_loader, extra_listed_file, extra_git_file, removed_file,
        renamed_file, linked_file,
    ],
)  # fmt: skip
def test_any_change_after_signing_is_found(
    signed: Path, child: Worker, keys: dict[str, Path], tamper: Callable[[Path], None]
) -> None:
    """A change that keeps the manifest consistent breaks the signature, and the model does not run."""
    tamper(signed)
    result = verify(signed, signer=Verifier(keys["public"]), worker=child)
    assert result.signature == "invalid" and result.golden == ()
    assert said(result)[0].startswith("model.sig: ")


def test_the_key_of_somebody_else_is_refused(signed: Path, child: Worker, keys: dict[str, Path]) -> None:
    """Neither another public key nor a signature made anew by somebody else passes."""
    assert verify(signed, signer=Verifier(keys["other"]), worker=child).signature == "invalid"
    files = {str(path.relative_to(signed)): path.read_bytes() for path in signed.rglob("*") if path.is_file()}
    (signed / "model.sig").write_bytes(sign(files, "digits-cpu", Signer(keys["other_private"])))
    assert verify(signed, signer=Verifier(keys["other"]), worker=child).signature == "valid"
    assert verify(signed, signer=Verifier(keys["public"]), worker=child).signature == "invalid"


def test_a_signature_of_another_bundle_is_refused(
    built: Path, signed: Path, child: Worker, keys: dict[str, Path]
) -> None:
    """A valid signature of the same signer does not cover other files."""
    edge = built / "digits-edgetpu"
    files = {str(path.relative_to(edge)): path.read_bytes() for path in edge.rglob("*") if path.is_file()}
    (signed / "model.sig").write_bytes(sign(files, "digits-edgetpu", Signer(keys["private"])))
    assert verify(signed, signer=Verifier(keys["public"]), worker=child).signature == "invalid"


def test_a_removed_signature_is_noticed(signed: Path, child: Worker, keys: dict[str, Path]) -> None:
    """A bundle without its signature is unsigned: an error where one was expected, and said where not."""
    (signed / "model.sig").unlink()
    assert any("model.sig: missing" in line for line in said(verify(signed, worker=child)))
    edit(signed, lambda manifest: manifest.update(signature=None))
    assert verify(signed, worker=child).signature == "unsigned"
    result = verify(signed, signer=Verifier(keys["public"]), worker=child)
    assert result.signature == "invalid" and "the bundle is unsigned" in said(result)[0]


def swap_payload(text: bytes) -> bytes:
    document = json.loads(text)
    payload = document["dsseEnvelope"]["payload"]
    document["dsseEnvelope"]["payload"] = payload[:-8] + "AAAA" + payload[-4:]
    return json.dumps(document).encode()


def no_signatures(text: bytes) -> bytes:
    document = json.loads(text)
    document["dsseEnvelope"]["signatures"] = []
    return json.dumps(document).encode()


def no_hint(text: bytes) -> bytes:
    document = json.loads(text)
    document["verificationMaterial"] = {"publicKey": {}}
    document["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA"
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"null", b"[]", b"\xff", b"[" * 100_000, b'{"verificationMaterial": 1}', swap_payload,
        no_signatures, no_hint,
    ],
)  # fmt: skip
def test_a_broken_signature_is_a_problem_and_no_traceback(
    signed: Path, child: Worker, keys: dict[str, Path], content: bytes | Callable[[bytes], bytes]
) -> None:
    """Whatever the signature file holds, the result is that it is not valid."""
    place = signed / "model.sig"
    place.write_bytes(content if isinstance(content, bytes) else content(place.read_bytes()))
    result = verify(signed, signer=Verifier(keys["public"]), worker=child)
    assert result.signature == "invalid" and said(result)[0].startswith("model.sig: ")


def test_a_signature_that_is_no_file_is_refused(signed: Path, child: Worker, keys: dict[str, Path]) -> None:
    """A link and a pipe in its place are not opened."""
    place = signed / "model.sig"
    moved = place.rename(signed.parent / "model.sig")
    place.symlink_to(moved)
    assert verify(signed, signer=Verifier(keys["public"]), worker=child).signature == "invalid"
    place.unlink()
    os.mkfifo(place)
    assert verify(signed, signer=Verifier(keys["public"]), worker=child).signature == "invalid"


def test_a_key_does_not_stand_for_an_identity(signed: Path, child: Worker) -> None:
    """A bundle signed with a key is refused where an identity is expected, without a connection."""
    signer = Verifier(identity="name@example.com", issuer="https://accounts.example.com")
    result = verify(signed, signer=signer, worker=child)
    assert result.signature == "invalid" and "signed with a key" in said(result)[0]


def bad_keys(folder: Path) -> dict[str, Path]:
    """Return files that are no keys of the kind that is needed."""
    places = {name: folder / f"{name}.pem" for name in ("rsa", "encrypted", "text", "empty")}
    subprocess.run(["openssl", "genrsa", "-out", places["rsa"], "2048"], check=True, capture_output=True)
    command = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes256"]
    subprocess.run([*command, "-pass", "pass:secret", "-out", places["encrypted"]], check=True, capture_output=True)
    places["text"].write_text("my key\n")
    places["empty"].write_bytes(b"")
    return {**places, "missing": folder / "missing.pem", "folder": folder}


def test_a_bad_key_is_refused_before_the_build(tmp_path: Path) -> None:
    """Each wrong file is a usage error with the name of the file; a build ends before the model is read."""
    for name, place in bad_keys(tmp_path).items():
        with pytest.raises(UsageError, match="--sign-key") as caught:
            require_signer(Signer(place))
        assert place.name in caught.value.message, name
    done = run("build", "tests/data/digits_float.tflite", "-t", "cpu", "-o", tmp_path, "--sign-key", tmp_path / "x.pem")
    assert done.returncode == 2 and "--sign-key" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "digits_float-cpu").exists()


def test_a_private_key_is_no_public_key(signed: Path, child: Worker, keys: dict[str, Path]) -> None:
    """The option --key needs the public half, and an identity needs its issuer."""
    with pytest.raises(UsageError, match="--key"):
        verify(signed, signer=Verifier(keys["private"]), worker=child)
    with pytest.raises(UsageError, match="need each other"):
        Verifier(identity="name@example.com")
    with pytest.raises(UsageError, match="cannot be combined"):
        Verifier(keys["public"], identity="name@example.com", issuer="https://accounts.example.com")


def test_without_the_package_the_error_names_it(keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that is to be signed ends at once where model-signing is not installed."""
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(ToolMissingError, match="model-signing") as caught:
        require_signer(Signer(keys["private"]))
    assert "edgepack[sign]" in caught.value.hint


def test_only_the_signature_differs_between_two_builds(
    signed: Path, cache_of_builds: Path, keys: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same build gives the same bytes, the signature excepted; the command line signs and verifies."""
    monkeypatch.setenv("EDGEPACK_CACHE_DIR", str(cache_of_builds))
    example = REPOSITORY / "examples/digits"
    done = run(
        "build", "tests/data/digits_float.tflite", "-t", "cpu", "--name", "digits", "--samples",
        example / "samples.npz", "--eval", example / "eval.npz", "--labels", example / "labels.txt",
        "-o", tmp_path / "again", "--sign-key", keys["private"],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = tmp_path / "again/digits-cpu"
    one, other = (
        {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (signed, again)
    )
    assert one.pop("model.sig") != other.pop("model.sig")
    assert one == other
    commands = [("--key", keys["public"]), ("--key", keys["other"]), ("--json",)]
    started = [start("verify", again, *more) for more in commands]
    outputs = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 7, 0], outputs
    assert "signature: valid" in outputs[0][0]
    assert "NOT VALID" in outputs[1][0] and "Traceback" not in outputs[1][1]
    assert json.loads(outputs[2][0])["results"][0]["signature"] == "not-checked"
