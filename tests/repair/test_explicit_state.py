"""SVDF and LSTM of one step compute the same along a stream with their state in variables."""

import numpy as np
import pytest
import state_models

from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.pipeline.options import TargetOptions
from edgepack.pipeline.rewrite import rewrite_unproven
from edgepack.profiles import get_target
from edgepack.repair import TOLERANCE, explicit_states, prove
from edgepack.runtime.runner import Runner

MODELS = {
    "svdf": state_models.svdf(),
    "svdf of rank 2": state_models.svdf(rank=2, activation="NONE"),
    "svdf of one step": state_models.svdf(memory_size=1),
    "lstm": state_models.fused_lstm(units=8, steps=1),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_is_the_same(name: str) -> None:
    """Over 60 runs, longer than the memory, up to rounding of float32; a reset clears the state of both."""
    before = MODELS[name]
    after, [rewrite] = explicit_states(before)
    assert (rewrite.code, rewrite.exact) == ("explicit-state", True)
    assert (read_model(before).state, read_model(after).state) == ("variable-tensors", "resource-variables")
    first, second = Runner(before), Runner(after)
    random = np.random.default_rng(0)
    [info] = first.inputs
    for number in range(60):
        value = random.normal(size=info.shape).astype(np.float32)
        [expected], [got] = (runner.run([value], keep_state=number not in {0, 40}) for runner in (first, second))
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_proof_runs_a_stream() -> None:
    """A file that starts every run from zeros differs from the second sample on."""
    before = MODELS["svdf"]
    after, _ = explicit_states(before)
    samples = [{"x": np.full((1, 6), value, np.float32)} for value in (1.0, -2.0, 0.5)]
    assert prove(before, after, samples) <= TOLERANCE
    file = unpack(after)
    main = read_model(after).main
    file.subgraphs[0].operators = [
        file.subgraphs[0].operators[op.index] for op in main.ops if op.name != "ASSIGN_VARIABLE"
    ]
    forgetful = pack(file)
    assert prove(before, forgetful, samples[:1]) <= TOLERANCE
    assert prove(before, forgetful, samples) > TOLERANCE


def test_only_targets_that_keep_the_state_outside_get_it() -> None:
    """Elsewhere the fused op is faster and the state is the runtime's."""
    for target, codes in (("hexagon", ["explicit-state"]), ("cpu", []), ("edgetpu", []), ("android-gpu", [])):
        profile = get_target(target)
        rule = profile.scheme_rule("int8") or profile.schemes[0]
        rewritten = rewrite_unproven(MODELS["svdf"], profile, rule, TargetOptions())
        assert [rewrite.code for rewrite in rewritten.rewrites] == codes, target


def test_a_sequence_starts_from_zeros() -> None:
    """An LSTM of several steps is a whole sequence: it is not written with variables."""
    assert explicit_states(state_models.fused_lstm())[1] == ()
