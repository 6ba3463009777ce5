"""What runs in the child: load, rebuild, train stage by stage, convert. TensorFlow is imported here first."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.cache import sha256
from edgepack.child import emit
from edgepack.errors import ConversionError, TransformError
from edgepack.graph import read_model
from edgepack.profiles.model import SchemeRule
from edgepack.runtime.runner import TensorInfo, model_inputs
from edgepack.samples import SampleSet
from edgepack.train.checkpoint import Checkpoint, forget
from edgepack.train.export import to_tflite
from edgepack.train.load import load
from edgepack.train.loop import RANGE_BATCHES, Data, compile_model, epochs_of, fit, optimizer_variables, rate_of
from edgepack.train.losses import Loss, check_labels, choose_loss
from edgepack.train.model import RECIPES, TrainOptions
from edgepack.train.ranges import measure_ranges
from edgepack.train.rebuild import Rebuilt, rebuild
from edgepack.train.recipes import Wrapped, layer_weights, set_layer_weights, unwrap, wrap
from edgepack.train.scale_precision import shorten_scales

_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}


def run(
    path: str,
    reference: bytes,
    data: SampleSet,
    validation: SampleSet | None,
    recipe: str,
    options: TrainOptions,
    rule: SchemeRule | None,
    checkpoint_dir: str,
) -> dict[str, Any]:
    """Train one model.

    Args:
        path: .keras or .h5.
        reference: Float .tflite of the same model, for names, shapes and order of inputs and outputs.
        data: Labelled training samples.
        validation: Labelled samples to measure on after each epoch, None for none.
        recipe: One of `RECIPES`.
        options: The user's.
        rule: What an int8 file has to look like; None for float inputs and outputs.
        checkpoint_dir: Folder the state is kept in, and resumed from.

    Returns:
        The fields of `Trained` but the report, as a dict.

    Raises:
        EdgepackError: The model cannot be trained; what was trained so far stays in `checkpoint_dir`.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    import tensorflow as tf
    import tf_keras

    tf.config.set_visible_devices([], "GPU")
    tf_keras.backend.clear_session()
    emit({"step": "loading the model (TensorFlow, in a child process)"})
    model, compiled = load(Path(path), allow_code=options.allow_code)
    rebuilt = rebuild(model, allow_code=options.allow_code)
    training = _Training(rebuilt, compiled, reference, data, validation, recipe, options, rule, Path(checkpoint_dir))
    return training.run()


class _Training:
    """One run of a recipe."""

    def __init__(
        self,
        rebuilt: Rebuilt,
        compiled: dict[str, Any],
        reference: bytes,
        data: SampleSet,
        validation: SampleSet | None,
        recipe: str,
        options: TrainOptions,
        rule: SchemeRule | None,
        folder: Path,
    ) -> None:
        self.plain, self.reference, self.options, self.rule, self.folder = (
            rebuilt.model, reference, options, rule, folder,
        )  # fmt: skip
        self.stages = RECIPES[recipe]
        if len(self.plain.outputs) != 1:
            raise TransformError(
                f"the model has {len(self.plain.outputs)} outputs, and class labels train exactly one",
                hint="cut the model after the output that the labels are for: keras.Model(model.inputs, output)",
            )
        infos = model_inputs(read_model(reference))
        self.order = match_inputs(rebuilt.inputs, self.plain.inputs, infos)
        self.loss = self._loss(compiled, data)
        self.data = self._data(data, infos)
        self.validation = None if validation is None else self._data(validation, infos)
        self.identity = _identity(reference, data, validation, recipe, options, rule)
        self.state = Checkpoint(self.identity, 0, 0, layer_weights(self.plain))
        self.state.notes += [f"not carried over to tf-keras: {what}" for what in rebuilt.dropped]
        self.state.notes.append(
            f"loss: {self.loss.name}{' on logits' if self.loss.from_logits else ''}, {self.loss.why}"
        )
        self.left_float: tuple[str, ...] = ()

    def run(self) -> dict[str, Any]:
        """Train all stages, from where an interrupted run stopped, and convert."""
        found = Checkpoint.load(self.folder, self.identity)
        if found is not None:
            self.state = found
            emit({"step": f"resuming {self.stages[found.stage]} after epoch {found.epoch}"})
        made = None
        for position in range(self.state.stage, len(self.stages)):
            made = self._stage(position)
        assert made is not None
        quantized = self.stages[-1] == "qat"
        if quantized:
            emit({"step": "converting the trained model to int8"})
            io = self.rule.io if self.rule is not None else "FLOAT32"
            tflite = to_tflite(made, self.order, self.reference, quantized=True, io=io)
            if len(self.stages) > 1:
                # Trained to compress: what is no weight should compress as well.
                tflite = shorten_scales(tflite)
            float_tflite = self.state.before_qat
        else:
            emit({"step": "converting the trained model"})
            tflite = float_tflite = to_tflite(made, self.order, self.reference, quantized=False)
        forget(self.folder)
        return {
            "tflite": tflite,
            "float_tflite": float_tflite,
            "quantized": quantized,
            "history": tuple(self.state.history),
            "left_float": self.left_float,
            "notes": tuple(self.state.notes),
        }

    def _stage(self, position: int) -> Any:
        """Train one stage; return the plain model, or the wrapped one after `qat`, which is the last."""
        import tf_keras

        stage, options, state = self.stages[position], self.options, self.state
        resumed = position == state.stage and state.epoch > 0
        set_layer_weights(self.plain, state.base)
        if stage == "qat" and not state.before_qat:
            state.before_qat = to_tflite(self.plain, self.order, self.reference, quantized=False)
        # Also resets what k-means++ and the shuffling draw from, so that a resumed stage is wrapped as it was.
        tf_keras.utils.set_random_seed(options.seed + position)
        epochs = epochs_of(stage, options)
        steps = epochs * self.data.steps
        wrapped = wrap(stage, self.stages[:position], self.plain, options, steps)
        self._tell_left_out(stage, wrapped)
        compile_model(wrapped.model, self.loss, rate_of(stage, options), steps)
        if resumed:
            _assign(wrapped.model.variables, state.variables)
            _assign(optimizer_variables(wrapped.model), state.optimizer)
        elif stage == "qat":
            batches = [p for p, _ in zip(self.data.batches(0), range(RANGE_BATCHES), strict=False)]
            measure_ranges(wrapped.model, (self.data.inputs(positions) for positions in batches))

        def done(epoch: int, figures: dict[str, Any]) -> None:
            state.epoch = epoch
            state.history.append(figures)
            state.variables = [variable.numpy() for variable in wrapped.model.variables]
            state.optimizer = [variable.numpy() for variable in optimizer_variables(wrapped.model)]
            state.save(self.folder)

        if state.epoch < epochs:
            fit(
                wrapped.model,
                self.data,
                self.validation,
                callbacks=wrapped.callbacks,
                stage=stage,
                first=state.epoch,
                epochs=epochs,
                later_epochs=sum(epochs_of(later, options) for later in self.stages[position + 1 :]),
                done=done,
            )
        if stage == "qat":
            return wrapped.model
        plain = unwrap(stage, wrapped.model)
        if position + 1 < len(self.stages):
            state.stage, state.epoch, state.variables, state.optimizer = position + 1, 0, [], []
            state.base = layer_weights(plain)
            state.save(self.folder)
        return plain

    def _tell_left_out(self, stage: str, wrapped: Wrapped) -> None:
        if stage == "qat":
            self.left_float = wrapped.left_out
            text = f"left in float, because TFMOT cannot annotate them: {', '.join(wrapped.left_out)}"
        else:
            text = f"left out of {stage}: {', '.join(wrapped.left_out)}"
        if wrapped.left_out and text not in self.state.notes:
            self.state.notes.append(text)

    def _loss(self, compiled: dict[str, Any], data: SampleSet) -> Loss:
        output = self.plain.outputs[0]
        classes = int(output.shape[-1] or 0)
        if len(output.shape) != 2 or classes < 1:
            raise TransformError(
                f"the model's output has the shape {list(output.shape)}, and class labels need [batch, classes]",
                hint="train a model that classifies whole samples",
            )
        assert data.labels is not None
        check_labels(data.labels, classes, data.source)
        return choose_loss(self.options.loss or "", compiled, classes, last_activation(self.plain))

    def _data(self, samples: SampleSet, infos: Sequence[TensorInfo]) -> Data:
        assert samples.labels is not None
        classes = int(self.plain.outputs[0].shape[-1])
        check_labels(samples.labels, classes, samples.source)
        mine = [infos[position] for position in self.order]
        return Data(
            samples=samples,
            names=tuple(info.name for info in mine),
            targets=self.loss.targets(samples.labels, classes),
            batch=min(self.options.batch, len(samples)),
            shapes=tuple(info.shape[1:] for info in mine),
            seed=self.options.seed,
        )


def _identity(
    reference: bytes,
    data: SampleSet,
    validation: SampleSet | None,
    recipe: str,
    options: TrainOptions,
    rule: SchemeRule | None,
) -> str:
    """Return a digest of everything that a training depends on."""
    parts = [
        sha256(reference),
        data.digest,
        "" if validation is None else validation.digest,
        recipe,
        asdict(options),
        None if rule is None else asdict(rule),
    ]
    return sha256(json.dumps(parts, sort_keys=True).encode())


def match_inputs(names: Sequence[str], tensors: Sequence[Any], infos: Sequence[TensorInfo]) -> list[int]:
    """Return, for each input of the model, its position among the reference's inputs: by name, else by shape.

    Raises:
        ConversionError: It cannot be told which is which.
    """
    known = [info.name for info in infos]
    if len(names) == len(known) == 1:
        return [0]
    if sorted(names) == sorted(known):
        return [known.index(name) for name in names]
    shapes = [info.shape[1:] for info in infos]
    mine = [tuple(tensor.shape[1:]) for tensor in tensors]
    if len(set(shapes)) == len(shapes) and sorted(mine) == sorted(shapes):
        return [shapes.index(shape) for shape in mine]
    raise ConversionError(
        f"the inputs {', '.join(names)} cannot be matched to those of the converted model: {', '.join(known)}",
        hint="give each keras.Input a name of its own",
    )


def last_activation(model: Any) -> str:
    """Return the activation that a tf-keras model's output went through, `linear` for none."""
    layer = model.outputs[0]._keras_history.layer
    if type(layer).__name__ == "Softmax":
        return "softmax"
    activation = getattr(layer, "activation", None)
    return str(getattr(activation, "__name__", "linear"))


def _assign(variables: Sequence[Any], values: Sequence[Any]) -> None:
    if len(variables) != len(values):
        raise TransformError(
            f"the interrupted training has {len(values)} variables, this one {len(variables)}",
            hint="remove the checkpoint with `edgepack cache clear` and train again",
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(np.asarray(value))
