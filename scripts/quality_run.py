"""Run one effort of the quantizer on one model of the development set, in a process that can be measured.

quality_run.py FOLDER EFFORT OUT [--weights per-tensor] [--without STEP]...

FOLDER has float.tflite and cal.npz; OUT.tflite and OUT.json, the report of the steps, are written. TensorFlow is loaded
only where ai-edge-quantizer refuses the model, as `edgepack build` does.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgepack.child import Worker
from edgepack.convert.mlir_quantize import MLIR_QUANTIZE
from edgepack.graph import read_model
from edgepack.graph.edit import unique_names
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.ptq.step import QuantizeFile
from edgepack.quantize.ptq.steps import improve
from edgepack.quantize.quantizer import QuantizationRefused, adopt, quantize, with_ranges
from edgepack.quantize.ranges import Range, choose_ranges
from edgepack.samples import SampleSet


def read_samples(path: Path) -> list[dict[str, np.ndarray]]:
    """Return the samples of an .npz, one array per input, each with a batch dimension of one."""
    with np.load(path) as data:
        arrays = {name: values for name, values in data.items() if name != "labels"}
    count = len(next(iter(arrays.values())))
    return [{name: values[i : i + 1] for name, values in arrays.items()} for i in range(count)]


def converter_file(
    tflite: bytes,
    rule: SchemeRule,
    ranges: Mapping[str, Range],
    *,
    samples: Sequence[Mapping[str, np.ndarray]],
    worker: Worker,
) -> bytes:
    """Return the int8 file of TFLiteConverter's quantizer.

    Args:
        tflite: The float model.
        rule: Scheme and granularity.
        ranges: Ranges of its activations.
        samples: Calibration samples, on which that quantizer measures the states of LSTM ops.
        worker: The process that it runs in.
    """
    arrays = {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
    shapes = {name: (1, *values.shape[1:]) for name, values in arrays.items()}
    call = MLIR_QUANTIZE.call(
        with_ranges(tflite, ranges),
        io=rule.io,
        fully_connected=rule.fully_connected,
        weights=rule.weights,
        samples=SampleSet("cal.npz", "", arrays, shapes, {name: values.dtype for name, values in arrays.items()}),
    )
    return adopt(worker.run(call, timeout=600), tflite, rule, "TFLiteConverter", ranges).tflite


def run(
    tflite: bytes, rule: SchemeRule, samples: Sequence[Mapping[str, np.ndarray]], effort: str, without: Sequence[str]
) -> tuple[bytes, dict[str, Any]]:
    """Return the int8 file and the report of the steps; `refused` is why TFLiteConverter's quantizer wrote the file."""

    def with_files(quantize_file: QuantizeFile | None) -> tuple[bytes, dict[str, Any]]:
        make = quantize_file or (lambda model, rule, ranges: quantize(model, rule, ranges).tflite)
        if effort == "minmax":
            ranges = choose_ranges(calibrate(tflite, samples), read_model(tflite), "minmax")
            return make(tflite, rule, ranges), {"steps": []}
        improved = improve(tflite, rule, samples, effort, off=without, quantize_file=quantize_file)
        return make(improved.tflite, rule, improved.ranges), improved.to_json()

    try:
        return with_files(None)
    except QuantizationRefused as refused:
        with Worker() as worker:
            made, report = with_files(partial(converter_file, samples=samples, worker=worker))
        return made, {**report, "refused": refused.message}


def main() -> None:
    """Run one effort."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("effort", help="an effort, or `minmax` for ranges by min/max and no step")
    options.add_argument("out", type=Path)
    options.add_argument("--weights", default="per-channel", choices=("per-channel", "per-tensor"))
    options.add_argument("--without", action="append", default=[], metavar="STEP")
    arguments = options.parse_args()
    rule = SchemeRule("int8", "INT8", arguments.weights, weights=arguments.weights, layer_norm="L2_NORMALIZATION")
    tflite = unique_names((arguments.folder / "float.tflite").read_bytes())
    samples = read_samples(arguments.folder / "cal.npz")
    quantized, report = run(tflite, rule, samples, arguments.effort, arguments.without)
    arguments.out.with_suffix(".tflite").write_bytes(quantized)
    arguments.out.with_suffix(".json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
