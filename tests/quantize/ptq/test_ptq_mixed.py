from dataclasses import replace

import builders
import numpy as np
import pytest
from ptq_models import chain

from edgepack.errors import AccuracyError, UnfitModelError
from edgepack.graph import read_model
from edgepack.graph.op_layout import float_ops
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.ptq.mixed import mixed
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import choose_ranges
from edgepack.quantize.select import scheme_of
from edgepack.runtime.evaluate import evaluate
from edgepack.runtime.metrics import Quality
from edgepack.samples import InputSpec, load_samples

RULE = SchemeRule("int8", "FLOAT32", mixed=("float32",))
WIDER = SchemeRule("int8", "INT8", mixed=("int16",), wide_bias=False)


@pytest.fixture
def hard(tmp_path):
    """A model whose channel ranges differ by a factor of 3000, its ranges, and a judge of agreement on 200 samples."""
    tflite = chain("RELU", 3000.0)
    samples = builders.samples(tflite, 30)
    unseen = np.concatenate([s["image"] for s in builders.samples(tflite, 200, seed=9)])
    np.save(tmp_path / "x.npy", unseen)
    judged = load_samples(str(tmp_path / "x.npy"), [InputSpec("image", (1, 8, 8, 3), np.dtype(np.float32))])

    def judge(quantized: bytes) -> Quality:
        return evaluate(tflite, {"": quantized}, judged)[""]

    return tflite, choose_ranges(calibrate(tflite, samples), read_model(tflite), "minmax"), samples, judge


@pytest.mark.slow
def test_the_fewest_ops_stay_float(hard):
    """Int8 alone misses the limit; with some ops in float the file meets it, and exactly those ops are float in it."""
    tflite, ranges, samples, judge = hard
    plain = judge(quantize(tflite, RULE, ranges).tflite)
    assert plain.drop > 3.0
    result = mixed(tflite, RULE, ranges, samples, judge, 3.0)
    assert result.before.drop == plain.drop
    assert judge(result.quantized.tflite).drop == result.quality.drop <= 3.0
    assert 0 < len(result.kept) < result.ops
    graph = read_model(result.quantized.tflite).main
    assert {graph.tensors[op.outputs[0]].name for op in float_ops(graph)} == set(result.kept)
    (note,) = result.quantized.notes
    assert note.startswith(f"{len(result.kept)} of {result.ops} ops in float: ")
    for name in result.kept:
        fewer = [other for other in result.kept if other != name]
        assert judge(quantize(tflite, RULE, ranges, keep=fewer).tflite).drop > 3.0, f"{name} was not needed"
    assert result == mixed(tflite, RULE, ranges, samples, judge, 3.0)
    assert (result.to_json()["kept"], result.to_json()["kept_as"]) == (list(result.kept), "float32")


def test_a_limit_that_int8_holds_keeps_nothing(hard):
    """With a limit that int8 meets, every op of the file is int8 and only one file was measured."""
    tflite, ranges, samples, judge = hard
    result = mixed(tflite, RULE, ranges, samples, judge, 100.0)
    assert (result.kept, result.tries) == ((), 1)
    assert result.quantized == quantize(tflite, RULE, ranges)


def test_integer_accelerators_refuse_with_a_reason(hard):
    """A rule that allows no float ops is refused with a hint; an unreachable limit is named."""
    tflite, ranges, samples, judge = hard
    with pytest.raises(UnfitModelError, match="supports int8 only") as refused:
        mixed(tflite, SchemeRule("int8", "INT8"), ranges, samples, judge, 1.0)
    assert "int8-qat" in refused.value.hint
    with pytest.raises(AccuracyError, match="does not come within -1 points"):
        mixed(tflite, RULE, ranges, samples, judge, -1.0)


def test_integer_ends_stay_integer(hard):
    """Where the file's outputs must be int8, the last op is never kept in float."""
    tflite, ranges, samples, judge = hard
    rule = SchemeRule("int8", "INT8", mixed=("float32",))
    result = mixed(tflite, rule, ranges, samples, judge, 5.0)
    graph = read_model(result.quantized.tflite).main
    assert {graph.tensors[i].dtype for i in (*graph.inputs, *graph.outputs)} == {"INT8"}
    assert "probabilities" not in result.kept


def layers(tflite: bytes) -> dict[str, tuple[str, str]]:
    """Return the types of activation and bias of each layer by its output's name; an empty text for no bias."""
    graph = read_model(tflite).main
    kinds = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
    return {
        graph.tensors[op.outputs[0]].name: (
            graph.tensors[op.outputs[0]].dtype,
            graph.tensors[op.inputs[2]].dtype if len(op.inputs) > 2 else "",
        )
        for op in graph.ops
        if op.name in kinds
    }


@pytest.mark.parametrize("wide_bias", [True, False])
def test_int16_ops_compute_with_16_bits(hard, wide_bias):
    """Exactly the requested ops have int16 activations, with a bias type the rule allows; the SNR is higher."""
    tflite, ranges, samples, _ = hard
    rule = replace(WIDER, wide_bias=wide_bias)
    plain, result = (quantize(tflite, rule, ranges, keep=keep, keep_as="int16") for keep in ((), ("conv", "dw")))
    types = layers(result.tflite)
    depthwise = {"dw": ("INT16", "INT64")} if wide_bias else {"dw/products": ("INT16", "")}
    rest = {"point": ("INT8", "INT32"), "dense": ("INT8", "INT32")}
    assert types == {"conv": ("INT16", "INT32"), **depthwise, **rest}
    graph = read_model(result.tflite).main
    assert {graph.tensors[i].dtype for i in (*graph.inputs, *graph.outputs)} == {"INT8"}
    assert read_model(result.tflite).min_runtime_version == "2.15.0"
    assert result.notes == ("2 of 6 ops in int16: CONV_2D (op 0), DEPTHWISE_CONV_2D (op 1)",)
    assert scheme_of(read_model(result.tflite)) == "int8"
    assert scheme_of(read_model(quantize(tflite, SchemeRule("int16x8", "INT16"), ranges).tflite)) == "int16x8"
    reference = [one for sample in samples for one in builders.run(tflite, sample)]
    snr = [
        builders.snr(reference, [one for sample in samples for one in builders.run(file.tflite, sample)])
        for file in (plain, result)
    ]
    assert snr[1] > snr[0] + 3
    assert len(result.tflite) < len(plain.tflite) + 2000


@pytest.mark.slow
@pytest.mark.parametrize("io", ["INT8", "FLOAT32"])
def test_the_fewest_ops_go_to_int16(hard, io):
    """The search meets the limit with int16 too and keeps no op needlessly; inputs and outputs keep their type."""
    tflite, ranges, samples, judge = hard
    rule = replace(WIDER, io=io)
    result = mixed(tflite, rule, ranges, samples, judge, 5.0, kept_as="int16")
    assert result.before.drop is not None
    assert result.before.drop > 5.0
    assert judge(result.quantized.tflite).drop == result.quality.drop <= 5.0
    assert 0 < len(result.kept) < result.ops
    assert "probabilities" not in result.kept
    graph = read_model(result.quantized.tflite).main
    assert {graph.tensors[i].dtype for i in (*graph.inputs, *graph.outputs)} == {io}
    assert result.to_json()["kept_as"] == "int16"
    assert list(float_ops(graph)) == []
    for name in result.kept:
        fewer = [other for other in result.kept if other != name]
        assert judge(quantize(tflite, rule, ranges, keep=fewer, keep_as="int16").tflite).drop > 5.0, (
            f"{name} was not needed"
        )


def test_only_what_the_rule_names(hard):
    """A rule that mixes int8 with int16 refuses float, and vice versa."""
    tflite, ranges, samples, judge = hard
    for rule, kind, word in ((WIDER, "float32", "float"), (RULE, "int16", "int16")):
        with pytest.raises(UnfitModelError, match=f"no {word} units"):
            mixed(tflite, rule, ranges, samples, judge, 5.0, kept_as=kind)
