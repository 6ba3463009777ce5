"""A comparison as one self-contained HTML page: no network, readable on a phone, light and dark."""

import math
from collections.abc import Sequence
from typing import Any

from edgepack.pipeline.compare import ComparedScheme, Comparison
from edgepack.pipeline.reports.class_sections import class_sections, equal_schemes, picture_files
from edgepack.pipeline.reports.page import render_page
from edgepack.pipeline.simulation.figures import Simulation
from edgepack.runtime.metrics import Quality
from edgepack.text import printable, readable_size

_LEFT, _TOP, _BOTTOM = 70, 20, 270
#: Width of the plot on a desk and on a phone, in pixels.
WIDE, NARROW = 660, 340
#: Space right of the plot's axis in pixels.
_SPACE = 40
#: Characters of a name, and of a sentence that may contain some.
_NAME, _SENTENCE = 120, 1000
#: Width of a letter and height of a line of the plot's labels in pixels, with a margin.
_LETTER, _LINE = 8.0, 16.0
#: SNR in dB below which a layer's bar has the warning color; int8 models begin to lose accuracy around it.
_LOW_SNR = 15.0


def html(comparison: Comparison) -> str:
    """Return the page of a comparison; equal comparisons give equal pages."""
    built = [entry for entry in comparison.results if not entry.reason]
    source = comparison.source
    notes = [*comparison.notes, *(f"{e.scheme}: {note}" for e in built for note in e.notes)]
    return render_page(
        "compare.html.j2",
        title=printable(comparison.model, _NAME),
        source=f"{source['format']}, {readable_size(source['bytes'])}, sha256 {source['sha256'][:12]}",
        targets=[printable(target, _NAME) for target in comparison.targets],
        rows=[_row(entry, comparison.targets) for entry in comparison.results],
        metric=_metric(built),
        plots=[(name, plot(built, width)) for name, width in (("wide", WIDE), ("narrow", NARROW))],
        latencies=[
            {"scheme": e.scheme, "target": target, "text": latency["text"]}
            for e in built
            for target, latency in e.latencies.items()
        ],
        simulations=[_simulation(e.scheme, simulation) for e in built for simulation in e.simulation],
        equal=equal_schemes(comparison),
        measured=any(e.quality is not None for e in built),
        sections=class_sections(comparison),
        pictures=picture_files(comparison),
        pixels=comparison.pixels,
        layered=[{"scheme": e.scheme, "layers": _layers(e)} for e in built if e.layers],
        notes=[printable(note, _SENTENCE) for note in notes],
        threads=next((e.latency.threads for e in built if e.latency is not None), 1),
        runs=min((e.latency.runs for e in built if e.latency is not None), default=0),
    )


def _metric(built: Sequence[ComparedScheme]) -> str:
    """Return the metric of accuracy: `top-1`, or that of the model's task."""
    known = (entry.quality.accuracy for entry in built if entry.quality is not None)
    return next((accuracy.metric for accuracy in known if accuracy is not None), "top-1")


def _figure(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _row(entry: ComparedScheme, targets: Sequence[str]) -> dict[str, Any]:
    quality, latency = entry.quality, entry.latency
    accuracy = None if quality is None else quality.accuracy
    return {
        "scheme": entry.scheme,
        "reason": printable(entry.reason, _SENTENCE),
        "size": readable_size(entry.bytes),
        "gzip": readable_size(entry.gzip_bytes),
        "accuracy": _figure(None if accuracy is None else accuracy.value),
        "accuracy_float": _figure(None if accuracy is None else accuracy.value_float),
        "snr": _snr(quality),
        "logits": _figure(None if quality is None else quality.logits_snr_db, 1),
        "latency": _figure(None if latency is None else latency.median_ms, 3),
        "placed": [(printable(target, _NAME), _placed(entry, target)) for target in targets],
    }


def _snr(quality: Quality | None) -> str:
    if quality is None:
        return _figure(None)
    return "equal" if quality.snr_db is None else _figure(quality.snr_db, 1)


def _placed(entry: ComparedScheme, target: str) -> str:
    summary = entry.targets.get(target)
    if summary is None:
        return "–"
    placed = f"{summary['accelerator']} of {summary['total']}"
    return placed if target in entry.accepted else f"refused, {placed}"


def _simulation(scheme: str, simulation: Simulation) -> dict[str, Any]:
    """Return the figures of a simulated file beside those of the same file on the CPU."""
    run = simulation.run
    measured = [("CPU", run.cpu), ("simulated", run.quality)]
    return {
        "title": f"{scheme} on {printable(simulation.title, _NAME)}",
        "samples": run.samples,
        "rows": [
            {
                "where": where,
                "top1": _figure(quality.top1),
                "snr": _snr(quality),
                "agreement": _figure(quality.agreement),
            }
            for where, quality in measured
            if quality is not None and (quality.snr_db, quality.agreement, quality.top1) != (None, None, None)
        ],
        "sentences": [printable(text.strip(), _SENTENCE) for text in simulation.sentences],
    }


def _layers(entry: ComparedScheme) -> list[dict[str, Any]]:
    return [
        {
            "output": printable(layer.output, _NAME),
            "op": layer.op,
            "snr": "equal" if layer.snr_db is None else f"{layer.snr_db:.1f}",
            "low": layer.snr_db is not None and layer.snr_db < _LOW_SNR,
            "width": 180 if layer.snr_db is None else round(min(180.0, max(2.0, 3 * layer.snr_db))),
        }
        for layer in entry.layers
    ]


def plot(built: Sequence[ComparedScheme], width: int = WIDE) -> dict[str, Any] | None:
    """Return the plot of size against accuracy (SNR without labels), None with fewer than two measured files.

    Args:
        built: The files.
        width: Width of the plot in pixels.
    """
    right = width - _SPACE
    measured = [(entry, entry.quality) for entry in built if entry.quality is not None]
    if len(measured) < 2:
        return None
    # Pruning and clustering shrink the compressed file only.
    compressed = any("+" in entry.scheme for entry in built)

    def size_of(entry: ComparedScheme) -> int:
        return entry.gzip_bytes if compressed else entry.bytes

    accuracies = [quality.accuracy.value for _, quality in measured if quality.accuracy is not None]
    by_accuracy = len(accuracies) == len(measured)
    best = max((q.snr_db for _, q in measured if q.snr_db is not None), default=60.0)
    # A file without error has no finite SNR; it is drawn at the top.
    heights = accuracies if by_accuracy else [best if q.snr_db is None else q.snr_db for _, q in measured]
    low, high = _span(min(heights), max(heights), 1.0)
    _, widest = _span(0, max(size_of(entry) for entry, _ in measured), 1.0)
    places = [
        (
            _LEFT + size_of(entry) / widest * (right - _LEFT),
            _BOTTOM - (height - low) / (high - low) * (_BOTTOM - _TOP),
            entry.scheme,
            f"{entry.scheme}: {readable_size(size_of(entry))}, {height:.2f}",
        )
        for (entry, _), height in sorted(zip(measured, heights, strict=True), key=lambda item: size_of(item[0][0]))
    ]
    # Labels cover neither points nor other labels.
    occupied = [(x - 8, x + 8, y + 5) for x, y, *_ in places]
    points = []
    for x, y, name, title in places:
        left, baseline = _label_place(x, y, name, right, occupied)
        place = {"x": x, "y": y, "label_x": left, "label_y": baseline}
        points.append({key: round(value, 1) for key, value in place.items()} | {"name": name, "title": title})
    digits = 1 if high - low >= 4 else 2
    metric = _metric(built)
    what = "top-1 accuracy" if metric == "top-1" else metric
    # A phone has no room for five sizes side by side.
    steps = 4 if width >= WIDE else 2
    return {
        "width": width,
        "right": right,
        "middle": (_LEFT + right) // 2,
        "size": "compressed file size" if compressed else "file size",
        "what": what if by_accuracy else "SNR in dB",
        "points": points,
        "x_ticks": [
            {"at": round(_LEFT + i / steps * (right - _LEFT), 1), "text": readable_size(widest * i / steps)}
            for i in range(steps + 1)
        ],
        "y_ticks": [
            {"at": round(_BOTTOM - i / 4 * (_BOTTOM - _TOP), 1), "text": _figure(low + (high - low) * i / 4, digits)}
            for i in range(5)
        ],
    }


def _label_place(
    x: float, y: float, text: str, right: float, occupied: list[tuple[float, float, float]]
) -> tuple[float, float]:
    """Return where the label of a point starts: next to the point, else on the nearest free line above or below it.

    Args:
        x: Horizontal position of the point.
        y: Vertical position of the point.
        text: The label.
        right: End of the horizontal axis.
        occupied: (start, end, baseline) of the labels placed before; this one is added.
    """
    width = _LETTER * len(text)
    left = x + 10 if x + 10 + width < right + 30 else max(2.0, x - 10 - width)
    # Candidate lines by distance, the upper one of a pair first.
    lines = [y + 5, *(y + 5 + sign * _LINE * step for step in range(1, 16) for sign in (-1, 1))]
    inside = [line for line in lines if _TOP < line < _BOTTOM - 4]
    free = [
        line
        for line in inside
        if all(abs(line - other) >= _LINE - 1 or left > end or left + width < start for start, end, other in occupied)
    ]
    baseline = (free or inside or lines)[0]
    occupied.append((left, left + width, baseline))
    return left, baseline


def _span(low: float, high: float, least: float) -> tuple[float, float]:
    """Return limits of an axis: slightly wider than the values, and at least `least` apart."""
    if high - low < least:
        middle = (low + high) / 2
        return middle - least / 2, middle + least / 2
    margin = (high - low) * 0.08
    return (low - margin if low else 0.0, math.ceil((high + margin) * 100) / 100)
