"""Classes of TensorFlow Model Optimization (TFMOT) in Keras files: which are known, and how they are loaded.

Models that were trained with TFMOT have its wrappers around their layers: QuantizeWrapperV2, PruneLowMagnitude,
ClusterWeights. These classes only compute on tensors. TFMOT's scopes bind each name to TFMOT's own class, whatever the
file says about its module.

Source: `_types_dict` and the scopes of tensorflow_model_optimization 0.8 (python/core/quantization/keras/quantize.py,
.../quantizers.py, .../default_8bit/default_8bit_quantize_registry.py, python/core/sparsity/keras/prune.py,
python/core/clustering/keras/cluster.py).
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

_PACKAGE = "tensorflow_model_optimization.python.core."

_CLASSES = frozenset({
    "AllValuesQuantizer", "ClusterWeights", "ConstantSparsity", "Default8BitActivationQuantizeConfig",
    "Default8BitConvQuantizeConfig", "Default8BitConvTransposeQuantizeConfig",
    "Default8BitConvTransposeWeightsQuantizer",
    "Default8BitConvWeightsQuantizer", "Default8BitOutputQuantizeConfig", "Default8BitQuantizeConfig",
    "Default8BitQuantizeConfigRNN", "FixedQuantizer", "LastValueQuantizer", "MovingAverageQuantizer", "NoOpActivation",
    "NoOpQuantizeConfig", "NoQuantizer", "OutputOnlyConfig", "PolynomialDecay", "PruneLowMagnitude",
    "QuantizeAnnotate", "QuantizeAwareActivation", "QuantizeLayer", "QuantizeWrapper", "QuantizeWrapperV2",
})  # fmt: skip

#: What to do with a .keras of a quantized model: TFMOT's own layers refuse to load the weights that they saved in it.
KERAS_ARCHIVE_HINT = (
    "save the quantized model as a SavedModel with model.export(DIR), or as .h5: TFMOT cannot load its .keras"
)

#: Attributes of layers that quantization may replace; TFMOT takes the names from the file.
_ATTRIBUTES = frozenset({
    "kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel", "embeddings", "bias", "activation",
    "recurrent_activation",
})  # fmt: skip


def is_tfmot(node: Mapping[str, Any]) -> bool:
    """Return whether an object of a configuration is one of TFMOT's, with nothing in it that TFMOT never writes."""
    name, module, registered = node.get("class_name"), node.get("module"), node.get("registered_name")
    if name not in _CLASSES or registered not in {None, name}:
        return False
    if not isinstance(module, str | None) or not (module in {None, "builtins"} or str(module).startswith(_PACKAGE)):
        return False
    config = node.get("config")
    attributes = [config.get(key) for key in ("weight_attrs", "activation_attrs")] if isinstance(config, dict) else []
    return all(name in _ATTRIBUTES for name in _leaves([one for one in attributes if one is not None]))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value if isinstance(value, str) else None


def uses_tfmot(config: Any) -> bool:
    """Return whether a configuration names a class of TFMOT that Keras has not."""
    pending = [config]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            # Keras has a PolynomialDecay of its own, for learning rates.
            if part.get("class_name") in _CLASSES - {"PolynomialDecay"}:
                return True
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
    return False


@contextmanager
def tfmot_scopes(config: Any) -> Iterator[None]:
    """Let tf-keras load TFMOT's classes, where the configuration names any: importing TFMOT takes seconds."""
    with ExitStack() as stack:
        if uses_tfmot(config):
            import tensorflow_model_optimization as tfmot

            for scope in (
                tfmot.quantization.keras.quantize_scope,
                tfmot.sparsity.keras.prune_scope,
                tfmot.clustering.keras.cluster_scope,
            ):
                stack.enter_context(scope())
        yield


def strip_compression(model: Any, config: Any) -> Any:
    """Return a tf-keras model without the wrappers of pruning and clustering, which only training needs."""
    if not uses_tfmot(config):
        return model
    import tensorflow_model_optimization as tfmot

    kinds = {type(layer).__name__ for layer in model.submodules}
    if "PruneLowMagnitude" in kinds:
        model = tfmot.sparsity.keras.strip_pruning(model)
    if "ClusterWeights" in kinds:
        model = tfmot.clustering.keras.strip_clustering(model)
    return model
