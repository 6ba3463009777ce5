"""`--cut-tail`: last steps that a target refuses move to the loader, are reported, measured, cached and shipped."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import Net
from postprocessing_models import images

from edgepack.bundle.verify import verify
from edgepack.cli.main import run
from edgepack.graph import read_model
from edgepack.pipeline.build import build
from edgepack.pipeline.check import check
from edgepack.pipeline.options import BuildOptions, TargetOptions
from edgepack.pipeline.results import TargetResult
from edgepack.runtime import Runner

pytestmark = pytest.mark.slow

#: Classes that an int8 model may choose otherwise than its float model, of 100.
AGREEMENT = 97.0


def options(folder: Path, out: Path, *, cut_tail: bool = True, **more: object) -> BuildOptions:
    target = TargetOptions(cut_tail=cut_tail)
    return BuildOptions(out=out, samples=str(folder / "samples.npz"), target=target, **more)


def one(folder: Path, model: str, target: str, out: Path, **more: object) -> TargetResult:
    (result,) = build(folder / model, [target], options(folder, out, **more)).results
    assert result.error is None, result.error
    return result


def original(folder: Path, file: str, values: np.ndarray) -> list[list[np.ndarray]]:
    """Return, per output, the results of the user's file on each image."""
    runner = Runner((folder / file).read_bytes())
    results = [[np.array(output) for output in runner.run([value[None]])] for value in values]
    return [list(column) for column in zip(*results, strict=True)]


RUN = """
import sys, numpy as np
package = __import__(sys.argv[1])
model = next(value for value in vars(package).values() if isinstance(value, type) and hasattr(value, "run"))()
results = [model.run(image[None]) for image in np.load(sys.argv[2])]
np.savez(sys.argv[3], **{t.name: np.stack([getattr(r, t.field) for r in results]) for t in package.OUTPUTS})
"""


def loaded(bundle: Path, values: np.ndarray, scratch: Path) -> dict[str, np.ndarray]:
    """Return the results of the bundle's own package on each image, by the output's name."""
    source = bundle / "linux" / "src"
    package = next(path.name for path in source.iterdir())
    np.save(scratch / "in.npy", values)
    command = [sys.executable, "-c", RUN, package, str(scratch / "in.npy"), str(scratch / "out.npz")]
    process = subprocess.run(
        command, env={"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    with np.load(scratch / "out.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_classes_of_a_float_model(postprocessing_models: Path, tmp_path: Path) -> None:
    """ARG_MAX leaves the float model before it is quantized; the loader's classes are the float model's."""
    result = one(postprocessing_models, "classes", "edgetpu", tmp_path)
    assert result.report is not None and result.report.summary["host"] == 0
    assert sorted(step.message for step in result.postprocessing) == ["ARG_MAX of 'class'", "ARG_MAX of 'map'"]
    assert result.model is not None and "ARG_MAX" not in {op.name for op in read_model(result.model).main.ops}
    assert result.bundle is not None and verify(result.bundle).ok
    manifest = json.loads((result.bundle / "manifest.json").read_text())
    outputs = {output["name"]: output for output in manifest["outputs"]}
    assert outputs["class"]["shape"] == [1, 6]
    assert outputs["class"]["tail"] == [{"op": "ARG_MAX", "axis": 1, "beta": 1.0, "shape": [1], "dtype": "INT64"}]
    assert outputs["map"]["tail"][0] | {"beta": 0} == {
        "op": "ARG_MAX", "axis": 3, "beta": 0, "shape": [1, 8, 8], "dtype": "INT32",
    }  # fmt: skip
    values = images(100, seed=9)
    results = loaded(result.bundle, values, tmp_path)
    names = read_model(postprocessing_models / "classes.tflite").output_names()
    for name, column in zip(names, original(postprocessing_models, "classes.tflite", values), strict=True):
        expected = np.stack(column)
        assert (results[name].shape, results[name].dtype) == (expected.shape, expected.dtype)
        assert 100 * np.mean(results[name] == expected) >= AGREEMENT


def test_classes_are_measured_by_their_scores(postprocessing_models: Path, tmp_path: Path) -> None:
    """Top-1 of the float model and of the file are those of the chosen classes; SNR is that of the scores."""
    values = images(80, seed=21)
    names = read_model(postprocessing_models / "classes.tflite").output_names()
    chosen = dict(zip(names, original(postprocessing_models, "classes.tflite", values), strict=True))["class"]
    labels = np.array([int(one.ravel()[0]) for one in chosen])
    labels[::8] = (labels[::8] + 1) % 6
    np.savez(tmp_path / "eval.npz", image=values, y=labels)
    result = one(postprocessing_models, "classes", "edgetpu", tmp_path, eval=str(tmp_path / "eval.npz"))
    quality = result.quality
    assert quality is not None and quality.snr_db is not None and quality.snr_db > 15
    assert quality.top1_float == pytest.approx(87.5)
    assert quality.agreement is not None and quality.agreement >= AGREEMENT
    assert result.bundle is not None
    own = loaded(result.bundle, values, tmp_path)["class"].ravel()
    assert quality.top1 == pytest.approx(100 * np.mean(own == labels))


@pytest.mark.parametrize(
    ("file", "steps"), [("probabilities.tflite", ["DEQUANTIZE", "SOFTMAX"]), ("numbers.tflite", ["DEQUANTIZE"])]
)
def test_a_quantized_file_only_loses_its_tail(
    postprocessing_models: Path, tmp_path: Path, file: str, steps: list[str]
) -> None:
    """Of a quantized file only the last steps are cut; the loader returns what the file returned."""
    result = one(postprocessing_models, file, "edgetpu", tmp_path)
    assert [step.op for step in result.postprocessing] == steps
    before = [op.name for op in read_model(postprocessing_models / file).main.ops]
    assert result.model is not None
    assert [op.name for op in read_model(result.model).main.ops] == before[: -len(steps)]
    assert result.bundle is not None and verify(result.bundle).ok
    values = images(20, seed=3)
    [column] = original(postprocessing_models, file, values)
    [values_loaded] = loaded(result.bundle, values, tmp_path).values()
    np.testing.assert_allclose(values_loaded, np.stack(column), rtol=0, atol=1e-6 * float(np.abs(column).max()))
    uncut = one(postprocessing_models, file, "edgetpu", tmp_path / "uncut", cut_tail=False)
    assert uncut.postprocessing == () and uncut.model == (postprocessing_models / file).read_bytes()


def wide_softmax() -> bytes:
    """Return a float model whose SOFTMAX has more classes than an Edge TPU's, with a beta."""
    net = Net(4)
    image, flat, logits = net.tensor("image", (1, 8, 8, 3)), net.tensor("flat", (1, 192)), net.tensor("l", (1, 17000))
    net.op("RESHAPE", [image, net.constant("shape", [1, 192], "INT32")], [flat])
    net.op("FULLY_CONNECTED", [flat, net.weights("w", 17000, 192), net.weights("b", 17000)], [logits])
    shares = net.tensor("shares", (1, 17000))
    net.op("SOFTMAX", [logits], [shares], beta=0.7)
    return net.build([image], [shares], (["image"], ["shares"]))


def test_softmax_of_a_float_model(postprocessing_models: Path, tmp_path: Path) -> None:
    """A SOFTMAX that is too wide goes to the loader; the quality is that of the probabilities the user gets."""
    (tmp_path / "wide.tflite").write_bytes(wide_softmax())
    (tmp_path / "samples.npz").write_bytes((postprocessing_models / "samples.npz").read_bytes())
    result = one(tmp_path, "wide.tflite", "edgetpu", tmp_path)
    assert [step.op for step in result.postprocessing] == ["SOFTMAX"]
    assert result.bundle is not None and result.quality is not None and result.quality.snr_db is not None
    with np.load(tmp_path / "samples.npz") as samples:
        values = samples["image"]
    expected = np.stack(original(tmp_path, "wide.tflite", values)[0])
    shares = loaded(result.bundle, values, tmp_path)["shares"]
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-4)
    noise = float(((shares - expected) ** 2).sum())
    signal = float(((expected - expected.mean(0)) ** 2).sum())
    assert 10 * np.log10(signal / noise) == pytest.approx(result.quality.snr_db, abs=0.1)
    assert np.mean(shares.argmax(-1) == expected.argmax(-1)) >= 0.8


def test_the_cache_keeps_the_tail(postprocessing_models: Path, tmp_path: Path) -> None:
    """A second build takes the cut model and its postprocessing from the cache, and ships the same bytes."""
    first, second = (one(postprocessing_models, "classes", "edgetpu", tmp_path / name) for name in ("first", "second"))
    assert first.postprocessing == second.postprocessing != ()
    assert first.bundle is not None and second.bundle is not None
    names = sorted(path.relative_to(first.bundle) for path in first.bundle.rglob("*") if path.is_file())
    assert all((first.bundle / name).read_bytes() == (second.bundle / name).read_bytes() for name in names)
    assert one(postprocessing_models, "classes", "edgetpu", tmp_path / "third", cut_tail=False).postprocessing == ()


def test_a_target_without_accelerator_keeps_its_model(postprocessing_models: Path, tmp_path: Path) -> None:
    """There is nothing to move ops to on the CPU target."""
    assert one(postprocessing_models, "classes", "cpu", tmp_path, scheme="int8").postprocessing == ()


@pytest.mark.parametrize(
    ("file", "steps"),
    [
        ("classes.tflite", {"ARG_MAX"}),
        ("classes_int8.tflite", {"ARG_MAX"}),
        ("probabilities.tflite", {"SOFTMAX", "DEQUANTIZE"}),
        ("numbers.tflite", {"DEQUANTIZE"}),
    ],
)
def test_check_says_what_the_loader_would_do(postprocessing_models: Path, file: str, steps: set[str]) -> None:
    """`check` counts the ops of the cut model, planned or as it is, and lists what was cut."""
    (checked,) = check(postprocessing_models / file, ["edgetpu"], target_options=TargetOptions(cut_tail=True)).results
    (before,) = check(postprocessing_models / file, ["edgetpu"]).results
    assert {step.op for step in checked.postprocessing} == steps
    assert before.postprocessing == () and before.report is not None and checked.report is not None
    assert checked.report.summary["host"] == before.report.summary["host"] - len(checked.postprocessing)
    assert checked.to_json()["tail"] == [step.to_json() for step in checked.postprocessing]


def test_check_names_what_could_be_cut(postprocessing_models: Path, tmp_path: Path) -> None:
    """Without --cut-tail `check` lists the refused last steps that it would cut, and only those."""
    (tmp_path / "wide.tflite").write_bytes(wide_softmax())
    for file, steps in [
        (postprocessing_models / "classes.tflite", {"ARG_MAX"}),
        (postprocessing_models / "probabilities.tflite", {"SOFTMAX"}),
        (tmp_path / "wide.tflite", {"SOFTMAX"}),
    ]:
        (checked,) = check(file, ["edgetpu"]).results
        assert {step.op for step in checked.cuttable} == steps
        (cut,) = check(file, ["edgetpu"], target_options=TargetOptions(cut_tail=True)).results
        assert cut.cuttable == ()
        (cpu,) = check(file, ["cpu"]).results
        assert cpu.cuttable == ()
    (taken,) = check(Path(__file__).parents[1] / "data" / "digits_float.tflite", ["edgetpu"]).results
    assert taken.cuttable == ()


def test_folders_of_samples_measure_a_class_choice(postprocessing_models: Path, tmp_path: Path) -> None:
    """Folders name the samples' classes: a model that returns class numbers is measured, and no output gets labels."""
    from PIL import Image

    for number, image in enumerate(images(12, seed=2)):
        folder = tmp_path / "eval" / f"class{number % 6}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * image).astype(np.uint8)).save(folder / f"{number}.png")
    result = one(postprocessing_models, "classes", "edgetpu", tmp_path, eval=str(tmp_path / "eval"))
    assert result.quality is not None and result.quality.top1 is not None
    assert result.bundle is not None
    manifest = json.loads((result.bundle / "manifest.json").read_text())
    assert [output["labels"] for output in manifest["outputs"]] == [None, None]


def test_the_command_line_says_it(
    postprocessing_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` and `build` print what the loader computes, and `--json` lists it."""
    model, samples = str(postprocessing_models / "probabilities.tflite"), str(postprocessing_models / "samples.npz")
    assert run(["check", model, "-t", "edgetpu", "--cut-tail"]) == 0
    assert "moved to the loader: SOFTMAX of 'Identity'" in capsys.readouterr().out
    assert run(["build", model, "-t", "edgetpu", "--cut-tail", "--samples", samples, "-o", str(tmp_path)]) == 0
    assert "moved to the loader: SOFTMAX of 'Identity'" in capsys.readouterr().out
    for command in (["check", model], ["build", model, "--dry-run"]):
        assert run([*command, "-t", "edgetpu", "--cut-tail", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert [step["op"] for step in document["results"][0]["tail"]] == ["DEQUANTIZE", "SOFTMAX"]
        assert {step["name"] for step in document["results"][0]["tail"]} == {"Identity"}
