"""The stages of a recipe through TFMOT: wrap a plain tf-keras model for training, and unwrap what came out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.errors import TransformError
from edgepack.train.model import TrainOptions

#: Kernels with fewer values are neither pruned nor clustered: they save nothing and cost most, first layers above all.
LEAST_WEIGHTS = 1024

#: Of a stage's steps, the share after which the polynomial schedule has reached its sparsity; the rest recovers.
_GROWING = 2 / 3

#: Height and width of a block in a (inputs, outputs) kernel: four outputs of one input, as sparse kernels on ARM take.
_BLOCK = (1, 4)


@dataclass
class Wrapped:
    """A model ready to train.

    Attributes:
        model: With TFMOT's wrappers.
        callbacks: What TFMOT wants to be told of each step.
        left_out: Layers the stage does not touch though they have weights: `name (Class)`.
    """

    model: Any
    callbacks: Sequence[Any]
    left_out: tuple[str, ...]


def wrap(stage: str, before: Sequence[str], plain: Any, options: TrainOptions, steps: int) -> Wrapped:
    """Wrap a plain model for a stage.

    Args:
        stage: `prune`, `cluster` or `qat`.
        before: Stages already done, whose result has to last.
        plain: tf-keras model; it is not changed.
        options: The user's.
        steps: Steps of the whole stage.

    Raises:
        TransformError: TFMOT cannot take the model.
    """
    fresh = copy_model(plain)
    if stage == "prune":
        return _prune(fresh, options, steps)
    if stage == "cluster":
        return _cluster(fresh, options, keep_zeros="prune" in before)
    return _quantize(fresh, keep_zeros="prune" in before, keep_clusters="cluster" in before)


def unwrap(stage: str, wrapped: Any) -> Any:
    """Return the plain model that a `prune` or `cluster` stage trained."""
    import tensorflow_model_optimization as tfmot

    if stage == "prune":
        return tfmot.sparsity.keras.strip_pruning(wrapped)
    return tfmot.clustering.keras.strip_clustering(wrapped)


def copy_model(plain: Any) -> Any:
    """Return a model with layers and weights of its own."""
    import tf_keras

    fresh = tf_keras.models.clone_model(plain)
    set_layer_weights(fresh, layer_weights(plain))
    return fresh


def layer_weights(model: Any) -> dict[str, list[Any]]:
    """Return each layer's weights by its name."""
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def set_layer_weights(model: Any, weights: dict[str, list[Any]]) -> None:
    """Set each layer's weights by its name."""
    for name, arrays in weights.items():
        model.get_layer(name).set_weights(arrays)


def describe(layer: Any) -> str:
    """Return `stem (Conv2D)`."""
    return f"{layer.name} ({type(layer).__name__})"


def _kernel(layer: Any) -> Any:
    """Return the weights that TFMOT prunes and clusters; None for a layer whose weights it leaves alone."""
    import tf_keras

    if isinstance(layer, tf_keras.layers.DepthwiseConv2D):
        return None
    if isinstance(layer, tf_keras.layers.SeparableConv2D | tf_keras.layers.SeparableConv1D):
        return layer.pointwise_kernel
    kinds = (tf_keras.layers.Conv1D, tf_keras.layers.Conv2D, tf_keras.layers.Conv3D, tf_keras.layers.Dense)
    return layer.kernel if isinstance(layer, kinds) else None


def _chosen(model: Any) -> tuple[set[str], tuple[str, ...]]:
    """Return the names of the layers worth pruning or clustering, and the others that have weights."""
    sizes = {
        layer.name: int(kernel.shape.num_elements()) for layer in model.layers if (kernel := _kernel(layer)) is not None
    }
    chosen = {name for name, size in sizes.items() if size >= LEAST_WEIGHTS}
    # A tiny model is one in which every layer counts.
    chosen = chosen or set(sizes)
    return chosen, _others(model, chosen)


def _others(model: Any, chosen: set[str]) -> tuple[str, ...]:
    return tuple(
        describe(layer)
        for layer in model.layers
        if layer.name not in chosen and any(len(weight.shape) >= 2 for weight in layer.weights)
    )


def _prune(model: Any, options: TrainOptions, steps: int) -> Wrapped:
    import tensorflow_model_optimization as tfmot
    import tf_keras

    chosen, _ = _chosen(model)
    extra: dict[str, Any] = {}
    if options.pattern == "2:4":
        # Zeros are counted along the input channels; fewer than four of these cannot be grouped.
        extra = {"sparsity_m_by_n": (2, 4)}
        chosen = {name for name in chosen if int(_kernel(model.get_layer(name)).shape[-2]) % 4 == 0}
    elif options.pattern == "block":
        extra = {"block_size": _BLOCK, "block_pooling_type": "AVG"}
        chosen = {name for name in chosen if isinstance(model.get_layer(name), tf_keras.layers.Dense)}
    if not chosen:
        what = f" in the pattern {options.pattern}" if options.pattern else ""
        raise TransformError(
            f"the model has no layer that can be pruned{what}",
            hint="convolutions (not depthwise) and Dense layers are; the pattern block takes Dense layers only, 2:4"
            " layers whose input channels are a multiple of 4",
        )
    schedules = tfmot.sparsity.keras
    # Masks follow the weights to the end of the stage; a mask that is never renewed keeps early mistakes.
    every = max(1, min(100, steps // 20))
    if options.schedule == "constant":
        schedule = schedules.ConstantSparsity(options.sparsity, begin_step=0, frequency=every)
    else:
        end = max(2, int(steps * _GROWING))
        schedule = schedules.PolynomialDecay(0.0, options.sparsity, begin_step=0, end_step=end, frequency=every)

    def add(layer: Any) -> Any:
        if layer.name not in chosen:
            return layer
        return schedules.prune_low_magnitude(layer, pruning_schedule=schedule, **extra)

    wrapped = tf_keras.models.clone_model(model, clone_function=add)
    return Wrapped(wrapped, [schedules.UpdatePruningStep()], _others(model, chosen))


def _cluster(model: Any, options: TrainOptions, *, keep_zeros: bool) -> Wrapped:
    import tensorflow_model_optimization as tfmot
    import tf_keras
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

    chosen, _ = _chosen(model)
    chosen = {name for name in chosen if int(_kernel(model.get_layer(name)).shape.num_elements()) > options.clusters}
    if not chosen:
        raise TransformError(
            "the model has no layer that can be clustered",
            hint="convolutions (not depthwise) and Dense layers are, with more weights than clusters",
        )
    starts = tfmot.clustering.keras.CentroidInitialization

    def add(layer: Any) -> Any:
        if layer.name not in chosen:
            return layer
        return cluster.cluster_weights(
            layer,
            number_of_clusters=options.clusters,
            cluster_centroids_init=starts.KMEANS_PLUS_PLUS,
            preserve_sparsity=keep_zeros,
        )

    return Wrapped(tf_keras.models.clone_model(model, clone_function=add), [], _others(model, chosen))


def _quantize(model: Any, *, keep_zeros: bool, keep_clusters: bool) -> Wrapped:
    import tf_keras
    from tensorflow_model_optimization.python.core.quantization.keras import quantize

    scheme = _scheme(model, keep_zeros=keep_zeros, keep_clusters=keep_clusters)
    left = {layer.name for layer in model.layers if not _may_annotate(layer, scheme)}
    while True:
        source = copy_model(model)

        def annotate(layer: Any) -> Any:
            if layer.name in left:
                return layer
            return quantize.quantize_annotate_layer(layer, quantize_config=_configuration(layer))

        annotated = tf_keras.models.clone_model(source, clone_function=annotate)
        try:
            with quantize.quantize_scope():
                made = quantize.quantize_apply(annotated, scheme=scheme)
            break
        except RuntimeError as error:
            # TFMOT finds out late that a layer has no configuration: a batch normalization that follows no convolution.
            found = re.match(r"Layer ([^:\s]+):<class", str(error).strip())
            if found is None or found.group(1) in left:
                raise _not_quantizable(error) from error
            left.add(found.group(1))
        except (ValueError, KeyError, TypeError) as error:
            raise _not_quantizable(error) from error
    told = [layer for layer in model.layers if layer.name in left and not isinstance(layer, tf_keras.layers.InputLayer)]
    return Wrapped(made, [], tuple(describe(layer) for layer in told))


def _scheme(model: Any, *, keep_zeros: bool, keep_clusters: bool) -> Any:
    """Return TFMOT's 8-bit scheme, which keeps what earlier stages made where they made it."""
    from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.cluster_preserve import (
        cluster_preserve_quantize_registry as clustered,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.prune_preserve import (
        prune_preserve_quantize_registry as pruned,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry,
        default_8bit_quantize_scheme,
    )

    chosen = _chosen(model)[0] if keep_zeros or keep_clusters else set()

    class _Registry(default_8bit_quantize_registry.Default8BitQuantizeRegistry):  # type: ignore[misc]
        """Keeps zeros and clusters where there are some, with quantizers of its own for each layer.

        TFMOT's registries share one quantizer among all layers, and the first layer without zeros switches sparsity off
        for the others; they also claim to support every layer without weights.
        """

        def get_quantize_config(self, layer: Any) -> Any:
            if layer.name not in chosen:
                return super().get_quantize_config(layer)
            if keep_clusters:
                keeping = clustered.Default8bitClusterPreserveQuantizeRegistry(keep_zeros)
            else:
                keeping = pruned.Default8bitPrunePreserveQuantizeRegistry()
            return keeping.get_quantize_config(layer)

    class _Scheme(default_8bit_quantize_scheme.Default8BitQuantizeScheme):  # type: ignore[misc]
        def get_quantize_registry(self) -> Any:
            return _Registry()

    return _Scheme()


def _configuration(layer: Any) -> Any:
    """Return the configuration for a layer that TFMOT leaves out though TFLite has an int8 kernel for it, else None."""
    import tf_keras
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_configs

    if type(layer) in {tf_keras.layers.Multiply, tf_keras.layers.Subtract}:
        return default_8bit_quantize_configs.Default8BitOutputQuantizeConfig()
    return None


def _may_annotate(layer: Any, scheme: Any) -> bool:
    """True when TFMOT may know the layer; what it turns out not to know is found by trying."""
    import tf_keras

    if isinstance(layer, tf_keras.layers.InputLayer) or len(layer._inbound_nodes) != 1:
        return False
    layers = tf_keras.layers
    # These are replaced or merged into their neighbours before TFMOT looks for a configuration.
    if type(layer) in {layers.BatchNormalization, layers.SeparableConv1D, layers.SeparableConv2D}:
        return True
    return bool(scheme.get_quantize_registry().supports(layer)) or _configuration(layer) is not None


def _not_quantizable(error: Exception) -> TransformError:
    lines = str(error).strip().splitlines()
    return TransformError(
        f"TFMOT cannot prepare the model for quantization-aware training: {lines[0][:300] if lines else error}",
        hint="a layer that is called more than once is the usual reason: make two layers of it",
    )
