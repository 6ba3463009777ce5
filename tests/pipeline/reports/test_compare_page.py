"""The compare page: readable on any screen, with any number of classes, whatever the names are."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import browse

from edgepack.pipeline.class_report import ClassReport, report_classes
from edgepack.pipeline.compare import ComparedScheme, Comparison
from edgepack.pipeline.reports.compare_page import html
from edgepack.pipeline.simulation.figures import Distance, SimulatedRun, Simulation
from edgepack.runtime.answers import Answers
from edgepack.runtime.metrics import Quality
from edgepack.runtime.task_metrics import TaskQuality
from edgepack.samples import SampleSet
from edgepack.samples.pictures import draw_samples

LONG = "a-name-without-any-place-to-break-it-" * 4
HOSTILE = '"><script>alert(1)</script>\u202eedoc\x00'


def sample_set(count: int, side: int = 64) -> SampleSet:
    """Random pictures; the seed is fixed."""
    pixels = np.random.default_rng(1).random((count, side, side, 3)).astype(np.float32)
    return SampleSet("noise", "0", {"x": pixels}, {"x": (1, side, side, 3)}, {"x": np.dtype(np.float32)})


def report(classes: int, samples: SampleSet, *, labels: bool = True, names: tuple[str, ...] = ()) -> ClassReport:
    """A file that takes every third sample for the next class, which the float model does for every seventh."""
    count = len(samples)
    right = tuple(at % classes for at in range(count))
    before = tuple((label + (at % 7 == 0)) % classes for at, label in enumerate(right)) if labels else right
    after = tuple((label + (at % 3 == 0)) % classes for at, label in enumerate(right))
    lost = tuple(0.5 if at % 3 == 0 else 0.0 for at in range(count))
    scores = (0.75,) * count
    answers = Answers(0, classes, before, scores, after, scores, lost, right if labels else ())
    return report_classes(answers, samples, names)


def comparison(classes: int, *, labels: bool = True, targets: int = 4, name: Callable[[int], str] = str) -> Comparison:
    """Nine schemes on the targets, one of them simulated."""
    samples = sample_set(300)
    found = report(classes, samples, labels=labels, names=tuple(name(at) for at in range(classes)))
    ids = tuple(f"{LONG}{at}" if at == 1 else f"target-{at}" for at in range(targets))
    quality = Quality(snr_db=31.5, cosine=1.0, max_error=0.1, agreement=98.0, top1=90.0, top1_float=91.0, samples=300)
    run = SimulatedRun(20, 20, quality, replace(quality, snr_db=30.0), Distance(1, 0.0, 2.0, 40.0), 100.0, ())
    entry = ComparedScheme(
        "int8",
        bytes=3_000_000,
        gzip_bytes=2_000_000,
        quality=quality,
        targets={target: {"accelerator": 60, "total": 64} for target in ids},
        accepted=ids[1:],
        classes=found,
        notes=(name(0) * 3,),
        simulation=(Simulation("SM8550", "v73", "x.tflite", "QNN HTP simulator", "2.7", run),),
    )
    drawn = draw_samples(samples, [sample.index for sample in found.worst], None)
    assert drawn is not None
    return Comparison(
        f"{name(0)}.tflite",
        {"format": "tflite", "bytes": 12_000_000, "sha256": "0" * 64},
        tuple(replace(entry, scheme=f"scheme-{at}", simulation=entry.simulation * (at == 0)) for at in range(9)),
        ids,
        (),
        dict(zip((sample.index for sample in found.worst), drawn.pictures, strict=True)),
        drawn.pixels,
    )


class Page(HTMLParser):
    """Open elements, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "action"}]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag != "br":
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("classes", [2, 10, 20, 21, 1000])
@pytest.mark.parametrize("labels", [True, False], ids=["labelled", "unlabelled"])
def test_pages_are_sound_and_bounded(classes: int, labels: bool) -> None:
    """Tags are closed in order, nothing is loaded from elsewhere, and the size is bounded, for 2 to 1,000 classes."""
    text = html(comparison(classes, labels=labels))
    page = Page()
    page.feed(text)
    assert page.open == []
    assert all(re.match(r"#sample-\d+$|data:image/png;base64,[A-Za-z0-9+/=]+$", address) for address in page.addresses)
    assert not re.search(r"url\(|@import|<script", text)
    assert text == html(comparison(classes, labels=labels))
    assert len(text) < 1_200_000


def test_hostile_names_stay_text() -> None:
    """A name can neither add elements nor reverse or hide text; lone surrogates of file names do not break the page."""
    text = html(comparison(10, name=lambda at: f"{HOSTILE}\udc80{at}"))
    assert "<script" not in text
    assert not set("\u202e\x00") & set(text)
    text.encode()


def test_figures_are_the_report_s() -> None:
    """The matrix, the table and the cards show the counts of the report, and what the float model does beside them."""
    compared = comparison(10)
    text = html(compared)
    found = compared.results[0].classes
    assert found is not None
    for pair in found.confusions:
        if pair.count or pair.count_float:
            assert (
                f"{pair.expected}, classified as {pair.answered}: {pair.count} (float model: {pair.count_float})"
                in text
            )
    row = found.classes[3]
    assert (row.samples, row.right) == (30, 20)
    assert "66.7 %" in text
    assert text.count("<image ") == len(found.worst) == len(compared.pictures)
    assert "✗ wrong" in text
    assert "98.00" in text and "beside the CPU: 2.0 % of the values differ, by at most 1 step" in text


def test_a_task_has_its_metric() -> None:
    """A detector's page has mAP in place of top-1, in the table and in the picture."""
    compared = comparison(10)
    task = TaskQuality(metric="mAP@50", value=41.25, value_float=43.5)
    results = tuple(
        replace(entry, quality=None if entry.quality is None else replace(entry.quality, task=task))
        for entry in compared.results
    )
    text = html(replace(compared, results=results))
    assert "<h2>Size and mAP@50</h2>" in text
    assert '<td data-name="mAP@50">41.25</td><td data-name="mAP@50 of the float model">43.50</td>' in text


def test_many_classes_show_the_worst() -> None:
    """With 1,000 classes the page has the classes that lost most and the most frequent confusions, and says so."""
    text = html(comparison(1000))
    found = comparison(1000).results[0].classes
    assert found is not None
    assert f"The 20 classes that lost most; <code>--json</code> has the other {len(found.classes) - 20}." in text
    assert "the most frequent 15 of 100 pairs" in text
    assert "Confusion matrix" not in text


WIDTHS = (320, 500, 1000)
#: What is wider than its screen or scrolls, in a frame of each width: Chromium's own window has at least 500 pixels.
SCRIPT = """() => [...document.querySelectorAll('iframe')].map((frame) => {
  const view = frame.contentWindow, page = view.document, style = (entry) => view.getComputedStyle(entry);
  page.querySelectorAll('details').forEach((entry) => { entry.open = true; });
  const entries = [...page.querySelectorAll('body *')].filter((e) => e.closest('.store, thead') === null);
  const wide = entries.filter((e) => e.getBoundingClientRect().right > view.innerWidth + 0.5);
  const scrolled = entries.filter((e) => /auto|scroll/.test(style(e).overflowX) && e.scrollWidth > e.clientWidth);
  return {
    page: page.documentElement.scrollWidth > view.innerWidth,
    wide: wide.slice(0, 3).map((e) => e.outerHTML.slice(0, 200)),
    scrolled: scrolled.length,
    letter: page.querySelector('.confusion text').getBoundingClientRect().height,
    uses: page.querySelectorAll('use').length,
    paper: style(page.body).backgroundColor,
  };
})"""


@pytest.mark.slow
@pytest.mark.parametrize("classes", [20, 1000])
def test_no_screen_scrolls_sideways(tmp_path: Path, classes: int) -> None:
    """With long names and many targets, nothing is wider than the screen or scrolls sideways; names are legible."""
    page = html(comparison(classes, targets=30, name=lambda at: f"{LONG}{at}"))
    inner = page.replace("&", "&amp;").replace('"', "&quot;")
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{inner}"></iframe>' for width in WIDTHS)
    document = f"<html><head><title></title></head><body>{frames}</body></html>"
    screens = browse(document, tmp_path, 1200, SCRIPT, dark=classes == 20)
    assert len(screens) == len(WIDTHS)
    for shown in screens:
        assert shown["page"] is False
        assert shown["wide"] == []
        assert shown["scrolled"] == 0
        assert shown["uses"] == 9 * 8
        assert shown["letter"] >= 8
        assert shown["paper"] == ("rgb(20, 24, 29)" if classes == 20 else "rgb(255, 255, 255)")
