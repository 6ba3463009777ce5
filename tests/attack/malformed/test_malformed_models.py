""".tflite files that parse, with any content: each reader of them gives a value or one error with a message."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from builders import Net, classifier
from graph.broken import _answers, answers_for_one_case, cases
from hypothesis import Phase, given, settings
from malformed_documents import SETTINGS
from malformed_models import NUMBERS, mutated_models, packed

from edgepack.convert.model import ConvertOptions
from edgepack.convert.open_shapes import fixed_shapes
from edgepack.errors import EdgepackError, ModelFileError
from edgepack.graph import Model, edit, metadata, read_model
from edgepack.graph.edit import unpack
from edgepack.graph.metadata import ModelInfo, TensorMetadata, copy_metadata
from edgepack.pipeline.inspect import describe
from edgepack.pipeline.model_info import describe_model, own_metadata, pixel_rule, with_metadata
from edgepack.runtime.memory import require_memory
from edgepack.runtime.runner import model_inputs

#: Without shrinking, which takes minutes for a file of this size: the failing input is small already.
FEW = settings(SETTINGS, max_examples=40, phases=(Phase.explicit, Phase.generate))
CORPUS = Path(__file__).parents[2] / "corpus"


@cache
def seeds() -> list[bytes]:
    """Return the small files of the corpus; quantized ones more than once, because few are."""
    files = [path.read_bytes() for path in sorted(CORPUS.glob("*.tflite"))]
    return files + 5 * [file for file in files if not read_model(file).is_float]


def refusal(step: Callable[[], object]) -> str:
    """Return the message of a step's error, empty without one; any other exception fails the test."""
    try:
        step()
    except EdgepackError as error:
        assert error.message.strip() and error.exit_code == 3
        return error.message
    return ""


def read_everywhere(data: bytes) -> None:
    """Read a file as inspect, check and build do in their own process."""
    model: Model | None = None
    try:
        model = read_model(data)
    except EdgepackError as error:
        assert error.message.startswith("the model is ")
        return
    refusal(lambda: json.dumps(describe(model), allow_nan=False).encode())
    refusal(lambda: require_memory(model, keeps_all=True))
    refusal(lambda: fixed_shapes(model, ConvertOptions()))
    refusal(lambda: use_metadata(data, model))
    for step in (edit.unique_names, edit.write_true_versions, edit.expose_activations, edit.set_batch):
        refusal(lambda step=step: step(data))  # type: ignore[misc]
    refusal(lambda: edit.restore_interface(data, model))
    answers_for_one_case(data)


def use_metadata(data: bytes, model: Model) -> None:
    """Read a file's own metadata and write it into the file that ships, as a build does."""
    own, notes = own_metadata(data)
    assert all(note.endswith("it is ignored") for note in notes)
    info = describe_model(model, name="m", own=own)
    rule = None if own is None else pixel_rule(own, model_inputs(model))
    if rule is not None:
        assert np.isfinite((np.float32(255) - np.float32(rule.mean)) / np.float32(rule.std)).all()
    with_metadata(data, info, data, own, new=True)
    with_metadata(data, info, data, own, new=False)


@FEW
@given(mutated_models(st.deferred(lambda: st.sampled_from(seeds()))))
def test_models_of_any_content(data: bytes | None) -> None:
    """One to three fields of any table: shapes, buffers, offsets, scales, options, indices, signatures, metadata."""
    if data is not None:
        read_everywhere(data)


TEXT = st.one_of(st.text(max_size=6), st.sampled_from(("", "a\0b", "a\nb", "\u202e", "n" * 500)))
FLOATS = st.lists(st.sampled_from((*NUMBERS, 1.0, 255.0)), max_size=4).map(tuple)
TENSORS = st.lists(
    st.builds(
        TensorMetadata, TEXT, TEXT, FLOATS, FLOATS, st.sampled_from(("", "rgb", "grayscale")),
        st.lists(TEXT, max_size=12).map(tuple), FLOATS, FLOATS,
    ),
    max_size=3,
).map(tuple)  # fmt: skip
INFOS = st.builds(ModelInfo, TEXT, TEXT, TEXT, TEXT, TEXT, TENSORS, TENSORS)


def attached(raw: bytes, files: dict[str, bytes]) -> bytes:
    """Return the classifier with metadata that edgepack's own writer would refuse."""
    return metadata._attach(classifier(), raw, files)


@FEW
@given(INFOS, st.lists(st.tuples(st.integers(0, 4000), st.sampled_from((0, 1, 2, 127, 128, 255))), max_size=4))
def test_metadata_of_any_content(info: ModelInfo, changes: list[tuple[int, int]]) -> None:
    """The author's own metadata: NaN, a std of 0, more tensors than the model has, and damaged bytes."""
    raw = bytearray(metadata._Writer().info(info))
    for place, value in changes:
        raw[place % len(raw)] = value
    files = {f"input_{n}_labels.txt": "".join(map("{}\n".format, t.labels)).encode() for n, t in enumerate(info.inputs)}
    data = attached(bytes(raw), files)
    model = read_model(data)
    assert refusal(lambda: use_metadata(data, model)) == ""
    assert refusal(lambda: copy_metadata(data, classifier())) == ""


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.0,), (0.0,)), ((0.0,), ()), ((float("nan"),), (1.0,)), ((0.0,), (1e-45,)), ((1.0,), (float("inf"),)),
     ((3e38,), (0.1,)), ((1.0, 2.0, 3.0), (1.0,))],
)  # fmt: skip
def test_a_normalization_that_cannot_be_used_is_reported(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """It is ignored with a note that names the input; the rest of the metadata stays."""
    entry = TensorMetadata("picture", "d", mean, std)
    own, notes = own_metadata(attached(metadata._Writer().info(ModelInfo("m", inputs=(entry,))), {}))
    assert own is not None and own.name == "m" and own.inputs == (TensorMetadata("picture", "d"),)
    assert len(notes) == 1 and "input 0 'picture': expected" in notes[0]


def test_a_negative_std_inverts_an_image() -> None:
    """White on black from black on white: such a normalization is used and written."""
    info = ModelInfo("m", inputs=(TensorMetadata("picture", "d", (255.0,), (-255.0,), "rgb"),))
    own, notes = own_metadata(metadata.write_metadata(classifier(), info))
    assert own == info and notes == ()


def changed(change: Callable[[Any], None]) -> bytes:
    model = unpack((CORPUS / "classifier-int8.tflite").read_bytes())
    change(model)
    data = packed(model)
    assert data is not None
    return data


def set_scale(model: Any, scale: float, zero_point: int = 0) -> int:
    """Set the parameters of the first tensor with one scale of 8 bits; return its index."""
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        parameters = tensor.quantization
        if parameters is not None and parameters.scale is not None and len(parameters.scale) == 1 and tensor.type == 9:
            parameters.scale, parameters.zeroPoint = np.array([scale], np.float32), np.array([zero_point], np.int64)
            return index
    raise AssertionError("no such tensor")


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -0.5])
def test_a_scale_that_is_no_scale(scale: float) -> None:
    """A scale that no kernel can use is a corrupt file, with the tensor and the value."""
    with pytest.raises(ModelFileError, match=rf"tensor \d+ has the scale {scale}: expected a finite number"):
        read_model(changed(lambda model: set_scale(model, scale)))


@pytest.mark.parametrize("zero_point", [128, -129, 1 << 40, -(1 << 63)])
def test_a_zero_point_outside_its_type(zero_point: int) -> None:
    """A zero point that the tensor's type cannot hold is a corrupt file."""
    with pytest.raises(ModelFileError, match=rf"of INT8 has the zero point {zero_point}: expected -128 to 127"):
        read_model(changed(lambda model: set_scale(model, 0.5, zero_point)))


def test_a_signature_of_an_inner_tensor() -> None:
    """Restoring the interface names the signature and the tensor that is no input or output."""
    model = unpack(classifier())
    model.signatureDefs[0].outputs[0].tensorIndex = 3
    data = packed(model)
    assert data is not None
    with pytest.raises(ModelFileError, match="'serving_default' names tensor 3 as its output 'classes'"):
        edit.restore_interface(data, read_model(data))


@pytest.mark.parametrize("values", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["TRANSPOSE", "TILE", "SLICE", "PAD", "MEAN", "ARG_MAX", "RESHAPE", "SPLIT_V"])
def test_parameters_of_a_float_type(name: str, values: float) -> None:
    """Axes, sizes and permutations whose type is float, with values that are no integers."""
    net = Net()
    x, y = net.tensor("x", (1, 4, 4, 4)), net.tensor("y", (1, 4, 4, 4))
    parameter = net.constant("p", np.full((4, 2) if name == "PAD" else 4, values))
    net.op(name, [x, parameter, parameter, parameter][: {"SLICE": 3, "SPLIT_V": 3}.get(name, 2)], [y])
    assert _answers(net.build([x], [y]), [case for case in cases() if case[0].id == "edgetpu"])
