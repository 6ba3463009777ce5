"""Each constraint accepts and refuses as documented, with a reason code of the table and a fix."""

import re
from typing import Any

import numpy as np
import pytest
from compat_graphs import ints, model, one_op, tensor, weights

from edgepack.compat import REASONS, RULES
from edgepack.compat.context import Context
from edgepack.compat.quantities import MEASURES
from edgepack.compat.rules import violations
from edgepack.graph import Model
from edgepack.profiles.vocabulary import CONSTRAINTS, QUANTITIES

IMAGE = tensor()
FLOAT = tensor(dtype="FLOAT32")
PADDINGS = tensor((4, 2), "INT32", np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
BATCH_PADDINGS = tensor((4, 2), "INT32", np.array([[1, 0], [1, 1], [1, 1], [0, 0]], np.int32))


def conv(**options: Any) -> Model:
    options = {"stride_w": 1, "stride_h": 1, "dilation_w": 1, "dilation_h": 1} | options
    filters = options.pop("filters", weights((6, 3, 3, 4)))
    bias = options.pop("bias", tensor((6,), "INT32", np.zeros(6, np.int32)))
    return one_op("CONV_2D", [options.pop("data", IMAGE), filters, bias], [tensor((1, 8, 8, 6))], **options)


def add(first: Any, second: Any, **options: Any) -> Model:
    return one_op("ADD", [first, second], [first], **options)


def mean(*axes: int) -> Model:
    return one_op("MEAN", [IMAGE, ints(*axes)], [tensor((1, 1, 1, 4))])


#: constraint, argument, a model whose first op is accepted, a model whose first op is refused, the refusal's code
CASES: list[tuple[str, Any, Model, Model, str]] = [
    ("dtypes", {"data": ["INT8"]}, add(IMAGE, IMAGE), add(FLOAT, FLOAT), "dtype-float"),
    ("dtypes", {"data": ["INT8"]}, add(IMAGE, IMAGE), add(tensor(dtype="INT16"), IMAGE), "dtype"),
    ("dtypes", {"weights": ["INT8"]}, conv(), conv(filters=weights((6, 3, 3, 4), dtype="INT16")), "weights-dtype"),
    (
        "dtypes",
        {"bias": ["INT32"]},
        conv(),
        conv(bias=tensor((6,), "INT64", np.zeros(6, np.int64))),
        "bias-dtype",
    ),
    (
        "dtypes",
        {"parameter": ["INT32"]},
        mean(1),
        one_op("MEAN", [IMAGE, tensor((1,), "INT64", np.array([1]))], [IMAGE]),
        "parameter-dtype",
    ),
    (
        "dtypes",
        {"data": ["INT8"]},
        one_op("QUANTIZE", [IMAGE], [IMAGE]),
        one_op("QUANTIZE", [FLOAT], [IMAGE]),
        "float-io",
    ),
    ("dtypes", {"data": ["INT8"], "input1": ["FLOAT32"]}, add(IMAGE, FLOAT), add(IMAGE, IMAGE), "dtype-quantized"),
    (
        "dtypes",
        {"output": ["INT32"]},
        one_op("ARG_MAX", [IMAGE], [tensor((1, 8, 8), "INT32")]),
        one_op("ARG_MAX", [IMAGE], [tensor((1, 8, 8), "INT64")]),
        "dtype-wide-integer",
    ),
    (
        "dtype-pairs",
        [["FLOAT32", "INT8"]],
        one_op("CAST", [FLOAT], [IMAGE]),
        one_op("CAST", [IMAGE], [FLOAT]),
        "dtype-pair",
    ),
    ("signatures", ["INT8 -> INT8"], add(IMAGE, IMAGE), add(FLOAT, FLOAT), "dtype-float"),
    ("signatures", ["INT8 -> INT8", "FLOAT32 -> FLOAT32"], add(IMAGE, IMAGE), add(IMAGE, FLOAT), "dtype-combination"),
    ("same-dtype", ["data"], add(IMAGE, IMAGE), add(IMAGE, FLOAT), "dtype-mismatch"),
    ("same-shape", ["input", "output"], add(IMAGE, IMAGE), add(IMAGE, tensor((1, 1, 1, 4))), "shape-mismatch"),
    ("dense-weights", True, conv(), conv(filters=weights((6, 3, 3, 4)) | {"has_sparsity": True}), "sparse-weights"),
    ("per-tensor-weights", True, conv(), conv(filters=weights((6, 3, 3, 4), scales=6)), "per-channel-weights"),
    (
        "per-tensor-data",
        True,
        add(IMAGE, weights((1, 1, 1, 4), scales=4)),
        add(tensor(scales=4), IMAGE),
        "per-channel-data",
    ),
    ("quantized", ["data"], add(IMAGE, IMAGE), add(IMAGE, tensor(scales=0)), "unquantized"),
    ("same-quantization", True, add(IMAGE, IMAGE), add(IMAGE, tensor(scale=0.25)), "requantizes"),
    ("same-quantization", True, add(IMAGE, IMAGE), add(IMAGE, tensor(zero_point=3)), "requantizes"),
    (
        "written-shapes",
        True,
        one_op("RESHAPE", [IMAGE, ints(1, 256)], [tensor((1, 256))]),
        one_op("RESHAPE", [IMAGE, ints(1, 512)], [tensor((1, 512))]),
        "dynamic-shape",
    ),
    (
        "static-shapes",
        True,
        add(tensor(signature=(-1, 8, 8, 4)), IMAGE),
        add(tensor(signature=(1, -1, 8, 4)), IMAGE),
        "dynamic-shape",
    ),
    (
        "static-shapes",
        True,
        one_op("RESHAPE", [IMAGE, ints(1, 256)], [tensor((1, 256))]),
        one_op("RESHAPE", [IMAGE, tensor((2,), "INT32")], [tensor((1, 256))]),
        "dynamic-shape",
    ),
    ("max-rank", 4, add(IMAGE, IMAGE), add(tensor((1, 1, 8, 8, 4)), IMAGE), "rank-above-4"),
    ("max-effective-rank", 3, add(tensor((1, 1, 8, 8, 4)), IMAGE), add(tensor((2, 8, 8, 4)), IMAGE), "rank-above-3"),
    ("one-dimensional", ["output"], add(tensor((1, 1, 9)), IMAGE), add(IMAGE, IMAGE), "not-one-dimensional"),
    (
        "one-dimensional",
        ["input1"],
        add(IMAGE, tensor((1, 1, 4))),
        add(IMAGE, tensor((8, 1, 4))),
        "not-one-dimensional",
    ),
    ("broadcast", "none", add(IMAGE, IMAGE), add(IMAGE, tensor((4,))), "broadcast"),
    ("broadcast", "numpy", add(IMAGE, tensor((8, 1, 4))), add(IMAGE, tensor((8, 2, 4))), "broadcast"),
    ("broadcast", "gpu-legacy", add(IMAGE, tensor((8, 8, 4))), add(IMAGE, tensor((8, 4))), "broadcast"),
    ("broadcast", "gpu-legacy", add(IMAGE, tensor((1, 4))), add(tensor((2, 8, 4)), tensor((8, 4))), "broadcast"),
    (
        "permutations",
        [[0, 2, 1, 3]],
        one_op("TRANSPOSE", [IMAGE, ints(0, 2, 1, 3)], [IMAGE]),
        one_op("TRANSPOSE", [IMAGE, ints(0, 3, 1, 2)], [IMAGE]),
        "permutation",
    ),
    ("max-version", 2, add(IMAGE, IMAGE, version=2), add(IMAGE, IMAGE, version=3), "version"),
    ("exact-version", [2], add(IMAGE, IMAGE, version=2), add(IMAGE, IMAGE, version=1), "version"),
    ("min-runtime", 13, add(IMAGE, IMAGE), add(IMAGE, IMAGE), "runtime-version"),
    (
        "fused-activation",
        ["NONE", "RELU"],
        add(IMAGE, IMAGE, fused_activation="RELU"),
        add(IMAGE, IMAGE, fused_activation="TANH"),
        "fused-activation",
    ),
    ("options", {"keep_num_dims": [False]}, add(IMAGE, IMAGE), add(IMAGE, IMAGE, keep_num_dims=True), "option-value"),
    (
        "options",
        {"weights_format": ["DEFAULT"]},
        add(IMAGE, IMAGE),
        add(IMAGE, IMAGE, weights_format="SHUFFLED4x16INT8"),
        "option-value",
    ),
    ("range", {"stride_w": [1, 3]}, conv(stride_w=3), conv(stride_w=4), "limit-stride-w"),
    ("range", {"dilated_kernel_h": [1, 5]}, conv(dilation_h=2), conv(dilation_h=3), "limit-dilated-kernel-h"),
    ("range", {"beta": [1, 1]}, add(IMAGE, IMAGE, beta=1.0), add(IMAGE, IMAGE), "limit-beta"),
    ("multiple-of", {"reduced_c": 4}, mean(3), one_op("MEAN", [tensor((1, 6)), ints(-1)], [tensor((1,))]), "multiple"),
    (
        "equal-quantities",
        [["dilation_h", "dilation_w"]],
        conv(dilation_h=2, dilation_w=2),
        conv(dilation_h=2),
        "unequal",
    ),
    ("constant-inputs", [1, 2], conv(), conv(filters=tensor((6, 3, 3, 4))), "not-constant"),
    ("runtime-inputs-only", [0], conv(), conv(data=weights((1, 8, 8, 4))), "constant-input"),
    (
        "zero-constants",
        True,
        add(IMAGE, tensor((4,), data=np.full(4, 3, np.int8), zero_point=3)),
        add(IMAGE, weights((4,))),
        "nonzero-constant",
    ),
    ("forbidden-axes", [0], mean(1, 2), mean(0), "forbidden-axis"),
    ("forbidden-axes", [-1], mean(1), mean(3), "forbidden-axis"),
    (
        "forbidden-axes",
        [0],
        one_op("PAD", [IMAGE, PADDINGS], [IMAGE]),
        one_op("PAD", [IMAGE, BATCH_PADDINGS], [IMAGE]),
        "forbidden-axis",
    ),
    (
        "forbidden-axes",
        [0],
        one_op("PACK", [IMAGE, IMAGE], [tensor((1, 2, 8, 8, 4))], axis=1),
        one_op("PACK", [IMAGE, IMAGE], [tensor((2, 1, 8, 8, 4))], axis=-5),
        "forbidden-axis",
    ),
    ("axes-within", [1, 2], mean(1, 2), mean(1, 3), "forbidden-axis"),
    (
        "any-of",
        [{"range": {"stride_w": [1, 3]}}, {"options": {"padding": ["VALID"]}}],
        conv(stride_w=4, padding="VALID"),
        conv(stride_w=4, padding="SAME"),
        "limit-stride-w",
    ),
    (
        "when",
        [{"if": {"options": {"padding": ["SAME"]}}, "then": {"range": {"stride_h": [1, 2]}}}],
        conv(stride_h=3, padding="VALID"),
        conv(stride_h=3, padding="SAME"),
        "limit-stride-h",
    ),
    (
        "consumers",
        ["CAST"],
        model([("LESS", [0, 0], [1], {}), ("CAST", [1], [2], {})], [IMAGE, IMAGE, IMAGE], outputs=[2]),
        model([("LESS", [0, 0], [1], {}), ("ABS", [1], [2], {})], [IMAGE, IMAGE, IMAGE], outputs=[2]),
        "consumer",
    ),
    (
        "read-by",
        ["MUL"],
        model([("ABS", [0], [1], {}), ("RESHAPE", [1], [2], {}), ("MUL", [2, 2], [3], {})], [IMAGE] * 4, outputs=[3]),
        model([("ABS", [0], [1], {}), ("ADD", [1, 1], [2], {}), ("MUL", [2, 2], [3], {})], [IMAGE] * 4, outputs=[3]),
        "consumer",
    ),
    (
        "producers",
        ["LESS"],
        model([("CAST", [1], [2], {}), ("LESS", [0, 0], [1], {})], [IMAGE, IMAGE, IMAGE]),
        model([("CAST", [0], [2], {})], [IMAGE, IMAGE, IMAGE]),
        "producer",
    ),
]


def reasons(network: Model, constraint: str, argument: Any, **context: Any) -> list[Any]:
    return violations(Context(network.main, **context), network.main.ops[0], {constraint: argument})


@pytest.mark.parametrize(("constraint", "argument", "accepted", "refused", "code"), CASES)
def test_accepts_and_refuses(constraint: str, argument: Any, accepted: Model, refused: Model, code: str) -> None:
    """A constraint accepts its accepted example and reports exactly its own code for the refused one."""
    assert reasons(accepted, constraint, argument) == []
    versions = {"runtime_version": 12} if constraint == "min-runtime" else {}
    assert [reason.code for reason in reasons(refused, constraint, argument, **versions)] == [code]


def test_every_constraint_has_both_examples() -> None:
    """Every rule has an accepted and a refused example."""
    assert {case[0] for case in CASES} == set(RULES)


def test_rules_are_exactly_the_vocabulary() -> None:
    """The rules implement exactly the constraints and quantities that profiles may use."""
    assert set(RULES) == set(CONSTRAINTS)
    assert set(MEASURES) == set(QUANTITIES)


def test_every_rule_is_documented() -> None:
    """Every rule has a docstring, which is its text in the documentation."""
    assert [name for name, rule in RULES.items() if not (rule.__doc__ or "").strip()] == []


def test_every_reason_has_a_stable_code_and_a_fix() -> None:
    """Codes are lower-case words, each with a meaning and a fix."""
    for code, kind in REASONS.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9N]+)*", code)
        assert kind.meaning.endswith(".")
        assert kind.fix


@pytest.mark.parametrize(("constraint", "argument", "accepted", "refused", "code"), CASES)
def test_refusals_say_what_was_expected_and_what_was_got(
    constraint: str, argument: Any, accepted: Model, refused: Model, code: str
) -> None:
    """Every reason has a fix and reads "expected ..., got ..."."""
    for reason in reasons(refused, constraint, argument, runtime_version=12):
        assert reason.fix
        assert re.match(r"expected .*, got ", reason.message), reason.message


@pytest.mark.parametrize(
    ("quantity", "made", "expected"),
    [
        ("kernel_area", conv(), 9),
        ("dilated_kernel_w", conv(dilation_w=2), 5),
        ("dilated_kernel_area", conv(dilation_w=2, dilation_h=3), 35),
        ("groups", conv(filters=weights((6, 3, 3, 2))), 2),
        ("weights_abs_sum", conv(), 36),
        ("bias_bits", conv(bias=tensor((6,), "INT32", np.array([0, 1, -128, 2, 3, 127], np.int32))), 9),
        ("input_c", conv(), 4),
        ("output_c", conv(), 6),
        ("batch", conv(data=tensor((3, 8, 8, 4))), 3),
        ("constant_inputs", conv(), 2),
        ("runtime_inputs", conv(), 1),
        ("reduced_elements", mean(1, 2), 64),
        ("reduced_h", mean(1, 2), 8),
        ("reduced_c", mean(1, 2), 1),
        ("padding_rows", one_op("PAD", [IMAGE, PADDINGS], [IMAGE]), 4),
        ("slice_stride", one_op("STRIDED_SLICE", [IMAGE, ints(0), ints(8), ints(-2)], [IMAGE]), 2),
        ("resize_factor_h", one_op("RESIZE_BILINEAR", [IMAGE, ints(32, 16)], [tensor((1, 32, 16, 4))]), 4),
        ("resize_factor_w", one_op("RESIZE_BILINEAR", [IMAGE, ints(32, 16)], [tensor((1, 32, 16, 4))]), 2),
        ("kept_before_squeezed", one_op("SQUEEZE", [tensor((1, 8, 1, 4))], [tensor((1, 8, 4))], squeeze_dims=[2]), 1),
        ("kept_before_squeezed", one_op("SQUEEZE", [tensor((1, 1, 1, 4))], [tensor((1, 4))], squeeze_dims=[1, 2]), 0),
        ("input_area", conv(), 64),
        ("pad_h", conv(padding="SAME"), 2),
        ("pad_w", conv(padding="SAME", stride_w=3, dilation_w=2), 3),
        ("pad_h", conv(padding="SAME", stride_h=4, filters=weights((6, 4, 4, 4))), 0),
        ("pad_w", conv(padding="VALID"), 0),
        ("pad_w", add(IMAGE, IMAGE), None),
        ("slice_stride_min", one_op("STRIDED_SLICE", [IMAGE, ints(0), ints(8), ints(-2)], [IMAGE]), -2),
        ("slice_stride_c", one_op("STRIDED_SLICE", [IMAGE, ints(0), ints(8), ints(-2)], [IMAGE]), 1),
        ("slice_stride_c", one_op("STRIDED_SLICE", [IMAGE, *[ints(1, 1, 1, 2)] * 3], [IMAGE]), 2),
        ("slice_stride_c", one_op("STRIDED_SLICE", [IMAGE, *[ints(1, 1, 1, 2)] * 3], [IMAGE], shrink_axis_mask=8), 1),
        ("slice_stride_c", one_op("STRIDED_SLICE", [IMAGE, *[ints(1, 2)] * 3], [IMAGE], new_axis_mask=1), None),
        ("aligned_resize_factor_h", one_op("RESIZE_BILINEAR", [IMAGE, ints(15, 8)], [tensor((1, 15, 8, 4))]), 2),
        ("aligned_resize_factor_w", one_op("RESIZE_BILINEAR", [IMAGE, ints(15, 8)], [tensor((1, 15, 8, 4))]), 1),
        ("aligned_resize_factor_w", one_op("RESIZE_BILINEAR", [tensor((1, 1, 1, 4)), ints(2, 2)], [IMAGE]), None),
        ("broadcast_then", one_op("SELECT_V2", [IMAGE, tensor((8, 1)), IMAGE], [IMAGE]), 1),
        ("broadcast_else", one_op("SELECT_V2", [IMAGE, tensor((8, 1)), IMAGE], [IMAGE]), 0),
        ("broadcast_then", one_op("SELECT_V2", [IMAGE, tensor((1,)), IMAGE], [IMAGE]), 0),
        ("broadcast_then", conv(), None),
        ("alpha", conv(), None),
        ("soc_float16", conv(), None),
    ],
)
def test_quantities(quantity: str, made: Model, expected: float | None) -> None:
    """Quantities are measured as the vocabulary defines them."""
    assert MEASURES[quantity](Context(made.main), made.main.ops[0]) == expected


def test_float16_weights_count_as_constants() -> None:
    """Delegates fold a DEQUANTIZE of a constant, so rules treat its output as constant."""
    network = model(
        [("CONV_2D", [0, 2], [3], {}), ("DEQUANTIZE", [1], [2], {})],
        [
            FLOAT,
            tensor((6, 3, 3, 4), "FLOAT16", np.ones((6, 3, 3, 4), np.float16)),
            tensor((6, 3, 3, 4), "FLOAT32"),
            FLOAT,
        ],
    )
    assert reasons(network, "constant-inputs", [1]) == []
    assert reasons(network, "range", {"runtime_inputs": [1, 1]}) == []
