"""The native work of a build, as functions that a child process runs: bytes in, bytes out.

The runtime and the quantizer are C++ and can abort on a model they do not expect; in a child that is an error, not an
end.
"""

from collections.abc import Mapping

from edgepack.graph import read_model
from edgepack.profiles.model import SchemeRule
from edgepack.runtime.evaluate import synthetic_samples
from edgepack.runtime.runner import model_inputs
from edgepack.samples import SampleSet
from edgepack.schemes import get_scheme


def load_packages() -> None:
    """Import what the other functions need, ahead of time."""
    import ai_edge_litert.interpreter
    import ai_edge_quantizer.quantizer

    del ai_edge_litert, ai_edge_quantizer


def calibrate(tflite: bytes, samples: SampleSet | int, threads: int) -> bytes:
    """Return the calibration of a float model as bytes.

    Args:
        tflite: The float model.
        samples: Samples to run, or how many random ones to make up.
        threads: Threads of the runtime.
    """
    from edgepack.quantize.calibrate import calibrate as run

    if isinstance(samples, int):
        return run(tflite, synthetic_samples(model_inputs(read_model(tflite)), samples), threads=threads).to_bytes()
    return run(tflite, (samples.sample(i) for i in range(len(samples))), threads=threads).to_bytes()


def quantize(
    tflite: bytes, rule: SchemeRule, calibration: bytes | None, method: str
) -> tuple[bytes, str, tuple[str, ...]]:
    """Return (quantized model, tool that wrote it, notes).

    Args:
        tflite: The float model.
        rule: Scheme with the target's wishes.
        calibration: What `calibrate` gave; None for schemes without ranges.
        method: How ranges are chosen; empty for the default.
    """
    from edgepack.quantize.quantizer import apply

    done = apply(tflite, rule, None if calibration is None else ranges(tflite, rule, calibration, method))
    return done.tflite, done.tool, tuple(done.notes)


def carry_ranges(tflite: bytes, rule: SchemeRule, calibration: bytes, method: str) -> bytes:
    """Return the float model carrying its ranges, as TFLiteConverter's quantizer takes it."""
    from edgepack.quantize.quantizer import with_ranges

    return with_ranges(tflite, ranges(tflite, rule, calibration, method))


def adopt(made: bytes, tflite: bytes, rule: SchemeRule, tool: str) -> tuple[bytes, str, tuple[str, ...]]:
    """Return what another quantizer made, with the float model's interface and true versions, checked to load."""
    from edgepack.quantize.quantizer import adopt as finish

    done = finish(made, tflite, rule, tool)
    return done.tflite, done.tool, tuple(done.notes)


def ranges(tflite: bytes, rule: SchemeRule, calibration: bytes, method: str) -> Mapping[str, tuple[float, float]]:
    """Return the range of each tensor of a float model."""
    from edgepack.quantize.calibrate import Calibration
    from edgepack.quantize.ranges import choose_ranges

    gathered, model = Calibration.from_bytes(calibration), read_model(tflite)
    bits = 16 if get_scheme(rule.scheme).activations == "INT16" else 8
    if method:
        return choose_ranges(gathered, model, method=method, activation_bits=bits)
    return choose_ranges(gathered, model, activation_bits=bits)
