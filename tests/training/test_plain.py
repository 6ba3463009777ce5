"""Standard layers that TFMOT leaves in float become int8 in quantization-aware training, with equal outputs."""

import pytest

from edgepack.child import Worker
from edgepack.graph import read_model
from edgepack.graph.op_layout import float_ops, weights_index

pytestmark = pytest.mark.slow

#: Float ops that no quantizer converts, with nothing to multiply in them.
UNAVOIDABLE = {"ELU"}


@pytest.mark.parametrize("kind", ["mobile", "residual", "audio", "sliced"])
def test_every_layer_with_weights_is_int8(kind: str, trainer: Worker) -> None:
    """The rewritten model computes the same, nothing is left in float, and each op with weights is int8."""
    difference, left_out, tflite = trainer.call("plain_models:wrapped", kind)
    assert difference < 1e-5
    assert left_out == ()
    graph = read_model(tflite).main
    assert {op.name for op in float_ops(graph)} <= UNAVOIDABLE
    weights = [graph.tensors[weights_index(op)].dtype for op in graph.ops if weights_index(op) >= 0]
    assert len(weights) >= 4
    assert set(weights) == {"INT8"}
