import builders
import numpy as np
import pytest

from edgepack.bundle.golden import run_golden
from edgepack.errors import BundleError, UnfitModelError
from edgepack.graph import edit, read_model
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import choose_ranges
from edgepack.runtime import Runner
from edgepack.runtime.evaluate import golden_vectors
from edgepack.runtime.signatures import signature_fault


def _passthrough() -> bytes:
    net = builders.Net(0)
    x, y = net.tensor("x", (1, 4)), net.tensor("y", (1, 4))
    net.op("RELU", [x], [y])
    return net.build([x], [x, y], (["given"], ["same", "positive"]))


def _moved(tflite: bytes, kind: str, name: str, index: int) -> bytes:
    model = edit.unpack(tflite)
    for entry in getattr(model.signatureDefs[0], kind):
        if entry.name == name.encode():
            entry.tensorIndex = index
    return edit.pack(model)


@pytest.mark.parametrize("io", ["INT8", "UINT8", "FLOAT32"])
def test_an_input_that_is_an_output_too_can_be_called_by_the_signature(io):
    """Whatever the type of the ends, the signature's inputs are the file's, and both ways give the same outputs."""
    tflite = _passthrough()
    ranges = choose_ranges(calibrate(tflite, builders.samples(tflite, 8)), read_model(tflite))
    quantized = quantize(tflite, SchemeRule("int8", io), ranges).tflite
    model = read_model(quantized)
    assert list(model.signatures[0].inputs.values()) == list(model.main.inputs)
    assert len(golden_vectors(quantized, builders.samples(tflite, 2))) == 2
    cases = [inputs for inputs, _ in golden_vectors(quantized, builders.samples(tflite, 1))]
    assert len(run_golden(quantized, cases)) == 1


@pytest.mark.parametrize(
    ("kind", "name", "index", "message"),
    [
        ("inputs", "given", 1, "input 'given' is no input of the file"),
        ("outputs", "same", 99, "output 'same' is no output of the file"),
    ],
)
def test_a_signature_that_lies_is_named(kind, name, index, message):
    """A signature with another tensor than the file's is found by a build and by verify."""
    tflite = _passthrough()
    if index == 99:
        net_model = edit.unpack(tflite)
        net_model.subgraphs[0].tensors.append(net_model.subgraphs[0].tensors[0])
        tflite, index = edit.pack(net_model), 2
    broken = _moved(tflite, kind, name, index)
    x = np.array([[-1.0, 2.0, -3.0, 4.0]], np.float32)
    outputs = Runner(tflite).run([x])
    assert message in signature_fault(broken, [x], outputs)
    with pytest.raises(BundleError, match=name):
        run_golden(broken, [[x]])
    with pytest.raises(UnfitModelError, match=name):
        golden_vectors(broken, [dict.fromkeys(read_model(broken).input_names(), x)])


def test_results_that_differ_are_named():
    """The signature runs: outputs that it does not give are a fault."""
    tflite = _passthrough()
    x = np.array([[-1.0, 2.0, -3.0, 4.0]], np.float32)
    same, positive = Runner(tflite).run([x])
    assert signature_fault(tflite, [x], [same, positive]) == ""
    assert "output 'positive' is not what the file computes" in signature_fault(tflite, [x], [same, same])
