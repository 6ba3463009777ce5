"""How an Android bundle reaches the app: AI packs with device targeting, and archives with compiled classes."""

import io
import os
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_specs import spec_of, tiny_spec
from kotlin_tools import Kotlin

from edgepack.bundle.aar import CLASSPATH, with_classes
from edgepack.bundle.archive import pack
from edgepack.bundle.languages.java import JAVAC
from edgepack.bundle.languages.kotlin import KOTLINC
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec, ModelFile
from edgepack.bundle.verify import verify
from edgepack.bundle.write import write
from edgepack.errors import BundleError

CONFIG = "{http://schemas.android.com/apk/config}"
ANDROID = "{http://schemas.android.com/apk/res/android}"
ASSETS = "android/tiny-model-2-0-pack/src/main/assets/"


def archive_of(spec: BundleSpec) -> zipfile.ZipFile:
    """Return a bundle's .aar."""
    return zipfile.ZipFile(io.BytesIO(render(spec)["android/tiny-model-2-0.aar"]))


# -- AI packs ----------------------------------------------------------------------------------------------------------


def test_an_ai_pack_has_a_folder_per_chip_and_the_fallback() -> None:
    """Each chip and `other` have the model that runs anywhere; a file compiled for a chip is in its folder only."""
    host = ModelFile("host", "tiny.tflite", b"host")
    compiled = ModelFile("compiled", "tiny_Qualcomm_SM8650.tflite", b"compiled")
    spec = tiny_spec(
        "hexagon", delivery="ai-pack", socs=("SM8550", "SM8650", "SM8550"), models=(host, compiled), runs="tiny.tflite"
    )
    files = render(spec)
    pack_files = {path.removeprefix(ASSETS): data for path, data in files.items() if path.startswith(ASSETS)}
    assert pack_files == {
        "tiny_model_2_0#group_Qualcomm_SM8550/tiny.tflite": b"host",
        "tiny_model_2_0#group_Qualcomm_SM8650/tiny.tflite": b"host",
        "tiny_model_2_0#group_Qualcomm_SM8650/tiny_Qualcomm_SM8650.tflite": b"compiled",
        "tiny_model_2_0#group_other/tiny.tflite": b"host",
    }
    # The loader asks for the path that is left when Play has taken the group off the folder's name.
    assert any(b'"tiny_model_2_0/tiny.tflite"' in data for path, data in files.items() if path.endswith(".kt"))
    assert not [path for path in files if path.startswith("android/tiny-model-2-0/") and path.endswith(".tflite")]


def test_device_targeting_selects_each_chip_under_both_makers() -> None:
    """The configuration has one group per chip, named like its folder, with a selector per name of the manufacturer."""
    files = render(tiny_spec("hexagon", delivery="ai-pack", socs=("SM8550", "SM8650")))
    root = ElementTree.fromstring(files["android/tiny-model-2-0-pack/device_targeting_configuration.xml"])
    found = {
        group.attrib["name"]: [
            (chip.attrib["manufacturer"], chip.attrib["model"]) for chip in group.iter(f"{CONFIG}system-on-chip")
        ]
        for group in root.findall(f"{CONFIG}device-group")
    }
    assert found == {f"Qualcomm_{soc}": [("Qualcomm", soc), ("QTI", soc)] for soc in ("SM8550", "SM8650")}
    assert all(len(group.findall(f"{CONFIG}device-selector")) == 2 for group in root)


def test_an_ai_pack_without_chips_is_the_fallback_alone() -> None:
    """Without chips everybody gets `other`, the group Play demands."""
    files = render(tiny_spec("cpu", platform="android", delivery="ai-pack"))
    assert [path for path in files if path.startswith(ASSETS)] == [f"{ASSETS}tiny_model_2_0#group_other/tiny.tflite"]


@pytest.mark.parametrize("soc", ["../SM8550", "", "SM 8550", "SM8550#", "a/b"])
def test_a_chip_that_is_no_name_is_refused(soc: str) -> None:
    """A chip's name goes into paths: anything else than letters, digits and '_' is refused."""
    with pytest.raises(BundleError, match="is not a valid chip for an AI pack"):
        render(tiny_spec("hexagon", delivery="ai-pack", socs=(soc,)))


def test_deliveries_that_do_not_exist_are_refused() -> None:
    """An unknown delivery, and one for a Linux bundle, is an error with the possible values."""
    with pytest.raises(BundleError, match="expected module or ai-pack or aar, got 'apk'"):
        render(tiny_spec("hexagon", delivery="apk"))
    with pytest.raises(BundleError, match="Linux, which has no delivery 'aar'"):
        render(tiny_spec("cpu", delivery="aar"))


@pytest.mark.parametrize("delivery", ["ai-pack", "aar"])
def test_such_a_bundle_is_written_and_verified(delivery: str, tmp_path: Path) -> None:
    """The rendered bundle can be written, its manifest lists every file, and its model reproduces its vectors."""
    tflite = (Path(__file__).resolve().parents[1] / "data" / "digits_float.tflite").read_bytes()
    spec = spec_of(tflite, "digits", "hexagon", delivery=delivery, socs=("SM8550",))
    write(render(spec), tmp_path / "bundle")
    result = verify(tmp_path / "bundle")
    assert result.ok, result.problems
    assert len(result.golden) == len(spec.golden.cases)


# -- archives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["android-gpu", "hexagon", "cpu"])
def test_an_archive_holds_what_the_module_holds(target: str) -> None:
    """Manifest, rules and assets of the .aar are the module's; nothing is compressed, so a model can be mapped."""
    module = {
        path.partition("/src/main/assets/")[2]: data
        for path, data in render(tiny_spec(target, platform="android")).items()
        if "/src/main/assets/" in path
    }
    with archive_of(tiny_spec(target, platform="android", delivery="aar")) as archive:
        assert archive.testzip() is None
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        assets = {
            name.removeprefix("assets/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("assets/")
        }
        assert assets == module
        assert set(archive.namelist()) == {"AndroidManifest.xml", "R.txt", "proguard.txt"} | {
            f"assets/{name}" for name in module
        }
        root = ElementTree.fromstring(archive.read("AndroidManifest.xml"))
        assert root.attrib["package"] == "com.example.tinymodel20"
        sdk = root.find("uses-sdk")
        assert sdk is not None and sdk.attrib[f"{ANDROID}minSdkVersion"] == "24"
        libraries = [node.attrib[f"{ANDROID}name"] for node in root.iter("uses-native-library")]
        assert all(node.attrib[f"{ANDROID}required"] == "false" for node in root.iter("uses-native-library"))
        opencl = ["libOpenCL.so", "libOpenCL-car.so", "libOpenCL-pixel.so"]
        assert libraries == (["libcdsprpc.so", *opencl] if target == "hexagon" else opencl if target != "cpu" else [])
        assert b"org.tensorflow.lite" in archive.read("proguard.txt")


def test_archives_of_the_same_spec_are_the_same() -> None:
    """No clock and no order of a dictionary gets into an archive."""
    spec = tiny_spec("hexagon", delivery="aar")
    assert render(spec) == render(spec)
    assert pack({"b": b"1", "a": b"2"}) == pack({"a": b"2", "b": b"1"})


def test_without_a_compiler_the_archive_has_assets_and_the_module_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler the bundle names what is missing and contains the loader's sources."""
    monkeypatch.delenv(CLASSPATH, raising=False)
    monkeypatch.delenv(KOTLINC.variable, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    spec = with_classes(tiny_spec("hexagon", delivery="aar"))
    assert spec.classes is None
    assert CLASSPATH in spec.notes[-1] and "kotlinc is not on PATH" in spec.notes[-1]
    files = render(spec)
    assert any(path.endswith("TinyModel20.kt") for path in files)
    assert "no classes" in files["README.md"].decode()
    plain = tiny_spec("hexagon")
    assert with_classes(plain) is plain


@pytest.mark.parametrize("entry", ["nothing.jar", "broken.aar"])
def test_a_class_path_that_cannot_be_read_is_named(entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that is missing or no archive is one clear error."""
    (tmp_path / "broken.aar").write_bytes(b"no zip")
    monkeypatch.setenv(JAVAC.variable, sys.executable)
    monkeypatch.setenv(CLASSPATH, str(tmp_path / entry))
    with pytest.raises(BundleError, match=entry):
        with_classes(tiny_spec("hexagon", delivery="aar", language="java"))


@pytest.fixture
def compilers(kotlin: Kotlin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that sets the environment as someone with a compiler has it."""

    def use(language: str) -> None:
        # A program as the Kotlin distribution has it, around the compiler that Maven brought.
        program = tmp_path / "kotlinc"
        main = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler -no-stdlib -no-reflect"
        program.write_text(f'#!/bin/sh\nexec java -XX:TieredStopAtLevel=1 -cp "{kotlin.compiler}/*" {main} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv(KOTLINC.variable, str(program))
        real = [path for path in kotlin.classpath if path.suffix == ".jar" and path.parent.name != "classes"]
        archives = sorted(path for jar in real for path in jar.parent.glob("*.aar"))
        standin = tmp_path / "standins.jar"
        folders = [path for path in kotlin.classpath if path.is_dir()]
        standin.write_bytes(
            pack({p.relative_to(f).as_posix(): p.read_bytes() for f in folders for p in f.rglob("*.class")})
        )
        entries = [*real, *archives, standin, *([kotlin.stdlib] if language == "kotlin" else [])]
        monkeypatch.setenv(CLASSPATH, os.pathsep.join(map(str, entries)))

    return use


_CONSUMER = """
import android.content.Context;
import com.example.tinymodel20.TinyModel20;

class Consumer {
  static float best(Context context, float[] image, float[] other) {
    try (TinyModel20 model = new TinyModel20(context)) {
      TinyModel20.Result result = model.run(image, other);
      return result.topK(1).get(0).getScore() + result.getOutput2ndOutput()[0] + model.selfTest().size();
    }
  }
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("language", ["java", "kotlin"])
def test_a_consumer_compiles_against_the_archive(
    kotlin: Kotlin, compilers: Callable[[str], None], language: str, tmp_path: Path
) -> None:
    """With compiler and artifacts the .aar has classes that an app compiles against; the module is not needed."""
    compilers(language)
    spec = with_classes(tiny_spec("hexagon", delivery="aar", language=language))
    assert with_classes(tiny_spec("hexagon", delivery="aar", language=language)).classes == spec.classes
    files = render(spec)
    assert [path for path in files if path.startswith("android/")] == ["android/tiny-model-2-0.aar"]
    with archive_of(spec) as archive:
        (tmp_path / "classes.jar").write_bytes(archive.read("classes.jar"))
    consumer = tmp_path / "Consumer.java"
    path = os.pathsep.join(map(str, [tmp_path / "classes.jar", *kotlin.classpath, kotlin.stdlib]))
    arguments = ["-Xlint:all,-classfile,-path", "-Werror", "-d", str(tmp_path), "-cp", path, str(consumer)]
    consumer.write_text(_CONSUMER)
    done = kotlin.compilers.compile("java", *arguments)
    assert done.returncode == 0, done.stderr
    consumer.write_text(_CONSUMER.replace("getOutput2ndOutput", "getNothing"))
    assert kotlin.compilers.compile("java", *arguments).returncode != 0


@pytest.mark.slow
def test_artifacts_that_do_not_fit_are_an_error(
    compilers: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class path without the runtime gives one error with the compiler's own words, and no path of this machine."""
    compilers("java")
    android = [entry for entry in os.environ[CLASSPATH].split(os.pathsep) if "android-all" in entry]
    monkeypatch.setenv(CLASSPATH, os.pathsep.join(android))
    with pytest.raises(BundleError, match="the loader does not compile: javac exited with code 1") as caught:
        with_classes(tiny_spec("android-gpu", delivery="aar", language="java"))
    assert "class Interpreter" in caught.value.details["log_tail"]
    assert "edgepack-aar-" not in caught.value.details["log_tail"]
