import copy
from dataclasses import replace

import builders
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgepack.errors import ModelFileError
from edgepack.graph import edit, read_model


def _interface(tflite: bytes) -> tuple[object, ...]:
    model = read_model(tflite)
    graph = model.main
    interface = [
        [(graph.tensors[i].name, graph.tensors[i].shape) for i in kind] for kind in (graph.inputs, graph.outputs)
    ]
    return model.input_names(), model.output_names(), interface, model.description, [s.key for s in model.signatures]


@pytest.mark.parametrize("make", [builders.classifier, builders.two_in_two_out])
def test_packing_keeps_what_the_model_computes(make):
    """Unpacking and packing changes neither interface nor results, and repeating it changes no byte."""
    before = make()
    after = edit.pack(edit.unpack(before))
    sample = builders.samples(before, 1)[0]
    assert _interface(after) == _interface(before)
    assert edit.pack(edit.unpack(after)) == after
    for a, b in zip(builders.run(before, sample), builders.run(after, sample), strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_are_aligned_to_16_bytes():
    """Every constant starts at a multiple of 16 bytes, as schema.fbs requires for files mapped into memory."""
    tflite = edit.pack(edit.unpack(builders.classifier()))
    start = np.frombuffer(tflite, np.uint8).__array_interface__["data"][0]
    places = [
        t.raw.__array_interface__["data"][0] - start for t in read_model(tflite).main.tensors if t.raw is not None
    ]
    assert len(places) == 6
    assert [place % 16 for place in places] == [0] * 6


def test_buffers_behind_the_flatbuffer_come_inside():
    """A file with its weights behind the flatbuffer is rewritten into one that old runtimes can read."""
    inside = builders.classifier()
    model = edit.unpack(inside)
    largest = max((b for b in model.buffers if b.data is not None), key=lambda b: len(b.data))
    data, largest.data, largest.offset = largest.data, None, 2
    largest.size = len(data)
    # The offset is the length of the flatbuffer, which stays the same when it is written again.
    largest.offset = len(_plain_pack(model))
    outside = _plain_pack(model) + data.tobytes()
    rewritten = edit.pack(edit.unpack(outside))
    sample = builders.samples(inside, 1)[0]
    np.testing.assert_array_equal(builders.run(rewritten, sample)[0], builders.run(inside, sample)[0])
    assert {b.offset for b in edit.unpack(rewritten).buffers} == {0}


def _plain_pack(model: object) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_activations_are_exposed_after_the_outputs():
    """The copy for calibration has the outputs first and then every other activation once, without the inputs."""
    exposed = read_model(edit.expose_activations(builders.classifier()))
    assert [exposed.main.tensors[i].name for i in exposed.main.outputs] == [
        "probabilities",
        "conv",
        "dw",
        "pool",
        "dense",
    ]
    assert exposed.signatures == ()


def test_exposed_activations_are_what_the_ops_compute():
    """An exposed activation has the result of its op: the softmax output follows from the dense output."""
    tflite = edit.expose_activations(builders.classifier())
    runtime = Interpreter(model_content=tflite)
    runtime.allocate_tensors()
    runtime.set_tensor(runtime.get_input_details()[0]["index"], np.full((1, 8, 8, 3), 0.5, np.float32))
    runtime.invoke()
    outputs = {d["name"]: runtime.get_tensor(d["index"]) for d in runtime.get_output_details()}
    powers = np.exp(outputs["dense"] - outputs["dense"].max())
    np.testing.assert_allclose(outputs["probabilities"], powers / powers.sum(), rtol=1e-5)


def test_keys_are_unique_where_names_are_not():
    """A repeated name gets the tensor's index, an empty one is replaced, a unique one stays."""
    model = read_model(builders.two_in_two_out())
    keys = edit.tensor_keys(model.main)
    assert len(set(keys)) == len(keys)
    assert keys[0] == "in#0" and keys[1] == "in#1"
    assert "joined" in keys
    assert keys[[t.name for t in model.main.tensors].index("")].startswith("tensor_")
    assert edit.tensor_keys(read_model(edit.unique_names(builders.two_in_two_out())).main) == keys


def test_versions_split_and_merge_operator_codes():
    """Ops of a kind can get different versions and the same one again; unused operator codes are removed."""
    tflite = builders.two_in_two_out()
    split = edit.set_op_versions(tflite, {0: 3, 1: 5})
    assert [(op.name, op.version) for op in read_model(split).main.ops] == [
        ("CONV_2D", 3), ("CONV_2D", 5), ("ADD", 1), ("CONCATENATION", 1),
    ]  # fmt: skip
    merged = edit.set_op_versions(split, {0: 1, 1: 1})
    assert len(edit.unpack(merged).operatorCodes) == 3
    assert edit.set_op_versions(tflite, {0: 3, 1: 5}) == split


def test_min_runtime_version_is_written_and_rewritten():
    """The metadata is added to a file without it and replaced in a file with it."""
    once = edit.set_min_runtime_version(builders.classifier(), "2.3.0")
    twice = edit.set_min_runtime_version(once, "1.14.0")
    assert read_model(once).min_runtime_version == "2.3.0"
    assert read_model(twice).min_runtime_version == "1.14.0"
    assert list(read_model(twice).metadata) == ["min_runtime_version"]


def test_ranges_stand_in_the_tensors():
    """Ranges are written as minimum and maximum and leave the tensors unquantized."""
    tflite = edit.set_ranges(builders.two_in_two_out(), {"in#0": (-1.0, 2.0), "joined": (0.0, 4.0)})
    tensors = edit.unpack(tflite).subgraphs[0].tensors
    assert (tensors[0].quantization.min[0], tensors[0].quantization.max[0]) == (-1.0, 2.0)
    assert tensors[1].quantization is None or tensors[1].quantization.min is None
    assert read_model(tflite).is_float


def test_interface_is_restored_by_position():
    """Names, signature and description are restored, even where an inner tensor took the name of an output."""
    tflite = builders.two_in_two_out()
    source = read_model(tflite)
    names = {i: f"other{i}" for i in (*source.main.inputs, *source.main.outputs)}
    inner = next(i for i, t in enumerate(source.main.tensors) if t.name == "same/kernel")
    model = edit.unpack(edit.set_tensor_names(tflite, {**names, inner: "joined"}))
    model.signatureDefs, model.description = None, b"x"
    restored = edit.restore_interface(edit.pack(model), source)
    assert _interface(restored) == _interface(tflite)
    assert [t.name for t in read_model(restored).main.tensors].count("joined") == 1


def test_an_input_that_is_an_output_keeps_both_tensors_in_the_signature():
    """With float ends such a tensor has two tensors in the new file: the signature's inputs are the file's inputs."""
    net = builders.Net(0)
    x, y = net.tensor("x", (1, 4)), net.tensor("y", (1, 4))
    net.op("RELU", [x], [y])
    source = read_model(net.build([x], [x, y], (["given"], ["same", "positive"])))
    model = edit.unpack(net.build([x], [x, y], (["given"], ["same", "positive"])))
    model.subgraphs[0].tensors.append(copy.copy(model.subgraphs[0].tensors[0]))
    model.subgraphs[0].outputs = np.array([2, 1], np.int32)
    restored = read_model(edit.restore_interface(edit.pack(model), source))
    assert list(restored.signatures[0].inputs.values()) == list(restored.main.inputs)
    assert list(restored.signatures[0].outputs.values()) == list(restored.main.outputs)


def test_batch_is_fixed():
    """A dynamic batch dimension becomes 1 in every tensor with one."""
    model = edit.unpack(builders.classifier())
    for tensor in model.subgraphs[0].tensors:
        if tensor.buffer == 0:
            tensor.shapeSignature = np.array([-1, *tensor.shape[1:]], np.int32)
    dynamic = edit.pack(model)
    assert any(t.is_dynamic for t in read_model(dynamic).main.tensors)
    fixed = read_model(edit.set_batch(dynamic, 1))
    assert not any(t.is_dynamic for t in fixed.main.tensors)
    assert fixed.main.tensors[0].shape == (1, 8, 8, 3)


def test_another_interface_is_refused():
    """A rewritten file without one of the outputs is an error and gets no wrong signature."""
    with pytest.raises(ModelFileError, match="1 outputs, expected 2"):
        edit.restore_interface(builders.one_op("RELU"), _with_inputs_of_one(builders.two_in_two_out()))


def _with_inputs_of_one(tflite: bytes):
    model = read_model(tflite)
    return replace(model, graphs=(replace(model.main, inputs=model.main.inputs[:1]),))


def test_garbage_cannot_be_edited():
    """Bytes that are no model are a clear error."""
    with pytest.raises(ModelFileError, match="cannot be edited"):
        edit.unpack(b"\xff" * 64)
