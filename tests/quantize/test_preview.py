from pathlib import Path

import builders
import pytest

from edgepack.graph import Model, read_model
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.preview import preview
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import choose_ranges

MODELS = {
    "classifier": builders.classifier,
    "two": builders.two_in_two_out,
    "elu": lambda: builders.one_op("ELU"),
    "relu": lambda: builders.one_op("RELU"),
    "digits": (Path(__file__).parent.parent / "data" / "digits_float.tflite").read_bytes,
}
RULES = [
    SchemeRule("float32"),
    SchemeRule("float16"),
    SchemeRule("dynamic-range"),
    SchemeRule("int8", "INT8"),
    SchemeRule("int8", "UINT8"),
    SchemeRule("int8", "FLOAT32"),
    SchemeRule("int8", "INT8", "per-tensor"),
    SchemeRule("int16x8", "INT16"),
    SchemeRule("int16x8", "FLOAT32"),
    SchemeRule("int16x8", "FLOAT32", wide_bias=False),
]


def _described(model: Model) -> object:
    graph = model.main

    def look(index: int) -> object:
        if index < 0:
            return None
        tensor = graph.tensors[index]
        many = tensor.quantization is not None and tensor.quantization.per_channel
        return tensor.dtype, tensor.shape, tensor.is_constant, many

    ops = [(op.label, op.version, [look(i) for i in op.inputs], [look(i) for i in op.outputs]) for op in graph.ops]
    interface = [look(i) for i in (*graph.inputs, *graph.outputs)]
    return ops, interface, model.input_names(), model.output_names()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.scheme}-{r.io}-{r.fully_connected}-{r.wide_bias}")
def test_preview_is_what_quantize_makes(name, rule):
    """The preview has the ops, types, shapes, granularity and versions of the file that `quantize` writes."""
    tflite = MODELS[name]()
    model = read_model(tflite)
    bits = 16 if rule.scheme == "int16x8" else 8
    ranges = choose_ranges(calibrate(tflite, builders.samples(tflite, 4)), model, activation_bits=bits)
    previewed, quantized = preview(model, rule), read_model(quantize(tflite, rule, ranges).tflite)
    assert _described(previewed) == _described(quantized)
    assert previewed.min_runtime_version == quantized.min_runtime_version
    if name == "digits":
        assert previewed.size == pytest.approx(quantized.size, rel=0.15)


def test_preview_of_a_refused_model_is_the_converters():
    """Where TFLiteConverter's quantizer is needed, the preview shows the ops that it converts to int8."""
    previewed = preview(read_model(builders.standing_alone()), SchemeRule("int8", "INT8")).main
    assert [(op.name, op.version) for op in previewed.ops] == [
        ("RELU6", 2), ("CONV_2D", 3), ("LEAKY_RELU", 1), ("PRELU", 1),
    ]  # fmt: skip
    assert {previewed.tensors[op.outputs[0]].dtype for op in previewed.ops} == {"INT8"}


def test_softmax_scale_is_known_without_data():
    """A scale that the kernel fixes is the same in the preview as in the file."""
    previewed = preview(read_model(builders.classifier()), SchemeRule("int8", "INT8")).main
    quantization = previewed.tensors[previewed.outputs[0]].quantization
    assert (float(quantization.scale[0]), int(quantization.zero_point[0])) == (1 / 256, -128)


def test_a_quantized_model_is_not_planned_again():
    """The preview of an integer model is the model itself."""
    tflite = builders.classifier()
    ranges = choose_ranges(calibrate(tflite, builders.samples(tflite, 4)), read_model(tflite))
    model = read_model(quantize(tflite, SchemeRule("int8", "INT8"), ranges).tflite)
    assert preview(model, SchemeRule("int8", "INT8")) is model


def test_planning_changes_nothing():
    """A preview leaves the model unchanged."""
    model = read_model(builders.classifier())
    before = _described(model)
    preview(model, SchemeRule("int8", "INT8"))
    assert _described(model) == before
