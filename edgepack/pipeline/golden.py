"""Golden vectors of a build: inputs and outputs of a file in the runtime here."""

import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.bundle.spec import Golden, GoldenCase
from edgepack.digests import sha256
from edgepack.errors import UnfitModelError
from edgepack.graph import Model
from edgepack.pipeline.jobs import GOLDEN_VECTORS, KERNEL_SPREAD
from edgepack.pipeline.session import Session
from edgepack.pipeline.step_cache import Codec, component_versions, to_json_bytes
from edgepack.runtime.evaluate import synthetic_samples
from edgepack.runtime.runner import model_inputs, needs_custom_ops
from edgepack.samples import SampleSet

#: Golden vectors in a bundle: enough to show a wrong layout or scale, and small.
GOLDEN_CASES = 3


@dataclass(frozen=True)
class GoldenVectors:
    """Inputs and outputs of a file in the runtime here.

    Attributes:
        cases: Raw (inputs, outputs) of each sample.
        spread_steps: How far the runtime's kernels differ on quantized outputs, in scale steps.
        spread_relative: How far they differ on float outputs, relative to the largest value.
    """

    cases: tuple[tuple[tuple[Any, ...], tuple[Any, ...]], ...] = ()
    spread_steps: int = 0
    spread_relative: float = 0.0


def golden_of(
    session: Session, model: Model, shipped: bytes, samples: SampleSet | None
) -> tuple[Golden, tuple[str, ...]]:
    """Return the golden vectors, and a warning where the model needs custom ops that the runtime here lacks.

    Raises:
        UnfitModelError: The runtime cannot load the model for any other reason, or the model aborts it.
    """
    if samples is None:
        chosen = synthetic_samples(model_inputs(model), GOLDEN_CASES)
    else:
        chosen = [samples.sample(i) for i in range(min(GOLDEN_CASES, len(samples)))]
    # The file's input names are the float model's: quantizing keeps them, in the same order.
    names = [tensor.name for tensor in model_inputs(model)]
    chosen = [
        dict(zip(names, sample.values(), strict=True)) if set(sample) != set(names) else sample for sample in chosen
    ]
    warnings: tuple[str, ...] = ()
    try:
        vectors = golden_vectors(session, shipped, chosen)
    except UnfitModelError as error:
        if not needs_custom_ops(error):
            raise
        # The model needs an op that only the target's delegate runs: the bundle ships without vectors and says so.
        vectors, warnings = GoldenVectors(), (f"no golden vectors: {error.message}",)
    golden = Golden(
        machine=platform.machine(),
        runtime=f"ai-edge-litert {component_versions()['ai-edge-litert']}",
        cases=tuple(GoldenCase(inputs, outputs) for inputs, outputs in vectors.cases),
        spread_steps=vectors.spread_steps,
        # Two figures are enough, and keep the last bits of a float kernel out of the bundle's bytes.
        spread_relative=float(f"{vectors.spread_relative:.1e}"),
    )
    return golden, warnings


def golden_vectors(session: Session, tflite: bytes, samples: Sequence[Mapping[str, Any]]) -> GoldenVectors:
    """Return a file's raw outputs for samples of real values, and how far the runtime's kernels differ on them.

    Raises:
        UnfitModelError: The file does not run here.
    """

    def compute() -> GoldenVectors:
        cases = session.workers.run(GOLDEN_VECTORS.call(tflite, list(samples)))
        steps, relative = session.workers.run(KERNEL_SPREAD.call(tflite, cases))
        return GoldenVectors(tuple((tuple(inputs), tuple(outputs)) for inputs, outputs in cases), steps, relative)

    digest = sha256(b"".join(sample[name].tobytes() for sample in samples for name in sorted(sample)))
    return session.steps.memoize("golden", {"model": tflite, "samples": digest}, _GOLDEN, compute)


def _encode(vectors: GoldenVectors) -> dict[str, bytes]:
    arrays = {
        f"{number:03d}_{kind}_{position:03d}": array
        for number, case in enumerate(vectors.cases)
        for kind, tensors in zip(("in", "out"), case, strict=True)
        for position, array in enumerate(tensors)
    }
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    spread = [len(vectors.cases), vectors.spread_steps, vectors.spread_relative]
    return {"golden.npz": stream.getvalue(), "spread.json": to_json_bytes(spread)}


def _decode(files: Mapping[str, bytes]) -> GoldenVectors:
    count, steps, relative = json.loads(files["spread.json"])
    loaded = np.load(io.BytesIO(files["golden.npz"]))
    cases: list[tuple[list[Any], list[Any]]] = [([], []) for _ in range(count)]
    for name in sorted(loaded.files):
        case, kind, _ = name.split("_")
        cases[int(case)][kind == "out"].append(loaded[name])
    return GoldenVectors(tuple((tuple(inputs), tuple(outputs)) for inputs, outputs in cases), steps, relative)


_GOLDEN: Codec[GoldenVectors] = Codec(_encode, _decode)
