"""`edgepack.compare`."""

import os
from collections.abc import Sequence

from edgepack.api.call import Call, at_least, by_chip, model_options, texts, writable_or_none
from edgepack.api.results import Comparison
from edgepack.api.types import InputShapes, Labels, ModelLike, ProgressLike, SamplesLike, Size, Targets
from edgepack.choices import Resize, parse_choice
from edgepack.distribution import require_packages
from edgepack.errors import UsageError
from edgepack.limits import TARGET_SECONDS
from edgepack.pipeline.options import BuildOptions


def compare(
    model: ModelLike,
    targets: Targets = "all",
    *,
    input_shape: InputShapes = (),
    signature: str = "",
    allow_code: bool = False,
    samples: SamplesLike | None = None,
    eval: SamplesLike | None = None,
    train: SamplesLike | None = None,
    epochs: int = 0,
    labels: Labels | None = None,
    preprocess: str = "",
    resize: str = "stretch",
    task: str = "",
    soc: str | Sequence[str] = (),
    simulate: bool = False,
    simulate_seconds: float = 60.0,
    html: str | os.PathLike[str] | None = None,
    timeout: float = TARGET_SECONDS,
    memory_limit: Size = "",
    no_cache: bool = False,
    cache: str = "",
    progress: ProgressLike = None,
) -> Comparison:
    """Compare every scheme by size, accuracy, latency and placement.

    The options are those of `edgepack compare`; nothing is written but the page.

    Args:
        model: A path, the bytes of a .tflite, a model of Keras 3 or tf-keras, or a tf.Module; not quantized yet.
        targets: Target ids whose schemes are compared, `"hexagon@SM8550"` with a chip, or `"all"`.
        input_shape: Shapes of inputs with unknown dimensions, with the batch dimension.
        signature: Signature of a SavedModel, method of a tf.Module.
        allow_code: Run Lambda layers and custom code of a model file.
        samples: Representative samples; see `edgepack.build`.
        eval: Samples to measure accuracy on: with labels top-1, with a COCO JSON mAP, with images and masks mIoU.
        train: Labelled samples to train on; adds the training recipes to the comparison.
        epochs: Epochs of each training stage; 0 for the default.
        labels: Class names, or a text file with one per line.
        preprocess: Normalization of pixels, `MEAN,STD` or `auto`; for folders of images.
        resize: How an image gets the input's size: `stretch`, `letterbox` or `center-crop`.
        task: What the outputs mean, such as `detection,boxes=cxcywh`; empty for what can be recognized.
        soc: Chips of targets that name none themselves; the first one selects the variant.
        simulate: Run what was compiled for `soc` on the vendor's simulator of the accelerator.
        simulate_seconds: About how long the simulation of one file takes, in seconds.
        html: File to write a self-contained page to, None for none.
        timeout: Time limit in seconds of the conversion, and then of the comparison.
        memory_limit: Memory that each child process may hold: bytes, or a text such as `8GB`.
        no_cache: Recompute every step and store nothing in the cache.
        cache: URL of a cache that several machines share, `off` for none; empty for EDGEPACK_CACHE_URL.
        progress: Called with a sentence about each step; False for silence, None to show it in a notebook or terminal.

    Raises:
        EdgepackError: The model is quantized already, or it, the samples or an option cannot be used. Its `hint` says
            what to do.
    """
    from edgepack.pipeline.compare import compare as run

    at_least("epochs", epochs, 0, whole=True)
    at_least("simulate_seconds", simulate_seconds, 1)
    reading = model_options(input_shape, signature, allow_code, timeout, memory_limit, no_cache, cache)
    page = writable_or_none("html", html)
    groups = by_chip(targets, texts(soc))
    chips = [group.chip for group in groups if group.chip]
    if len(chips) > 1:
        raise UsageError(
            f"expected targets with one chip at most, got {', '.join(chips)}", hint="compare each chip in its own call"
        )
    require_packages("compare")
    with Call(progress) as call:
        path, reading = call.model(model, reading)
        limit = BuildOptions().calibration_samples
        result = run(
            path,
            [target for group in groups for target in group.targets],
            reading,
            samples=call.samples(samples, "samples", limit),
            evaluation=call.samples(eval, "eval"),
            train=call.samples(train, "train"),
            epochs=epochs,
            labels=call.labels(labels),
            preprocess=preprocess,
            resize=parse_choice("resize", Resize, resize),
            task=task,
            socs=chips or texts(soc),
            simulate=simulate,
            simulate_seconds=float(simulate_seconds),
            progress=call.progress,
        )
        if page is not None:
            from edgepack.files import write_atomically
            from edgepack.pipeline.reports.compare_page import html as page_of

            write_atomically(page, page_of(result))
    return Comparison(result.results, result.targets, result.notes, result.source)
