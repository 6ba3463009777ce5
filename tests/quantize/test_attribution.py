"""Which tensor of an int8 file causes a loss: known causes are found, on the real quantizer."""

from collections.abc import Callable
from pathlib import Path

import builders
import numpy as np
import pytest

from edgepack.pipeline.jobs import calibrate, quantize
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.attribution import Attribution, attribute
from edgepack.samples import InputSpec, load_samples

Maker = Callable[[builders.Net], tuple[list[int], int]]
RNG = np.random.default_rng(8)


def two_layers(net: builders.Net, x: int, size: int, head: np.ndarray) -> int:
    hidden = net.tensor("hidden", (1, 16))
    weights = [net.weights("w1", 16, size), net.weights("b1", 16)]
    net.op("FULLY_CONNECTED", [x, *weights], [hidden], fusedActivationFunction=1)
    out = net.tensor("out", (1, len(head)))
    net.op("FULLY_CONNECTED", [hidden, net.constant("w2", head), net.weights("b2", len(head))], [out])
    return out


def small_column(net: builders.Net) -> tuple[list[int], int]:
    """An output of which the second value is a thousandth of the first."""
    x = net.tensor("x", (1, 8))
    return [x], two_layers(net, x, 8, net.random.normal(0, 1, (2, 16)) * [[1000.0], [1.0]])


def joined_inputs(net: builders.Net) -> tuple[list[int], int]:
    """An income joined with shares; the first layer needs the shares."""
    income, share = net.tensor("income", (1, 1)), net.tensor("share", (1, 7))
    joined = net.tensor("joined", (1, 8))
    net.op("CONCATENATION", [income, share], [joined], axis=1)
    hidden = net.tensor("first", (1, 8))
    kernel = np.diag([1e-4, *[1.0] * 7])
    net.op("FULLY_CONNECTED", [joined, net.constant("w0", kernel), net.constant("b0", np.zeros(8))], [hidden])
    return [income, share], two_layers(net, hidden, 8, net.random.normal(0, 1, (2, 16)))


def attributed(make: Maker, samples: dict, folder: Path, columns: tuple = ()) -> Attribution:
    net = builders.Net(3)
    inputs, output = make(net)
    tflite = net.build(inputs, [output], (list(samples), ["y"]))
    specs = [InputSpec(name, (1, value.shape[1]), np.dtype("f4"), 0.0, 0) for name, value in samples.items()]
    np.savez(folder / "samples.npz", **samples)
    loaded = load_samples(str(folder / "samples.npz"), specs)
    rule = SchemeRule("int8", io="INT8")
    quantized = quantize(tflite, rule, calibrate(tflite, loaded, 1), "minmax")
    arrays = [loaded.sample(i) for i in range(20)]
    return attribute(tflite, quantized.tflite, arrays, 0, columns, 1 if columns else None)


@pytest.mark.slow
def test_an_output_that_joins_two_sizes_is_the_cause_of_the_small_one(tmp_path: Path) -> None:
    """The output's own scale is named for the small column, and all tensors were measured."""
    result = attributed(small_column, {"x": RNG.normal(size=(60, 8)).astype("f4")}, tmp_path, (1,))
    assert (result.causes[0].kind, result.causes[0].tensor) == ("output", "out")
    assert result.causes[0].snr_db < 5 < 20 < result.causes[1].snr_db
    assert len(result.causes) == result.tensors == 5


@pytest.mark.slow
def test_a_concatenation_of_different_ranges_is_the_cause(tmp_path: Path) -> None:
    """The joined tensor, or an input that shares its scale, comes first; later layers are innocent."""
    samples = {"income": 2000 * RNG.lognormal(0, 0.5, (60, 1)).astype("f4"), "share": RNG.random((60, 7)).astype("f4")}
    result = attributed(joined_inputs, samples, tmp_path)
    first = {cause.tensor for cause in result.causes if cause.snr_db < 5}
    assert "joined" in first
    assert first <= {"joined", "share"}
    assert {cause.tensor for cause in result.causes[-3:]}.isdisjoint({"joined", "share"})
