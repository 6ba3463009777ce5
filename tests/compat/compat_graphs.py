"""Builds small graphs for the tests of rules and partitions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgepack.graph import Graph, Model, Op, Quantization, Tensor

Shape = Sequence[int]


def tensor(
    shape: Shape = (1, 8, 8, 4),
    dtype: str = "INT8",
    data: Any = None,
    *,
    scales: int = 1,
    scale: float = 0.5,
    zero_point: int = 0,
    signature: Shape | None = None,
    sparse: bool = False,
) -> dict[str, Any]:
    """Describe a tensor; `data` makes it a constant, `scales` above 1 per channel, 0 without quantization."""
    raw = None if data is None else np.frombuffer(np.asarray(data).tobytes(), np.uint8)
    quantization = None
    if scales and dtype in {"INT8", "UINT8", "INT16"}:
        quantization = Quantization(np.full(scales, scale, np.float32), np.full(scales, zero_point, np.int64))
    return {
        "shape": tuple(shape),
        "shape_signature": tuple(signature or shape),
        "dtype": dtype,
        "raw": raw,
        "quantization": quantization,
        "has_sparsity": sparse,
    }


def ints(*values: int) -> dict[str, Any]:
    """Describe a constant vector of int32."""
    return tensor((len(values),), "INT32", np.array(values, np.int32))


def weights(shape: Shape, *, scales: int = 1, dtype: str = "INT8") -> dict[str, Any]:
    """Describe constant weights of ones."""
    kind = {"INT8": np.int8, "UINT8": np.uint8, "FLOAT32": np.float32, "INT16": np.int16}[dtype]
    return tensor(shape, dtype, np.ones(tuple(shape), kind), scales=scales)


def model(
    ops: Sequence[tuple[str, Sequence[int], Sequence[int], Mapping[str, Any]]],
    tensors: Sequence[Mapping[str, Any]],
    *,
    inputs: Sequence[int] = (),
    outputs: Sequence[int] = (),
    version: int = 1,
    metadata: Mapping[str, bytes] | None = None,
) -> Model:
    """Return a model of one graph; an op is (label, inputs, outputs, options)."""
    graph_tensors = tuple(
        Tensor(index=i, name=f"t{i}", buffer=i + 1, **described) for i, described in enumerate(tensors)
    )
    graph_ops = tuple(
        Op(
            index=i,
            name=label.partition(":")[0],
            custom_code=label.partition(":")[2],
            version=int(options.get("version", version)),
            inputs=tuple(read),
            outputs=tuple(written),
            options={key: value for key, value in options.items() if key != "version"},
        )
        for i, (label, read, written, options) in enumerate(ops)
    )
    return Model((Graph("main", graph_tensors, graph_ops, tuple(inputs), tuple(outputs)),), (), "", metadata or {}, 0)


def one_op(
    label: str, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]], **options: Any
) -> Model:
    """Return a model of one op; `version=` is the op's version, the other keywords are its options."""
    n = len(inputs)
    return model(
        [(label, range(n), range(n, n + len(outputs)), options)],
        [*inputs, *outputs],
        inputs=[i for i, described in enumerate(inputs) if described["raw"] is None],
        outputs=range(n, n + len(outputs)),
    )
