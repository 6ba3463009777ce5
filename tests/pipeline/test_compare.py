"""Every scheme side by side: figures from the real runtime, and a page that a browser shows without a network."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from browser import browse

from edgepack.errors import TransformError, UsageError
from edgepack.pipeline.build import build
from edgepack.pipeline.compare import Comparison, compare
from edgepack.pipeline.options import BuildOptions
from edgepack.pipeline.reports.compare_page import html
from edgepack.profiles.registry import get_target

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples" / "digits"
FLOAT = REPOSITORY / "tests" / "data" / "digits_float.tflite"
TARGETS = ["cpu", "android-gpu", "edgetpu", "hexagon"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """The embedded example, compared once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPACK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return compare(FLOAT, TARGETS, samples=str(EXAMPLES / "samples.npz"), evaluation=str(EXAMPLES / "eval.npz"))


@pytest.mark.slow
def test_every_scheme_has_its_figures(digits: Comparison) -> None:
    """Each scheme has size, compressed size, accuracy, time here and the targets that take it."""
    schemes = {entry.scheme: entry for entry in digits.results}
    assert list(schemes) == ["float32", "float16", "dynamic-range", "int8", "int16x8", "int8-qat"]
    assert "--train" in schemes.pop("int8-qat").reason
    for entry in schemes.values():
        assert entry.reason == ""
        assert 0 < entry.gzip_bytes <= entry.bytes
        assert entry.quality is not None
        assert entry.quality.top1 is not None
        assert entry.latency is not None
        assert entry.latency.runs >= 5
    assert schemes["int8"].bytes < schemes["float16"].bytes < schemes["float32"].bytes
    assert set(schemes["int8"].targets) == set(schemes["int8"].accepted) == set(TARGETS)
    assert schemes["int8"].quality is not None
    assert schemes["int8"].quality.logits_snr_db is not None
    assert set(schemes["float16"].targets) == {"cpu", "android-gpu"}
    assert schemes["float32"].quality is not None
    assert schemes["float32"].quality.snr_db is None


@pytest.mark.slow
def test_classes_are_those_of_the_samples(digits: Comparison) -> None:
    """Samples by class are the labels' counts, accuracy over them is the file's top-1, and pictures are drawn once."""
    with np.load(EXAMPLES / "eval.npz") as data:
        counts = np.bincount(data["y"])
    for entry in digits.results:
        if entry.reason:
            continue
        assert entry.classes is not None
        assert entry.quality is not None
        assert [row.samples for row in entry.classes.classes] == list(counts)
        right = sum(row.right for row in entry.classes.classes)
        assert 100 * right / counts.sum() == pytest.approx(entry.quality.top1)
        assert entry.to_json()["classes"]["samples"] == counts.sum()
    listed = {sample.index for entry in digits.results if entry.classes for sample in entry.classes.worst}
    assert set(digits.pictures) == listed
    assert digits.pixels == ("values 0..1 are drawn from black to white" if listed else "")


@pytest.fixture(scope="module")
def one_target(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Comparison]:
    """The embedded example compared for a single target, once each."""

    @cache
    def run(target: str) -> Comparison:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EDGEPACK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
            return compare(
                FLOAT, [target], samples=str(EXAMPLES / "samples.npz"), evaluation=str(EXAMPLES / "eval.npz")
            )

    return run


@pytest.mark.slow
def test_estimated_latency_is_the_check_s(digits: Comparison) -> None:
    """Only targets with an estimate have one, for the schemes that they support, and the page has the same words."""
    timed = {(entry.scheme, target): latency for entry in digits.results for target, latency in entry.latencies.items()}
    assert set(timed) == {("int8", "edgetpu")}
    (latency,) = timed.values()
    assert latency["by"] == "edgepack"
    assert latency["text"] in html(digits)
    (shown,) = [entry.to_json() for entry in digits.results if entry.scheme == "int8"]
    assert shown["latencies"] == {"edgetpu": latency}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "scheme"),
    [(target, rule.scheme) for target in TARGETS for rule in get_target(target).schemes if rule.scheme != "int8-qat"],
)
def test_compare_shows_the_file_that_build_ships(
    tmp_path: Path, one_target: Callable[[str], Comparison], target: str, scheme: str
) -> None:
    """For the same options the file is byte for byte the same, and so are its figures."""
    samples, evaluation = str(EXAMPLES / "samples.npz"), str(EXAMPLES / "eval.npz")
    shown = next(entry for entry in one_target(target).results if entry.scheme == scheme)
    options = BuildOptions(out=tmp_path, scheme=scheme, samples=samples, eval=evaluation)
    (built,) = build(FLOAT, [target], options).results
    assert built.error is None
    assert (shown.sha256, shown.target) == (built.model_sha256, target)
    assert shown.quality == built.quality
    assert built.report is not None
    assert shown.targets[target] == built.report.summary


@pytest.mark.slow
def test_layers_say_where_the_error_is(digits: Comparison) -> None:
    """int8 has a finite error on each computing layer, in the order of the file."""
    int8 = next(entry for entry in digits.results if entry.scheme == "int8")
    assert [layer.op for layer in int8.layers][:2] == ["CONV_2D", "DEPTHWISE_CONV_2D"]
    assert all(layer.snr_db is None or 10 < layer.snr_db < 100 for layer in int8.layers)


@pytest.mark.slow
def test_without_samples_integer_schemes_say_what_they_need() -> None:
    """Nothing is invented: a scheme that needs samples is listed with its reason."""
    schemes = {entry.scheme: entry for entry in compare(FLOAT, ["cpu"]).results}
    assert "samples" in schemes["int8"].reason
    assert schemes["float16"].bytes > 0
    assert schemes["float16"].quality is None


@pytest.mark.slow
def test_training_adds_rows(tmp_path: Path) -> None:
    """--train: quantization-aware training, zeros and clusters stand beside the rest, smaller when compressed."""
    with np.load(EXAMPLES / "eval.npz") as data:
        np.savez(tmp_path / "train.npz", x=data["x"][:240], y=data["y"][:240])
        np.savez(tmp_path / "eval.npz", x=data["x"][240:], y=data["y"][240:])
    comparison = compare(
        EXAMPLES / "digits.keras",
        ["edgetpu"],
        samples=str(EXAMPLES / "samples.npz"),
        evaluation=str(tmp_path / "eval.npz"),
        train=str(tmp_path / "train.npz"),
        epochs=2,
    )
    rows = {entry.scheme: entry for entry in comparison.results}
    assert list(rows) == ["int8", "int8-qat", "prune+qat", "cluster+qat", "prune+cluster+qat"]
    for entry in rows.values():
        assert entry.reason == ""
        assert entry.accepted == ("edgetpu",)
        assert entry.quality is not None
        assert entry.quality.top1 is not None
    assert rows["prune+cluster+qat"].gzip_bytes < rows["prune+qat"].gzip_bytes < rows["int8"].gzip_bytes
    assert "80 % zeros, 16 clusters" in rows["prune+cluster+qat"].notes
    assert "compressed file size" in html(comparison)


def test_training_wants_a_keras_model() -> None:
    """A .tflite with --train is refused before any file is produced."""
    with pytest.raises(TransformError, match=r"\.tflite"):
        compare(FLOAT, ["cpu"], train=str(EXAMPLES / "eval.npz"))


def test_a_quantized_model_is_refused(shared_models: Path) -> None:
    """There is no float model to compare with."""
    with pytest.raises(UsageError, match="already quantized"):
        compare(shared_models / "coral" / "mobilenet_v1_0.25_128_quant.tflite", ["cpu"])


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "action"}]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.slow
def test_labels_of_the_picture_stay_apart(digits: Comparison) -> None:
    """Ten files of nearly one size and one accuracy still have a label each: inside the picture, none over another."""
    entry = next(entry for entry in digits.results if entry.scheme == "int8")
    crowd = [replace(entry, scheme=f"scheme-{n}", bytes=entry.bytes + 40 * n) for n in range(10)]
    page = html(replace(digits, results=tuple(crowd))).split('<div class="plot narrow">')[0]
    labels = re.findall(r'<text x="([0-9.]+)" y="([0-9.]+)">(scheme-[0-9])</text>', page)
    assert [name for *_, name in labels] == [entry.scheme for entry in crowd]
    places = [(float(x), float(y)) for x, y, _ in labels]
    assert all(0 < x < 660 - 60 and 0 < y < 270 for x, y in places)
    assert all(abs(a[1] - b[1]) >= 15 or abs(a[0] - b[0]) >= 60 for a, b in combinations(places, 2))


@pytest.mark.slow
def test_the_page_is_sound_and_needs_no_network(digits: Comparison) -> None:
    """Tags are closed in order, nothing is loaded from anywhere, and a hostile name stays text."""
    page = _Page()
    page.feed(html(digits))
    assert page.open == []
    assert all(address.startswith(("data:image/png;base64,", "#sample-")) for address in page.addresses)
    assert not re.search(r"url\(|@import|<script", html(digits))
    assert "<script>" not in html(replace(digits, model="<script>alert(1)</script>"))


@pytest.mark.slow
@pytest.mark.parametrize("width", [500, 1000], ids=["phone", "desk"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_it(digits: Comparison, tmp_path: Path, width: int, dark: bool) -> None:
    """A real browser renders the page: text is there, nothing is wider than the screen, light and dark differ."""
    script = (
        "() => ({wide: document.documentElement.scrollWidth > innerWidth, "
        "paper: getComputedStyle(document.body).backgroundColor, rows: document.querySelectorAll('tbody tr').length, "
        "dots: document.querySelectorAll('.plot circle').length})"
    )
    page = browse(html(digits), tmp_path, width, script, dark=dark)
    assert page["wide"] is False
    assert page["dots"] == 2 * 5
    assert page["rows"] >= 10
    assert page["paper"] == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")
