"""The check agrees with published logs of edgetpu_compiler 16 on ops that Coral's own models do not contain."""

import pytest
from compat_graphs import ints, model, one_op, tensor, weights

from edgepack.compat import check
from edgepack.findings import Placement, Report
from edgepack.graph import Model
from edgepack.profiles import TargetProfile, get_target


@pytest.fixture(scope="module")
def edgetpu() -> TargetProfile:
    return get_target("edgetpu")


def placed(report: Report) -> list[tuple[str, str, list[str]]]:
    return [(finding.op, str(finding.placement), [reason.code for reason in finding.reasons]) for finding in report.ops]


def instance_norm(height: int, width: int) -> Model:
    """Return the start of an instance normalization: mean, squared difference, mean of that, subtraction."""
    image, pooled = tensor((1, height, width, 3)), tensor((1, 1, 1, 3))
    ops = [
        ("MEAN", [0, 1], [2], {"keep_dims": True}),
        ("SQUARED_DIFFERENCE", [0, 2], [3], {}),
        ("MEAN", [3, 1], [4], {"keep_dims": True}),
        ("SUB", [0, 2], [5], {}),
    ]
    return model(ops, [image, ints(1, 2), pooled, image, pooled, image], inputs=[0], outputs=[4, 5], version=2)


def test_a_mean_over_a_large_map_stays_on_the_host(edgetpu: TargetProfile) -> None:
    """google-coral/edgetpu#461: MEAN of [1, 256, 128, 3] over height and width is not mapped."""
    means = [entry for entry in placed(check(instance_norm(256, 128), edgetpu)) if entry[0] == "MEAN"]
    assert means == [("MEAN", "host", ["limit-reduced-elements"])] * 2


def test_a_mean_over_a_quarter_of_it_is_taken(edgetpu: TargetProfile) -> None:
    """The same issue: split into maps of [1, 64, 128, 3], every op is mapped, SQUARED_DIFFERENCE too."""
    assert {entry[1] for entry in placed(check(instance_norm(64, 128), edgetpu))} == {"accelerator"}


def test_squared_difference_came_with_runtime_14(edgetpu: TargetProfile) -> None:
    """Coral's table of operations says so."""
    finding = check(instance_norm(8, 8), edgetpu, runtime_version=13).ops[1]
    assert (finding.placement, [reason.code for reason in finding.reasons]) == (Placement.HOST, ["runtime-version"])


@pytest.mark.parametrize(("cells", "placement"), [(49, "accelerator"), (196, "accelerator"), (784, "host")])
def test_yolov5_transposes(edgetpu: TargetProfile, cells: int, placement: str) -> None:
    """YOLOv5s at 224 x 224: of the transposes of its three grids the compiler leaves the largest to the host."""
    network = one_op("TRANSPOSE", [tensor((1, cells, 3, 85)), ints(0, 2, 1, 3)], [tensor((1, 3, cells, 85))], version=2)
    assert check(network, edgetpu).ops[0].placement == placement


@pytest.mark.parametrize(("features", "placement"), [(100, "accelerator"), (900, "accelerator"), (1280, "host")])
def test_wide_lstm_steps(edgetpu: TargetProfile, features: int, placement: str) -> None:
    """google-coral/edgetpu#598: about 900 features per time step compile, 1,000 and more do not."""
    units = 32
    gates = [weights((units, features))] * 4 + [weights((units, units))] * 4
    biases = [tensor((units,), "INT32", data=[0] * units)] * 4
    state = [tensor((1, units)), tensor((1, units), "INT16")]
    network = model(
        [("UNIDIRECTIONAL_SEQUENCE_LSTM", [0, *range(1, 9), -1, -1, -1, *range(9, 13), -1, -1, 13, 14], [15], {})],
        [tensor((1, 5, features)), *gates, *biases, *state, tensor((1, 5, units))],
        inputs=[0],
        outputs=[15],
    )
    assert check(network, edgetpu).ops[0].placement == placement


def detector(classes: int) -> Model:
    """Return the end of a detector: class and box heads of two levels, concatenated logits, and the custom op."""
    level = [tensor((1, side, side, channels)) for channels in (9 * classes, 36) for side in (8, 4)]
    flat = [tensor((1, side * side * 9, n)) for n in (classes, 4) for side in (8, 4)]
    joined = [tensor((1, 720, classes)), tensor((1, 720, 4))]
    floats = [tensor((1, 720, n), "FLOAT32") for n in (classes, 4)]
    anchors = tensor((720, 4), "FLOAT32", data=[0.0] * 4)
    result = tensor((1, 25, 4), "FLOAT32")
    tensors = [*level, ints(1, -1, classes), ints(1, -1, 4), *flat, *joined, joined[0], *floats, anchors, result]
    ops = [
        ("RESHAPE", [0, 4], [6], {}), ("RESHAPE", [1, 4], [7], {}),
        ("RESHAPE", [2, 5], [8], {}), ("RESHAPE", [3, 5], [9], {}),
        ("CONCATENATION", [6, 7], [10], {"axis": 1}), ("CONCATENATION", [8, 9], [11], {"axis": 1}),
        ("LOGISTIC", [10], [12], {}),
        ("DEQUANTIZE", [12], [13], {}), ("DEQUANTIZE", [11], [14], {}),
        ("CUSTOM:TFLite_Detection_PostProcess", [14, 13, 15], [16], {}),
    ]  # fmt: skip
    return model(ops, tensors, inputs=[0, 1, 2, 3], outputs=[16])


def test_the_end_of_efficientdet_lite(edgetpu: TargetProfile) -> None:
    """Logs of EfficientDet-Lite0: 264 of 267 ops are mapped; two DEQUANTIZE and the custom op, at the end, are not."""
    report = check(detector(90), edgetpu)
    host = [entry for entry in placed(report) if entry[1] != "accelerator"]
    assert host == [
        ("DEQUANTIZE", "host", ["op-not-supported"]),
        ("DEQUANTIZE", "host", ["op-not-supported"]),
        ("CUSTOM:TFLite_Detection_PostProcess", "host", ["custom-op-registered"]),
    ]
    assert report.partitions == 1


def test_float_edges_of_a_small_classifier(edgetpu: TargetProfile) -> None:
    """Logs of MNIST classifiers with float inputs: QUANTIZE and DEQUANTIZE run on the host, all between is mapped."""
    wide, row, logits = tensor((1, 8, 8, 4), "FLOAT32"), tensor((1, 256)), tensor((1, 10))
    network = model(
        [
            ("QUANTIZE", [0], [1], {}),
            ("MAX_POOL_2D", [1], [2], {"filter_height": 1, "filter_width": 1}),
            ("RESHAPE", [2, 3], [4], {}),
            ("FULLY_CONNECTED", [4, 5, 6], [7], {}),
            ("SOFTMAX", [7], [8], {"beta": 1.0}),
            ("DEQUANTIZE", [8], [9], {}),
        ],
        [wide, tensor(), tensor(), ints(1, 256), row, weights((10, 256)),
         tensor((10,), "INT32", data=[0] * 10), logits, logits, tensor((1, 10), "FLOAT32")],
        inputs=[0],
        outputs=[9],
    )  # fmt: skip
    assert [entry[1] for entry in placed(check(network, edgetpu))] == ["host", *["accelerator"] * 4, "host"]


def test_a_host_op_in_the_middle_strands_what_follows(edgetpu: TargetProfile) -> None:
    """Of Dense, Dense, SIN, Dense the compiler maps the first two; the type conversions and the rest are not mapped."""
    network = model(
        [
            ("FULLY_CONNECTED", [0, 1], [2], {}),
            ("FULLY_CONNECTED", [2, 1], [3], {}),
            ("DEQUANTIZE", [3], [4], {}),
            ("SIN", [4], [5], {}),
            ("QUANTIZE", [5], [6], {}),
            ("FULLY_CONNECTED", [6, 1], [7], {}),
        ],
        [tensor((1, 8)), weights((8, 8)), tensor((1, 8)), tensor((1, 8)), tensor((1, 8), "FLOAT32"),
         tensor((1, 8), "FLOAT32"), tensor((1, 8)), tensor((1, 8))],
        inputs=[0],
        outputs=[7],
    )  # fmt: skip
    assert [entry[1] for entry in placed(check(network, edgetpu))] == [*["accelerator"] * 2, *["host"] * 4]


def test_the_first_group_is_taken_not_the_largest(edgetpu: TargetProfile) -> None:
    """ultralytics/ultralytics#4719: the 13 ops before the first unsupported one are mapped, 244 after it are not."""
    labels = ["CONV_2D", "LEAKY_RELU", *["TANH"] * 5]
    ops = [(label, [i, 8] if label == "CONV_2D" else [i], [i + 1], {}) for i, label in enumerate(labels)]
    network = model(ops, [*[tensor()] * 8, weights((4, 1, 1, 4))], inputs=[0], outputs=[7])
    assert [entry[1] for entry in placed(check(network, edgetpu))] == ["accelerator", *["host"] * 6]


@pytest.mark.parametrize("classes", [1000, 98_000])
def test_dense_layers_of_any_width_are_taken(edgetpu: TargetProfile, classes: int) -> None:
    """Logs: a dense layer with 98,000 outputs is mapped, its weights streamed."""
    network = one_op("FULLY_CONNECTED", [tensor((1, 512)), weights((classes, 512))], [tensor((1, classes))])
    report = check(network, edgetpu)
    assert report.ops[0].placement is Placement.ACCELERATOR
    assert (report.estimates["streamed_bytes"][0] > 0) == (classes > 1000)


def test_upsampling_by_stacking_strands_an_fpn(edgetpu: TargetProfile) -> None:
    """google-coral/edgetpu#537, SSD FPN-Lite: 'unsupported rank' at the upsampling, which cuts off the rest."""
    small, wide, deep, large = (
        tensor(shape) for shape in ((1, 10, 10, 128), (1, 10, 10, 2, 128), (1, 10, 2, 10, 2, 128), (1, 20, 20, 128))
    )
    ops = [
        ("RELU", [0], [1], {}),
        ("PACK", [1, 1], [2], {"axis": 3, "values_count": 2}),
        ("PACK", [2, 2], [3], {"axis": 2, "values_count": 2}),
        ("RESHAPE", [3, 4], [5], {"version": 1}),
        ("RELU", [5], [6], {}),
    ]
    shape = ints(1, 20, 20, 128)
    network = model(ops, [small, small, wide, deep, shape, large, large], inputs=[0], outputs=[6], version=2)
    report = check(network, edgetpu)
    assert [entry[1] for entry in placed(report)] == ["accelerator", "host", "host", "host", "host"]
    assert all("rank-above-3" in entry[2] for entry in placed(report)[1:4])
    assert placed(report)[4][2] == ["outside-partition"]
