"""Each recipe has its effect on the resulting file, checked in the file and with the real runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.child import Worker
from edgepack.convert import ConvertOptions, convert
from edgepack.errors import SamplesError, TransformError
from edgepack.graph import read_model
from edgepack.profiles.model import SchemeRule
from edgepack.runtime.evaluate import evaluate
from edgepack.runtime.runner import model_inputs
from edgepack.samples import InputSpec, SampleSet, load_samples
from edgepack.training import Trained, TrainOptions, train
from edgepack.training.model import TrainingRequest
from edgepack.training.report import gzip_size

pytestmark = pytest.mark.slow

EVAL = Path(__file__).resolve().parents[2] / "examples" / "digits" / "eval.npz"


class Case:
    """A trained float model with its data."""

    def __init__(self, worker: Worker, folder: Path) -> None:
        self.worker = worker
        self.path = folder / "small.keras"
        stored = np.load(EVAL)
        inputs = [name for name in stored.files if stored[name].ndim > 1]
        for name, part in (("train", slice(0, 300)), ("test", slice(300, 450))):
            np.savez(folder / f"{name}.npz", x=stored[inputs[0]][part], y=stored["y"][part])
        worker.call("train_models:learn", str(self.path), str(folder / "train.npz"))
        self.reference = convert(self.path, worker=worker, options=ConvertOptions()).tflite
        self.data, self.test = self.read(folder / "train.npz"), self.read(folder / "test.npz")

    def read(self, path: Path) -> SampleSet:
        infos = model_inputs(read_model(self.reference))
        return load_samples(str(path), [InputSpec(i.name, i.shape_signature, i.dtype) for i in infos])

    def train(self, folder: Path, recipe: str, **more: Any) -> Trained:
        options = {"epochs": 2, "batch": 16, **more.pop("options", {})}
        arguments = {"worker": self.worker, "rule": SchemeRule("int8-qat", io="INT8"), **more}
        return train(
            self.path, reference=self.reference, data=self.data, recipe=recipe, options=TrainOptions(**options),
            checkpoint_dir=folder / "state", **arguments,
        )  # fmt: skip

    def drop(self, trained: Trained) -> float:
        """Return the percentage points of top-1 that the file loses on unseen samples."""
        drop = evaluate(self.reference, {"t": trained.tflite}, self.test)["t"].drop
        assert drop is not None
        return drop


@pytest.fixture(scope="module")
def case(trainer: Worker, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(trainer, tmp_path_factory.mktemp("case"))


def names(tflite: bytes) -> Any:
    model = read_model(tflite)
    return model.input_names(), model.output_names(), model.signature and model.signature.key


def test_qat_gives_an_int8_file(case: Case, tmp_path: Path) -> None:
    """The file has int8 inputs, weights and outputs and the model's names, and is accurate; float layers are named."""
    events: list[Any] = []
    trained = case.train(tmp_path, "qat", validation=case.test, on_event=events.append)
    model = read_model(trained.tflite)
    assert {model.main.tensors[i].dtype for i in (*model.main.inputs, *model.main.outputs)} == {"INT8"}
    assert names(trained.tflite) == names(case.reference)
    assert {layer.dtype for layer in trained.report.layers} == {"INT8"}
    (dense,) = [op for op in model.main.ops if op.name == "FULLY_CONNECTED"]
    quantization = model.main.tensors[dense.inputs[1]].quantization
    # Per tensor, which every target supports and some require.
    assert quantization is not None and quantization.scale.size == 1
    assert len(trained.tflite) < 0.5 * len(case.reference)
    assert case.drop(trained) <= 2.0
    # Also the batch normalization that follows no convolution.
    assert trained.left_float == ()
    assert not any("in float" in note for note in trained.notes)
    assert any("sparse_categorical_crossentropy, the compiled model's" in note for note in trained.notes)
    epochs = [event for event in events if "epoch" in event]
    assert [(event["stage"], event["epoch"], event["epochs"]) for event in epochs] == [("qat", 1, 2), ("qat", 2, 2)]
    assert epochs[0]["seconds_left"] > epochs[1]["seconds_left"] == 0
    assert all({"loss", "accuracy", "val_accuracy"} <= set(entry) for entry in trained.history)
    assert not (tmp_path / "state").exists()
    # The float file is the untrained model: rebuilt in tf-keras, with equal outputs.
    quality = evaluate(case.reference, {"f": trained.float_tflite}, case.test)["f"]
    assert quality.max_error < 1e-4


def test_float_inputs_on_request(case: Case, tmp_path: Path) -> None:
    """Inputs and outputs of the file have the type that the rule requires."""
    trained = case.train(tmp_path, "qat", rule=SchemeRule("int8-qat", io="FLOAT32"), options={"epochs": 1})
    model = read_model(trained.tflite)
    assert {model.main.tensors[i].dtype for i in (*model.main.inputs, *model.main.outputs)} == {"FLOAT32"}
    assert {layer.dtype for layer in trained.report.layers} == {"INT8"}


def weights_of(tflite: bytes, op: str) -> list[Any]:
    graph = read_model(tflite).main
    return [graph.tensors[one.inputs[1]].data for one in graph.ops if one.name == op]


@pytest.mark.parametrize(
    ("options", "sparsity"),
    [
        ({"sparsity": 0.8, "epochs": 4}, {"wide": 0.8, "digit": 0.8, "stem": 0.0}),
        ({"sparsity": 0.5, "schedule": "constant"}, {"wide": 0.5, "digit": 0.5, "stem": 0.0}),
        ({"pattern": "2:4"}, {"wide": 0.5, "digit": 0.5, "stem": 0.0}),
        ({"pattern": "block", "sparsity": 0.5}, {"wide": 0.0, "digit": 0.5, "stem": 0.0}),
    ],
    ids=["80 %", "constant", "2:4", "block"],
)
def test_pruning(case: Case, tmp_path: Path, options: dict, sparsity: dict) -> None:
    """The float file has the requested sparsity and pattern; the small first layer is not pruned."""
    trained = case.train(tmp_path, "prune", options=options)
    assert trained.tflite == trained.float_tflite
    assert not trained.quantized
    measured = {name: layer.sparsity for layer in trained.report.layers for name in sparsity if name in layer.layer}
    # Ten classes are not a multiple of the block size of four: the last block is shorter, and sparsity counts blocks.
    assert measured == pytest.approx(sparsity, abs=0.03 if options.get("pattern") == "block" else 0.01)
    assert case.drop(trained) <= 6.0
    if options.get("pattern") == "2:4":
        for values in (weights_of(trained.tflite, "CONV_2D")[1], weights_of(trained.tflite, "FULLY_CONNECTED")[0]):
            assert ((values.reshape(-1, 4) == 0).sum(axis=1) >= 2).all()
    if options.get("pattern") == "block":
        blocks = weights_of(trained.tflite, "FULLY_CONNECTED")[0].T[:, :8].reshape(-1, 4) == 0
        assert set(blocks.sum(axis=1)) == {0, 4}
    assert any(note.startswith("left out of prune: stem (Conv2D)") for note in trained.notes)


def test_clusters_and_zeros_last_through_quantization(case: Case, tmp_path: Path) -> None:
    """With PCQAT the int8 file has the zeros of pruning and at most as many values per channel as clusters."""
    trained = case.train(tmp_path, "prune+cluster+qat", options={"sparsity": 0.6, "clusters": 16, "epochs": 3})
    by_name = {name: layer for layer in trained.report.layers for name in ("wide", "digit") if name in layer.layer}
    for layer in by_name.values():
        assert layer.dtype == "INT8"
        assert layer.sparsity >= 0.59
        assert layer.unique_per_channel <= 16
    assert by_name["digit"].unique <= 16
    assert case.drop(trained) <= 5.0
    assert trained.report.gzip_bytes < 0.2 * gzip_size(case.reference)
    assert [entry["stage"] for entry in trained.history] == ["prune"] * 3 + ["cluster"] * 3 + ["qat"] * 3


def test_a_killed_training_goes_on(case: Case, tmp_path: Path) -> None:
    """After three SIGKILLs the same call resumes where the last one struck, and writes the bytes of an unbroken run."""
    options = TrainOptions(epochs=2, batch=16)
    rule = SchemeRule("int8-qat", io="INT8")
    state = tmp_path / "state"
    request = TrainingRequest(case.path, case.reference, case.data, None, "prune+qat", options, rule, state)
    with Worker(writable=[tmp_path]) as doomed:
        for stage, epoch in (("prune", 1), ("prune", 2), ("qat", 1)):
            with pytest.raises(Exception, match="SIGKILL"):
                doomed.call("train_models:kill_after", request, stage, epoch)
    assert (state / "training.npz").is_file()
    events: list[Any] = []
    trained = case.train(tmp_path, "prune+qat", on_event=events.append)
    assert [event["step"] for event in events if "step" in event][1] == "resuming qat after epoch 1"
    assert [(event["stage"], event["epoch"]) for event in events if "epoch" in event] == [("qat", 2)]
    assert [(entry["stage"], entry["epoch"]) for entry in trained.history] == [
        ("prune", 1), ("prune", 2), ("qat", 1), ("qat", 2),
    ]  # fmt: skip
    assert trained.report.layers[1].sparsity >= 0.49
    assert case.drop(trained) <= 5.0
    assert not state.exists()
    whole = case.train(tmp_path, "prune+qat")
    assert (trained.tflite, trained.float_tflite, trained.history) == (whole.tflite, whole.float_tflite, whole.history)


def test_a_model_that_labels_do_not_fit_is_refused(
    case: Case, make: Callable[..., Path], trainer: Worker, tmp_path: Path
) -> None:
    """Two outputs, or labels beyond the classes, are refused before anything is trained."""
    path = make("two_outputs")
    reference = convert(path, worker=trainer, options=ConvertOptions()).tflite
    with pytest.raises(TransformError, match="has 2 outputs"):
        train(
            path, worker=trainer, reference=reference, data=case.data, recipe="qat", options=TrainOptions(),
            checkpoint_dir=tmp_path,
        )  # fmt: skip
    np.savez(tmp_path / "eleven.npz", x=np.zeros((20, 8, 8, 1), np.float32), y=np.full(20, 10))
    beyond = case.read(tmp_path / "eleven.npz")
    with pytest.raises(SamplesError, match="highest label is 10"):
        train(
            case.path, worker=trainer, reference=case.reference, data=beyond, recipe="qat", options=TrainOptions(),
            checkpoint_dir=tmp_path,
        )  # fmt: skip
