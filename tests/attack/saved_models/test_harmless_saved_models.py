"""No false alarms: models of TensorFlow's own API pass; the lists cover the installed TensorFlow."""

from pathlib import Path

import pytest

from edgepack.child import Worker
from edgepack.untrusted.graph_ops import graph_ops
from edgepack.untrusted.graph_rules import RULES


@pytest.mark.slow
def test_models_of_the_api_pass(attack_worker: Worker, tmp_path: Path) -> None:
    """Nothing is found in any of the models; lookup tables read their assets from the private copy."""
    found = attack_worker.call("harmless_saved_models:findings", str(tmp_path))
    assert len(found) >= 25
    assert {name: codes for name, codes in found.items() if codes} == {}


def test_every_op_is_in_a_list(attack_worker: Worker) -> None:
    """A new TensorFlow with new ops fails here: run scripts/derive_graph_ops and decide about them."""
    assert attack_worker.call("harmless_saved_models:undecided") == []


def test_lists_are_consistent() -> None:
    """No op is in two lists, and every rule exists."""
    ops = graph_ops()
    assert not ops.allowed & set(ops.constrained)
    assert not ops.allowed & set(ops.refused)
    assert not set(ops.constrained) & set(ops.refused)
    assert set(ops.constrained.values()) <= {*RULES, "asset_file", "saver"}
