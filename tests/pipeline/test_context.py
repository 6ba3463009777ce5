"""Promise: samples are examined for mistakes once; a later build says the same about them without reading them."""

from pathlib import Path

import numpy as np
import pytest
from builders import classifier

from edgepack.pipeline import context as module
from edgepack.pipeline.context import prepare
from edgepack.pipeline.options import BuildOptions, ModelOptions
from edgepack.pipeline.session import Session
from edgepack.samples import SampleSet, lint


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sources in the order in which they were examined."""
    sources: list[str] = []

    def record(samples: SampleSet, other: SampleSet | None = None, *, scales_itself: bool = False) -> list[str]:
        sources.append(samples.source)
        return lint(samples, other, scales_itself=scales_itself)

    monkeypatch.setattr(module, "lint", record)
    return sources


def notes_of(folder: Path, samples: str, evaluation: str = "") -> tuple[str, ...]:
    options = BuildOptions(
        samples=str(folder / samples), eval=str(folder / evaluation) if evaluation else "", model=ModelOptions()
    )
    with Session(options.model) as session:
        return prepare(folder / "net.tflite", options, session).notes


def test_mistakes_are_found_once(tmp_path: Path, examined: list[str]) -> None:
    """The second build repeats every note; other samples and other evaluation samples are examined."""
    (tmp_path / "net.tflite").write_bytes(classifier())
    random = np.random.default_rng(0)
    np.save(tmp_path / "few.npy", random.random((5, 8, 8, 3), np.float32))
    np.save(tmp_path / "other.npy", random.random((6, 8, 8, 3), np.float32))
    np.save(tmp_path / "large.npy", 1000 * random.random((5, 8, 8, 3), np.float32))
    first = notes_of(tmp_path, "few.npy")
    assert any("only 5 samples" in note for note in first)
    assert notes_of(tmp_path, "few.npy") == first and examined == ["few.npy"]
    assert any("only 6 samples" in note for note in notes_of(tmp_path, "other.npy"))
    twice = [notes_of(tmp_path, "few.npy", "large.npy") for _ in range(2)]
    assert twice[0] == twice[1] and any("normalized twice" in note for note in twice[0])
    (tmp_path / "few.npy").rename(tmp_path / "renamed.npy")
    assert any("'renamed.npy'" in note for note in notes_of(tmp_path, "renamed.npy"))
    assert examined == ["few.npy", "other.npy", "few.npy", "renamed.npy"]
