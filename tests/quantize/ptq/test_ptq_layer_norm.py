"""LayerNorm and RMSNorm become L2_NORMALIZATION: the same function in float, and far closer to it in int8."""

from importlib import import_module
from itertools import product

import builders
import numpy as np
import pytest
from layer_norms import EPSILON, FORMS, IMAGE, MOVED, OTHERS, Ops, inverse_root, keras, rms, torch
from ptq_models import RULE, minmax, subject
from state_models import memory

from edgepack.compat import check
from edgepack.findings import Placement
from edgepack.graph import read_model
from edgepack.graph.edit import builtin_code, pack, unpack
from edgepack.graph.read import schema
from edgepack.profiles import get_target
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.ptq.activations import logits, snr_db
from edgepack.quantize.ptq.layer_norm import LAYER_NORM, replace_normalizations
from edgepack.quantize.ptq.layers import set_constants
from edgepack.quantize.ptq.normalizations import find_normalizations
from edgepack.quantize.ptq.step import Fit, View
from edgepack.quantize.ptq.steps import STEPS, improve
from edgepack.quantize.quantizer import quantize

BY_L2 = SchemeRule("int8", "INT8", layer_norm="L2_NORMALIZATION")

ALL = {**FORMS, **MOVED}

#: What the norms of a file are computed with, before and after.
ROOTS = {"MEAN", "RSQRT", "SQRT", "SQUARE", "SQUARED_DIFFERENCE"}


def _replaced(tflite: bytes, extended: bool = True) -> bytes:
    return replace_normalizations(tflite, [extended] * len(find_normalizations(read_model(tflite).main)))


def _names(tflite: bytes) -> list[str]:
    return [op.name for op in read_model(tflite).main.ops]


def _flat(tflite: bytes, count: int = 4) -> list[dict[str, np.ndarray]]:
    """Samples whose positions have standard deviations from 1e-6 to 30, and one position without any."""
    samples = builders.samples(tflite, count)
    for sample in samples:
        for values in sample.values():
            rows = values.reshape(-1, values.shape[-1])
            rows *= np.geomspace(1e-6, 30.0, len(rows), dtype=np.float32)[:, np.newaxis]
            rows += np.linspace(-2.0, 2.0, len(rows), dtype=np.float32)[:, np.newaxis]
            rows[len(rows) // 2] = 0.75
    return samples


def _assert_equal(before: bytes, after: bytes, samples: list[dict[str, np.ndarray]]) -> None:
    """Compare the outputs to 1e-4 of the largest value of each."""
    for sample in samples:
        for expected, actual in zip(builders.run(before, sample), builders.run(after, sample), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.parametrize(
    ("form", "shape"),
    [
        *product(ALL, ((3, 8), (1, 5, 8), IMAGE)),
        ("batch-norm-by-root", (1, 8)),
        ("rms", (1, 4, 1)),
        ("keras", (1, 4, 1)),
    ],
    ids=str,
)
def test_every_form_becomes_one_op(form, shape):
    """Each form of a norm is found at ranks 2 to 4, and computes the same with L2_NORMALIZATION, blank positions too.

    Nothing of the variance and its root is left, and the file has the same inputs and outputs.
    """
    ops = Ops(shape)
    tflite = ops.build(ALL[form](ops, ops.x))
    (found,) = find_normalizations(read_model(tflite).main)
    assert found.epsilon == pytest.approx(EPSILON) and (found.mean is None) == form.startswith("rms")
    changed = _replaced(tflite)
    assert _names(changed).count("L2_NORMALIZATION") == 1
    assert set(_names(changed)) & ROOTS == ({"MEAN"} if found.mean is not None else set())
    assert "TRANSPOSE" not in _names(changed)
    before, after = read_model(tflite), read_model(changed)
    assert (after.input_names(), after.output_names()) == (before.input_names(), before.output_names())
    read = {index for op in after.main.ops for index in op.inputs} | {*after.main.outputs}
    assert all(tensor.index in read for tensor in after.main.tensors), "a tensor without a reader is left"
    _assert_equal(tflite, changed, _flat(tflite))


@pytest.mark.parametrize("form", ALL)
def test_an_epsilon_far_below_the_variance_may_go(form):
    """Where every variance is about 1, a hundred thousand times epsilon, the norm without it is the same to 1e-4."""
    ops = Ops((1, 4, 64))
    tflite = ops.build(ALL[form](ops, ops.x))
    samples = [{"x": 10.0 * sample["x"]} for sample in builders.samples(tflite, 3)]
    changed = _replaced(tflite, extended=False)
    assert {"PAD", "SLICE"}.isdisjoint(_names(changed))
    _assert_equal(tflite, changed, samples)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_such_norm_stays_as_it_is(name):
    """Means over other axes, other numerators, rank 5, activations and computed epsilons leave the file as it is."""
    part, shape = OTHERS[name]
    ops = Ops(shape)
    tflite = ops.build(part(ops, ops.x))
    assert find_normalizations(read_model(tflite).main) == []
    assert replace_normalizations(tflite, []) == tflite


@pytest.mark.parametrize("kind", ["INT32", "FLOAT16"])
def test_norms_of_other_types_are_left(kind):
    """L2_NORMALIZATION computes with float32 only; a file whose tensors have another type is not touched."""
    ops = Ops(IMAGE)
    model = unpack(ops.build(rms(ops, ops.x)))
    for tensor in model.subgraphs[0].tensors:
        if not tensor.buffer:
            tensor.type = getattr(schema().TensorType, kind)
    assert find_normalizations(read_model(pack(model)).main) == []


def test_an_open_length_is_left():
    """A text of any length has no constant shape; an open batch is that of the shape, 1."""
    ops = Ops((1, 5, 8))
    tflite = ops.build(torch(ops, ops.x))
    for axis, count in ((1, 0), (0, 1)):
        model = unpack(tflite)
        for tensor in model.subgraphs[0].tensors:
            if len(tensor.shape) == 3:
                signature = np.array(tensor.shape, np.int32)
                signature[axis] = -1
                tensor.shapeSignature = signature
        assert len(find_normalizations(read_model(pack(model)).main)) == count


def test_several_norms_in_one_file():
    """Norms one after the other, beside each other and behind a residual sum are all replaced; two are outputs."""
    ops = Ops((1, 5, 8))
    first = keras(ops, ops.x)
    second = torch(ops, ops.op("TANH", first))
    third = rms(ops, ops.op("ADD", second, ops.x))
    beside = torch(ops, ops.x)
    tflite = ops.build(third, beside)
    changed = _replaced(tflite)
    assert _names(changed).count("L2_NORMALIZATION") == 4
    assert set(_names(changed)) & ROOTS == {"MEAN"}
    _assert_equal(tflite, changed, _flat(tflite))


def test_norms_that_share_a_variance_share_the_op():
    """Two gains of one normalized input, as of parallel attention and MLP, need one L2_NORMALIZATION."""
    ops = Ops((1, 5, 8))
    mean = ops.mean(ops.x)
    inverse = inverse_root(ops, ops.mean(ops.op("SQUARED_DIFFERENCE", ops.x, mean)))
    results = []
    for _ in range(2):
        factor = ops.op("MUL", inverse, ops.gain())
        rest = ops.op("SUB", ops.offset(), ops.op("MUL", mean, factor))
        results.append(ops.op("ADD", ops.op("MUL", ops.x, factor), rest))
    tflite = ops.build(*(ops.op("TANH", result) for result in reversed(results)))
    changed = _replaced(tflite)
    assert len(find_normalizations(read_model(tflite).main)) == 2
    assert _names(changed).count("L2_NORMALIZATION") == 1 and set(_names(changed)) & ROOTS == {"MEAN"}
    _assert_equal(tflite, changed, _flat(tflite))


@pytest.mark.parametrize("reader", ["output", "op"])
def test_a_result_that_is_read_before_its_last_gain_is_replaced_there(reader):
    """What a norm gives to several readers is what is replaced: a gain behind it stays an op of its own."""
    ops = Ops((1, 5, 8))
    result = torch(ops, ops.x)
    later = ops.op("MUL", result, ops.constant(3.0))
    tflite = ops.build(later, result if reader == "output" else ops.op("TANH", result))
    changed = _replaced(tflite)
    assert {"SQRT", "DIV"}.isdisjoint(_names(changed)) and _names(changed).count("L2_NORMALIZATION") == 1
    _assert_equal(tflite, changed, _flat(tflite))


@pytest.mark.parametrize("place", ["variance", "root", "difference"])
def test_intermediate_values_that_others_read_stay(place):
    """Where the variance, its root or the difference is an output too, its ops stay, and every output is the same."""
    ops = Ops(IMAGE)
    difference = ops.op("SUB", ops.x, ops.mean(ops.x))
    variance = ops.mean(ops.op("SQUARE", difference))
    inverse = inverse_root(ops, variance)
    result = ops.op("MUL", difference, inverse)
    also = {"variance": variance, "root": inverse, "difference": difference}[place]
    tflite = ops.build(ops.op("TANH", result), also)
    changed = _replaced(tflite)
    names = _names(changed)
    assert "L2_NORMALIZATION" in names
    assert ("RSQRT" in names) == (place == "root") and ("SQUARE" in names) == (place != "difference")
    _assert_equal(tflite, changed, _flat(tflite))


def test_ops_of_other_versions_go_as_well():
    """A file with two operator codes for MUL and ADD, of other versions, keeps no op without a reader."""
    ops = Ops(IMAGE)
    model = unpack(ops.build(ops.op("TANH", keras(ops, ops.x))))
    for name in ("MUL", "ADD"):
        (place,) = [i for i, code in enumerate(model.operatorCodes) if code.builtinCode == builtin_code(name)]
        code = unpack(pack(model)).operatorCodes[place]
        code.version = 2
        model.operatorCodes.append(code)
        last = [op for op in model.subgraphs[0].operators if op.opcodeIndex == place][-1]
        last.opcodeIndex = len(model.operatorCodes) - 1
    tflite = pack(model)
    assert set(_names(_replaced(tflite))) & ROOTS == {"MEAN"}
    _assert_equal(tflite, _replaced(tflite), _flat(tflite))


def test_ops_with_effects_stay():
    """A model that writes a resource variable does so with the norm replaced, though nothing reads what it writes."""
    tflite = remembering()
    before, changed = _names(tflite), _replaced(tflite)
    after = _names(changed)
    for name in ("CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"):
        assert after.count(name) == before.count(name) == 1
    assert "L2_NORMALIZATION" in after and "RSQRT" not in after and before.count("ADD") > after.count("ADD")
    samples = builders.samples(tflite, 3)
    expected, actual = (_run_on(data, samples) for data in (tflite, changed))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(expected[1][0], samples[0]["x"] + samples[1]["x"], rtol=1e-5)


def remembering() -> bytes:
    """A sum in a resource variable, with an RMSNorm of it as a second output, and an ADD that nothing reads."""
    ops = Ops((1, 4))
    model, part = unpack(memory()), unpack(ops.build(rms(ops, ops.x)))
    graph = model.subgraphs[0]
    first, codes, buffers = len(graph.tensors), len(model.operatorCodes), len(model.buffers)
    model.operatorCodes += part.operatorCodes
    model.buffers += part.buffers
    new = part.subgraphs[0]
    moved = {int(new.inputs[0]): int(graph.outputs[0])}
    for index, tensor in enumerate(new.tensors):
        tensor.name = b"norm/" + tensor.name
        tensor.buffer += buffers
        moved.setdefault(index, first + index)
    graph.tensors += new.tensors
    for op in new.operators:
        op.opcodeIndex += codes
        for side in ("inputs", "outputs"):
            setattr(op, side, np.array([moved[int(index)] for index in getattr(op, side)], np.int32))
    dead = unpack(pack(model)).subgraphs[0].operators[3]
    dead.outputs = np.array([first + int(new.inputs[0])], np.int32)
    graph.operators += [*new.operators, dead]
    graph.outputs = np.array([*graph.outputs, moved[int(new.outputs[0])]], np.int32)
    return pack(model)


def _run_on(tflite: bytes, samples) -> list[np.ndarray]:
    """Run the samples one after the other in one interpreter, whose state lives on."""
    from ai_edge_litert.interpreter import Interpreter

    runtime = Interpreter(model_content=tflite, num_threads=1)
    runtime.allocate_tensors()
    results = []
    for sample in samples:
        runtime.set_tensor(runtime.get_input_details()[0]["index"], sample["x"])
        runtime.invoke()
        results.append(np.stack([runtime.get_tensor(detail["index"]) for detail in runtime.get_output_details()]))
    return results


def network() -> bytes:
    """LayerNorm in front of two dense layers and a mean over positions; (1, 12, 16) to (1, 1, 6)."""
    ops = Ops((1, 12, 16))
    hidden = ops.op("RELU", _dense(ops, keras(ops, ops.x), "hidden", 32))
    return ops.build(ops.mean(_dense(ops, hidden, "out", 6), (1,)))


def _dense(ops: Ops, source: int, name: str, units: int) -> int:
    """A dense layer along the last axis."""
    channels = ops.shape(source)[-1]
    result = ops.tensor((*ops.shape(source)[:-1], units), name)
    weights = [ops.net.weights(f"{name}/w", units, channels), ops.net.weights(f"{name}/b", units)]
    ops.net.op("FULLY_CONNECTED", [source, *weights], [result], keepNumDims=True)
    return result


def _uneven(tflite: bytes, count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Samples whose positions differ in scale by a factor of 20, in an order of their own."""
    samples, random = builders.samples(tflite, count, seed), np.random.default_rng(seed)
    for sample in samples:
        sample["x"] *= random.permutation(np.geomspace(0.15, 3.0, 12)).astype(np.float32)[:, np.newaxis]
    return samples


def _only(*steps: str) -> tuple[str, ...]:
    """The steps to leave out so that these are tried."""
    return tuple(step.id for step in STEPS if step.id not in steps)


def test_int8_is_far_closer_with_it():
    """With positions of very different variance, the int8 file of unseen samples gains 6 dB, and the step is kept.

    A rule without `layer_norm` does not try the step.
    """
    tflite = network()
    samples, unseen = _uneven(tflite, 40), _uneven(tflite, 100, 9)
    off = _only("layer-norm", "ranges")
    plain, better = (improve(tflite, rule, samples, "low", off=off) for rule in (RULE, BY_L2))
    assert "layer-norm" not in [trial.id for trial in plain.steps]
    (trial,) = [trial for trial in better.steps if trial.id == "layer-norm"]
    assert trial.kept and trial.gain_db > 6 and trial.detail == "L2_NORMALIZATION"
    figures = []
    for result in (plain, better):
        quantized = quantize(result.tflite, RULE, result.ranges).tflite
        figures.append(snr_db(logits(tflite, unseen), logits(quantized, unseen)))
    assert figures[1] > figures[0] + 6
    assert improve(tflite, BY_L2, samples, "low", off=off) == better


@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize("shape", [(1, 5, 8), IMAGE], ids=str)
def test_the_edge_tpu_takes_every_op(shape, extended):
    """With and without epsilon, the Edge TPU runs each op of the int8 form, except the mean of an image's channels."""
    ops = Ops(shape)
    changed = _replaced(ops.build(keras(ops, ops.x)), extended)
    quantized = read_model(quantize(changed, BY_L2, minmax(changed, _flat(changed))).tflite)
    report = check(quantized, get_target("edgetpu"))
    others = [finding.op for finding in report.ops if finding.placement is not Placement.ACCELERATOR]
    assert others == (["MEAN"] if len(shape) == 4 else [])


@pytest.mark.parametrize(("factor", "kept"), [(1.0, False), (1e-3, True)])
def test_epsilon_is_kept_where_a_sample_needs_it(factor, kept):
    """Epsilon stays as one more value where it exceeds a hundredth of the smallest variance of any sample."""
    tflite = network()
    samples = builders.samples(tflite, 20)
    for sample in samples:
        sample["x"] *= 3.0
    samples[3]["x"][0, 5] *= factor
    about = subject(tflite, samples, rule=BY_L2)
    # Every fit has the same graph, whether or not its own samples have the small variance.
    for some in (samples, samples[:3], samples[3:]):
        fit = LAYER_NORM.apply(Fit(tflite, tflite), "L2_NORMALIZATION", View(some), about)
        assert ("PAD" in _names(fit.tflite)) == kept


def test_a_stateful_model_keeps_its_state():
    """The PTQ steps of a model with a resource variable lose none of its ops, with and without the norm's step."""
    tflite = remembering()

    def exact_with_it(model, rule, ranges):
        """A quantizer without any loss, but for files with the root."""
        return model if "RSQRT" not in _names(model) else worse

    graph = read_model(tflite).main
    gain = next(t for t in graph.tensors if t.data is not None and t.data.size == 4 and t.name.startswith("norm/"))
    worse = set_constants(tflite, {gain.index: gain.data + 0.5})
    for rule, replaced in ((RULE, False), (BY_L2, True)):
        result = improve(tflite, rule, builders.samples(tflite, 6), "low", quantize_file=exact_with_it)
        assert ("L2_NORMALIZATION" in _names(result.tflite)) == replaced
        for name in ("CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"):
            assert _names(result.tflite).count(name) == 1


@pytest.mark.slow
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("shape", [(1, 8), (1, 5, 8), IMAGE], ids=str)
@pytest.mark.parametrize("framework", ["keras", "tf_keras"])
def test_layers_of_keras(framework, shape, center, scale):
    """What TFLiteConverter makes of LayerNormalization of Keras 3 and 2 is found, with any of its options."""
    layer = import_module(framework).layers.LayerNormalization(center=center, scale=scale)
    _check_layer(layer, shape, True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "found"), [("RMSNormalization", True), ("GroupNormalization", False)])
def test_other_layers_of_keras(name, found):
    """RMSNormalization is found as well; GroupNormalization is not one over the last axis."""
    import keras as framework

    options = {"groups": 2} if name == "GroupNormalization" else {}
    _check_layer(getattr(framework.layers, name)(**options), IMAGE, found)


@pytest.mark.slow
@pytest.mark.parametrize("square", ["square", "product", "difference"])
@pytest.mark.parametrize("root", ["sqrt", "rsqrt", "reciprocal"])
def test_norms_written_by_hand(square, root):
    """What TFLiteConverter makes of a norm written with TensorFlow's functions is found, however it is written."""
    import tensorflow as tf

    random = np.random.default_rng(2)
    gain, offset = (random.normal(1, 0.5, 8).astype(np.float32) for _ in range(2))

    def norm(x):
        mean = tf.reduce_mean(x, -1, keepdims=True)
        d = x - mean
        squared = {"square": lambda: tf.square(d), "product": lambda: d * d,
                   "difference": lambda: tf.math.squared_difference(x, mean)}[square]()  # fmt: skip
        total = tf.reduce_mean(squared, -1, keepdims=True) + EPSILON
        roots = {"sqrt": lambda: d / tf.sqrt(total), "rsqrt": lambda: d * tf.math.rsqrt(total),
                 "reciprocal": lambda: d * (1.0 / tf.sqrt(total))}  # fmt: skip
        return roots[root]() * gain + offset

    _check(_converted(norm, (1, 5, 8)), True)


def _check_layer(layer, shape, found: bool) -> None:
    layer.build(shape)
    random = np.random.default_rng(1)
    layer.set_weights([random.normal(1, 0.3, weights.shape) for weights in layer.get_weights()])
    _check(_converted(layer, shape), found)


def _converted(function, shape) -> bytes:
    import tensorflow as tf

    spec = tf.TensorSpec(shape, tf.float32, name="x")
    concrete = tf.function(function, autograph=False).get_concrete_function(spec)
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())


def _check(tflite: bytes, found: bool) -> None:
    assert len(find_normalizations(read_model(tflite).main)) == found
    changed = _replaced(tflite)
    if not found:
        assert changed == tflite
        return
    assert _names(changed).count("L2_NORMALIZATION") == 1
    assert set(_names(changed)) & ROOTS <= {"MEAN"}
    _assert_equal(tflite, changed, _flat(tflite))
