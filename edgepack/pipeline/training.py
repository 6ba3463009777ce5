"""The training stage: a Keras model trained with labelled samples, cached and resumable."""

import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgepack.child import Worker
from edgepack.choices import Resize
from edgepack.convert.importers.registry import require_trainable
from edgepack.errors import TransformError
from edgepack.files import create_folder, remove_when_empty
from edgepack.limits import TRAINING_SECONDS
from edgepack.pipeline.float_model import take_snapshot
from edgepack.pipeline.session import Session
from edgepack.pipeline.step_cache import Codec, to_json_bytes
from edgepack.profiles.model import SchemeRule
from edgepack.samples import Preprocess, SampleSet, SampleSource, load_samples
from edgepack.samples.specs import input_specs
from edgepack.training import FileReport, Trained, TrainOptions, require_labels, train

#: Called with `{"step": text}` or the figures of an epoch: stage, epoch, epochs, loss, accuracy, seconds_left.
OnEvent = Callable[[Mapping[str, Any]], None]


def train_model(
    session: Session,
    path: Path,
    reference: bytes,
    data: SampleSet,
    recipe: str,
    options: TrainOptions,
    *,
    rule: SchemeRule | None = None,
    validation: SampleSet | None = None,
    on_event: OnEvent | None = None,
    timeout: float = TRAINING_SECONDS,
) -> Trained:
    """Train a model, or return the result of an equal training from the cache; an interrupted one is resumed.

    Args:
        session: Child processes and cache.
        path: .keras or .h5.
        reference: The float .tflite it converts to.
        data: Labelled samples, matched to the reference's inputs.
        recipe: One of `edgepack.training.RECIPES`.
        options: How to train.
        rule: Constraints on an int8 file.
        validation: Labelled samples to measure on after each epoch.
        on_event: Called with each step and each epoch's figures.
        timeout: Seconds that the training may take.

    Raises:
        EdgepackError: See `edgepack.training.train`.
    """
    options.require_valid(recipe)
    require_trainable(path)
    inputs = {
        "model": take_snapshot(path),
        "reference": reference,
        "data": data,
        "validation": validation,
        "recipe": str(recipe),
        "options": options,
        "io": "FLOAT32" if rule is None else rule.io,
    }

    # Neither result nor state of a training with a model's own code is kept: no key can cover what it imports.
    store = not options.allow_code

    def compute() -> Trained:
        with contextlib.ExitStack() as stack:
            if store and session.steps.cache.enabled:
                folder = session.steps.cache.root / f".{session.steps.key('train', inputs)}.checkpoint"
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgepack-train-")))
            # A process of its own: training holds memory that the next conversion should not pay for.
            # The child may write to this folder only, which therefore exists before and is removed after it.
            create_folder(folder)
            stack.callback(remove_when_empty, folder)
            stack.enter_context(session.workers.paused_clock())
            worker = stack.enter_context(Worker(memory=session.options.memory_limit, writable=[folder]))
            return train(
                path,
                worker=worker,
                reference=reference,
                data=data,
                recipe=recipe,
                options=options,
                checkpoint_dir=folder,
                validation=validation,
                rule=rule,
                on_event=on_event,
                timeout=timeout,
            )

    return session.steps.memoize("train", inputs, _TRAINED, compute, store=store)


def event_text(event: Mapping[str, Any]) -> str:
    """Return a sentence for an event of training: a step, or the figures of an epoch."""
    if "step" in event:
        return str(event["step"])
    validation = f", validation {100 * event['val_accuracy']:.2f} %" if "val_accuracy" in event else ""
    return (
        f"{event['stage']} epoch {event['epoch']} of {event['epochs']}: loss {event['loss']:.4f}, "
        f"accuracy {100 * event['accuracy']:.2f} %{validation}, {event['seconds_left']:.0f} s left"
    )


def untrainable_reason(path: Path) -> str:
    """Return why a model cannot be trained, empty when it can."""
    try:
        require_trainable(path)
    except TransformError:
        return "only a .keras or .h5 model can be trained"
    return ""


def read_labelled(
    source: SampleSource, reference: bytes, preprocess: Preprocess | None, resize: Resize = Resize.STRETCH
) -> SampleSet:
    """Read labelled samples for a float model.

    Raises:
        SamplesError: They cannot be read, do not match, or have no labels.
    """
    samples = load_samples(source, input_specs(reference), preprocess=preprocess, resize=resize)
    require_labels(samples)
    return samples


def _encode(trained: Trained) -> dict[str, bytes]:
    meta = {
        "quantized": trained.quantized,
        "history": list(trained.history),
        "left_float": list(trained.left_float),
        "report": trained.report.to_json(),
        "notes": list(trained.notes),
    }
    return {
        "model.tflite": trained.tflite,
        "float.tflite": trained.float_tflite,
        "meta.json": to_json_bytes(meta),
    }


def _decode(files: Mapping[str, bytes]) -> Trained:
    meta = json.loads(files["meta.json"])
    return Trained(
        tflite=files["model.tflite"],
        float_tflite=files["float.tflite"],
        quantized=meta["quantized"],
        history=tuple(meta["history"]),
        left_float=tuple(meta["left_float"]),
        report=FileReport.from_json(meta["report"]),
        notes=tuple(meta["notes"]),
    )


_TRAINED: Codec[Trained] = Codec(_encode, _decode)
