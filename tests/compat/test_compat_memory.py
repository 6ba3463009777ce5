"""The estimate of parameter memory, compared with the parameters in real compiled files."""

import dataclasses
import json
from pathlib import Path

import pytest
from compat_graphs import model, one_op, tensor, weights
from darwinn import compiled_parameter_bytes

from edgepack.compat import check
from edgepack.graph import Model, read_model
from edgepack.profiles import TargetProfile, get_target


@pytest.fixture(scope="module")
def edgetpu() -> TargetProfile:
    return get_target("edgetpu")


def pointwise(inputs: int, outputs: int) -> Model:
    data, result = tensor((1, 1, 1, inputs)), tensor((1, 1, 1, outputs))
    return one_op("CONV_2D", [data, weights((outputs, 1, 1, inputs))], [result], dilation_h=1, dilation_w=1)


def test_the_range_holds_what_the_real_compiler_made(shared_models: Path, edgetpu: TargetProfile) -> None:
    """For each of Coral's models with weights, the bytes in the compiled file are within the estimate."""
    coral = shared_models / "coral"
    compared = 0
    for name, expected in json.loads((coral / "expected.json").read_text()).items():
        estimates = check(read_model(coral / name), edgetpu).estimates
        if estimates["parameter_bytes"] == 0:
            continue
        low, high = estimates["compiled_parameter_bytes"]
        real = compiled_parameter_bytes((coral / expected["compiled"]).read_bytes())
        assert low <= real <= high, (name, low, real, high)
        compared += 1
    assert compared >= 6


def test_what_is_streamed_is_a_range(edgetpu: TargetProfile) -> None:
    """Parameters beyond the on-chip memory are reported as streamed, in the note and in the estimates."""
    report = check(pointwise(3000, 3000), edgetpu)
    padded = 3008 * (3008 + 12)
    low, high = round(0.9 * padded), round(1.1 * padded)
    assert {key: value for key, value in report.estimates.items() if key != "latency"} == {
        "parameter_bytes": 9_000_000,
        "compiled_parameter_bytes": [low, high],
        "on_chip_bytes": 8_388_608,
        "free_for_parameters": 7_340_032,
        "streamed_bytes": [low - 7_340_032, high - 7_340_032],
    }
    assert "streamed in every inference" in report.notes[0]
    assert report.to_json()["estimates"] == report.estimates


def test_narrow_layers_are_padded(edgetpu: TargetProfile) -> None:
    """8 output channels need the space of 64, and 3 input channels that of 16."""
    assert check(pointwise(3, 8), edgetpu).estimates["compiled_parameter_bytes"] == [1613, 1971]


def test_without_a_layout_the_bytes_of_the_file_grow(edgetpu: TargetProfile) -> None:
    """With a profile that has only `growth`, the estimate is the file's bytes times that."""
    assert edgetpu.memory is not None
    plain = dataclasses.replace(edgetpu, memory=dataclasses.replace(edgetpu.memory, layout=None, growth=(1.0, 2.0)))
    assert check(pointwise(100, 100), plain).estimates["compiled_parameter_bytes"] == [10_000, 20_000]


def test_shared_weights_count_once(edgetpu: TargetProfile) -> None:
    """A buffer that two layers read counts once."""
    shared = model(
        [("CONV_2D", [0, 1], [2], {"dilation_h": 1, "dilation_w": 1}),
         ("CONV_2D", [2, 1], [3], {"dilation_h": 1, "dilation_w": 1})],
        [tensor((1, 1, 1, 64)), weights((64, 1, 1, 64)), tensor((1, 1, 1, 64)), tensor((1, 1, 1, 64))],
        inputs=[0],
        outputs=[3],
    )  # fmt: skip
    single = check(pointwise(64, 64), edgetpu).estimates["parameter_bytes"]
    both = check(shared, edgetpu).estimates
    assert both["parameter_bytes"] == single
    assert both["compiled_parameter_bytes"] == check(pointwise(64, 64), edgetpu).estimates["compiled_parameter_bytes"]
