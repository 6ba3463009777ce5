"""The search for rewrites asks only which ops are accelerated; it gets the answer of the whole check, faster."""

from pathlib import Path

import builders
import pytest

from edgepack.compat import accelerated_ops, check, support
from edgepack.findings import Placement
from edgepack.graph import read_model
from edgepack.graph.memo import Memo
from edgepack.profiles.model import TargetProfile
from edgepack.profiles.registry import get_target
from edgepack.profiles.variants import choose_variant
from edgepack.quantize.preview import preview

CORPUS = sorted((Path(__file__).resolve().parents[1] / "corpus").glob("*.tflite"))


def _scheme(profile: TargetProfile, scheme: str) -> str:
    return scheme if profile.scheme_rule(scheme) is not None else profile.schemes[0].scheme


@pytest.mark.parametrize("target", ["android-gpu", "edgetpu", "hexagon"])
@pytest.mark.parametrize("scheme", ["int8", "float16"])
def test_the_search_sees_what_the_check_reports(target: str, scheme: str) -> None:
    """For every model of the corpus, with one memory for all of them, so that a wrong reuse would show."""
    profile = get_target(target)
    variant = choose_variant(profile)
    rule = profile.scheme_rule(_scheme(profile, scheme))
    assert rule is not None
    memo = Memo()
    for path in CORPUS * 2:
        model = preview(read_model(path), rule, memo)
        found = accelerated_ops(model, variant, soc={}, runtime_version=None, memo=memo)
        report = check(model, profile)
        assert found == {op.index for op in report.ops if op.placement is Placement.ACCELERATOR}, path.name


def test_what_did_not_change_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look at a model checks no op: the cost of a candidate is that of its edits."""
    profile = get_target("edgetpu")
    variant, rule, memo = choose_variant(profile), profile.schemes[0], Memo()
    model = read_model(builders.classifier())
    checked: list[str] = []
    violations = support.violations
    monkeypatch.setattr(
        support, "violations", lambda context, op, row: checked.append(op.label) or violations(context, op, row)
    )
    for _ in range(2):
        accelerated_ops(preview(model, rule, memo), variant, soc={}, runtime_version=None, memo=memo)
    assert sorted(checked) == sorted(op.label for op in preview(model, rule).main.ops)
