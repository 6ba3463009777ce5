"""Fake quantization of a traced function: weights take their rounded values, and a twin without rounding is made.

Rounding has edges: two correct computations of one activation can end up a whole step apart. The converted file is
therefore compared with the twin, whose activations are not rounded; the ranges of the rounding go into the file.
"""

from typing import Any

_FAKE_QUANT = frozenset({
    "FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel",
})  # fmt: skip

#: Ops between a variable and its rounding that pass their first input on.
_PASS = frozenset({"Identity", "StopGradient"})


def split_fake_quant(function: Any) -> tuple[Any, Any] | None:
    """Return a function to convert and its twin without rounding of activations; None without fake quantization.

    Args:
        function: A concrete function of TensorFlow.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if not any(node.op in _FAKE_QUANT for node in _all_nodes(function.graph.as_graph_def())):
        return None
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    graph = frozen.graph.as_graph_def()
    _round_constants(graph)
    twin = type(graph)()
    twin.CopyFrom(graph)
    for node in twin.node:
        if node.op in _FAKE_QUANT:
            source = node.input[0]
            del node.input[:]
            node.input.append(source)
            node.op = "Identity"
            node.attr.clear()
            node.attr["T"].type = 1  # DT_FLOAT, the only type of these ops
    inputs, outputs = [t.name for t in frozen.inputs], [t.name for t in frozen.outputs]
    return _function(graph, inputs, outputs), _function(twin, inputs, outputs)


def _all_nodes(graph: Any) -> list[Any]:
    return [*graph.node, *(node for function in graph.library.function for node in function.node_def)]


def _round_constants(graph: Any) -> None:
    """Replace the fake quantization of constants by constants."""
    import tensorflow as tf

    nodes = {node.name: node for node in graph.node}

    def value(name: str) -> Any:
        node = nodes.get(name.split(":", maxsplit=1)[0].removeprefix("^"))
        while node is not None and node.op in _PASS:
            node = nodes.get(node.input[0].split(":")[0])
        return None if node is None or node.op != "Const" else tf.make_ndarray(node.attr["value"].tensor)

    for node in graph.node:
        values = [value(name) for name in node.input] if node.op in _FAKE_QUANT else []
        if not values or any(one is None for one in values):
            continue
        arguments: dict[str, Any] = {
            "num_bits": int(node.attr["num_bits"].i),
            "narrow_range": bool(node.attr["narrow_range"].b),
        }
        if node.op == "FakeQuantWithMinMaxArgs":
            arguments |= {"min": float(node.attr["min"].f), "max": float(node.attr["max"].f)}
            rounded = tf.quantization.fake_quant_with_min_max_args(values[0], **arguments)
        elif node.op == "FakeQuantWithMinMaxVars":
            rounded = tf.quantization.fake_quant_with_min_max_vars(*values, **arguments)
        else:
            rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(*values, **arguments)
        del node.input[:]
        node.attr.clear()
        node.op = "Const"
        node.attr["dtype"].type = 1
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(rounded.numpy()))


def _function(graph: Any, inputs: list[str], outputs: list[str]) -> Any:
    import tensorflow as tf

    def load() -> None:
        tf.graph_util.import_graph_def(graph, name="")

    wrapped = tf.compat.v1.wrap_function(load, [])
    return wrapped.prune([wrapped.graph.get_tensor_by_name(name) for name in inputs],
                         [wrapped.graph.get_tensor_by_name(name) for name in outputs])  # fmt: skip
