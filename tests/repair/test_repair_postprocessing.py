"""Last ops that the target does not support move to the loader, which computes the same results."""

from typing import Any

import numpy as np
import pytest
from builders import Net, classifier, samples
from repair_nets import refusing

from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.graph.read import schema
from edgepack.repair import TOLERANCE, prove, repair


def classes(*, probabilities: bool = True) -> bytes:
    """Return dense, SOFTMAX with a beta, ARG_MAX: (1, 6) to a class."""
    net = Net(3)
    x, logits = net.tensor("x", (1, 6)), net.tensor("logits", (1, 5))
    net.op("FULLY_CONNECTED", [x, net.weights("w", 5, 6), net.weights("b", 5)], [logits])
    last = logits
    if probabilities:
        last = net.tensor("probabilities", (1, 5))
        net.op("SOFTMAX", [logits], [last], beta=0.7)
    index = net.tensor("class", (1,), dtype="INT64")
    net.op("ARG_MAX", [last, net.constant("axis", -1, "INT32")], [index])
    file = unpack(net.build([x], [index], (["image"], ["class"])))
    options = schema().ArgMaxOptionsT()
    options.outputType = schema().TensorType.INT64
    last_op = file.subgraphs[0].operators[-1]
    last_op.builtinOptionsType, last_op.builtinOptions = schema().BuiltinOptions.ArgMaxOptions, options
    return pack(file)


@pytest.mark.parametrize(
    ("refused", "steps"),
    [(("ARG_MAX",), ["ARG_MAX"]), (("ARG_MAX", "SOFTMAX"), ["SOFTMAX", "ARG_MAX"]), (("SOFTMAX",), []), ((), [])],
    ids=str,
)
def test_cuts_what_is_refused_at_the_end(refused: tuple[str, ...], steps: list[str]) -> None:
    """Unsupported last ops are cut and listed in the order in which the loader does them; supported ones stay."""
    before = classes()
    result = repair(before, refusing(*refused), cut_tail=True)
    assert [step.op for step in result.postprocessing] == steps
    assert result.moved_ops == len(steps)
    if not steps:
        assert result.tflite == before
        return
    assert not {op.name for op in read_model(result.tflite).main.ops} & set(steps)
    assert prove(before, result.tflite, samples(before, 8), result.postprocessing) == 0.0


def test_is_only_done_when_asked_for() -> None:
    """Without `cut_tail` the model keeps its last op."""
    before = classes()
    assert repair(before, refusing("ARG_MAX")).tflite == before


def test_the_signature_keeps_its_names() -> None:
    """The output keeps its public name; its tensor is the cut op's input."""
    result = repair(classes(probabilities=False), refusing("ARG_MAX"), cut_tail=True)
    model = read_model(result.tflite)
    assert model.output_names() == ("class",)
    assert [model.main.tensors[i].name for i in model.main.outputs] == ["logits"]
    step = result.postprocessing[0].to_json()
    assert (step["op"], step["axis"], step["dtype"], step["shape"]) == ("ARG_MAX", 1, "INT64", [1])


def test_probabilities_are_the_runtimes() -> None:
    """SOFTMAX result by the loader gives the probabilities of the runtime, with beta applied."""
    before = classifier()
    result = repair(before, refusing("SOFTMAX"), cut_tail=True)
    assert [step.op for step in result.postprocessing] == ["SOFTMAX"]
    assert prove(before, result.tflite, samples(before, 4), result.postprocessing) <= TOLERANCE


def test_a_step_that_others_need_is_not_cut() -> None:
    """An op whose result is an output and also the input of another op is not cut."""
    net = Net()
    x, a, b = net.tensor("x", (1, 5)), net.tensor("a", (1, 5)), net.tensor("b", (1, 5))
    net.op("FULLY_CONNECTED", [x, net.weights("w", 5, 5), net.weights("c", 5)], [a])
    net.op("SOFTMAX", [a], [b], beta=1.0)
    last = net.tensor("last", (1, 5))
    net.op("RELU", [b], [last])
    before = net.build([x], [b, last])
    assert repair(before, refusing("SOFTMAX"), cut_tail=True).tflite == before


def test_a_dequantize_at_the_end_of_a_quantized_file() -> None:
    """A quantized file is not rewritten, but its final DEQUANTIZE is cut: the loader dequantizes."""
    net = Net()
    q = schema().QuantizationParametersT()
    q.scale, q.zeroPoint = np.array([0.05], np.float32), np.array([3], np.int64)
    x, y = net.tensor("x", (1, 4), dtype="INT8"), net.tensor("y", (1, 4), dtype="INT8")
    z = net.tensor("z", (1, 4))
    net.op("RELU", [x], [y])
    net.op("DEQUANTIZE", [y], [z])
    file = unpack(net.build([x], [z], (["in"], ["out"])))
    tensors: list[Any] = file.subgraphs[0].tensors
    tensors[x].quantization = tensors[y].quantization = q
    before = pack(file)
    result = repair(before, refusing("DEQUANTIZE", "RELU"), cut_tail=True)
    assert [(s.op, s.zero_point) for s in result.postprocessing] == [("DEQUANTIZE", 3)]
    assert [op.name for op in read_model(result.tflite).main.ops] == ["RELU"]
    sample = {"in": np.array([[-1.0, -0.1, 0.4, 3.0]], np.float32)}
    assert prove(before, result.tflite, [sample], result.postprocessing) == 0.0
