"""The training job: load, rebuild, train stage by stage, convert. It runs in a child process with TensorFlow."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from edgepack.child import emit
from edgepack.digests import sha256
from edgepack.errors import ConversionError, TransformError
from edgepack.graph import read_model
from edgepack.runtime.runner import TensorInfo, model_inputs
from edgepack.samples import SampleSet
from edgepack.training.checkpoint import Checkpoint, remove
from edgepack.training.export import to_tflite
from edgepack.training.load import load
from edgepack.training.loop import RANGE_BATCHES, Data, compile_model, epochs_of, fit, optimizer_variables, rate_of
from edgepack.training.losses import Loss, check_labels, choose_loss
from edgepack.training.model import RECIPES, Trained, TrainingRequest
from edgepack.training.ranges import measure_ranges
from edgepack.training.rebuild import Rebuilt, rebuild
from edgepack.training.recipes import Wrapped, layer_weights, set_layer_weights, unwrap, wrap
from edgepack.training.report import float_op_names, read_report
from edgepack.training.scale_precision import shorten_scales

_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}


def run_training(request: TrainingRequest) -> Trained:
    """Train one model.

    Raises:
        EdgepackError: The model cannot be trained; the state of the finished epochs stays in the checkpoint folder.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    import tensorflow as tf
    import tf_keras

    tf.config.set_visible_devices([], "GPU")
    tf_keras.backend.clear_session()
    emit({"step": "loading the model (TensorFlow, in a child process)"})
    source = load(request.path, allow_code=request.options.allow_code)
    rebuilt = rebuild(source.model, allow_code=request.options.allow_code)
    return _Training(request, rebuilt, source.compile_config).run()


class _Training:
    """One run of a recipe."""

    def __init__(self, request: TrainingRequest, rebuilt: Rebuilt, compile_config: Mapping[str, Any]) -> None:
        self.plain, self.options, self.folder = rebuilt.model, request.options, request.checkpoint_dir
        self.reference = request.reference
        self.io = request.rule.io if request.rule is not None else "FLOAT32"
        self.stages = RECIPES[request.recipe]
        if len(self.plain.outputs) != 1:
            raise TransformError(
                f"the model has {len(self.plain.outputs)} outputs, but training with class labels needs exactly one",
                hint="cut the model after the output that the labels are for: keras.Model(model.inputs, output)",
            )
        infos = model_inputs(read_model(self.reference))
        self.order = match_inputs(rebuilt.inputs, self.plain.inputs, infos)
        self.loss = self._choose_loss(compile_config, request.data)
        self.data = self._batched(request.data, infos)
        self.validation = None if request.validation is None else self._batched(request.validation, infos)
        self.identity = _identity(request)
        self.state = Checkpoint(self.identity, 0, 0, layer_weights(self.plain))
        self.state.notes += [f"not carried over to tf-keras: {setting}" for setting in rebuilt.dropped]
        self.state.notes.append(
            f"loss: {self.loss.name}{' on logits' if self.loss.from_logits else ''}, {self.loss.origin}"
        )
        self.left_float: tuple[str, ...] = ()

    def run(self) -> Trained:
        """Train all stages, resuming an interrupted run, and convert the result."""
        saved = Checkpoint.load(self.folder, self.identity)
        if saved is not None:
            self.state = saved
            emit({"step": f"resuming {self.stages[saved.stage]} after epoch {saved.epoch}"})
        model: Any = None
        for position in range(self.state.stage, len(self.stages)):
            model = self._train_stage(position)
        quantized = self.stages[-1] == "qat"
        if quantized:
            emit({"step": "converting the trained model to int8"})
            tflite = to_tflite(model, self.order, self.reference, quantized=True, io=self.io)
            if len(self.stages) > 1:
                # Compression is the purpose of pruning and clustering, so that the scales have to compress as well.
                tflite = shorten_scales(tflite)
            float_tflite = self.state.before_qat
        else:
            emit({"step": "converting the trained model"})
            tflite = float_tflite = to_tflite(model, self.order, self.reference, quantized=False)
        remove(self.folder)
        notes = [*self.state.notes]
        if quantized and (names := float_op_names(tflite)):
            notes.append(f"in float in the int8 file: {', '.join(names)}")
        return Trained(
            tflite=tflite,
            float_tflite=float_tflite,
            quantized=quantized,
            history=tuple(self.state.history),
            left_float=self.left_float,
            report=read_report(tflite),
            notes=tuple(notes),
        )

    def _train_stage(self, position: int) -> Any:
        """Train one stage; return the plain model, or the wrapped one after `qat`, which is always the last stage."""
        import tf_keras

        stage, options, state = self.stages[position], self.options, self.state
        resumed = position == state.stage and state.epoch > 0
        set_layer_weights(self.plain, state.base)
        if stage == "qat" and not state.before_qat:
            state.before_qat = to_tflite(self.plain, self.order, self.reference, quantized=False)
        # Also seeds k-means++ and shuffling, so that a resumed stage is wrapped as in the interrupted run.
        tf_keras.utils.set_random_seed(options.seed + position)
        epochs = epochs_of(stage, options)
        steps = epochs * self.data.steps
        wrapped = wrap(stage, self.stages[:position], self.plain, options, steps)
        self._note_left_out(stage, wrapped)
        compile_model(wrapped.model, self.loss, rate_of(stage, options), steps)
        if resumed:
            _assign(wrapped.model.variables, state.variables)
            _assign(optimizer_variables(wrapped.model), state.optimizer)
        elif stage == "qat":
            batches = [p for p, _ in zip(self.data.batches(0), range(RANGE_BATCHES), strict=False)]
            measure_ranges(wrapped.model, (self.data.inputs(positions) for positions in batches))

        def save_epoch(epoch: int, figures: dict[str, Any]) -> None:
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
                first_epoch=state.epoch,
                epochs=epochs,
                later_epochs=sum(epochs_of(later, options) for later in self.stages[position + 1 :]),
                on_epoch_end=save_epoch,
            )
        if stage == "qat":
            return wrapped.model
        plain = unwrap(stage, wrapped.model)
        if position + 1 < len(self.stages):
            state.stage, state.epoch, state.variables, state.optimizer = position + 1, 0, [], []
            state.base = layer_weights(plain)
            state.save(self.folder)
        return plain

    def _note_left_out(self, stage: str, wrapped: Wrapped) -> None:
        if stage == "qat":
            self.left_float = wrapped.left_out
            text = f"left in float because TFMOT cannot annotate them: {', '.join(wrapped.left_out)}"
        else:
            text = f"left out of {stage}: {', '.join(wrapped.left_out)}"
        if wrapped.left_out and text not in self.state.notes:
            self.state.notes.append(text)

    def _choose_loss(self, compile_config: Mapping[str, Any], data: SampleSet) -> Loss:
        output = self.plain.outputs[0]
        classes = int(output.shape[-1] or 0)
        if len(output.shape) != 2 or classes < 1:
            raise TransformError(
                f"the model's output has the shape {list(output.shape)}, but class labels need [batch, classes]",
                hint="train a model that classifies whole samples",
            )
        assert data.labels is not None
        check_labels(data.labels, classes, data.source)
        return choose_loss(self.options.loss or "", compile_config, classes, last_activation(self.plain))

    def _batched(self, samples: SampleSet, infos: Sequence[TensorInfo]) -> Data:
        assert samples.labels is not None
        classes = int(self.plain.outputs[0].shape[-1])
        check_labels(samples.labels, classes, samples.source)
        ordered = [infos[position] for position in self.order]
        return Data(
            samples=samples,
            names=tuple(info.name for info in ordered),
            targets=self.loss.targets(samples.labels, classes),
            batch=min(self.options.batch, len(samples)),
            shapes=tuple(info.shape[1:] for info in ordered),
            seed=self.options.seed,
        )


def _identity(request: TrainingRequest) -> str:
    """Return a digest of everything that the training depends on."""
    parts = [
        sha256(request.reference),
        request.data.digest,
        "" if request.validation is None else request.validation.digest,
        request.recipe,
        asdict(request.options),
        None if request.rule is None else asdict(request.rule),
    ]
    return sha256(json.dumps(parts, sort_keys=True).encode())


def match_inputs(names: Sequence[str], tensors: Sequence[Any], infos: Sequence[TensorInfo]) -> list[int]:
    """Return, for each input of the model, its position among the reference's inputs: by name, else by shape.

    Raises:
        ConversionError: Neither names nor shapes identify the inputs.
    """
    reference_names = [info.name for info in infos]
    if len(names) == len(reference_names) == 1:
        return [0]
    if sorted(names) == sorted(reference_names):
        return [reference_names.index(name) for name in names]
    shapes = [info.shape[1:] for info in infos]
    model_shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
    if len(set(shapes)) == len(shapes) and sorted(model_shapes) == sorted(shapes):
        return [shapes.index(shape) for shape in model_shapes]
    raise ConversionError(
        f"the inputs {', '.join(names)} cannot be matched to those of the converted model: "
        f"{', '.join(reference_names)}",
        hint="give each keras.Input its own name",
    )


def last_activation(model: Any) -> str:
    """Return the activation function of a tf-keras model's output layer, `linear` for none."""
    layer = model.outputs[0]._keras_history.layer
    if type(layer).__name__ == "Softmax":
        return "softmax"
    activation = getattr(layer, "activation", None)
    return str(getattr(activation, "__name__", "linear"))


def _assign(variables: Sequence[Any], values: Sequence[Any]) -> None:
    if len(variables) != len(values):
        raise TransformError(
            f"the interrupted training has {len(values)} variables, but this one has {len(variables)}",
            hint="remove the checkpoint with `edgepack cache clear` and train again",
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(np.asarray(value))
