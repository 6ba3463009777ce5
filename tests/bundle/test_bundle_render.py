"""Rendering: the same bytes for the same spec, golden text, and names that stay in their place."""

import ast
import hashlib
import json
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_specs import TEMPLATES, profile_of, tiny_spec

from edgepack.bundle.languages.python import python_package
from edgepack.bundle.languages.registry import loader_languages
from edgepack.bundle.render import render
from edgepack.bundle.schema import GOLDEN_INDEX, MANIFEST, faults, is_inside
from edgepack.bundle.spec import BundleSpec, CalibrationSpec, CompileSpec, Golden, ModelFile, TensorSpec
from edgepack.errors import BundleError
from edgepack.profiles.model import BundleRule
from edgepack.tasks.spec import parse

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
EVIL = [
    '"""\nimport os; EVIL = 1\n"""',
    '"; EVIL = 1 #',
    "'; EVIL = 1 #",
    "*/ object EVIL /*",
    "${EVIL}",
    '\\"; EVIL = 1 //',
    "</manifest><EVIL/>",
    "{{ EVIL }}{% EVIL %}",
    "../../EVIL",
    "a\nEVIL = 1\n",
    "| EVIL |",
]


def text_files(files: dict[str, bytes]) -> dict[str, str]:
    """Return the files that people read."""
    binary = (".tflite", ".bin", ".aar")
    return {path: data.decode("utf-8") for path, data in files.items() if not path.endswith(binary)}


def with_picture(spec: BundleSpec) -> BundleSpec:
    """Return the spec with a first input whose preprocessing is known."""
    known = {"mean": 127.5, "std": 127.5}
    return replace(spec, inputs=(replace(spec.inputs[0], preprocessing=known), *spec.inputs[1:]))


def on_frames(spec: BundleSpec) -> BundleSpec:
    """Return the spec with one input, which takes frames."""
    known = with_picture(spec)
    case = replace(spec.golden.cases[0], inputs=spec.golden.cases[0].inputs[:1])
    return replace(known, inputs=known.inputs[:1], golden=replace(spec.golden, cases=(case,)))


def with_task(text: str, *shapes: tuple[int, ...], labels: tuple[str, ...] = ("cat", "dog", 'a "b" $c')) -> BundleSpec:
    """Return a spec on frames with float outputs of these shapes, which mean what a task says."""
    outputs = tuple(TensorSpec(f"out {n}", f"out:{n}", shape, "FLOAT32") for n, shape in enumerate(shapes))
    spec = on_frames(tiny_spec("cpu", task=parse(text), task_labels=labels))
    return replace(spec, outputs=outputs, golden=replace(spec.golden, cases=()))


#: A bundle for each form of results.
TASKS = {
    "classification": with_task("classification,activation=softmax", (1, 3)),
    "joined": with_task("detection,activation=sigmoid,objectness=yes,units=pixel", (1, 60, 10)),
    "separate": with_task("detection,layout=separate,activation=softmax,background=yes", (1, 60, 4), (1, 60, 5)),
    "postprocess": with_task("detection,layout=postprocess", (1, 60, 4), (1, 60), (1, 60), (1,), labels=()),
    "segmentation": with_task("segmentation", (1, 6, 8, 4)),
    "binary": with_task("segmentation,activation=sigmoid", (1, 6, 8, 1), labels=()),
    "classes": with_task("segmentation,layout=classes", (1, 6, 8)),
    "keypoints": with_task("keypoints,points=xy,units=pixel", (1, 3, 3)),
    "heatmaps": with_task("keypoints,layout=heatmaps", (1, 6, 8, 5), labels=()),
    "embedding": with_task("embedding", (1, 9), labels=()),
    "audio": with_task("audio,activation=sigmoid", (1, 3)),
}


def in_segments(spec: BundleSpec) -> BundleSpec:
    """Return the spec with two segments and a co-compiled file instead of the compiled file."""
    names = {"segment": ("tiny_segment_0_of_2", "tiny_segment_1_of_2"), "co-compiled": ("other",)}
    files = [ModelFile(role, f"{n}_edgetpu.tflite", n.encode()) for role, found in names.items() for n in found]
    return replace(spec, models=(spec.host, *files), runs=files[0].filename)


#: Bundles with reviewed texts besides those of the targets.
VARIANTS = {
    "cpu-android-java": with_picture(tiny_spec("cpu", platform="android", language="java")),
    "cpu-detection": TASKS["joined"],
    "cpu-frames": on_frames(tiny_spec("cpu")),
    "edgetpu-segments": in_segments(with_picture(tiny_spec("edgetpu"))),
    "hexagon-ai-pack": tiny_spec("hexagon", delivery="ai-pack", socs=("SM8550", "SM8650")),
}


def copied_files(spec: BundleSpec) -> dict[str, bytes]:
    """Return the files of the loaders that are copied unrendered, by path in the bundle, as the templates have them."""
    files = {}
    for language in loader_languages(spec):
        for path in language.folder.rglob("*"):
            if path.is_file() and path.suffix not in {".j2", ".pyc"} and path.name != "__data__":
                place = path.relative_to(language.folder).as_posix().replace("__package__", python_package(spec.name))
                files[place] = path.read_bytes()
    return files


@pytest.mark.parametrize("target", [*sorted(TEMPLATES), *VARIANTS])
def test_golden_text(target: str, request: pytest.FixtureRequest) -> None:
    """Every rendered text of every bundle is the reviewed one; --update-golden writes what is rendered now.

    Files that are copied are compared with their originals instead: with the template, or with the bundle's golden/.
    """
    spec = VARIANTS[target] if target in VARIANTS else tiny_spec(target)
    files = render(spec)
    copies = copied_files(spec)
    assert {path: files.get(path) for path in copies} == copies
    index = [path for path in files if path.endswith("/golden/index.json")]
    assert index and all(files[path] == files["golden/index.json"] for path in index)
    actual = text_files({path: data for path, data in files.items() if path not in {*copies, *index}})
    folder = GOLDEN / target
    if request.config.getoption("--update-golden", default=False):
        for old in [path for path in folder.rglob("*") if path.is_file()]:
            old.unlink()
        for path, text in actual.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8", newline="\n")
    expected = {
        path.relative_to(folder).as_posix(): path.read_bytes().decode("utf-8")
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sorted(actual) == sorted(expected), (
        "the set of files changed: run pytest tests/bundle --update-golden, then review the diff"
    )
    for path, text in actual.items():
        assert text == expected[path], f"{path} changed: run pytest tests/bundle --update-golden, then review the diff"


@pytest.mark.parametrize("target", sorted(TEMPLATES))
def test_same_spec_same_bytes(target: str) -> None:
    """Rendering twice gives identical bytes, in one order, and nothing of this machine."""
    first, second = render(tiny_spec(target)), render(tiny_spec(target))
    assert list(first.items()) == list(second.items())
    assert not any(str(Path.home()).encode() in data or str(GOLDEN.parent).encode() in data for data in first.values())


@pytest.mark.parametrize("target", sorted(TEMPLATES))
def test_manifest_vouches_for_every_file(target: str) -> None:
    """The manifest has the documented shape and lists each other file with its hash."""
    files = render(tiny_spec(target))
    manifest = json.loads(files["manifest.json"])
    assert list(faults(manifest, MANIFEST)) == []
    assert list(faults(json.loads(files["golden/index.json"]), GOLDEN_INDEX)) == []
    hashes = {path: hashlib.sha256(data).hexdigest() for path, data in files.items() if path != "manifest.json"}
    assert manifest["files"] == hashes
    assert manifest["target"] == {
        "id": target, "title": tiny_spec(target).profile.title, "profile_sha256": "0" * 64,
        "variant": None, "soc": None, "runtime_version": None,
    }  # fmt: skip
    assert manifest["sbom"] in hashes and manifest["signature"] is None


@pytest.mark.parametrize("target", sorted(TEMPLATES))
def test_loader_has_its_own_model_and_vectors(target: str) -> None:
    """The loader's folder has the bytes of model/ and golden/, so that it can be moved away."""
    files = render(tiny_spec(target))
    inside = {path: data for path, data in files.items() if path.startswith(("linux/", "android/"))}
    for path in ("model/tiny.tflite", "golden/case_0/input_0.bin", "golden/index.json"):
        name = path.removeprefix("model/")
        copies = [data for place, data in inside.items() if place.endswith(f"/{name}")]
        assert copies == [files[path]]
    assert any(place.endswith("/tiny_edgetpu.tflite") for place in inside) == (target == "edgetpu")


@pytest.mark.slow
@pytest.mark.parametrize("target", [*sorted(TEMPLATES), *VARIANTS])
@pytest.mark.parametrize("evil", EVIL)
def test_hostile_names_stay_text(target: str, evil: str) -> None:
    """A name meant to escape a string, comment, path or template stays text in every language."""
    spec = VARIANTS[target] if target in VARIANTS else tiny_spec(target)
    hostile = replace(
        spec,
        name=evil,
        scheme_reason=evil,
        warnings=(evil,),
        notes=(evil,),
        android_package=f"com.{evil}",
        inputs=tuple(replace(tensor, name=evil, tensor_name=evil) for tensor in spec.inputs),
        outputs=tuple(replace(tensor, name=evil, labels=(evil,) * len(tensor.labels)) for tensor in spec.outputs),
        profile=replace(spec.profile, title=evil),
    )
    files = render(hostile)
    assert all(is_inside(path) for path in files)
    for path, text in text_files(files).items():
        if path.endswith(".py"):
            names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
            assert "EVIL" not in names
        elif path.endswith("libs.versions.toml"):
            assert set(tomllib.loads(text)) == {"versions", "plugins"} and "EVIL" not in text
        elif path.endswith(".toml"):
            document = tomllib.loads(text)
            assert set(document) == {"build-system", "project", "tool"} and "EVIL" not in document["project"]
        elif path.endswith(".xml"):
            assert not ElementTree.fromstring(text).findall(".//EVIL")
        elif path.endswith((".kt", ".kts", ".java")):
            for line in text.splitlines():
                code = _without_strings(line)
                assert "EVIL" not in code or code.lstrip().startswith("*"), line
        elif path.endswith((".c", ".h", ".cpp", ".hpp")):
            assert not re.search(r"\bEVIL\b", _without_strings_c(text)), path
        elif path.endswith("CMakeLists.txt"):
            assert not [line for line in text.splitlines() if re.search(r"\bEVIL\b", line) and line[:1] != "#"]
    assert list(faults(json.loads(files["manifest.json"]), MANIFEST)) == []


def _without_strings_c(text: str) -> str:
    """Return C or C++ without comments and string literals."""
    assert "??" not in text
    text = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', " ", text, flags=re.DOTALL)
    assert '"' not in text and "*/" not in text
    return text


def _without_strings(line: str) -> str:
    """Return a line of Kotlin without its string literals."""
    kept, inside, skip = [], False, False
    for character in line:
        if skip:
            skip = False
        elif inside and character == "\\":
            skip = True
        elif character == '"':
            inside = not inside
        elif not inside:
            kept.append(character)
    assert not inside, line
    return "".join(kept)


@pytest.mark.parametrize(
    ("target", "changes", "says"),
    [
        ("edgetpu", {"compile": CompileSpec("skipped", reason="edgetpu_compiler is not installed")}, "NOT compiled"),
        ("edgetpu", {"compile": CompileSpec("skipped", reason="edgetpu_compiler is not installed")}, "not installed"),
        ("cpu", {"calibration": CalibrationSpec(8, True, "min-max")}, "RANDOM"),
        ("hexagon", {}, "Nothing was compiled ahead of time"),
        ("cpu", {"warnings": ("output 'scores' is one value",)}, "is one value"),
    ],
)
def test_readme_says_what_is_wrong_first(target: str, changes: dict[str, object], says: str) -> None:
    """An uncompiled model, random calibration and the build's warnings appear in the README as warnings."""
    readme = render(tiny_spec(target, **changes))["README.md"].decode()
    line = next(line for line in readme.splitlines() if line.startswith("> **Warning:**") and says in line)
    assert line


def test_readme_says_a_thing_once() -> None:
    """A build warning with the compiler's reason is not repeated in the README; others stay."""
    reason = "edgetpu_compiler is not installed"
    warnings = (f"not compiled: {reason}", "output 'scores' is one value")
    spec = tiny_spec("edgetpu", compile=CompileSpec("skipped", reason=reason), warnings=warnings)
    readme = render(spec)["README.md"].decode()
    assert readme.count("is not installed") == 1 and readme.count("> **Warning:**") == 2


def test_readme_of_a_good_bundle_warns_of_nothing() -> None:
    """A valid bundle has no warning."""
    assert "Warning" not in render(tiny_spec("edgetpu"))["README.md"].decode()


def test_a_plugin_brings_its_own_template(tmp_path: Path) -> None:
    """A target's own templates/ folder is used, may use path placeholders and may include edgepack's shared pieces."""
    folder = tmp_path / "templates" / "board"
    (folder / "src" / "__package__").mkdir(parents=True)
    (folder / "src" / "__package__" / "name.h.j2").write_text(
        '#define NAME {{ title | py }}\n{% include "_shared/facts.md.j2" %}'
    )
    (folder / "raw.txt").write_text("{{ not a template }}")
    profile = profile_of("cpu", folder=tmp_path, bundle=BundleRule("board"))
    files = render(tiny_spec("cpu", profile=profile))
    assert files["src/tiny_model_2_0/name.h"].startswith(b'#define NAME "Tiny Model 2.0"\n')
    assert files["raw.txt"] == b"{{ not a template }}"


@pytest.mark.parametrize("text", ["{{ nothing_of_that_name }}", "{% if %}", "{{ 1 / 0 }}", "{{ title.nothing }}"])
def test_a_broken_template_is_one_clear_error(tmp_path: Path, text: str) -> None:
    """A plugin's template that does not render gives a BundleError that names it, no traceback."""
    (tmp_path / "templates" / "board").mkdir(parents=True)
    (tmp_path / "templates" / "board" / "a.txt.j2").write_text(text)
    profile = profile_of("cpu", folder=tmp_path, bundle=BundleRule("board"))
    with pytest.raises(BundleError, match=r"board/a\.txt\.j2"):
        render(tiny_spec("cpu", profile=profile))


@pytest.mark.parametrize("template", ["nothing", "..", "linux/linux", ""])
def test_an_unknown_template_is_refused(template: str) -> None:
    """A template that does not exist, or is no plain name, is named in the error."""
    with pytest.raises(BundleError, match="requests the bundle template"):
        render(tiny_spec("cpu", profile=profile_of("cpu", bundle=BundleRule(template))))


@pytest.mark.parametrize("filename", ["../a.tflite", "a/b.tflite", "", ".hidden", "a b.tflite", "tiny.tflite\n"])
def test_model_file_names_are_plain(filename: str) -> None:
    """A model file's name cannot lead out of model/."""
    with pytest.raises(BundleError, match="not a valid name for a model file"):
        render(tiny_spec("cpu", models=(ModelFile("main", filename, b""),), runs=filename))


def test_types_that_a_loader_cannot_hold_are_refused() -> None:
    """float16 outputs have no Java type, strings no loader at all: the error has the tensor and the expected types."""
    spec = tiny_spec("android-gpu", outputs=(TensorSpec("half", "h", (1, 3), "FLOAT16"),))
    with pytest.raises(BundleError, match=r"'half'.*FLOAT16"):
        render(spec)
    with pytest.raises(BundleError, match=r"'text'.*STRING"):
        render(tiny_spec("cpu", outputs=(TensorSpec("text", "t", (1,), "STRING"),)))


@pytest.mark.parametrize(
    ("file", "target", "inputs", "outputs"),
    [
        ("coral/split_concat.tflite", "cpu", 3, 5),
        ("coral/split_concat.tflite", "hexagon", 3, 5),
        ("mlperf-tiny/kws_reference_int8.tflite", "android-gpu", 1, 1),
    ],
)
def test_real_models_render(
    make_spec: Callable[..., BundleSpec], file: str, target: str, inputs: int, outputs: int
) -> None:
    """Models with several inputs and outputs keep their names, shapes and quantization in the manifest."""
    spec = make_spec(file, target)
    manifest = json.loads(render(spec)["manifest.json"])
    assert [entry["name"] for entry in manifest["inputs"]] == [tensor.name for tensor in spec.inputs]
    assert (len(manifest["inputs"]), len(manifest["outputs"])) == (inputs, outputs)
    assert manifest["inputs"][0]["scale"] == spec.inputs[0].scale


def test_a_target_without_accelerator_can_be_moved() -> None:
    """--platform gives the cpu target the other template; a target whose accelerator is elsewhere is refused."""
    assert any(path.endswith("TinyModel20.kt") for path in render(tiny_spec("cpu", platform="android")))
    assert render(tiny_spec("cpu", platform="linux")) == render(tiny_spec("cpu"))
    assert render(tiny_spec("hexagon", platform="android")) == render(tiny_spec("hexagon"))
    with pytest.raises(BundleError, match="target 'edgetpu' has no bundle for android"):
        render(tiny_spec("edgetpu", platform="android"))
    with pytest.raises(BundleError, match="expected android or linux, got 'ios'"):
        render(tiny_spec("cpu", platform="ios"))
    with pytest.raises(BundleError, match="expected kotlin or java, got 'swift'"):
        render(tiny_spec("android-gpu", language="swift"))


#: Files that only a loader with image inputs has.
FRAME_FILES = {"Frame.kt", "FrameMapping.kt", "FrameConverter.kt", "PlaneResizer.kt"}


@pytest.mark.parametrize(
    ("changes", "takes"),
    [
        ({}, True),
        ({"shape": (1, 8, 8, 1)}, True),
        ({"preprocessing": {"mean": [1, 2, 3], "std": (4, 5, 6)}}, True),
        ({"preprocessing": None}, False),
        ({"preprocessing": {"mean": 0.0}}, False),
        ({"preprocessing": {"mean": 0.0, "std": 0.0}}, False),
        ({"preprocessing": {"mean": [1.0, 2.0], "std": 1.0}}, False),
        ({"preprocessing": {"mean": "0", "std": 1.0}}, False),
        ({"preprocessing": {"mean": float("nan"), "std": 1.0}}, False),
        ({"shape": (2, 8, 8, 3)}, False),
        ({"shape": (1, 8, 8, 4)}, False),
        ({"shape": (1, 12)}, False),
        ({"dtype": "INT32", "scale": 0.0}, False),
    ],
)
def test_inputs_that_take_pictures(changes: dict[str, object], takes: bool) -> None:
    """A Bitmap and a Frame are accepted only where shape, type and preprocessing define its conversion."""
    spec = with_picture(tiny_spec("android-gpu"))
    spec = replace(spec, inputs=(replace(spec.inputs[0], **changes), spec.inputs[1]), golden=Golden("x", "y", ()))
    files = render(spec)
    [loader] = [data.decode() for path, data in files.items() if path.endswith("TinyModel20.kt")]
    assert ("myImage: Bitmap" in loader) == takes
    assert ("myImage: Frame" in loader) == takes
    frames = {path.rpartition("/")[2] for path in files if path.endswith(".kt")} & FRAME_FILES
    assert frames == (FRAME_FILES if takes else set())


def gradle_of(spec: BundleSpec) -> str:
    """Return the library module's build file."""
    return render(spec)["android/tiny-model-2-0/build.gradle.kts"].decode()


def test_the_runtime_library_is_chosen_by_the_profile() -> None:
    """LiteRT, whose libraries have 16 KB pages, unless [bundle.options] overrides it; versions can be overridden."""
    text = gradle_of(tiny_spec("hexagon"))
    assert '"com.google.ai.edge.litert:litert:$litertVersion"' in text and 'setting("litert", "1.4.2")' in text
    assert "org.tensorflow" not in gradle_of(tiny_spec("hexagon"))
    options = {"runtime": "tensorflow-lite", "tensorflow_lite": "2.17.0"}
    older = profile_of("android-gpu", bundle=BundleRule("android", "gpu", options))
    text = gradle_of(tiny_spec("android-gpu", profile=older))
    assert '"org.tensorflow:tensorflow-lite:$tensorflowLiteVersion"' in text and "litert" not in text
    assert 'setting("tensorflowLite", "2.17.0")' in text
    wrong = profile_of("android-gpu", bundle=BundleRule("android", "gpu", {"runtime": "tflite"}))
    with pytest.raises(BundleError, match="expected litert or tensorflow-lite, got 'tflite'"):
        render(tiny_spec("android-gpu", profile=wrong))
