"""Check that a file's signatures are true: apps call a model by them, edgepack itself by the order of its tensors."""

from collections.abc import Sequence

import numpy as np

from edgepack.graph import read_model
from edgepack.runtime.runner import Array, load_interpreter


def signature_fault(tflite: bytes, inputs: Sequence[Array], outputs: Sequence[Array]) -> str:
    """Return what is wrong with a signature of the main graph, empty when each gives the file's outputs.

    Args:
        tflite: The file.
        inputs: Raw inputs in file order, in the file's dtype.
        outputs: What `Runner.run` returned for them, with the state of a model that was just loaded.

    Raises:
        UnfitModelError: The runtime cannot load the model.
    """
    model = read_model(tflite)
    signatures = [signature for signature in model.signatures if signature.graph == 0]
    for signature in signatures:
        for kind, names, tensors in (
            ("input", signature.inputs, model.main.inputs),
            ("output", signature.outputs, model.main.outputs),
        ):
            for name, index in names.items():
                if index not in tensors:
                    return f"signature '{signature.key}': {kind} '{name}' is no {kind} of the file"
    given = dict(zip(model.main.inputs, inputs, strict=True))
    expected = dict(zip(model.main.outputs, outputs, strict=True))
    for signature in signatures:
        if set(signature.inputs.values()) != set(given):
            return f"signature '{signature.key}' does not name every input of the file"
        runner = load_interpreter(tflite).get_signature_runner(signature.key)
        results = runner(**{name: np.ascontiguousarray(given[index]) for name, index in signature.inputs.items()})
        for name, index in signature.outputs.items():
            if np.asarray(results[name]).tobytes() != np.ascontiguousarray(expected[index]).tobytes():
                return f"signature '{signature.key}': output '{name}' is not what the file computes"
    return ""
