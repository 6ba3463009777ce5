import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import pytest

from edgepack.graph import Graph, Op, Quantization, Tensor, edit, read_model
from edgepack.graph.file_versions import file_versions
from edgepack.graph.runtime_versions import min_runtime_version, runtime_for
from edgepack.graph.versions import op_version


def _tensor(index: int, dtype: str, shape: tuple[int, ...], channels: int = 0) -> Tensor:
    quantization = None
    if dtype in ("INT8", "INT16", "UINT8"):
        count = channels or 1
        quantization = Quantization(np.full(count, 0.01, np.float32), np.zeros(count, np.int64))
    return Tensor(index, f"t{index}", shape, shape, dtype, 0, None, quantization)


def _op(name: str, inputs: list[tuple[object, ...]], output: tuple[object, ...], **options: object) -> tuple[Graph, Op]:
    tensors = tuple(_tensor(i, *described) for i, described in enumerate([*inputs, output]))
    op = Op(0, name, "", 1, tuple(range(len(inputs))), (len(inputs),), options)
    return Graph("main", tensors, (op,), (0,), (len(inputs),)), op


IMAGE, KERNEL = (1, 8, 8, 4), (16, 3, 3, 4)
_NARROW = {"quantized_bias_type": "INT32"}


@pytest.mark.parametrize(
    ("name", "inputs", "output", "options", "version"),
    [
        ("CONV_2D", [("FLOAT32", IMAGE), ("FLOAT32", KERNEL)], ("FLOAT32", IMAGE), {}, 1),
        ("CONV_2D", [("INT8", IMAGE), ("INT8", KERNEL, 16)], ("INT8", IMAGE), {}, 3),
        ("CONV_2D", [("FLOAT32", IMAGE), ("INT8", KERNEL)], ("FLOAT32", IMAGE), {}, 2),
        ("CONV_2D", [("FLOAT32", IMAGE), ("INT8", KERNEL, 16)], ("FLOAT32", IMAGE), {}, 5),
        ("CONV_2D", [("INT8", IMAGE), ("INT8", (16, 3, 3, 2), 16)], ("INT8", IMAGE), {}, 6),
        ("CONV_2D", [("INT16", IMAGE), ("INT8", KERNEL, 16)], ("INT16", IMAGE), {}, 4),
        ("CONV_2D", [("INT16", IMAGE), ("INT8", KERNEL, 16)], ("INT16", IMAGE), {"quantized_bias_type": "INT64"}, 8),
        ("CONV_2D", [("INT16", IMAGE), ("INT8", KERNEL, 16)], ("INT16", IMAGE), {"quantized_bias_type": "FLOAT32"}, 4),
        ("FULLY_CONNECTED", [("INT16", IMAGE), ("INT8", KERNEL)], ("INT16", IMAGE), _NARROW, 11),
        (
            "TRANSPOSE_CONV",
            [("INT32", (4,)), ("INT8", KERNEL), ("INT16", IMAGE), ("INT32", (16,))],
            ("INT16", IMAGE),
            _NARROW,
            5,
        ),
        ("TRANSPOSE_CONV", [("INT32", (4,)), ("INT8", KERNEL), ("INT16", IMAGE)], ("INT16", IMAGE), {}, 2),
        ("DEPTHWISE_CONV_2D", [("FLOAT32", IMAGE), ("FLOAT32", IMAGE)], ("FLOAT32", IMAGE), {"dilation_w": 2}, 2),
        ("DEPTHWISE_CONV_2D", [("INT8", IMAGE), ("INT8", IMAGE)], ("INT8", IMAGE), {"dilation_w": 2}, 3),
        ("FULLY_CONNECTED", [("FLOAT32", IMAGE), ("FLOAT32", IMAGE)], ("FLOAT32", IMAGE), {}, 6),
        ("FULLY_CONNECTED", [("INT8", IMAGE)] * 3, ("INT8", IMAGE), {}, 4),
        ("FULLY_CONNECTED", [("INT8", IMAGE)] * 3, ("INT8", IMAGE), {"keep_num_dims": True}, 5),
        ("FULLY_CONNECTED", [("FLOAT32", IMAGE), ("INT8", IMAGE), ("FLOAT32", IMAGE)], ("FLOAT32", IMAGE), {}, 3),
        (
            "FULLY_CONNECTED",
            [("FLOAT32", IMAGE), ("INT8", IMAGE), ("FLOAT32", IMAGE)],
            ("FLOAT32", IMAGE),
            {"asymmetric_quantize_inputs": True},
            9,
        ),
        ("ADD", [("INT16", IMAGE), ("INT16", IMAGE)], ("INT16", IMAGE), {"pot_scale_int16": True}, 3),
        ("SUB", [("INT8", (1, 2, 3, 4, 5)), ("INT8", (5,))], ("INT8", (1, 2, 3, 4, 5)), {}, 3),
        ("RESIZE_BILINEAR", [("INT8", IMAGE)], ("INT8", IMAGE), {"half_pixel_centers": True}, 3),
        ("RESIZE_BILINEAR", [("INT8", IMAGE)], ("INT8", IMAGE), {"align_corners": True}, 2),
        ("RESIZE_NEAREST_NEIGHBOR", [("FLOAT32", IMAGE)], ("FLOAT32", IMAGE), {"align_corners": True}, 3),
        ("STRIDED_SLICE", [("INT8", IMAGE)], ("INT8", IMAGE), {"ellipsis_mask": 1}, 6),
        ("SPLIT", [("INT32", ()), ("INT8", IMAGE)], ("INT8", IMAGE), {}, 2),
        ("TRANSPOSE", [("INT8", (1, 2, 3, 4, 5))], ("INT8", (1, 2, 3, 4, 5)), {}, 4),
        ("QUANTIZE", [("FLOAT32", IMAGE)], ("INT16", IMAGE), {}, 2),
        ("DEQUANTIZE", [("FLOAT16", IMAGE)], ("FLOAT32", IMAGE), {}, 3),
        ("BROADCAST_TO", [("FLOAT32", IMAGE)], ("FLOAT32", IMAGE), {}, 2),
        ("RELU6", [("INT8", IMAGE)], ("INT8", IMAGE), {}, 2),
        ("LEAKY_RELU", [("INT8", IMAGE)], ("INT8", IMAGE), {}, 1),
        ("RESHAPE", [("INT8", IMAGE)], ("INT8", IMAGE), {}, 1),
    ],
)  # fmt: skip
def test_version_follows_types_shapes_and_options(name, inputs, output, options, version):
    """Each op gets the version that TensorFlow's op_version.cc gives it."""
    assert op_version(*_op(name, inputs, output, **options)) == version


def test_multiplying_to_a_larger_scale_needs_version_3():
    """MUL whose product of scales reaches the output's needs a rescale of 1 or more, which version 2 cannot do."""
    graph, op = _op("MUL", [("INT8", IMAGE), ("INT8", IMAGE)], ("INT8", IMAGE))
    fine = replace(graph.tensors[2], quantization=Quantization(np.array([5e-5], np.float32), np.zeros(1, np.int64)))
    assert op_version(graph, op) == 2
    assert op_version(replace(graph, tensors=(*graph.tensors[:2], fine)), op) == 3


def test_custom_ops_keep_their_version():
    """A custom op keeps its version, because only its author knows what it means."""
    graph, op = _op("CUSTOM", [("INT8", IMAGE)], ("INT8", IMAGE))
    assert op_version(graph, replace(op, version=7)) == 7


@pytest.mark.parametrize(
    ("op", "version", "runtime"),
    [("CONV_2D", 3, "1.14.0"), ("SQRT", 2, "2.21.0"), ("LEAKY_RELU", 1, "1.13.1"), ("BROADCAST_TO", 1, ""),
     ("CONV_2D", 99, ""), ("NO_SUCH_OP", 1, "")],
)  # fmt: skip
def test_runtime_of_a_version(op, version, runtime):
    """A known version gives the first runtime that supports it, an unknown one an empty string."""
    assert runtime_for(op, version) == runtime


def test_newest_op_decides_the_runtime():
    """2.12 is newer than 2.9, and unknown ops are ignored."""
    assert min_runtime_version([("EXP", 2), ("GELU", 2), ("NO_SUCH_OP", 1)]) == "2.12.0"
    assert min_runtime_version([]) == ""


@pytest.mark.parametrize("name", ["mlperf-tiny/kws_reference_int8.tflite", "coral/keras_lstm_mnist_ptq.tflite"])
def test_real_converter_files_carry_the_versions(shared_models, name):
    """Files that TFLiteConverter wrote years ago have the versions that `file_versions` returns."""
    model = read_model(shared_models / name)
    versions = file_versions(model)
    assert [(op.name, versions[0, op.index]) for op in model.main.ops] == [
        (op.name, op.version) for op in model.main.ops
    ]


@pytest.mark.slow
def test_converter_of_today_writes_the_same(tmp_path):
    """Float, float16, dynamic range and int8 files of TFLiteConverter have the same versions and runtime."""
    script = Path(__file__).with_name("converter_files.py")
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, capture_output=True, timeout=600)
    files = sorted(tmp_path.glob("*.tflite"))
    assert len(files) >= 60
    wrong = {}
    for file in files:
        model = read_model(file)
        versions = file_versions(model)
        theirs = [(op.name, op.version) for op in model.main.ops]
        ours = [(op.name, versions[0, op.index]) for op in model.main.ops]
        if (ours, min_runtime_version(ours)) != (theirs, model.min_runtime_version):
            wrong[file.name] = (ours, theirs, model.min_runtime_version)
    assert not wrong, json.dumps(wrong, indent=1)


def test_stale_versions_are_corrected():
    """A file with the version 1 everywhere gets the correct versions, and the runtime that they need."""
    tflite = builders.classifier()
    assert {op.version for op in read_model(tflite).main.ops} == {1}
    corrected = read_model(edit.write_true_versions(edit.set_min_runtime_version(tflite, "1.0.0")))
    assert [op.version for op in corrected.main.ops] == [1, 1, 1, 1, 1]
    assert corrected.min_runtime_version == "1.5.0"
