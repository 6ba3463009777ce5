"""A model whose variables were made inputs and outputs, and put back, is the model that it was."""

from collections.abc import Callable

import numpy as np
import pytest
import state_models
from state_models import StateNet

from edgepack.errors import ModelFileError
from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.graph.external_state import external_state, state_ops, with_state
from edgepack.graph.op_layout import STATE_OPS
from edgepack.graph.read import schema
from edgepack.runtime.runner import Runner


def delay_line() -> bytes:
    """Two variables in a row: the second gets the value of the first, which gets the input; the output is the second's.

    The second variable's value is an input of no op but its assignment's.
    """
    net = StateNet()
    x = net.input("x")
    first, second = net.variable("first"), net.variable("second")
    before, result = net.read(first, "before"), net.read(second, "result")
    net.assign(second, before)
    net.assign(first, x)
    return net.build([x], [result])


def read_again() -> bytes:
    """A variable that is read, assigned, read again and assigned again: the second reading is the assigned value."""
    net = StateNet()
    x = net.input("x")
    handle = net.variable("memory")
    total = net.add("total", net.read(handle, "before"), x)
    net.assign(handle, total)
    again = net.add("again", net.read(handle, "behind"), x)
    net.assign(handle, again)
    return net.build([x], [again, total])


def shared_output() -> bytes:
    """A value that is assigned is an output of the model as well, and the input is another variable's value."""
    net = StateNet()
    x = net.input("x")
    sum_of, last = net.variable("sum"), net.variable("last")
    result = net.add("result", net.read(sum_of, "sum_before"), net.read(last, "last_before"))
    net.assign(sum_of, result)
    net.assign(last, x)
    return net.build([x], [result])


def two_handles() -> bytes:
    """Two VAR_HANDLE of one variable."""
    net = StateNet()
    x = net.input("x")
    result = net.add("result", net.read(net.variable("memory"), "before"), x)
    net.assign(net.variable("memory"), result)
    return net.build([x], [result])


@pytest.mark.parametrize("make", [state_models.memory, delay_line, read_again, shared_output, two_handles])
def test_a_stream_is_the_same_bit_for_bit(make: Callable[[], bytes]) -> None:
    """Over 20 runs, with a reset in between; inputs, outputs and signature stay, and no variable is in the middle."""
    tflite = make()
    outer = external_state(tflite)
    assert outer is not None
    middle = read_model(outer.tflite)
    assert not any(op.name in STATE_OPS for op in middle.main.ops)
    assert not any(tensor.dtype == "RESOURCE" for graph in middle.graphs for tensor in graph.tensors)
    back = with_state(outer, outer.tflite)
    assert with_state(outer, outer.tflite) == back
    before, after = read_model(tflite), read_model(back)
    assert (after.input_names(), after.output_names()) == (before.input_names(), before.output_names())
    assert [s.key for s in after.signatures] == [s.key for s in before.signatures]
    first, second = Runner(tflite), Runner(back)
    random = np.random.default_rng(0)
    for number in range(20):
        arrays = [random.normal(size=info.shape).astype(np.float32) for info in first.inputs]
        expected, got = (runner.run(arrays, keep_state=number not in {0, 12}) for runner in (first, second))
        assert all(np.array_equal(one, other) for one, other in zip(expected, got, strict=True)), number


def test_variables_are_read_first_and_assigned_last() -> None:
    """So that the compiled part in between is one, whatever the order of the model was."""
    outer = external_state(read_again())
    assert outer is not None
    names = [op.name for op in read_model(with_state(outer, outer.tflite)).main.ops]
    assert names == ["CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ADD", "ADD", "ASSIGN_VARIABLE"]


def test_a_model_without_variables_has_no_outer_state() -> None:
    """Variable tensors of fused ops cannot be taken out."""
    assert external_state(state_models.fused_lstm()) is None


def test_a_variable_that_another_op_uses_stays() -> None:
    """The reason names the op."""
    tflite = state_models.memory()
    file = unpack(tflite)
    main = file.subgraphs[0]
    main.outputs = np.array([*main.outputs, main.operators[1].outputs[0]], np.int32)
    state = state_ops(read_model(pack(file)))
    assert state.fault == "a variable is an input or an output of the model"
    assert external_state(pack(file)) is None


def test_a_file_with_a_second_signature_stays() -> None:
    """A signature of another graph may be the one that resets the variables."""
    file = unpack(state_models.memory())
    entry = schema().SignatureDefT()
    entry.signatureKey, entry.subgraphIndex, entry.inputs, entry.outputs = b"reset", 1, [], []
    file.signatureDefs = [entry]
    assert "signature 'reset'" in state_ops(read_model(pack(file))).fault


def test_a_compiled_file_that_lost_the_state_is_an_error() -> None:
    """Never a file whose state does not change."""
    outer = external_state(state_models.memory())
    assert outer is not None
    file = unpack(outer.tflite)
    for tensor in file.subgraphs[0].tensors:
        tensor.name = b"renamed" + (tensor.name or b"")
    with pytest.raises(ModelFileError, match="lacks the tensor"):
        with_state(outer, pack(file))
