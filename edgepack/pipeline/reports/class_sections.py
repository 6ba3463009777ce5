"""The part of the compare page about classes: accuracy of each, a picture of confusions, the worst samples."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from edgepack.pipeline.class_report import ClassAccuracy, ClassReport, WorstSample
from edgepack.pipeline.compare import ComparedScheme, Comparison
from edgepack.samples.pictures import Picture
from edgepack.text import printable

#: Classes up to which all confusions are one matrix; more are a list of the most frequent ones.
MOST_IN_MATRIX = 20
#: Most rows of the table of classes, and of the list of confusions.
MOST_ROWS, MOST_CONFUSIONS = 20, 15
#: Classes up to which the cells of the matrix have room for a number.
_MOST_NUMBERS = 12
#: Characters of a class name in a table or card, and in a picture.
_NAME, _AXIS, _PAIR = 80, 11, 26
#: Width of the pictures in their own units, which a screen of 320 pixels shows with 280 pixels; width of a letter.
_WIDTH, _LETTER = 360, 6.5
#: Height of one confusion in the list.
_STEP = 38
#: Side below which a picture is enlarged with sharp pixels.
_SHARP = 48


def class_sections(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the section of each file whose answers are not the float model's; the one that changed most is open."""
    reports = [(e, e.classes) for e in comparison.results if e.classes is not None and not _equal(e.classes)]
    # The scheme that accelerators need, where none changed more.
    shown = max(reports, key=lambda pair: (pair[1].changed, pair[0].scheme == "int8"), default=None)
    return [
        {**_section(entry, report, comparison.pictures), "open": shown is not None and entry is shown[0]}
        for entry, report in reports
    ]


def equal_schemes(comparison: Comparison) -> dict[str, Any] | None:
    """Return the schemes whose answers are the float model's on all samples, None without any."""
    equal = [entry for entry in comparison.results if entry.classes is not None and _equal(entry.classes)]
    if not equal or equal[0].classes is None:
        return None
    return {"schemes": [entry.scheme for entry in equal], "samples": equal[0].classes.samples}


def picture_files(comparison: Comparison) -> list[dict[str, Any]]:
    """Return each drawn sample once, however many files list it."""
    return [
        {
            "id": index,
            "width": picture.width,
            "height": picture.height,
            "png": base64.b64encode(picture.png).decode(),
            "sharp": max(picture.width, picture.height) < _SHARP,
        }
        for index, picture in sorted(comparison.pictures.items())
    ]


def _equal(report: ClassReport) -> bool:
    return report.changed == 0 and not report.worst


def _section(entry: ComparedScheme, report: ClassReport, pictures: Mapping[int, Picture]) -> dict[str, Any]:
    rows = _most_telling(report)
    return {
        "scheme": entry.scheme,
        "by_label": report.by_label,
        "summary": _summary(report),
        "matrix": _matrix(report) if len(report.names) <= MOST_IN_MATRIX else None,
        "list": _list(report) if len(report.names) > MOST_IN_MATRIX else None,
        "rows": [_row(row, report.by_label) for row in rows],
        "left_out": len(report.classes) - len(rows),
        "worst": [_card(entry.scheme, sample, report, pictures.get(sample.index)) for sample in report.worst],
    }


def _summary(report: ClassReport) -> str:
    changed = f"{report.changed:,} of {report.samples:,} samples get another class than from the float model"
    if not report.by_label:
        return changed
    return f"{changed}; {report.worsened:,} became wrong, {report.improved:,} became right"


def _most_telling(report: ClassReport) -> Sequence[ClassAccuracy]:
    """Return all classes by number, of many those that lost the largest share, then the largest ones."""
    if len(report.classes) <= MOST_ROWS:
        return report.classes

    def rank(row: ClassAccuracy) -> tuple[float, int, int]:
        return (row.right - row.right_float) / row.samples, -row.samples, row.index

    return sorted(report.classes, key=rank)[:MOST_ROWS]


def _row(row: ClassAccuracy, by_label: bool) -> dict[str, Any]:
    before, after = row.right_float / row.samples, row.right / row.samples
    return {
        "name": printable(row.label, _NAME),
        "samples": f"{row.samples:,}",
        "float": f"{100 * before:.1f} %" if by_label else "",
        "file": f"{100 * after:.1f} %",
        "points": _points(100 * (after - before)),
        "low": after < before,
        "float_x": round(6 + 108 * before, 1),
        "file_x": round(6 + 108 * after, 1),
    }


def _points(difference: float) -> str:
    return "0.0" if abs(difference) < 0.05 else f"{'+' if difference > 0 else '−'}{abs(difference):.1f}"


def _matrix(report: ClassReport) -> dict[str, Any]:
    """Return the confusion matrix: rows are right classes, columns the file's; shades are shares of a row."""
    size = len(report.names)
    margin = round(12 + _LETTER * max(min(len(name), _AXIS) for name in report.names))
    cell = (_WIDTH - margin) / size
    totals = {row.index: row.samples for row in report.classes}
    counts = {(row.index, row.index): (row.right, row.right_float) for row in report.classes}
    counts |= {(pair.expected, pair.answered): (pair.count, pair.count_float) for pair in report.confusions}
    cells = []
    for (expected, answered), (count, count_float) in sorted(counts.items()):
        if not count and not count_float:
            continue
        right, chosen = (printable(report.names[at], _NAME) for at in (expected, answered))
        float_text = f" (float model: {count_float:,})" if report.by_label else ""
        cells.append(
            {
                "x": round(margin + answered * cell, 2),
                "y": round(expected * cell, 2),
                "wrong": expected != answered,
                # A single sample among thousands is still seen.
                "shade": round((0.12 + 0.48 * count / totals[expected]) if count else 0.0, 3),
                "count": f"{count:,}" if count and size <= _MOST_NUMBERS else "",
                "title": f"{right}, classified as {chosen}: {count:,}{float_text}",
            }
        )
    return {
        "width": _WIDTH,
        "height": round(size * cell + margin, 2),
        "margin": margin,
        "end": round(size * cell, 2),
        "cell": round(cell, 2),
        "half": round(cell / 2, 2),
        "font": round(min(11.0, cell * 0.8), 1),
        "cells": cells,
        "names": [
            {"short": printable(name, _AXIS), "full": printable(name, _NAME), "at": round((at + 0.5) * cell, 2)}
            for at, name in enumerate(report.names)
        ],
    }


def _list(report: ClassReport) -> dict[str, Any] | None:
    """Return the most frequent confusions as bars, the file's above the float model's; None without any."""
    pairs = [pair for pair in report.confusions if pair.count][:MOST_CONFUSIONS]
    if not pairs:
        return None
    largest = max(max(pair.count, pair.count_float) for pair in pairs)
    room = _WIDTH - 60
    rows = []
    for at, pair in enumerate(pairs):
        right, chosen = report.names[pair.expected], report.names[pair.answered]
        rows.append(
            {
                "y": at * _STEP,
                "name": f"{printable(right, _PAIR)} → {printable(chosen, _PAIR)}",
                "count": f"{pair.count:,}",
                "file_width": round(room * pair.count / largest, 1),
                "float_count": f"{pair.count_float:,}" if report.by_label else "",
                "float_width": round(room * pair.count_float / largest, 1),
                "title": f"{printable(right, _NAME)}, classified as {printable(chosen, _NAME)}: {pair.count:,}"
                + (f" (float model: {pair.count_float:,})" if report.by_label else ""),
            }
        )
    total = sum(1 for pair in report.confusions if pair.count)
    return {"width": _WIDTH, "height": len(rows) * _STEP, "rows": rows, "total": f"{total:,}"}


def _card(scheme: str, sample: WorstSample, report: ClassReport, picture: Picture | None) -> dict[str, Any]:
    def answer(title: str, index: int, score: float) -> dict[str, Any]:
        return {
            "by": title,
            "name": printable(report.names[index], _NAME),
            "score": f"{100 * score:.1f} %",
            "width": round(100 * min(1.0, max(0.0, score)), 1),
            "wrong": index != (sample.float_class if sample.label is None else sample.label),
        }

    return {
        "index": sample.index,
        "file": printable(sample.file, _NAME),
        "label": "" if sample.label is None else printable(report.names[sample.label], _NAME),
        "picture": None if picture is None else {"width": picture.width, "height": picture.height},
        "float": answer("float model", sample.float_class, sample.float_score),
        "own": answer(scheme, sample.file_class, sample.file_score),
    }
