"""The search keeps the better of two efforts where evaluation samples can tell."""

from types import SimpleNamespace

import pytest

from edgepack.choices import Effort
from edgepack.pipeline.search import produce
from edgepack.pipeline.search.candidates import Candidate
from edgepack.profiles.model import SchemeRule

RULE = SchemeRule("int8", "INT8")


@pytest.mark.parametrize(("gain", "taken"), [(2.0, "medium"), (-2.0, "low"), (None, "medium")])
def test_more_effort_gives_way_where_it_loses(gain: float | None, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that loses more on the evaluation samples than that of effort low is not taken, and a note tells."""
    made: list[str] = []

    def make(context: object, candidate: Candidate, *_: object) -> produce.QuantizedModel:
        made.append(candidate.effort)
        return produce.QuantizedModel(candidate.effort.encode(), "tool")

    monkeypatch.setattr(produce, "_ptq_of_effort", make)
    monkeypatch.setattr(produce, "_gain", lambda *_: gain)
    context = SimpleNamespace(evaluation=object())
    result = produce._ptq(context, Candidate(RULE, Effort.MEDIUM), b"", None, None)  # type: ignore[arg-type]
    assert result.tflite == taken.encode() and made == ["medium", "low"]
    assert [w for w in result.warnings if "effort low: effort medium is 2.0 dB worse" in w] == list(result.warnings)
    made.clear()
    mixed = Candidate(RULE, Effort.MEDIUM, mixed=0.5)
    assert produce._ptq(context, mixed, b"", None, None).tflite == taken.encode()  # type: ignore[arg-type]
    assert made == ["medium", "low", taken]  # ops are kept on top of the better effort
    made.clear()
    assert produce._ptq(context, Candidate(RULE), b"", None, None).tflite == b"low"  # type: ignore[arg-type]
    assert made == ["low"]
