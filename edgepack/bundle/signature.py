"""Signatures of bundles, in Sigstore's model-signing format (OpenSSF Model Signing, package `model-signing`).

A signature covers every file of the bundle, the manifest and the bill of materials included, except itself. It is made
with a private key on an elliptic curve (offline) or with an identity of Sigstore (online). Without a signature, a
bundle shows that its files belong together, and not who made them.
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgepack.bundle.manifest import SIGNATURE_FILE
from edgepack.bundle.signers import Signer, Verifier
from edgepack.distribution import requirement
from edgepack.errors import BundleError, EdgepackError, ToolMissingError, UsageError

#: A signature has some kilobytes per hundred files; a larger file is rejected before it is read.
_LARGEST = 64 << 20
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_MAKE_KEY = (
    "create a pair with: openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem; "
    "openssl ec -in KEY.pem -pubout -out PUBLIC.pem"
)


def require_signer(signer: Signer) -> None:
    """Check, before a build, that its bundles can be signed.

    Raises:
        ToolMissingError: The package `model-signing` is not installed.
        UsageError: The key cannot be read or is of the wrong kind.
    """
    _require_package()
    if signer.key is not None:
        _require_key("--sign-key", signer.key, private=True)


def sign(files: Mapping[str, bytes], name: str, signer: Signer) -> bytes:
    """Return the signature of a bundle's files.

    Args:
        files: Contents by path, `manifest.json` included.
        name: Name of the bundle's folder, which the signature contains for people.
        signer: How to sign.

    Raises:
        ToolMissingError: The package `model-signing` is not installed.
        UsageError: The key cannot be read or is of the wrong kind.
        BundleError: Sigstore cannot be reached, or refuses the identity.
    """
    require_signer(signer)
    from model_signing import signing

    with tempfile.TemporaryDirectory(prefix="edgepack-sign-") as folder:
        root, place = Path(folder, "bundle", name), Path(folder, SIGNATURE_FILE)
        root.mkdir(parents=True)
        for path, data in files.items():
            if path != SIGNATURE_FILE:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(data)
        config = signing.Config().set_hashing_config(_hashing())

        def run() -> None:
            if signer.key is None:
                config.use_sigstore_signer(use_ambient_credentials=True)
            else:
                config.use_elliptic_key_signer(private_key=signer.key)
            config.sign(root, place)

        _guarded(
            run,
            "the bundle could not be signed",
            "Sigstore needs a network connection and an identity: sign with --sign-key FILE instead"
            if signer.key is None
            else "check the file that --sign-key names",
        )
        return place.read_bytes()


def check_signature(root: Path, verifier: Verifier) -> None:
    """Check that a bundle's signature is valid, that the verifier accepts the signer, and that it covers every file.

    Args:
        root: The bundle's folder, with `model.sig`.
        verifier: Whose signature is accepted.

    Raises:
        ToolMissingError: The package `model-signing` is not installed.
        UsageError: The key cannot be read or is of the wrong kind.
        BundleError: The signature is not valid for this bundle, or of somebody else.
    """
    _require_package()
    if verifier.key is not None:
        _require_key("--key", verifier.key, private=False)
    from model_signing import verifying

    place = root / SIGNATURE_FILE
    if place.is_symlink() or not place.is_file() or place.stat().st_size > _LARGEST:
        raise BundleError("the signature is missing or not a regular file", hint="ask for a signed copy of the bundle")
    config = verifying.Config().set_hashing_config(_hashing())

    def run() -> None:
        if verifier.key is None:
            config.use_sigstore_verifier(identity=verifier.identity, oidc_issuer=verifier.issuer)
        else:
            config.use_elliptic_key_verifier(public_key=verifier.key)
        config.verify(root, place)

    _guarded(
        run,
        "the signature is not valid for this bundle and this signer",
        "do not use the bundle: it was changed after it was signed, or somebody else signed it"
        + ("" if verifier.key is not None else "; checking an identity also needs a network connection"),
    )


def _hashing() -> Any:
    """Return how files are hashed: all of them, with no exception for Git's folders, and no links."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)


def _guarded(run: Callable[[], None], what: str, hint: str) -> None:
    """Run a function of model-signing, with what it prints on stderr.

    Raises:
        BundleError: It failed in any way: a signature of unknown origin reaches parsers of several packages, and
            whatever fails there, the bundle is not signed.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            run()
    except EdgepackError:
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
        raise BundleError(f"{what}: {reason}", hint=hint) from error


def _require_package() -> None:
    try:
        from model_signing import signing, verifying  # noqa: F401
    except ImportError as error:
        raise ToolMissingError(
            f"signatures need the package model-signing, which cannot be imported: {error}",
            hint=f"pip install '{requirement('sign')}'",
        ) from error


def _require_key(option: str, path: Path, *, private: bool) -> None:
    """Check that a file holds a key that model-signing can use.

    Raises:
        UsageError: The file cannot be read, or holds something else; no content of the file is in the text.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    kind = "private" if private else "public"
    with _readable(option, path):
        data = path.read_bytes()
    key: Any
    try:
        key = serialization.load_pem_private_key(data, None) if private else serialization.load_pem_public_key(data)
    except TypeError as error:
        raise UsageError(
            f"{option}: '{path}' is encrypted with a password", hint="give a key without a password"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{option}: '{path}' is not a {kind} key in PEM format", hint=_MAKE_KEY) from error
    fits = isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey)
    if not fits or key.curve.name not in _CURVES:
        raise UsageError(
            f"{option}: '{path}' is of the wrong kind: expected an elliptic curve key on {', '.join(_CURVES)}",
            hint=_MAKE_KEY,
        )


@contextlib.contextmanager
def _readable(option: str, path: Path) -> Iterator[None]:
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{option}: '{path}' is not a file")
        yield
    except OSError as error:
        raise UsageError(f"{option}: '{path}' cannot be read: {error.strerror or error}") from error
