"""The calls of the OCI distribution specification 1.1 that edgepack needs, by the client of the package `oras`.

`oras` brings login data (`docker login`), tokens and TLS. Its functions for whole artifacts neither write referrers
with a type nor check what they download, so manifests and blobs are moved with its lower-level requests. A registry is
not trusted: every answer is read up to its announced size only, within a time limit, and compared with its digest.
"""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from edgepack.bounded import call_within
from edgepack.delivery.reference import Reference
from edgepack.distribution import requirement
from edgepack.errors import DeliveryError, ToolMissingError
from edgepack.redaction import describe, redact

T = TypeVar("T")

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
#: Bytes of a manifest; the specification asks registries to accept 4 MiB.
MAX_MANIFEST = 4 << 20
#: Seconds to connect, and to wait for each piece of an answer.
_CONNECT, _READ = 10.0, 30.0
#: Seconds for one request as a whole, and bytes per second that are expected of large ones.
_REQUEST, _SPEED = 60.0, 100_000
_ATTEMPTS = 3
_CHUNK = 1 << 16
_STATUS = {
    401: ("refuses access", "log in with docker login, podman login or oras login"),
    403: ("denies access", "ask for the permission, or log in with docker login, podman login or oras login"),
    404: ("has no such artifact", "check repository and tag"),
    405: ("does not support this request", "use a registry that supports OCI artifacts"),
    413: ("refuses a file of this size", "raise its limit"),
    429: ("limits the number of requests", "try again later"),
}


class Registry:
    """One repository of a registry.

    Args:
        reference: Host and repository.
        plain_http: Use HTTP without TLS.

    Raises:
        ToolMissingError: The package `oras` is not installed.
    """

    def __init__(self, reference: Reference, *, plain_http: bool = False) -> None:
        try:
            from oras.container import Container
            from oras.provider import Registry as Client
        except ImportError as error:
            raise ToolMissingError(
                f"registries need the package oras, which cannot be imported: {error}",
                hint=f"pip install '{requirement('oci')}'",
            ) from error
        # What `oras` logs may contain URLs with tokens, and repeats what is reported here.
        logging.getLogger("oras.logger").setLevel(logging.CRITICAL + 1)
        self.reference = reference
        self._plain_http = plain_http
        self._base = f"{'http' if plain_http else 'https'}://{reference.host}/v2/{reference.repository}"
        self._client: Any = self._connect(Client, "token")
        try:
            # `oras` knows two ways to authenticate and leaves the choice to its caller.
            if self._challenge().lower().startswith("basic"):
                self.close()
                self._client = self._connect(Client, "basic")
            self._load_login(Container(f"{reference.host}/{reference.repository}", registry=reference.host))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.session.close()

    def _load_login(self, container: Any) -> None:
        try:
            self._client.auth.load_configs(container)
        except Exception as error:
            raise DeliveryError(
                f"the login data for {self.reference.host} cannot be read: {describe(error)}",
                hint="check ~/.docker/config.json",
            ) from error

    def _connect(self, client: Callable[..., Any], backend: str) -> Any:
        made = client(hostname=self.reference.host, insecure=self._plain_http, auth_backend=backend)
        made.session.request = _with_timeouts(made.session.request, self._plain_http)
        return made

    def _challenge(self) -> str:
        """Return how the registry asks for a login, empty when it does not ask."""

        def ask() -> tuple[int, dict[str, str], bytes]:
            url = f"{self._base.partition('/v2/')[0]}/v2/"
            with contextlib.closing(self._client.session.request("GET", url, stream=True)) as response:
                return response.status_code, dict(response.headers.lower_items()), b""

        status, headers, _ = self._repeated(lambda: call_within(_REQUEST, ask))
        return headers.get("www-authenticate", "") if status == 401 else ""

    # -- blobs ---------------------------------------------------------------------------------------------------------

    def has_blob(self, digest: str) -> bool:
        """Return whether the repository has a blob."""
        return self._send("HEAD", f"blobs/{digest}", allowed=(200, 404))[0] == 200

    def push_blob(self, digest: str, data: bytes) -> bool:
        """Upload a blob unless the repository has it; return whether it was uploaded.

        Raises:
            DeliveryError: The registry cannot be reached or refuses it.
        """
        if self.has_blob(digest):
            return False
        _, headers, _ = self._send("POST", "blobs/uploads/", allowed=(202,))
        place = self._location(headers.get("location", ""))
        url = f"{place}{'&' if '?' in place else '?'}digest={digest}"
        content = {"Content-Type": "application/octet-stream", "Content-Length": str(len(data))}
        self._send("PUT", url, allowed=(201,), headers=content, data=data)
        return True

    def pull_blob(self, digest: str, size: int) -> bytes:
        """Return a blob.

        Args:
            digest: Its digest.
            size: Its size; nothing beyond is read.

        Raises:
            DeliveryError: It is missing, or has another size or digest.
        """
        _, _, data = self._send("GET", f"blobs/{digest}", allowed=(200,), limit=size)
        if len(data) != size or _digest(data) != digest:
            raise DeliveryError(
                f"{self.reference.host} serves a file that does not match its digest {digest[:19]}...",
                hint="nothing was written; push the bundle again, or use another registry",
            )
        return data

    # -- manifests -----------------------------------------------------------------------------------------------------

    def push_manifest(self, document: Mapping[str, Any], tag: str = "") -> tuple[str, int, bool]:
        """Store a manifest or an index; the same document has the same digest.

        Args:
            document: It, with its `mediaType`.
            tag: Its tag, empty to store it by its digest only.

        Returns:
            Digest, size, and whether the registry understood a `subject` (the referrers API).
        """
        data = encode(document)
        digest = _digest(data)
        headers = {"Content-Type": str(document["mediaType"])}
        _, answer, _ = self._send("PUT", f"manifests/{tag or digest}", allowed=(201,), headers=headers, data=data)
        return digest, len(data), "oci-subject" in answer

    def pull_manifest(self, name: str, *, missing: bool = False) -> tuple[str, dict[str, Any]] | None:
        """Return digest and content of a manifest or an index.

        Args:
            name: Tag or digest; a digest is compared.
            missing: Return None when there is none.

        Raises:
            DeliveryError: It is missing or invalid, or has another digest.
        """
        status, _, data = self._send(
            "GET",
            f"manifests/{name}",
            allowed=(200, 404) if missing else (200,),
            headers={"Accept": f"{MANIFEST}, {INDEX}"},
            limit=MAX_MANIFEST,
        )
        if status == 404:
            return None
        digest = _digest(data)
        if name.startswith("sha256:") and digest != name:
            raise DeliveryError(
                f"{self.reference.host} serves a manifest that does not match its digest {name[:19]}...",
                hint="nothing was written; use another registry",
            )
        return digest, self._json(data)

    def referrers(self, digest: str) -> list[dict[str, Any]]:
        """Return the descriptors of the artifacts that refer to one: the referrers API, else the referrers tag."""
        status, _, data = self._send("GET", f"referrers/{digest}", allowed=(200, 404), limit=MAX_MANIFEST)
        if status == 200:
            document: Any = self._json(data)
        else:
            found = self.pull_manifest(referrers_tag(digest), missing=True)
            document = {} if found is None else found[1]
        listed = document.get("manifests")
        return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []

    def attach(self, document: Mapping[str, Any]) -> str:
        """Store an artifact that refers to another one by `subject`; return its digest.

        A registry without the referrers API gets an index under the referrers tag, as the specification demands.
        """
        digest, size, understood = self.push_manifest(document)
        if not understood:
            subject = document["subject"]["digest"]
            found = self.pull_manifest(referrers_tag(subject), missing=True)
            listed = [] if found is None else found[1].get("manifests", [])
            entry = {
                "mediaType": document["mediaType"],
                "digest": digest,
                "size": size,
                "artifactType": document["artifactType"],
            }
            others = [one for one in listed if isinstance(one, dict) and one.get("digest") != digest]
            entries = sorted([*others, entry], key=lambda one: str(one.get("digest")))
            self.push_manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, referrers_tag(subject))
        return digest

    # -- requests ------------------------------------------------------------------------------------------------------

    def _location(self, place: str) -> str:
        """Return where an upload goes.

        Raises:
            DeliveryError: The registry names no place, or one without TLS.
        """
        url = f"{self._base.partition('/v2/')[0]}{place}" if place.startswith("/") else place
        scheme = urlsplit(url).scheme
        if scheme != "https" and not (self._plain_http and scheme == "http"):
            raise DeliveryError(f"{self.reference.host} names no usable place for an upload")
        return url

    def _json(self, data: bytes) -> dict[str, Any]:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DeliveryError(f"{self.reference.host} serves a manifest that is not JSON") from error
        if not isinstance(document, dict):
            raise DeliveryError(f"{self.reference.host} serves a manifest that is not a JSON object")
        return document

    def _send(
        self,
        method: str,
        place: str,
        *,
        allowed: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        limit: int = 0,
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request; return status, headers (names in lower case) and at most `limit` bytes of the answer.

        Raises:
            DeliveryError: The registry cannot be reached, takes too long, answers another status than the allowed ones,
                or more bytes than the limit.
        """
        url = place if "://" in place else f"{self._base}/{place}"
        seconds = _REQUEST + (limit + len(data or b"")) / _SPEED

        def run() -> tuple[int, dict[str, str], bytes]:
            # The function below `oras`'s own repetition, which waits for two minutes in total.
            response = self._client.do_request.__wrapped__(
                self._client,
                url,
                method,
                data=data,
                headers={**(headers or {}), "Accept-Encoding": "identity"},
                stream=True,
            )
            with contextlib.closing(response):
                answer = dict(response.headers.lower_items())
                content = (
                    b"".join(_pieces(response, limit + 1)) if method == "GET" and response.status_code == 200 else b""
                )
                return response.status_code, answer, content

        status, answer, content = self._repeated(lambda: call_within(seconds, run))
        if status not in allowed:
            what, hint = _STATUS.get(status, (f"answers with status {status}", "ask who runs it"))
            name = f"{self.reference.host}/{self.reference.repository}"
            raise DeliveryError(f"{name}: the registry {what} ({method} {redact(place)[:100]})", hint=hint)
        if len(content) > limit:
            raise DeliveryError(f"{self.reference.host} sends more than the {limit} bytes that were announced")
        return status, answer, content

    def _repeated(self, send: Callable[[], tuple[int, dict[str, str], bytes]]) -> tuple[int, dict[str, str], bytes]:
        """Send a request, and again after failures that pass: no connection, and errors of the server."""
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            try:
                status, headers, content = send()
                if status < 500 or last:
                    return status, headers, content
            except TimeoutError as error:
                raise self._unreachable(error) from error
            except Exception as error:
                # TLS does not get better, and `oras` raises ValueError where it has no login data.
                if last or isinstance(error, ValueError | AttributeError) or "SSL" in type(error).__name__:
                    raise self._unreachable(error) from error
            time.sleep(0.5 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _unreachable(self, error: Exception) -> DeliveryError:
        # No login data: `oras` raises the one with tokens, the other with a user's name.
        if isinstance(error, AttributeError) or (isinstance(error, ValueError) and "authentication" in str(error)):
            what, hint = _STATUS[401]
            return DeliveryError(f"{self.reference.host}: the registry {what}", hint=hint)
        hint = "check host and port"
        if "SSL" in type(error).__name__ or "SSL" in str(error):
            hint = "check its certificate; --plain-http uses no TLS, for a registry on this machine"
        return DeliveryError(f"{self.reference.host} cannot be used: {describe(error)}", hint=hint)


def encode(document: Mapping[str, Any]) -> bytes:
    """Return a manifest as JSON; the same document gives the same bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def referrers_tag(digest: str) -> str:
    """Return the tag under which a registry without the referrers API keeps the list of referrers."""
    return digest.replace(":", "-")


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _with_timeouts(request: Callable[..., Any], plain_http: bool) -> Callable[..., Any]:
    """Return a function of a `requests` session that never waits for ever."""

    def timed(method: str, url: str, **options: Any) -> Any:
        # Tokens come from another host, which the registry names: never without TLS either.
        if not plain_http and urlsplit(url).scheme != "https":
            raise ValueError("the registry names a place without TLS")
        response = request(method, url, timeout=(_CONNECT, _READ), **options)
        if response.status_code in {401, 403}:
            # `oras` sends the request again with a login, and leaves this answer open.
            response.close()
        return response

    return timed


def _pieces(response: Any, limit: int) -> Iterator[bytes]:
    """Yield the bytes of an answer as they are sent, not decompressed, up to a limit."""
    left = limit
    while left > 0:
        piece = response.raw.read(min(_CHUNK, left), decode_content=False)
        if not piece:
            return
        left -= len(piece)
        yield piece
