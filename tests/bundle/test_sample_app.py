"""The sample app compiles, with the real Compose and its compiler, against the loaders of both languages."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_specs import profile_of, tiny_spec, write_tree
from kotlin_tools import STANDINS, Kotlin, fetch

from edgepack.bundle.android import sample_app_problem
from edgepack.bundle.android_runtime import VERSIONS
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec, Golden, TensorSpec
from edgepack.choices import Task
from edgepack.tasks import TaskSpec

#: Compose for desktops, which has the packages and functions of Android's but for the Android views.
_COMPOSE = ["org.jetbrains.compose.material3:material3-desktop:1.8.2:jar", "com.google.guava:listenablefuture:1.0:jar"]
_PLUGIN = [f"org.jetbrains.kotlin:kotlin-compose-compiler-plugin-embeddable:{VERSIONS['kotlin']}:jar"]

IMAGE = TensorSpec("image", "image", (1, 4, 4, 3), "INT8", 0.0078125, -1, preprocessing={"mean": 127.5, "std": 127.5})
SCORES = TensorSpec("scores", "scores", (1, 3), "FLOAT32", labels=("cat", "dog", "bird"))


def sample_spec(**changes: object) -> BundleSpec:
    """A model from an image to the scores of three classes, with the sample app."""
    spec = tiny_spec("android-gpu", inputs=(IMAGE,), outputs=(SCORES,), golden=Golden("x", "y", ()), sample_app=True)
    return replace(spec, **changes)


def task_spec(kind: Task, layout: str, shape: tuple[int, ...], **changes: object) -> BundleSpec:
    """The same for a model with a task, whose only output has this shape."""
    output = TensorSpec("result", "result", shape, "FLOAT32")
    return sample_spec(outputs=(output,), task=TaskSpec(kind, layout), **changes)


def variants() -> dict[str, BundleSpec]:
    """Return a spec for each kind of module that the app can use."""
    return {
        "java": sample_spec(language="java"),
        "detection": task_spec(Task.DETECTION, "joined", (1, 10, 7)),
        "keypoints": task_spec(Task.KEYPOINTS, "points", (1, 17, 3)),
        "segmentation": task_spec(Task.SEGMENTATION, "scores", (1, 4, 4, 3)),
        "classification": task_spec(Task.CLASSIFICATION, "scores", (1, 3), language="java"),
        "plain": sample_spec(outputs=(replace(SCORES, labels=()),), runtime="litert2"),
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": (replace(IMAGE, preprocessing=None),)}, "no image"),
        ({"inputs": (IMAGE, replace(IMAGE, name="other"))}, "no image"),
        ({"delivery": "aar"}, "no project"),
    ],
)
def test_it_needs_an_image(changes: dict[str, object], words: str) -> None:
    """The app shows camera images, so a model without one has no app, and the reason is known."""
    assert sample_app_problem(sample_spec()) == ""
    assert words in sample_app_problem(sample_spec(**changes))


def test_it_is_beside_the_module() -> None:
    """The app is a module of the Android project, whose README names it; without the option there is none."""
    files = render(sample_spec())
    assert "android/sample/src/main/AndroidManifest.xml" in files
    assert b'include(":sample")' in files["android/settings.gradle.kts"]
    assert b"android/sample" in files["README.md"]
    assert not [path for path in render(sample_spec(sample_app=False)) if "/sample/" in path]
    packed = render(sample_spec(delivery="ai-pack", profile=profile_of("hexagon")))
    assert b'assetPacks += ":tiny-model-2-0-pack"' in packed["android/sample/build.gradle.kts"]


@pytest.mark.slow
def test_it_compiles(kotlin: Kotlin, tmp_path: Path) -> None:
    """Every variant compiles with its module; CameraX and AndroidX's activity and views are stand-ins."""
    compose, plugin = fetch(_COMPOSE, transitive=True), fetch(_PLUGIN)
    if compose is None or plugin is None:
        pytest.skip("compiling the sample app needs Compose, which Maven could not download")
    java, sources = [], sorted((STANDINS / "androidx_app").glob("*.kt"))
    for name, spec in variants().items():
        files = render(replace(spec, android_package=f"com.{name}"))
        loader = {path: data for path, data in files.items() if path.endswith((".kt", ".java")) and "/main/" in path}
        write_tree(loader, tmp_path / name)
        sources += sorted((tmp_path / name).rglob("*.kt"))
        java += sorted((tmp_path / name).rglob("*.java"))
    libraries = [jar for jar in sorted(compose.glob("*.jar")) if "kotlin-stdlib" not in jar.name]
    path = os.pathsep.join(map(str, [*kotlin.classpath, kotlin.stdlib, *libraries]))
    flags = ["-Werror", "-Wextra", "-no-stdlib", "-no-reflect", "-jvm-target", "17", "-cp", path]
    flags += [f"-Xplugin={jar}" for jar in plugin.glob("kotlin-compose-compiler-plugin-*.jar")]
    done = kotlin.compilers.compile("kotlin", *flags, "-d", str(tmp_path / "classes"), *map(str, [*sources, *java]))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "classes" / "com" / "java" / "tinymodel20" / "sample" / "MainActivity.class").is_file()
