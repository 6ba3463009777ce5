import builders
import numpy as np
import pytest
from improve_models import chain

from edgepack.errors import AccuracyError, UnfitModelError
from edgepack.graph import read_model
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.apply import apply, float_ops
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.improve.mixed import mixed
from edgepack.quantize.ranges import choose_ranges
from edgepack.runtime.evaluate import evaluate
from edgepack.runtime.metrics import Quality
from edgepack.samples import InputSpec, load_samples

RULE = SchemeRule("int8", "FLOAT32", mixed=("float32",))


@pytest.fixture
def hard(tmp_path):
    """A model whose channels are 3000 times apart, plain ranges, and a judge that counts agreement on 200 samples."""
    tflite = chain("RELU", 3000.0)
    samples = builders.samples(tflite, 30)
    unseen = np.concatenate([s["image"] for s in builders.samples(tflite, 200, seed=9)])
    np.save(tmp_path / "x.npy", unseen)
    judged = load_samples(str(tmp_path / "x.npy"), [InputSpec("image", (1, 8, 8, 3), np.dtype(np.float32))])

    def judge(made: bytes) -> Quality:
        return evaluate(tflite, {"": made}, judged)[""]

    return tflite, choose_ranges(calibrate(tflite, samples), read_model(tflite), "minmax"), samples, judge


def test_the_fewest_ops_stay_float(hard):
    """Int8 alone misses the limit; with some ops in float it holds, those ops are float in the file and no others."""
    tflite, ranges, samples, judge = hard
    plain = judge(apply(tflite, RULE, ranges).tflite)
    assert plain.drop > 3.0
    done = mixed(tflite, RULE, ranges, samples, judge, 3.0)
    assert done.before.drop == plain.drop
    assert judge(done.made.tflite).drop == done.quality.drop <= 3.0
    assert 0 < len(done.kept) < done.ops
    graph = read_model(done.made.tflite).main
    assert {graph.tensors[op.outputs[0]].name for op in float_ops(graph)} == set(done.kept)
    assert done.made.notes == (f"kept in float: {', '.join(sorted(done.kept))}",)
    for name in done.kept:
        fewer = [one for one in done.kept if one != name]
        assert judge(apply(tflite, RULE, ranges, keep=fewer).tflite).drop > 3.0, f"{name} was not needed"
    assert done == mixed(tflite, RULE, ranges, samples, judge, 3.0)
    assert done.to_json()["kept"] == list(done.kept)


def test_a_limit_that_int8_holds_keeps_nothing(hard):
    """With a limit that int8 holds, the file is int8 throughout and one file was tried."""
    tflite, ranges, samples, judge = hard
    done = mixed(tflite, RULE, ranges, samples, judge, 100.0)
    assert (done.kept, done.tries) == ((), 1)
    assert done.made == apply(tflite, RULE, ranges)


def test_integer_accelerators_refuse_with_a_reason(hard):
    """A rule that allows no float ops is refused with what to do; a limit out of reach is named."""
    tflite, ranges, samples, judge = hard
    with pytest.raises(UnfitModelError, match="takes int8 throughout") as refused:
        mixed(tflite, SchemeRule("int8", "INT8"), ranges, samples, judge, 1.0)
    assert "int8-qat" in refused.value.hint
    with pytest.raises(AccuracyError, match="does not come within -1 points"):
        mixed(tflite, RULE, ranges, samples, judge, -1.0)


def test_integer_ends_stay_integer(hard):
    """Where the file must end in int8, the last op is never kept in float."""
    tflite, ranges, samples, judge = hard
    rule = SchemeRule("int8", "INT8", mixed=("float32",))
    done = mixed(tflite, rule, ranges, samples, judge, 5.0)
    graph = read_model(done.made.tflite).main
    assert {graph.tensors[i].dtype for i in (*graph.inputs, *graph.outputs)} == {"INT8"}
    assert "probabilities" not in done.kept
