"""References to artifacts in a registry: `oci://registry.example.com/team/model:1.4`, or `@sha256:...` for the tag."""

import re
from dataclasses import dataclass, replace

from edgepack.errors import UsageError
from edgepack.redaction import redact

_EXAMPLE = "oci://registry.example.com/team/model:1.4"
#: A host with its port; repository, tag and digest as in the OCI distribution specification.
_REFERENCE = re.compile(
    r"oci://(?P<host>(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?)"
    r"/(?P<repository>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class Reference:
    """A place in a registry.

    Attributes:
        host: Host name, with a port unless it is the usual one.
        repository: `team/model`.
        tag: Empty when there is a digest only.
        digest: `sha256:` and 64 hex digits, empty when there is a tag only.
    """

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        """Return the text that `parse_reference` reads."""
        return (
            f"oci://{self.host}/{self.repository}"
            f"{f':{self.tag}' if self.tag else ''}{f'@{self.digest}' if self.digest else ''}"
        )

    @property
    def name(self) -> str:
        """What a manifest is asked for by: the digest, which cannot change, before the tag."""
        return self.digest or self.tag

    def pinned(self, digest: str) -> "Reference":
        """Return the reference that names exactly this content."""
        return replace(self, tag="", digest=digest)


def parse_reference(text: str) -> Reference:
    """Return the parts of a reference.

    Raises:
        UsageError: It is not one, contains credentials, or has neither tag nor digest.
    """
    shown = redact(text)[:200]
    if "@" in text.removeprefix("oci://").partition("/")[0]:
        raise UsageError(
            f"'{shown}' contains credentials, which are not accepted there",
            hint="log in with docker login, podman login or oras login",
        )
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise UsageError(f"'{shown}' is not a reference to a registry", hint=f"expected the form {_EXAMPLE}")
    if not match["tag"] and not match["digest"]:
        raise UsageError(f"'{shown}' has no tag", hint=f"add one: {_EXAMPLE}")
    return Reference(match["host"], match["repository"], match["tag"] or "", match["digest"] or "")
