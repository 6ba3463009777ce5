"""Who signs a bundle, and whose signature is accepted; a module without imports of weight, for the options."""

from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import UsageError


@dataclass(frozen=True)
class Signer:
    """How a bundle is signed.

    Attributes:
        key: File with a private key (PEM); None to sign with an identity of Sigstore.
    """

    key: Path | None = None

    @property
    def method(self) -> str:
        """The manifest's name of the method."""
        return "sigstore" if self.key is None else "key"


@dataclass(frozen=True)
class Verifier:
    """Whose signature is accepted.

    Attributes:
        key: File with the public key (PEM); None for an identity of Sigstore.
        identity: The identity, such as an e-mail address or the URL of a workflow.
        issuer: URL of the OpenID Connect provider that vouches for the identity.
    """

    key: Path | None = None
    identity: str = ""
    issuer: str = ""

    def __post_init__(self) -> None:
        if self.key is not None and (self.identity or self.issuer):
            raise UsageError("--key cannot be combined with --identity and --issuer", hint="give one of them")
        if self.key is None and not (self.identity and self.issuer):
            raise UsageError(
                "--identity and --issuer need each other",
                hint="for example --identity NAME@EXAMPLE.COM --issuer https://accounts.google.com",
            )

    @property
    def method(self) -> str:
        """The manifest's name of the method."""
        return "sigstore" if self.key is None else "key"
