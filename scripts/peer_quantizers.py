"""Quantize an ONNX model with other tools, one process each; `bench_peers.py` runs this where they are installed.

peer_quantizers.py installed                                     names and versions of the tools, as JSON
peer_quantizers.py convert FLOAT.tflite OUT.onnx                 tf2onnx
peer_quantizers.py quantize CONFIGURATION FLOAT.onnx SAMPLES.npz OUT.onnx [ITERATIONS of AdaRound]
peer_quantizers.py run MODEL.onnx SAMPLES.npz OUT.npz            outputs, computed as the file's Q and DQ nodes say

SAMPLES.npz and OUT.npz have one array per input or output, by position: "0", "1" and so on, the samples first.
Nothing of edgepack is imported: the tools may be in an environment of their own.
"""

import json
import resource
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

#: Package of each tool, by the first word of its configurations.
PACKAGES = {"onnxruntime": "onnxruntime", "nncf": "nncf", "aimet": "aimet-onnx"}

#: Configuration -> arguments of the function of its tool. The first word is the tool, the others are what differs from
#: its defaults; all have int8 weights per channel and int8 activations.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "onnxruntime minmax": {"method": "MinMax"},
    "onnxruntime percentile": {"method": "Percentile"},
    "onnxruntime entropy": {"method": "Entropy"},
    "nncf": {},
    "nncf mixed": {"preset": "mixed"},
    "nncf mixed, 8 bits everywhere": {"preset": "mixed", "overflow_fix": "disable"},
    "nncf mixed, 8 bits, no bias correction": {
        "preset": "mixed",
        "overflow_fix": "disable",
        "disable_bias_correction": True,
    },
    "nncf mixed, 8 bits, accurate bias correction": {
        "preset": "mixed",
        "overflow_fix": "disable",
        "fast_bias_correction": False,
    },
    "nncf mixed, 8 bits, smoothquant": {"preset": "mixed", "overflow_fix": "disable", "smooth": 0.5},
    "aimet minmax": {"scheme": "min_max"},
    "aimet tf_enhanced": {"scheme": "tf_enhanced"},
    "aimet cle": {"scheme": "tf_enhanced", "cle": True},
    "aimet adaround": {"scheme": "tf_enhanced", "adaround": True},
    "aimet cle, adaround": {"scheme": "tf_enhanced", "cle": True, "adaround": True},
    "aimet seqmse": {"scheme": "tf_enhanced", "seqmse": True},
}


#: Samples per step of AIMET's optimizations: its own batches have 32, which do not divide 100.
AIMET_BATCH = 25


def feeds(path: Path, names: list[str], batch: int = 1) -> Iterator[dict[str, np.ndarray]]:
    """Yield the samples as inputs of a model, in batches; samples that fill no batch are left out."""
    with np.load(path) as data:
        arrays = [data[str(i)] for i in range(len(names))]
    for start in range(0, len(arrays[0]) - batch + 1, batch):
        yield {name: array[start : start + batch] for name, array in zip(names, arrays, strict=True)}


def inputs(path: Path) -> tuple[list[str], bool]:
    """Return the names of the inputs of an ONNX model, and whether it takes batches."""
    import onnx

    graph = onnx.load(path).graph
    constants = {constant.name for constant in graph.initializer}
    values = [value for value in graph.input if value.name not in constants]
    batched = all(value.type.tensor_type.shape.dim[0].dim_param for value in values)
    return [value.name for value in values], batched


def onnxruntime(source: Path, samples: Path, out: Path, method: str) -> None:
    """Static quantization of ONNX Runtime in QDQ form."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples = feeds(samples, inputs(source)[0])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.samples, None)

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        out,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method],
    )


def nncf(
    source: Path,
    samples: Path,
    out: Path,
    preset: str | None = None,
    overflow_fix: str | None = None,
    disable_bias_correction: bool = False,
    fast_bias_correction: bool = True,
    smooth: float | None = None,
) -> None:
    """Post-training quantization of NNCF's ONNX backend."""
    import nncf as tool
    import onnx

    advanced = tool.AdvancedQuantizationParameters(disable_bias_correction=disable_bias_correction)
    if overflow_fix:
        advanced.overflow_fix = tool.OverflowFix(overflow_fix)
    if smooth is not None:
        advanced.smooth_quant_alphas = tool.AdvancedSmoothQuantParameters(convolution=smooth, matmul=smooth)
    data = list(feeds(samples, inputs(source)[0]))
    quantized = tool.quantize(
        onnx.load(source),
        tool.Dataset(data),
        preset=tool.QuantizationPreset(preset) if preset else None,
        subset_size=len(data),
        fast_bias_correction=fast_bias_correction,
        advanced_parameters=advanced,
    )
    onnx.save(quantized, out)


def aimet(
    source: Path,
    samples: Path,
    out: Path,
    scheme: str,
    cle: bool = False,
    adaround: bool = False,
    seqmse: bool = False,
    iterations: int = 10_000,
) -> None:
    """AIMET's cross-layer equalization, sequential MSE and AdaRound on ONNX."""
    import aimet_onnx as tool
    import onnx
    import torch
    from aimet_onnx.common import graph_searcher, quantsim_config

    model = onnx.load(source)
    if cle:
        from aimet_onnx.cross_layer_equalization import equalize_model

        equalize_model(model)
    names, batched = inputs(source)
    data = list(feeds(samples, names, AIMET_BATCH if batched else 1))
    torch.manual_seed(0)
    np.random.seed(0)
    # AIMET simulates Hexagon, where no activation is fused into a depthwise convolution, and quantizes in between.
    # TFLite fuses it; without this the comparison is one of fusions.
    graph_searcher._check_if_depthwise_conv = lambda op: False
    # Its default has one scale per weight tensor; this file comes with it and has one per channel.
    config = Path(quantsim_config.__file__).with_name("default_config_per_channel.json")
    sim = tool.QuantizationSimModel(
        model, param_type=tool.int8, activation_type=tool.int8, quant_scheme=scheme, config_file=str(config)
    )
    if seqmse:
        tool.apply_seq_mse(sim, data)
    if adaround:
        tool.apply_adaround(sim, data, num_iterations=iterations)
    sim.compute_encodings(data)
    onnx.save(sim.to_onnx_qdq(prequantize_constants=True), out)


def run(model: Path, samples: Path, out: Path) -> None:
    """Run a model without fusing its Q and DQ nodes into integer kernels: every op computes in float between them."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 2
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    results = [session.run(None, sample) for sample in feeds(samples, names)]
    np.savez(out, **{str(i): np.stack(values) for i, values in enumerate(zip(*results, strict=True))})


def convert(tflite: Path, out: Path) -> None:
    """Convert a float .tflite to ONNX."""
    import onnx
    import tf2onnx
    from tf2onnx.graph import Graph

    replace_inputs = Graph.replace_inputs

    def keep_bias(self: Any, node: Any, inputs: list[str]) -> Any:
        """Work around tf2onnx 1.17, which loses the bias of a FULLY_CONNECTED whose input has more than two axes."""
        bias = node.input[2:] if node.type == "TFL_FULLY_CONNECTED" and len(inputs) == 2 else []
        return replace_inputs(self, node, [*inputs, *bias])

    Graph.replace_inputs = keep_bias
    model, _ = tf2onnx.convert.from_tflite(str(tflite), opset=17)
    _expose_logits(model.graph)
    onnx.save(_batched(model) or model, out)


def _expose_logits(graph: Any) -> None:
    """Make the inputs of the last Softmax or Sigmoid the outputs of a graph, as edgepack.runtime.logits does."""
    producers = {name: node for node in graph.node for name in node.output}
    for value in graph.output:
        node = producers[value.name]
        if node.op_type in {"Softmax", "LogSoftmax", "Sigmoid"}:
            value.name = node.input[0]
            graph.node.remove(node)


def _batched(model: Any) -> Any:
    """Return the model with a free batch dimension, or None where it computes something else for a batch."""
    import onnx
    import onnxruntime as runtime

    free = onnx.ModelProto()
    free.CopyFrom(model)
    free.graph.ClearField("value_info")
    for constant in free.graph.initializer:
        if any(node.op_type == "Reshape" and node.input[1] == constant.name for node in free.graph.node):
            shape = onnx.numpy_helper.to_array(constant).copy()
            if shape[0] == 1 and -1 not in shape:
                shape[0] = -1
                constant.CopyFrom(onnx.numpy_helper.from_array(shape, constant.name))
    try:
        for value in [*free.graph.input, *free.graph.output]:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
        session = runtime.InferenceSession(free.SerializeToString(), providers=["CPUExecutionProvider"])
        random = np.random.default_rng(0)
        shapes = {value.name: value.shape[1:] for value in session.get_inputs()}
        pair = {name: random.standard_normal((2, *shape), np.float32) for name, shape in shapes.items()}
        together = session.run(None, pair)
        alone = [session.run(None, {name: array[i : i + 1] for name, array in pair.items()}) for i in range(2)]
    except Exception:  # the error of any op that does not take the shape
        return None
    equal = all(
        len(both) == 2 and np.allclose(both, np.concatenate(singles), rtol=1e-3, atol=1e-4)
        for both, singles in zip(together, zip(*alone, strict=True), strict=True)
    )
    return free if equal else None


def installed() -> dict[str, str]:
    """Return the version of every tool that is installed, by package; of what converts the model too."""
    versions = {}
    for package in (*PACKAGES.values(), "onnx", "tf2onnx", "tensorflow"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def main(verb: str, *arguments: str) -> None:
    """Run one verb; the last line of the output is JSON."""
    result: dict[str, Any] = {}
    if verb == "installed":
        result = installed()
    elif verb == "convert":
        convert(*map(Path, arguments))
    elif verb == "run":
        run(*map(Path, arguments))
    else:
        name, *paths = arguments
        tools: dict[str, Callable[..., None]] = {"onnxruntime": onnxruntime, "nncf": nncf, "aimet": aimet}
        options = CONFIGURATIONS[name] | ({"iterations": int(paths.pop())} if len(paths) == 4 else {})
        tools[name.split()[0]](*map(Path, paths), **options)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        # ru_maxrss is in KiB on Linux and in bytes on macOS.
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        result = {"cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": peak}
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
