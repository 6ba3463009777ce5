"""Models with TFMOT's wrappers, built in a child process with TensorFlow."""

import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def small() -> Any:
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [
            layers.InputLayer(input_shape=(8, 8, 3), name="image"),
            layers.Conv2D(8, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(8, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )
    return model


def save(path: str, kind: str) -> None:
    """Save a model that TFMOT has quantized, pruned or clustered; its outputs on `images` go beside it."""
    import tensorflow_model_optimization as tfmot

    model = small()
    if kind == "quantized":
        model = tfmot.quantization.keras.quantize_model(model)
        for _ in range(3):
            model(images(32), training=True)
        for variable in model.variables:
            # Ranges as a long training leaves them: the moving averages of this short one are still near [-6, 6].
            if (
                "activation_max" in variable.name
                or "output_max" in variable.name
                or variable.name.endswith("layer_max:0")
            ):
                variable.assign(1.5)
    elif kind == "pruned":
        sparsity = tfmot.sparsity.keras
        model = sparsity.prune_low_magnitude(model, sparsity.ConstantSparsity(0.5, 0))
    else:
        start = tfmot.clustering.keras.CentroidInitialization.LINEAR
        model = tfmot.clustering.keras.cluster_weights(model, number_of_clusters=4, cluster_centroids_init=start)
    model.save(path, save_format="tf" if Path(path).suffix == "" else None)
    np.save(Path(path).with_suffix(".npy"), model.predict(images(32), verbose=0))


def images(count: int) -> Any:
    return np.random.default_rng(5).random((count, 8, 8, 3)).astype(np.float32)
