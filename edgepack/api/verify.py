"""`edgepack.verify`."""

import os

from edgepack.api.call import Call, at_least, existing, path_or_none
from edgepack.api.results import VerifyResult
from edgepack.api.types import ProgressLike, SamplesLike, Size
from edgepack.errors import EdgepackError, UsageError
from edgepack.limits import parse_memory


def verify(
    bundle: str | os.PathLike[str],
    *,
    key: str | os.PathLike[str] | None = None,
    identity: str = "",
    issuer: str = "",
    eval: SamplesLike | None = None,
    device: bool = False,
    serial: str = "",
    apk: str | os.PathLike[str] | None = None,
    runs: int = 50,
    timeout: float = 300.0,
    memory_limit: Size = "",
    progress: ProgressLike = None,
) -> VerifyResult:
    """Verify the signature, the manifest, the hashes and the golden vectors of a bundle, here and on a device.

    The options are those of `edgepack verify`.

    Args:
        bundle: Folder of a bundle.
        key: Require a signature that this public key (PEM) verifies.
        identity: Require a Sigstore signature of this identity; needs `issuer`.
        issuer: OpenID Connect provider that vouches for the identity.
        eval: The labelled samples that the build measured on: measure the accuracy again.
        device: Also run an Android bundle's self-test on a device, over adb.
        serial: Serial number of the device; empty for the only one.
        apk: The bundle's self-test, built with Gradle, to install first.
        runs: Number of timed runs on the device.
        timeout: Time limit in seconds of the golden vectors, and of the self-test on the device.
        memory_limit: Memory that the child process may hold: bytes, or a text such as `8GB`.
        progress: Called with a sentence about each step; False for silence, None to show it in a notebook or terminal.

    Returns:
        A result whose `ok` is True for a valid bundle; `problems` has what is wrong otherwise.

    Raises:
        EdgepackError: The folder is no bundle, or a key or the samples cannot be read.
    """
    from edgepack.bundle.signers import Verifier
    from edgepack.child import Worker
    from edgepack.pipeline.device import verify_on_device
    from edgepack.pipeline.verify import mismatch
    from edgepack.pipeline.verify import verify as run

    at_least("runs", runs, 1, whole=True)
    at_least("timeout", timeout, 1)
    if not device and (serial or apk is not None):
        raise UsageError("'serial' and 'apk' need 'device'", hint="add device=True")
    path = existing("", bundle)
    test = None if apk is None else existing("apk", apk)
    public = path_or_none(key)
    signer = Verifier(public, identity, issuer) if public is not None or identity or issuer else None
    memory = parse_memory(str(memory_limit), "memory_limit") if memory_limit else None
    notes: list[str] = []
    with Call(progress) as call, Worker(memory=memory) as worker:
        samples = call.samples(eval, "eval")
        result = run(
            path, signer=signer, evaluation=samples, worker=worker, timeout=float(timeout), progress=call.progress
        )
        error: EdgepackError | None = mismatch(path, result)
        figures = None
        if device and error is None:
            try:
                figures = verify_on_device(
                    path,
                    result,
                    serial=serial,
                    apk=test,
                    runs=runs,
                    timeout=float(timeout),
                    progress=call.progress,
                    notice=notes.append,
                ).to_json()
            except EdgepackError as problem:
                error = problem
    entry = result.to_json() | ({} if figures is None else {"device": figures})
    return VerifyResult(
        path,
        result.problems,
        (*result.notes, *notes),
        result.manifest,
        result.signature.value,
        entry,
        error,
        figures,
    )
