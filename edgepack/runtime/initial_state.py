"""Values of variables before the first run of a model."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import read_model
from edgepack.graph.edit import drop_unused_codes, pack, unpack
from edgepack.graph.external_state import ExternalState
from edgepack.runtime.runner import Runner


def initial_values(external: ExternalState) -> dict[str, npt.NDArray[Any]]:
    """Return the value of each variable before the first run, by the name of the tensor that it is read into.

    Args:
        external: A model whose variables are inputs.
    """
    reads = list(external.reads.values())
    if not reads:
        return {}
    graph = read_model(external.original).main
    file = unpack(external.original)
    main = file.subgraphs[0]
    main.operators = [
        main.operators[op.index]
        for op in graph.ops
        if op.name in {"CALL_ONCE", "VAR_HANDLE"} or (op.name == "READ_VARIABLE" and op.outputs[0] in reads)
    ]
    main.inputs, main.outputs = np.zeros(0, np.int32), np.array(reads, np.int32)
    file.signatureDefs = None
    drop_unused_codes(file)
    values = Runner(pack(file)).run([])
    return {graph.tensors[index].name: value for index, value in zip(reads, values, strict=True)}
