"""The catalog of a project: what every cell is, and what changed since the last run, as JSON and as one HTML page.

`index.json` and `index.html` are in the output folder. Paths in them are relative to it, so that the folder can be
published as it is. Cells that a run left out keep their entries while their bundle is there.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgepack._version import __version__
from edgepack.files import read_regular, write_atomically
from edgepack.pipeline.reports.page import render_page
from edgepack.project.cells import Cell, Project
from edgepack.project.logs import CellLogs
from edgepack.project.outcomes import CellResult, MatrixResult
from edgepack.runtime.metrics import measured_accuracy
from edgepack.text import readable_size

#: Version of the form of index.json.
FORMAT = 1

#: Figures of an entry that are compared with those of the run before.
FIGURES = ("scheme", "bytes", "top1", "snr_db", "accelerator", "host", "latency_ms")


def write_catalog(project: Project, result: MatrixResult) -> Path:
    """Write index.json and index.html of a run, and return the path of the page.

    Args:
        project: The project, or the selection of its cells that was built.
        result: The end of the run.

    Raises:
        UsageError: The files cannot be written.
    """
    before = read_catalog(project.out / "index.json")
    entries = [_entry(project.out, one, before.get(one.cell.id)) for one in result.results]
    built = {entry["cell"] for entry in entries}
    kept = [entry for cell, entry in before.items() if cell not in built and _is_there(project.out, entry)]
    entries = sorted([*entries, *kept], key=lambda entry: str(entry["cell"]))
    document = {"format": FORMAT, "edgepack": __version__, "project": project.name, "cells": entries}
    write_atomically(project.out / "index.json", json.dumps(document, indent=1, sort_keys=True) + "\n")
    page = project.out / "index.html"
    write_atomically(page, catalog_page(project.name, entries))
    return page


def read_catalog(path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of an index.json by cell; empty where there is none, or it is not of this form."""
    try:
        document = json.loads(read_regular(path))
        if document["format"] != FORMAT:
            return {}
        return {entry["cell"]: entry for entry in document["cells"] if isinstance(entry["cell"], str)}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def _is_there(out: Path, entry: Mapping[str, Any]) -> bool:
    bundle = entry.get("bundle")
    return isinstance(bundle, str) and bool(bundle) and (out / bundle / "manifest.json").is_file()


def _entry(out: Path, result: CellResult, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the entry of a cell, with the figures of the run before where they differ."""
    document, cell = result.document, result.cell
    model, summary, quality, latency = (document.get(name) or {} for name in ("model", "summary", "quality", "latency"))
    figures = latency.get("figures") or [{}]
    accuracy = measured_accuracy(quality)
    entry = {
        "cell": cell.id,
        "model": cell.model,
        "target": cell.target,
        "soc": cell.soc,
        # Whether its bundle was there before the run is no property of the cell.
        "state": result.state if result.state in {"failed", "stopped"} else "ok",
        "scheme": document.get("scheme") or "",
        "bytes": model.get("bytes"),
        "sha256": model.get("sha256", ""),
        "accelerator": summary.get("accelerator"),
        "host": None if not summary else summary["host"] + summary["unsupported"],
        # Where the truth is boxes or masks, mAP@50 or mIoU stands in its place.
        "top1": None if accuracy is None else accuracy.value,
        "snr_db": quality.get("snr_db"),
        "verdict": quality.get("verdict", ""),
        "latency": latency.get("text", ""),
        "latency_ms": figures[0].get("ms"),
        "warnings": list(document.get("warnings", ())),
        "error": None if result.error is None else result.error.message,
        "bundle": _relative(out, result.bundle),
        "log": _relative(out, CellLogs(out).path(cell.id)),
        "compare": _relative(out, _compare_page(out, cell)),
    }
    entry["before"] = _changes(entry, before)
    return entry


def _changes(entry: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the figures that differed in the run before; None for a cell that is new."""
    if before is None:
        return None
    names = (*FIGURES, "state", "sha256")
    return {name: before.get(name) for name in names if before.get(name) != entry[name]}


def _relative(out: Path, path: Path | None) -> str:
    if path is None or not path.exists():
        return ""
    try:
        return path.absolute().relative_to(out.absolute()).as_posix()
    except ValueError:
        # A cell with an output folder of its own, outside the project's.
        return ""


def _compare_page(out: Path, cell: Cell) -> Path:
    return out / "compare" / f"{cell.model}.html"


def catalog_page(name: str, entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the page: one self-contained file that needs no network; equal entries give equal pages.

    Args:
        name: Name of the project.
        entries: The entries of index.json.
    """
    rows = [_row(entry) for entry in entries]
    return render_page(
        "catalog.html.j2",
        title=name,
        rows=rows,
        failed=sum(entry["state"] != "ok" for entry in entries),
        changed=sum(bool(row["changes"]) for row in rows),
        bytes=readable_size(sum(entry["bytes"] or 0 for entry in entries)),
    )


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    total = None if entry["accelerator"] is None else entry["accelerator"] + entry["host"]
    return {
        **entry,
        "size": "–" if entry["bytes"] is None else readable_size(entry["bytes"]),
        "placed": "–" if total is None else f"{entry['accelerator']} of {total}",
        "share": -1.0 if not total else entry["accelerator"] / total,
        "top1_text": "–" if entry["top1"] is None else f"{entry['top1']:.2f}",
        "snr_text": "–" if entry["snr_db"] is None else f"{entry['snr_db']:.1f}",
        "latency_text": "–" if entry["latency_ms"] is None else f"{entry['latency_ms']:.1f} ms",
        "changes": _change_texts(entry),
    }


def _change_texts(entry: Mapping[str, Any]) -> list[str]:
    """Return what changed since the run before, one text per figure."""
    before = entry.get("before")
    if before is None:
        return ["new"]
    texts = []
    if before.keys() == {"sha256"}:
        texts.append("another file, equal figures")
    if "state" in before:
        texts.append("built again" if entry["state"] == "ok" else "fails now" if before["state"] == "ok" else "failed")
    if before.get("scheme"):
        texts.append(f"scheme was {before['scheme']}")
    if before.get("bytes") and entry["bytes"]:
        texts.append(f"size {100 * (entry['bytes'] / before['bytes'] - 1):+.1f} %")
    for name, title, unit, digits in (
        ("top1", "accuracy", " points", 2),
        ("snr_db", "SNR", " dB", 1),
        ("accelerator", "accelerator", " ops", 0),
        ("latency_ms", "latency", " ms", 1),
    ):
        if before.get(name) is not None and entry[name] is not None:
            texts.append(f"{title} {entry[name] - before[name]:+.{digits}f}{unit}")
    return texts
