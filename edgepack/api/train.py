"""`edgepack.train`."""

import os
from pathlib import Path

from edgepack.api.call import Call, at_least, model_options
from edgepack.api.results import TrainResult
from edgepack.api.types import InputShapes, ModelLike, ProgressLike, SamplesLike, Size
from edgepack.distribution import require_packages
from edgepack.limits import TARGET_SECONDS, TRAINING_SECONDS


def train(
    model: ModelLike,
    *,
    data: SamplesLike,
    out: str | os.PathLike[str],
    input_shape: InputShapes = (),
    allow_code: bool = False,
    validation: SamplesLike | None = None,
    preprocess: str = "",
    resize: str = "stretch",
    recipe: str = "qat",
    epochs: int = 0,
    batch: int = 32,
    learning_rate: float = 0.0,
    loss: str | None = None,
    sparsity: float = 0.5,
    pattern: str | None = None,
    schedule: str = "polynomial",
    clusters: int = 16,
    seed: int = 7,
    io: str = "int8",
    force: bool = False,
    timeout: float = TRAINING_SECONDS,
    memory_limit: Size = "",
    no_cache: bool = False,
    cache: str = "",
    progress: ProgressLike = None,
) -> TrainResult:
    """Fine-tune a Keras model: quantization-aware, pruned, clustered. The model in memory is not changed.

    The options are those of `edgepack train`.

    Args:
        model: A path of a .keras or .h5, or a model of Keras 3 or tf-keras.
        data: Labelled samples: a tuple (inputs, labels), a tf.data.Dataset, or the text of `--data`.
        out: Write OUT.tflite and OUT.json.
        input_shape: Shapes of inputs with unknown dimensions, with the batch dimension.
        allow_code: Run Lambda layers and custom code of a model file.
        validation: Labelled samples to measure accuracy on, after each epoch and at the end.
        preprocess: Normalization of pixels, `MEAN,STD` or `auto`; for folders of images.
        resize: How an image gets the input's size: `stretch`, `letterbox` or `center-crop`.
        recipe: Training recipe.
        epochs: Epochs of each stage; 0 for the default.
        batch: Samples per training step.
        learning_rate: Initial learning rate; 0 for the stage's.
        loss: Loss on class labels; None for the model's, else by its output.
        sparsity: Share of zero weights after pruning, between 0 and 1.
        pattern: Where pruning places zeros; None for anywhere.
        schedule: Sparsity schedule.
        clusters: Number of distinct weights per layer after clustering.
        seed: Random seed.
        io: Data type of the inputs and outputs of an int8 file.
        force: Replace existing files.
        timeout: Time limit of the training in seconds; the same call resumes after the last epoch.
        memory_limit: Memory that each child process may hold: bytes, or a text such as `8GB`.
        no_cache: Recompute every step and store nothing in the cache.
        cache: URL of a cache that several machines share, `off` for none; empty for EDGEPACK_CACHE_URL.
        progress: Called with a sentence about each step; False for silence, None to show it in a notebook or terminal.

    Raises:
        EdgepackError: The training is not possible or failed; nothing is written then. Its `hint` says what to do.
    """
    from edgepack.pipeline.train import TrainRequest, run
    from edgepack.pipeline.training import event_text
    from edgepack.training import TrainOptions

    for name, value, least in (
        ("epochs", epochs, 0),
        ("batch", batch, 1),
        ("clusters", clusters, 0),
        ("seed", seed, 0),
    ):
        at_least(name, value, least, whole=True)
    at_least("learning_rate", learning_rate, 0)
    at_least("timeout", timeout, 1)
    reading = model_options(input_shape, "", allow_code, TARGET_SECONDS, memory_limit, no_cache, cache)
    options = TrainOptions(
        epochs, batch, learning_rate, loss, sparsity, pattern, schedule, clusters, seed, allow_code  # type: ignore[arg-type]
    )  # fmt: skip
    require_packages("train")
    with Call(progress) as call:
        path, reading = call.model(model, reading, trainable=True)
        request = TrainRequest(
            data=call.samples(data, "data"),
            recipe=recipe,  # type: ignore[arg-type]
            out=Path(out),
            model=reading,
            validation=call.samples(validation, "validation"),
            options=options,
            io=io,  # type: ignore[arg-type]
            preprocess=preprocess,
            resize=resize,  # type: ignore[arg-type]
            timeout=float(timeout),
            force=force,
        )
        result = run(path, request, call.progress, lambda event: call.progress(event_text(event)))
    return TrainResult(
        result.tflite, result.report, result.recipe, result.quality, result.trained.report, result.to_json()
    )
