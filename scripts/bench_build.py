"""Compare `edgepack build -t all` with four TFLiteConverter scripts that write the same four files.

Whole processes are timed, alternating between both sides so that a change in the machine's speed affects both; medians
and their ratio are printed. Peak memory is that of the largest process, as the operating system accounts for it.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from benchmark import mlperf_tiny, parser, work_folder, write_figures

TARGETS = ("cpu", "android-gpu", "edgetpu", "hexagon")
#: Scheme of TFLiteConverter's file for each target: the one that edgepack chooses by default.
PEER_SCHEMES = {"cpu": "int8", "android-gpu": "float16", "edgetpu": "int8", "hexagon": "int8"}

#: The script of TensorFlow's guide to post-training quantization: one process per file.
PEER = """
import sys
import numpy as np
import tensorflow as tf
model, scheme, samples, out = sys.argv[1:]
if model.endswith(".keras"):
    converter = tf.lite.TFLiteConverter.from_keras_model(tf.keras.models.load_model(model, compile=False))
else:
    converter = tf.lite.TFLiteConverter.from_saved_model(model)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
if scheme == "float16":
    converter.target_spec.supported_types = [tf.float16]
else:
    x = np.load(samples)["x"]
    converter.representative_dataset = lambda: ([x[i:i + 1].astype("float32")] for i in range(len(x)))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
open(out, "wb").write(converter.convert())
"""


@dataclass
class Case:
    """One model with its samples."""

    name: str
    model: Path
    calibration: Path
    evaluation: Path
    figures: dict[str, object] = field(default_factory=dict)


def run(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, float, float]:
    """Run a command; return (seconds, peak MiB of its largest process, CPU-seconds of all its processes)."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})}
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{errors.decode()[-3000:]}")
    return seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def mobilenet_v2(folder: Path) -> Case:
    """Return MobileNetV2 with random weights and 100 random samples: time does not depend on them.

    Normalizations get offsets as trained ones have. Without, all 53 biases are zero, and TFLiteConverter stores equal
    constants once: 1.3 % of its file that no trained network saves.
    """
    model = folder / "mobilenet_v2.keras"
    code = (
        "import sys, keras; keras.utils.set_random_seed(1); "
        "net = keras.applications.MobileNetV2(weights=None, input_shape=(224, 224, 3)); "
        "[v.assign(keras.random.normal(v.shape, stddev=0.1)) for v in net.weights if v.name == 'beta']; "
        "net.save(sys.argv[1])"
    )
    run([sys.executable, "-c", code, str(model)])
    x = np.random.default_rng(1).random((100, 224, 224, 3), np.float32)
    np.savez(folder / "mobilenet_v2.npz", x=x)
    np.savez(folder / "mobilenet_v2_eval.npz", x=np.random.default_rng(2).random((20, 224, 224, 3), np.float32))
    return Case("MobileNetV2 224 (.keras)", model, folder / "mobilenet_v2.npz", folder / "mobilenet_v2_eval.npz")


def keyword_spotting(folder: Path) -> Case:
    """Return MLPerf Tiny's trained keyword spotting model: 100 samples for calibration, the other 400 for evaluation."""
    models = mlperf_tiny()
    data = np.load(models / "kws_samples.npz")
    np.savez(folder / "kws.npz", x=data["x"][:100])
    np.savez(folder / "kws_eval.npz", x=data["x"][100:], y=data["y"][100:])
    return Case(
        "keyword spotting (SavedModel)", models / "kws_saved_model", folder / "kws.npz", folder / "kws_eval.npz"
    )


def bench(case: Case, folder: Path, runs: int) -> None:
    """Store times, memory and quality of both sides in `case.figures`."""
    edgepack = shutil.which("edgepack")
    assert edgepack
    script = folder / "peer.py"
    script.write_text(PEER)
    out = folder / "out"
    command = [
        edgepack, "build", str(case.model), *(word for t in TARGETS for word in ("-t", t)),
        "--samples", str(case.calibration), "--eval", str(case.evaluation), "--name", "bench", "--out", str(out), "--force", "--max-drop", "100",
    ]  # fmt: skip
    cold, cached, peers, memory, peer_memory = [], [], [], [], []
    cpu: dict[str, list[float]] = {"cold": [], "cached": [], "peer": []}
    for _ in range(runs):
        cache = folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        environment = {"EDGEPACK_CACHE_DIR": str(cache)}
        seconds, peak, work = run(command, environment)
        cold.append(seconds)
        memory.append(peak)
        again = run(command, environment)
        cached.append(again[0])
        converter = [
            run(
                [
                    sys.executable,
                    str(script),
                    str(case.model),
                    PEER_SCHEMES[t],
                    str(case.calibration),
                    str(folder / f"{t}.tflite"),
                ]
            )
            for t in TARGETS
        ]
        peers.append(sum(seconds for seconds, _, _ in converter))
        peer_memory.append(max(peak for _, peak, _ in converter))
        for kind, figure_ in (("cold", work), ("cached", again[2]), ("peer", sum(part[2] for part in converter))):
            cpu[kind].append(figure_)
    case.figures = {
        "cold": statistics.median(cold),
        "cached": statistics.median(cached),
        "peer": statistics.median(peers),
        "memory": statistics.median(memory),
        "peer_memory": statistics.median(peer_memory),
        "cpu": {kind: statistics.median(values) for kind, values in cpu.items()},
        "check": statistics.median(
            run([edgepack, "check", str(out / "bench-edgetpu/model/bench.tflite"), "-t", "edgetpu"])[0]
            for _ in range(3)
        ),
        "quality": qualities(case, folder, out),
    }


def qualities(case: Case, folder: Path, out: Path) -> list[dict[str, object]]:
    """Measure the files of both sides against the same float model with the same code."""
    from edgepack.pipeline.float_model import convert_model
    from edgepack.pipeline.options import ModelOptions
    from edgepack.pipeline.session import Session
    from edgepack.runtime.evaluate import evaluate
    from edgepack.runtime.logits import expose_logits
    from edgepack.samples import load_samples
    from edgepack.samples.specs import input_specs

    os.environ["EDGEPACK_CACHE_DIR"] = str(folder / "cache")
    with Session(ModelOptions()) as session:
        reference = convert_model(session, case.model)[0].tflite
    samples = load_samples(str(case.evaluation), input_specs(reference))
    rows = []
    for target in TARGETS:
        manifest = json.loads((out / f"bench-{target}" / "manifest.json").read_text())
        ours = (out / f"bench-{target}" / manifest["model"]["host"]).read_bytes()
        peer = (folder / f"{target}.tflite").read_bytes()
        require_same_signature(peer, reference)
        quality = evaluate(reference, {"ours": ours, "peer": peer}, samples)
        # Many class probabilities are smaller than half a scale step of int8; the loss is visible in the logits only.
        logits = evaluate(expose_logits(reference), {"ours": expose_logits(ours), "peer": expose_logits(peer)}, samples)
        rows.append(
            {
                "target": target,
                "scheme": manifest["scheme"]["id"] if isinstance(manifest["scheme"], dict) else manifest["scheme"],
                "bytes": len(ours),
                "peer_bytes": len(peer),
                "quality": {**quality["ours"].to_json(), "logit_snr_db": logits["ours"].snr_db},
                "peer_quality": {**quality["peer"].to_json(), "logit_snr_db": logits["peer"].snr_db},
            }
        )
    return rows


def require_same_signature(peer: bytes, reference: bytes) -> None:
    """Exit when the models differ in their number of inputs or outputs; both sides keep their order."""
    from edgepack.graph import read_model

    a, b = read_model(peer).main, read_model(reference).main
    if (len(a.inputs), len(a.outputs)) != (len(b.inputs), len(b.outputs)):
        sys.exit("the models of the two sides have different inputs or outputs")


def show(case: Case) -> None:
    """Print one model's table."""
    f = case.figures
    print(f"\n{case.name}")
    print("  whole process                        seconds  CPU-seconds   ratio of seconds to TFLiteConverter")
    for kind, name in (
        ("cold", "edgepack build, 4 targets, cold"),
        ("cached", "edgepack build, 4 targets, cached"),
        ("peer", "four TFLiteConverter scripts"),
    ):
        print(f"    {name:<33} {f[kind]:8.1f} {f['cpu'][kind]:12.1f} {f['peer'] / f[kind]:8.1f}")
    print(f"    edgepack check, int8 file                {f['check']:8.2f}")
    print("  peak memory of the largest process, MiB")
    print(
        f"    edgepack {f['memory']:.0f}, TFLiteConverter {f['peer_memory']:.0f}, ratio {f['peer_memory'] / f['memory']:.2f}"
    )
    print("                                    edgepack            |         TFLiteConverter")
    print("  target       scheme        bytes   logits   top-1     |      bytes   logits   top-1")
    print("                                     SNR dB             |              SNR dB")
    for row in f["quality"]:
        ours, peer = row["quality"], row["peer_quality"]
        print(
            f"  {row['target']:<12} {row['scheme']:<9} {row['bytes']:>9} {figure(ours['logit_snr_db']):>8} {figure(ours['top1']):>7}     "
            f"| {row['peer_bytes']:>10} {figure(peer['logit_snr_db']):>8} {figure(peer['top1']):>7}"
        )
    best = next(
        (row["quality"]["top1_float"] for row in f["quality"] if row["quality"]["top1_float"] is not None), None
    )
    if best is not None:
        print(f"  float top-1: {best:.2f}")


def figure(value: float | None) -> str:
    """Return a figure or a dash."""
    return "-" if value is None else f"{value:.2f}"


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__, ("mobilenet_v2", "kws"), work=False)
    options.add_argument("--runs", type=int, default=3, help="runs of each side; default: 3")
    arguments = options.parse_args()
    cases = {"mobilenet_v2": mobilenet_v2, "kws": keyword_spotting}
    figures: dict[str, object] = {}
    with work_folder(None) as work:
        for name in arguments.model or cases:
            folder = work / name
            folder.mkdir()
            case = cases[name](folder)
            bench(case, folder, arguments.runs)
            show(case)
            figures[case.name] = case.figures
    edgepack = shutil.which("edgepack")
    assert edgepack
    helps = [run([edgepack, "--help"])[0] for _ in range(5)]
    print(f"\nedgepack --help: {statistics.median(helps):.2f} s (median of 5)")
    write_figures(arguments.json, {**figures, "help": statistics.median(helps)})


if __name__ == "__main__":
    main()
