"""The stages of a recipe with TFMOT: wrap a plain tf-keras model for training, and unwrap the trained one."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.choices import SparsityPattern, SparsitySchedule
from edgepack.errors import TransformError
from edgepack.text import first_line
from edgepack.training.model import TrainOptions
from edgepack.training.plain import ROUNDED_ACTIVATIONS, affine_layers, follows_linear_layer, with_plain_layers

#: Kernels with fewer values are neither pruned nor clustered: that saves little and costs most accuracy, in first
#: layers above all.
MIN_WEIGHTS = 1024

#: Share of a stage's steps after which the polynomial schedule reaches its sparsity; accuracy recovers in the others.
_RAMP_SHARE = 2 / 3

#: Height and width of a block in an (inputs, outputs) kernel: four outputs of one input, as sparse Arm kernels need.
_BLOCK = (1, 4)


@dataclass(frozen=True)
class Wrapped:
    """A model ready to train.

    Attributes:
        model: Model with TFMOT's wrappers.
        callbacks: TFMOT's callbacks for training.
        left_out: Layers with weights that the stage does not modify: `name (Class)`.
    """

    model: Any
    callbacks: Sequence[Any]
    left_out: tuple[str, ...]


def wrap(stage: str, before: Sequence[str], plain: Any, options: TrainOptions, steps: int) -> Wrapped:
    """Wrap a plain model for a stage.

    Args:
        stage: `prune`, `cluster` or `qat`.
        before: Earlier stages, whose zeros and clusters are preserved.
        plain: tf-keras model; it is not changed.
        options: Options of the training.
        steps: Number of steps of the whole stage.

    Raises:
        TransformError: TFMOT does not support the model.
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
    """Return a copy of a model with its own layers and weights."""
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
    """Return the weights that TFMOT prunes and clusters, None for a layer without such weights."""
    import tf_keras

    if isinstance(layer, tf_keras.layers.DepthwiseConv2D):
        return None
    if isinstance(layer, tf_keras.layers.SeparableConv2D | tf_keras.layers.SeparableConv1D):
        return layer.pointwise_kernel
    kinds = (tf_keras.layers.Conv1D, tf_keras.layers.Conv2D, tf_keras.layers.Conv3D, tf_keras.layers.Dense)
    return layer.kernel if isinstance(layer, kinds) else None


def _compressible_layers(model: Any) -> set[str]:
    """Return the names of the layers to prune or cluster."""
    sizes = {
        layer.name: int(kernel.shape.num_elements()) for layer in model.layers if (kernel := _kernel(layer)) is not None
    }
    # In a model without large kernels, the small ones are worth compressing.
    return {name for name, size in sizes.items() if size >= MIN_WEIGHTS} or set(sizes)


def _left_out(model: Any, chosen: set[str]) -> tuple[str, ...]:
    """Describe the layers with weights that are not chosen."""
    return tuple(
        describe(layer)
        for layer in model.layers
        if layer.name not in chosen and any(len(weight.shape) >= 2 for weight in layer.weights)
    )


def _prune(model: Any, options: TrainOptions, steps: int) -> Wrapped:
    import tensorflow_model_optimization as tfmot
    import tf_keras

    chosen = _compressible_layers(model)
    extra: dict[str, Any] = {}
    if options.pattern == SparsityPattern.TWO_IN_FOUR:
        # Groups of four are taken along the input channels, whose number has to be a multiple of four.
        extra = {"sparsity_m_by_n": (2, 4)}
        chosen = {name for name in chosen if int(_kernel(model.get_layer(name)).shape[-2]) % 4 == 0}
    elif options.pattern == SparsityPattern.BLOCK:
        extra = {"block_size": _BLOCK, "block_pooling_type": "AVG"}
        chosen = {name for name in chosen if isinstance(model.get_layer(name), tf_keras.layers.Dense)}
    if not chosen:
        pattern = f" in the pattern {options.pattern}" if options.pattern else ""
        raise TransformError(
            f"the model has no layer that can be pruned{pattern}",
            hint="convolutions (not depthwise) and Dense layers can be pruned; the pattern block supports Dense layers"
            " only, 2:4 layers whose input channels are a multiple of 4",
        )
    schedules = tfmot.sparsity.keras
    # Masks are updated until the end of the stage: a mask that is never updated keeps early wrong choices.
    every = max(1, min(100, steps // 20))
    if options.schedule == SparsitySchedule.CONSTANT:
        schedule = schedules.ConstantSparsity(options.sparsity, begin_step=0, frequency=every)
    else:
        end = max(2, int(steps * _RAMP_SHARE))
        schedule = schedules.PolynomialDecay(0.0, options.sparsity, begin_step=0, end_step=end, frequency=every)

    def add(layer: Any) -> Any:
        if layer.name not in chosen:
            return layer
        return schedules.prune_low_magnitude(layer, pruning_schedule=schedule, **extra)

    wrapped = tf_keras.models.clone_model(model, clone_function=add)
    return Wrapped(wrapped, [schedules.UpdatePruningStep()], _left_out(model, chosen))


def _cluster(model: Any, options: TrainOptions, *, keep_zeros: bool) -> Wrapped:
    import tensorflow_model_optimization as tfmot
    import tf_keras
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

    chosen = _compressible_layers(model)
    chosen = {name for name in chosen if int(_kernel(model.get_layer(name)).shape.num_elements()) > options.clusters}
    if not chosen:
        raise TransformError(
            "the model has no layer that can be clustered",
            hint="convolutions (not depthwise) and Dense layers with more weights than clusters can be clustered",
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

    return Wrapped(tf_keras.models.clone_model(model, clone_function=add), [], _left_out(model, chosen))


def _quantize(model: Any, *, keep_zeros: bool, keep_clusters: bool) -> Wrapped:
    import tf_keras
    from tensorflow_model_optimization.python.core.quantization.keras import quantize

    original = model
    model = with_plain_layers(model, fold=not keep_clusters)
    affine = affine_layers(model, original)
    scheme = _scheme(model, keep_zeros=keep_zeros, keep_clusters=keep_clusters)
    unsupported = {layer.name for layer in model.layers if not _may_annotate(layer, scheme)}
    while True:
        source = copy_model(model)

        def annotate(layer: Any) -> Any:
            if layer.name in unsupported:
                return layer
            return quantize.quantize_annotate_layer(layer, quantize_config=_configuration(layer, affine))

        annotated = tf_keras.models.clone_model(source, clone_function=annotate)
        try:
            with quantize.quantize_scope():
                wrapped = quantize.quantize_apply(annotated, scheme=scheme)
            break
        except RuntimeError as error:
            # TFMOT only finds here that a layer has no configuration, such as a batch normalization that follows no
            # convolution.
            match = re.match(r"Layer ([^:\s]+):<class", str(error).strip())
            if match is None or match.group(1) in unsupported:
                raise _not_quantizable(error) from error
            unsupported.add(match.group(1))
        except (ValueError, KeyError, TypeError) as error:
            raise _not_quantizable(error) from error
    left_out = [layer for layer in model.layers if layer.name in unsupported and type(layer).__name__ not in _MOVING]
    return Wrapped(wrapped, [], tuple(describe(layer) for layer in left_out))


def _scheme(model: Any, *, keep_zeros: bool, keep_clusters: bool) -> Any:
    """Return TFMOT's 8-bit scheme, extended to preserve the zeros and clusters of earlier stages."""
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

    chosen = _compressible_layers(model) if keep_zeros or keep_clusters else set()

    class _Registry(default_8bit_quantize_registry.Default8BitQuantizeRegistry):  # type: ignore[misc]
        """Preserves zeros and clusters where there are any, with separate quantizers for each layer.

        TFMOT's registries share one quantizer among all layers, and the first layer without zeros disables sparsity for
        the others; they also claim to support every layer without weights.
        """

        def get_quantize_config(self, layer: Any) -> Any:
            if layer.name not in chosen:
                return super().get_quantize_config(layer)
            if keep_clusters:
                registry = clustered.Default8bitClusterPreserveQuantizeRegistry(keep_zeros)
            else:
                registry = pruned.Default8bitPrunePreserveQuantizeRegistry()
            return registry.get_quantize_config(layer)

    class _Scheme(default_8bit_quantize_scheme.Default8BitQuantizeScheme):  # type: ignore[misc]
        def get_quantize_registry(self) -> Any:
            return _Registry()

    return _Scheme()


#: Layers that compute nothing, so that the converter gives their results the type and range of their inputs.
_MOVING = frozenset({"Cropping1D", "InputLayer", "MaxPooling1D", "Permute", "RepeatVector", "SlicingOpLambda"})

#: Layers that TFMOT has no configuration for and whose results are rounded, so that the layers behind them are int8.
_ROUNDED = frozenset({
    "Average", "BatchNormalization", "ELU", "LayerNormalization", "Maximum", "Minimum", "Multiply", "Normalization",
    "PReLU", "Rescaling", "Subtract", "ThresholdedReLU",
})  # fmt: skip


def _configuration(layer: Any, affine: Collection[str] = ()) -> Any:
    """Return the configuration of a layer that TFMOT has none for, else None."""
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_configs,
        default_8bit_quantize_registry,
    )

    if layer.name in affine:
        # Left as it is in training: TFMOT would round the scales of all channels with one step, the converter rounds
        # each channel with its own.
        return default_8bit_quantize_registry.Default8BitQuantizeConfig([], ["activation"], False)
    kind = type(layer).__name__
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    other = kind == "Activation" and activation not in ROUNDED_ACTIVATIONS
    if (kind in _ROUNDED and not follows_linear_layer(layer)) or other:
        return default_8bit_quantize_configs.Default8BitOutputQuantizeConfig()
    return None


def _may_annotate(layer: Any, scheme: Any) -> bool:
    """Return whether TFMOT may support the layer; some unsupported layers are only found by wrapping the model."""
    import tf_keras

    if isinstance(layer, tf_keras.layers.InputLayer) or len(layer._inbound_nodes) != 1:
        return False
    layers = tf_keras.layers
    # TFMOT replaces these layers or merges them into others before it looks for a configuration.
    if type(layer) in {layers.BatchNormalization, layers.SeparableConv1D, layers.SeparableConv2D}:
        return True
    return bool(scheme.get_quantize_registry().supports(layer)) or _configuration(layer) is not None


def _not_quantizable(error: Exception) -> TransformError:
    return TransformError(
        f"TFMOT cannot prepare the model for quantization-aware training: {first_line(error, 300)}",
        hint="the usual reason is a layer that is called more than once: use two layers instead",
    )
