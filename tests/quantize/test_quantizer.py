import io
import subprocess
import sys
from pathlib import Path

import builders
import flatbuffers
import numpy as np
import pytest

from edgepack.child import Worker
from edgepack.errors import QuantizationError
from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.graph.op_layout import float_ops
from edgepack.graph.read import schema
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.op_support import CONVERTER_INT8, DIRECT_INT8, FINISHED_INT8
from edgepack.quantize.quantizer import QuantizationRefused, adopt, quantize, with_ranges
from edgepack.quantize.ranges import choose_ranges

DIGITS = Path(__file__).parent.parent / "data" / "digits_float.tflite"


def _ranges(tflite: bytes, bits: int = 8, count: int = 32) -> dict[str, tuple[float, float]]:
    return choose_ranges(calibrate(tflite, builders.samples(tflite, count)), read_model(tflite), activation_bits=bits)


def _types(tflite: bytes) -> tuple[list[str], list[str]]:
    graph = read_model(tflite).main
    return [graph.tensors[i].dtype for i in graph.inputs], [graph.tensors[i].dtype for i in graph.outputs]


RULES = [
    (SchemeRule("float32"), 200),
    (SchemeRule("float16"), 55),
    (SchemeRule("dynamic-range"), 30),
    (SchemeRule("int8", "INT8"), 25),
    (SchemeRule("int8", "UINT8"), 25),
    (SchemeRule("int8", "FLOAT32"), 25),
    (SchemeRule("int8", "INT8", "per-tensor"), 25),
    (SchemeRule("int16x8", "INT16"), 38),
    (SchemeRule("int16x8", "FLOAT32"), 38),
]


@pytest.mark.parametrize("make", [builders.classifier, builders.two_in_two_out], ids=["classifier", "two"])
@pytest.mark.parametrize(("rule", "least"), RULES, ids=[f"{r.scheme}-{r.io}-{r.fully_connected}" for r, _ in RULES])
def test_each_scheme_runs_and_is_close(make, rule, least):
    """Every scheme gives a file that runs, has the float model's names and order, and stays close to its outputs."""
    tflite = make()
    source = read_model(tflite)
    result = quantize(tflite, rule, _ranges(tflite, 16 if rule.scheme == "int16x8" else 8))
    quantized = read_model(result.tflite)
    assert (quantized.input_names(), quantized.output_names()) == (source.input_names(), source.output_names())
    names = [[m.main.tensors[i].name for i in (*m.main.inputs, *m.main.outputs)] for m in (quantized, source)]
    assert names[0] == names[1]
    assert quantized.description == source.description
    assert _types(result.tflite) == ([rule.io] * len(source.main.inputs), [rule.io] * len(source.main.outputs))
    sample = builders.samples(tflite, 1, seed=9)[0]
    assert builders.snr(builders.run(tflite, sample), builders.run(result.tflite, sample)) > least
    assert quantize(tflite, rule, _ranges(tflite, 16 if rule.scheme == "int16x8" else 8)).tflite == result.tflite


def test_files_with_operator_codes_in_the_old_field_give_the_same_file():
    """Files from before TensorFlow 2.4, such as MediaPipe's face mesh, have no `builtin_code`."""
    new = builders.classifier()
    old = schema().ModelT.InitFromPackedBuf(new, 0)
    for code in old.operatorCodes:
        code.builtinCode = 0
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(old.Pack(builder), file_identifier=b"TFL3")
    rule, ranges = SchemeRule("int8", "INT8"), _ranges(new)
    assert quantize(bytes(builder.Output()), rule, ranges).tflite == quantize(new, rule, ranges).tflite


@pytest.mark.parametrize(
    ("rule", "versions", "runtime"),
    [
        (SchemeRule("int8", "INT8"), [3, 3, 2, 4, 2], "1.14.0"),
        (SchemeRule("int16x8", "INT16"), [8, 5, 3, 11, 3], "2.15.0"),
        (SchemeRule("float32"), [1, 1, 1, 1, 1], ""),
    ],
)
def test_versions_are_the_true_ones(rule, versions, runtime):
    """The result has the op versions that its kernels need, and names the oldest runtime with them."""
    tflite = builders.classifier()
    quantized = read_model(quantize(tflite, rule, _ranges(tflite)).tflite)
    assert [op.version for op in quantized.main.ops] == versions
    assert quantized.min_runtime_version == runtime


def test_fully_connected_granularity():
    """FULLY_CONNECTED weights have a scale per channel, or one where the target needs it; convolutions keep theirs."""
    tflite = builders.classifier()
    for requested, scales in (("per-channel", 10), ("per-tensor", 1)):
        graph = read_model(quantize(tflite, SchemeRule("int8", "INT8", requested), _ranges(tflite)).tflite).main
        sizes = {op.name: graph.tensors[op.inputs[1]].quantization.scale.size for op in graph.ops if len(op.inputs) > 2}
        assert sizes == {"CONV_2D": 16, "DEPTHWISE_CONV_2D": 16, "FULLY_CONNECTED": scales}


def test_ranges_are_ours():
    """The scales in the file follow from the ranges passed in; input and output of the pool share one."""
    tflite = builders.classifier()
    ranges = _ranges(tflite)
    graph = read_model(quantize(tflite, SchemeRule("int8", "INT8"), ranges).tflite).main
    scales = {t.name: float(t.quantization.scale[0]) for t in graph.tensors if t.quantization and not t.is_constant}
    for name in ("x", "conv", "dw", "pool", "dense"):
        assert scales[name] == pytest.approx((ranges[name][1] - ranges[name][0]) / 255, rel=1e-6)
    assert scales["dw"] == scales["pool"]
    assert scales["probabilities"] == 1 / 256


def test_sizes_of_the_digits_model():
    """For a real model, the float16 file has about half the size of the float file, integer files about a quarter."""
    tflite = DIGITS.read_bytes()
    ranges = _ranges(tflite)
    sizes = {s: len(quantize(tflite, SchemeRule(s, io), ranges).tflite) / len(tflite)
             for s, io in (("float16", "FLOAT32"), ("dynamic-range", "FLOAT32"), ("int8", "INT8"))}  # fmt: skip
    assert 0.45 < sizes["float16"] < 0.65
    assert 0.2 < sizes["int8"] < 0.45
    assert 0.2 < sizes["dynamic-range"] < 0.5


def test_ops_the_converter_would_quantize_are_refused():
    """A model whose REDUCE_PROD would stay float is refused, and the error names it."""
    net = builders.Net(0)
    x, y = net.tensor("x", (1, 4)), net.tensor("y", (1,))
    net.op("REDUCE_PROD", [x, net.constant("axes", [1], "INT32")], [y])
    tflite = net.build([x], [y])
    with pytest.raises(QuantizationRefused) as caught:
        quantize(tflite, SchemeRule("int8", "INT8"), _ranges(tflite))
    assert caught.value.details["ops"] == ["REDUCE_PROD"]
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("io", ["INT8", "UINT8", "FLOAT32"])
def test_ops_no_one_quantizes_stay_float_and_are_told(io):
    """FLOOR stays float between QUANTIZE and DEQUANTIZE, with a note; the ends have the type of the rule."""
    tflite = builders.one_op("FLOOR")
    result = quantize(tflite, SchemeRule("int8", io), _ranges(tflite))
    graph = read_model(result.tflite).main
    assert [op.name for op in graph.ops] == (["FLOOR"] if io == "FLOAT32" else ["DEQUANTIZE", "FLOOR", "QUANTIZE"])
    assert [op.name for op in float_ops(graph)] == ["FLOOR"]
    assert _types(result.tflite) == ([io], [io])
    assert result.notes == ("FLOOR in float: TFLite's quantizers do not convert them to int8",)


def test_what_cannot_be_applied():
    """Missing ranges, a scheme that needs training and a model that is already quantized are clear errors."""
    tflite = builders.classifier()
    with pytest.raises(QuantizationError, match="needs the ranges of a calibration"):
        quantize(tflite, SchemeRule("int8", "INT8"))
    with pytest.raises(QuantizationError, match="quantization-aware training"):
        quantize(tflite, SchemeRule("int8-qat", "INT8"), _ranges(tflite))
    quantized = quantize(tflite, SchemeRule("int8", "INT8"), _ranges(tflite)).tflite
    with pytest.raises(QuantizationError, match="already quantized"):
        quantize(quantized, SchemeRule("float16"))
    incomplete = {key: bounds for key, bounds in _ranges(tflite).items() if key != "dw"}
    with pytest.raises(QuantizationRefused, match="ai-edge-quantizer cannot"):
        quantize(tflite, SchemeRule("int8", "INT8"), incomplete)


def test_nothing_is_printed(capfd):
    """ai-edge-quantizer's progress bars and warnings are not shown."""
    tflite = builders.classifier()
    ranges = _ranges(tflite)
    capfd.readouterr()
    quantize(tflite, SchemeRule("int8", "INT8"), ranges)
    lines = [line for line in "".join(capfd.readouterr()).splitlines() if "XNNPACK delegate" not in line]
    assert lines == []


@pytest.mark.parametrize("io", ["INT8", "FLOAT32"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("shape", "axis"), [((4, 6), 0), ((4, 6), 1), ((1, 4, 6), 1), ((1, 3, 4, 6), 1), ((1, 3, 4, 6), 3)]
)
def test_constants_are_joined_in_int8(shape, axis, first, io):
    """CONCATENATION with a constant operand, such as a ViT's class token, is quantized to int8 and close to float."""
    net = builders.Net(6)
    token, joined = list(shape), list(shape)
    token[axis], joined[axis] = 1, shape[axis] + 1
    x, out = net.tensor("x", shape), net.tensor("out", tuple(joined))
    constant = net.constant("token", net.random.normal(0, 1, token))
    net.op("CONCATENATION", [constant, x] if first else [x, constant], [out], axis=axis)
    end = net.tensor("end", tuple(joined))
    net.op("TANH", [out], [end])
    tflite = net.build([x], [end])
    result = quantize(tflite, SchemeRule("int8", io), _ranges(tflite))
    graph = read_model(result.tflite).main
    op = next(op for op in graph.ops if op.name == "CONCATENATION")
    assert {graph.tensors[index].dtype for index in (*op.inputs, *op.outputs)} == {"INT8"}
    scales = {float(graph.tensors[index].quantization.scale[0]) for index in (*op.inputs, *op.outputs)}
    assert len(scales) == 1 and not list(float_ops(graph))
    sample = builders.samples(tflite, 1, seed=9)[0]
    assert builders.snr(builders.run(tflite, sample), builders.run(result.tflite, sample)) > 30


def test_lists_of_kinds_agree():
    """TFLiteConverter converts what ai-edge-quantizer and `integer_kernels` convert, except two ops."""
    assert {"DYNAMIC_UPDATE_SLICE", "ELU"} == (DIRECT_INT8 | FINISHED_INT8) - CONVERTER_INT8
    assert not DIRECT_INT8 & FINISHED_INT8


@pytest.mark.slow
@pytest.mark.parametrize("requested", ["INT8", "UINT8", "FLOAT32"])
def test_converters_quantizer_takes_over(converter_child, requested):
    """TFLiteConverter's quantizer converts a refused model to full int8 with our ranges; the interface stays."""
    tflite = builders.standing_alone()
    rule = SchemeRule("int8", requested)
    data = converter_child.call(
        "edgepack.convert.mlir_quantize:mlir_quantize", with_ranges(tflite, _ranges(tflite)), io=requested, timeout=300
    )
    result = adopt(data, tflite, rule, "TFLiteConverter")
    graph = read_model(result.tflite).main
    assert [op.name for op in graph.ops if "QUANTIZE" not in op.name] == ["RELU6", "CONV_2D", "LEAKY_RELU", "PRELU"]
    assert not list(float_ops(graph)) and result.notes == ()
    assert _types(result.tflite) == ([requested], [requested])
    assert read_model(result.tflite).input_names() == ("x",)
    sample = builders.samples(tflite, 1, seed=9)[0]
    assert builders.snr(builders.run(tflite, sample), builders.run(result.tflite, sample)) > 25


@pytest.fixture(scope="module")
def converter_child():
    with Worker() as worker:
        yield worker


@pytest.mark.slow
def test_keyword_spotting_is_at_least_the_converters(shared_models, tmp_path):
    """Keyword spotting: SNR and accuracy are not below those of TFLiteConverter's int8, with files of equal size."""
    folder = shared_models / "mlperf-tiny"
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("converter_kws.py")), str(folder), str(tmp_path)],
        check=True, capture_output=True, timeout=600,
    )  # fmt: skip
    tflite, theirs = ((tmp_path / name).read_bytes() for name in ("float.tflite", "int8.tflite"))
    with np.load(folder / "kws_samples.npz") as data:
        x, y = data["x"], data["y"]
    model = read_model(tflite)
    (name,) = model.input_names()
    calibration = calibrate(tflite, ({name: x[i : i + 1]} for i in range(100)))
    reference = _outputs(tflite, name, x[100:])
    their_snr, their_top1 = _quality(reference, _outputs(theirs, name, x[100:]), y[100:])
    for method, gain in (("percentile", 1.0), ("minmax", -0.01)):
        mine = quantize(tflite, SchemeRule("int8", "INT8"), choose_ranges(calibration, model, method)).tflite
        snr, top1 = _quality(reference, _outputs(mine, name, x[100:]), y[100:])
        assert snr >= their_snr + gain
        assert top1 >= their_top1
        assert len(mine) == pytest.approx(len(theirs), rel=0.01)
        assert [(op.name, op.version) for op in read_model(mine).main.ops] == [
            (op.name, op.version) for op in read_model(theirs).main.ops
        ]


def _outputs(tflite: bytes, name: str, samples: np.ndarray) -> np.ndarray:
    # The converter's int8 file may have another name for its only input.
    mine = read_model(tflite).input_names()[0] or name
    return np.stack([builders.run(tflite, {mine: sample[np.newaxis]})[0][0] for sample in samples])


def _quality(reference: np.ndarray, outputs: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    return builders.snr([reference], [outputs]), float((outputs.argmax(1) == labels).mean())


def test_calibrations_survive_a_file(tmp_path):
    """A calibration that was stored and read again gives the same file, byte for byte."""
    from edgepack.quantize.calibrate import Calibration

    tflite = builders.classifier()
    model = read_model(tflite)
    fresh = calibrate(tflite, builders.samples(tflite, 8))
    stored = Calibration.from_bytes(io.BytesIO(fresh.to_bytes()).getvalue())
    rule = SchemeRule("int8", "INT8")
    files = [quantize(tflite, rule, choose_ranges(c, model)).tflite for c in (fresh, stored)]
    assert files[0] == files[1]
    assert set(choose_ranges(stored, model)) <= set(tensor_keys(model.main))
