"""Golden vectors: computed by the real runtime, stored as raw little-endian numbers, compared with a tolerance.

Tolerances (`golden/index.json` carries them, so that loaders and `verify` agree):

- `same`: the processor architecture and runtime version that computed the vectors. Integer kernels are deterministic
  there, so integers must be equal; floats may differ by 1e-5 of the largest expected magnitude, which the order of
  additions causes.
- `other`: another processor, runtime version or set of kernels, on the CPU. Kernels round requantizations differently,
  and the differences accumulate in a deep model. The build measures them between XNNPACK's and the built-in kernels on
  the same vectors (`Golden.spread_steps`) and allows one scale step more, at least 1 step; for floats 1e-4, or twice
  the measured difference.
- `accelerator`: a delegate. A GPU computes in half precision and an NPU rounds in its own way: 5 scale steps (2 % of
  the 8-bit range), 2e-2 for floats. Where the build simulated the accelerator, it is the largest difference from the
  CPU that was measured there, and one step more, if that is larger.

Where the build simulated a chip, `simulated` has the simulator's outputs for the same inputs. A loader that runs the
file compiled for that chip compares with these, within `accelerator`: that the chip gives the simulator's bits is not
documented.

Integers without a scale (the result of an ARG_MAX, for example) have to be equal everywhere.

The vectors are raw: the inputs and outputs of the file itself. Where the loader postprocesses an output
(`TensorSpec.tail`), `finished` is the expected result for the golden raw output. This is the loader's own arithmetic,
so one tolerance applies everywhere: classes are equal, probabilities differ by 1e-5 at most.
"""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.bundle.manifest import to_json_bytes
from edgepack.bundle.names import file_stem
from edgepack.bundle.spec import Golden, SimulatedGolden, TensorSpec
from edgepack.child import Job
from edgepack.errors import BundleError
from edgepack.runtime.postprocessing import finish

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed difference of a result from the golden one.

    Attributes:
        steps: Allowed difference of quantized integers, in scale steps.
        relative: Allowed difference of floats, as a fraction of the largest expected magnitude.
    """

    steps: int
    relative: float


TOLERANCES = {
    "same": Tolerance(0, 1e-5),
    "other": Tolerance(1, 1e-4),
    "accelerator": Tolerance(5, 2e-2),
}

#: For the loader's postprocessing of a golden raw output.
FINISHED = Tolerance(0, 1e-5)

#: Upper limit of the tolerance in `verify`, whatever the measured spread: an eighth of the 8-bit range.
LARGEST_SPREAD = Tolerance(32, 0.05)


def tolerances(golden: Golden) -> dict[str, Tolerance]:
    """Return the tolerances of a bundle: `TOLERANCES`, widened by the measured difference between kernels."""
    other, accelerator = TOLERANCES["other"], TOLERANCES["accelerator"]
    spread = _widened(other, golden.spread_steps, golden.spread_relative)
    accelerator = Tolerance(max(accelerator.steps, spread.steps), max(accelerator.relative, spread.relative))
    for simulated in golden.simulated:
        accelerator = _widened(accelerator, simulated.steps, simulated.relative)
    return {"same": TOLERANCES["same"], "other": spread, "accelerator": accelerator}


def _widened(tolerance: Tolerance, steps: int, relative: float) -> Tolerance:
    """Return a tolerance that allows a measured difference and some more, within `LARGEST_SPREAD`."""
    return Tolerance(
        min(max(tolerance.steps, steps + 1), LARGEST_SPREAD.steps),
        min(max(tolerance.relative, 2 * relative), LARGEST_SPREAD.relative),
    )


@dataclass(frozen=True)
class Difference:
    """One output of one case, compared.

    Attributes:
        case: Number of the golden case.
        output: Number of the output.
        largest: Largest absolute difference, in scale steps for integers.
        allowed: Largest difference within the tolerance, in the same unit.
    """

    case: int
    output: int
    largest: float
    allowed: float

    @property
    def ok(self) -> bool:
        """True when the difference is within the tolerance; NaN is not."""
        return self.largest <= self.allowed


def runtime_name() -> str:
    """Return the name and version of the runtime on this machine."""
    return f"ai-edge-litert {metadata.version('ai-edge-litert')}"


def machine_name() -> str:
    """Return the processor architecture of this machine."""
    return platform.machine()


def run_golden(tflite: bytes, cases: Sequence[Sequence[Array]]) -> list[list[Array]]:
    """Run a model on raw inputs; a function of picklable values, so that it can run in a child process.

    A stateful model starts every case with its initial state.

    Args:
        tflite: The file's bytes; not a file compiled for an accelerator.
        cases: Inputs of each case, in file order, in the file's own dtype.

    Returns:
        Outputs of each case, in file order.

    Raises:
        BundleError: A signature gives other outputs for the first case than the file.
        EdgepackError: The file cannot be read, or the runtime does not support it.
    """
    from edgepack.runtime import Runner
    from edgepack.runtime.signatures import signature_fault

    runner = Runner(tflite)
    results = [[np.array(output, copy=True) for output in runner.run(list(inputs))] for inputs in cases]
    fault = signature_fault(tflite, cases[0], results[0]) if results else ""
    if fault:
        raise BundleError(fault, hint="an app that calls the model by its signature gets wrong results: build it again")
    return results


#: Replays golden vectors in a child process, because a corrupt model can abort the runtime.
RUN_GOLDEN = Job(
    run_golden, BundleError, "the replay of the golden vectors", "the file is corrupt: build the bundle again"
)


def compare(
    expected: Array, actual: Array, *, quantized: bool, tolerance: Tolerance, case: int, output: int
) -> Difference:
    """Return the difference of a raw output from the golden one.

    Args:
        expected: The golden output.
        actual: The output to compare; for another shape or dtype the difference is infinite.
        quantized: True when integers stand for real numbers.
        tolerance: The tolerance that applies.
        case: Number of the case, for the result.
        output: Number of the output, for the result.
    """
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return Difference(case, output, float("inf"), 0.0)
    if expected.dtype.kind == "f":
        wide, other = expected.astype(np.float64), actual.astype(np.float64)
        # Equal infinities, and NaNs in the same place, are no difference; their subtraction would give NaN.
        same = (wide == other) | (np.isnan(wide) & np.isnan(other))
        with np.errstate(invalid="ignore"):
            distance = np.where(same, 0.0, np.abs(wide - other))
        finite = np.abs(wide[np.isfinite(wide)])
        allowed = tolerance.relative * float(finite.max(initial=0.0))
        largest = float(distance.max(initial=0.0))
        return Difference(case, output, float("inf") if np.isnan(largest) else largest, allowed)
    if expected.dtype.itemsize == 8:
        # Python's integers, because a difference of two 64-bit numbers may exceed 64 bits.
        largest = float(max((abs(int(a) - int(b)) for a, b in zip(expected.flat, actual.flat, strict=True)), default=0))
    else:
        largest = float(np.abs(expected.astype(np.int64) - actual.astype(np.int64)).max(initial=0))
    return Difference(case, output, largest, float(tolerance.steps) if quantized else 0.0)


def finished_output(tensor: TensorSpec, raw: Array) -> Array:
    """Return the result of a loader's dequantization and postprocessing of a raw output."""
    real = raw
    if tensor.quantized:
        real = ((raw.astype(np.int64) - tensor.zero_point) * float(tensor.scale)).astype(np.float32)
    return finish(tensor.tail, real)


def finished_difference(tensor: TensorSpec, raw: Array, expected: Array, case: int, output: int) -> Difference:
    """Return the difference between the stored finished output and the postprocessed raw one."""
    actual = finished_output(tensor, raw)
    return compare(expected, actual, quantized=False, tolerance=FINISHED, case=case, output=output)


def golden_files(golden: Golden, outputs: Sequence[TensorSpec], model: str) -> dict[str, bytes]:
    """Return the files of golden/: raw little-endian arrays and index.json.

    Args:
        golden: The vectors.
        outputs: The model's outputs, for their quantization and postprocessing steps.
        model: Path of the model that computed them, relative to the bundle.
    """
    files: dict[str, bytes] = {}

    def store(path: str, array: Array) -> dict[str, Any]:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        files[path] = little.tobytes()
        return {"file": path, "dtype": array.dtype.name, "shape": [int(size) for size in array.shape]}

    cases = []
    for n, case in enumerate(golden.cases):
        entry: dict[str, Any] = {
            "inputs": [store(f"case_{n}/input_{i}.bin", array) for i, array in enumerate(case.inputs)],
            "outputs": [store(f"case_{n}/output_{i}.bin", array) for i, array in enumerate(case.outputs)],
        }
        if any(tensor.tail for tensor in outputs):
            entry["finished"] = [
                store(f"case_{n}/finished_{i}.bin", finished_output(tensor, raw)) if tensor.tail else None
                for i, (tensor, raw) in enumerate(zip(outputs, case.outputs, strict=True))
            ]
        cases.append(entry)
    index = {
        "schema": 1,
        "model": model,
        "machine": golden.machine,
        "runtime": golden.runtime,
        "quantized_outputs": [tensor.quantized for tensor in outputs],
        "tolerance": {
            name: {"steps": tolerance.steps, "relative": tolerance.relative}
            for name, tolerance in tolerances(golden).items()
        },
        "cases": cases,
    }
    if golden.simulated:
        index["simulated"] = [_simulated_entry(one, store) for one in golden.simulated]
    files["index.json"] = to_json_bytes(index)
    return files


def _simulated_entry(simulated: SimulatedGolden, store: Callable[[str, Array], dict[str, Any]]) -> dict[str, Any]:
    folder = simulated_folder(simulated)
    return {
        "chip": simulated.chip,
        "simulator": simulated.simulator,
        "version": simulated.version,
        "cases": [
            {"outputs": [store(f"{folder}/case_{n}/output_{i}.bin", array) for i, array in enumerate(outputs)]}
            for n, outputs in enumerate(simulated.outputs)
        ],
    }


def simulated_folder(simulated: SimulatedGolden) -> str:
    """Return the folder of a chip's outputs, below `golden/`."""
    return f"simulated/{file_stem(simulated.chip)}"
