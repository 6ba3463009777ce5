"""The generated build scripts configure under Android Gradle Plugin 8, 9 and 10, in real Gradle projects."""

import pytest
from bundle_specs import profile_of, tiny_spec
from gradle_tools import Case, Gradle, compile_scripts
from kotlin_tools import Kotlin
from test_compiled_model_loader import compiled_spec
from test_sample_app import sample_spec

from edgepack.bundle.render import render

pytestmark = pytest.mark.slow

SPECS = {
    "kotlin": tiny_spec("android-gpu"),
    "java": tiny_spec("hexagon", language="java"),
    "pack": compiled_spec(delivery="ai-pack"),
    "sample": sample_spec(),
    "packed_sample": sample_spec(delivery="ai-pack", profile=profile_of("hexagon")),
}
MODULE = "android/tiny-model-2-0/build.gradle.kts"
PACK = "android/tiny-model-2-0-pack/build.gradle.kts"
SAMPLE = "android/sample/build.gradle.kts"
#: What a module sets when the app sets nothing.
DEFAULTS = "36 24 null"


def scripts() -> dict[str, tuple[str, str]]:
    """Return every script of the specs with its project's version catalog."""
    found = {}
    for name, spec in SPECS.items():
        files = {path: data.decode() for path, data in render(spec).items() if path.endswith((".kts", ".toml"))}
        catalog = files["android/gradle/libs.versions.toml"]
        kinds = {"module": MODULE, "pack": PACK, "app": SAMPLE, "root": "android/build.gradle.kts"}
        found |= {f"{name}_{kind}": (files[path], catalog) for kind, path in kinds.items() if path in files}
    text, own = found["kotlin_module"]
    always = text.replace('if (extensions.findByName("kotlin") == null) {', "run {")
    assert always != text
    return found | {"settings": (files["android/settings.gradle.kts"], catalog), "always": (always, own)}


@pytest.fixture(scope="module")
def gradle(kotlin: Kotlin, tmp_path_factory: pytest.TempPathFactory) -> Gradle:
    """Gradle with all scripts, compiled with warnings as errors; settings are compiled only."""
    return compile_scripts(kotlin, scripts(), tmp_path_factory.mktemp("gradle"))


@pytest.fixture(scope="module")
def found(gradle: Gradle) -> dict[str, dict[str, str]]:
    """What each script configured, by script and plugin version."""
    own = {"edgepack.minSdk": "26", "edgepack.compileSdk": "37", "edgepack.litert": "1.4.3"}
    cases = {f"{name}-{agp}": Case(name, agp, {}) for name in scripts() if name != "settings" for agp in (8, 9, 10)}
    cases["own"] = Case("kotlin_module", 9, own)
    cases["opted-out"] = Case("kotlin_module", 9, {"android.builtInKotlin": "false"})
    return gradle.evaluate(cases)


@pytest.mark.parametrize("agp", [8, 9, 10])
def test_the_module_configures(found: dict[str, dict[str, str]], agp: int) -> None:
    """Kotlin comes from the app's plugin under 8, from the Android plugin itself under 9 and 10, for Java 17."""
    module = found[f"kotlin_module-{agp}"]
    assert module["plugins"] == ("[KotlinPlugin, LibraryPlugin]" if agp == 8 else "[LibraryPlugin]")
    assert module["kotlin"] == "[17]"
    assert (module["sdk"], module["java"]) == (DEFAULTS, "17 17")
    assert module["namespace"].split()[0] == "com.example.tinymodel20"
    assert module["files"] == "[consumer-rules.pro] [tflite] null"
    assert "com.google.ai.edge.litert:litert-gpu:1.4.2" in module["implementation"]
    assert "junit:junit:" in module["androidTestImplementation"]
    java = found[f"java_module-{agp}"]
    assert java["plugins"] == "[LibraryPlugin]"
    assert java["files"] == "[consumer-rules.pro] [tflite] true"
    pack = found[f"pack_pack-{agp}"]
    assert pack["pack"] == "tiny_model_2_0_pack install-time"
    assert found[f"pack_module-{agp}"]["androidTestImplementation"] == "[]"
    assert ":litert:2.3.0" in found[f"pack_module-{agp}"]["implementation"]


@pytest.mark.parametrize("agp", [8, 9, 10])
def test_the_sample_app_configures(found: dict[str, dict[str, str]], agp: int) -> None:
    """It depends on the module, has Compose and CameraX, and takes the AI pack where there is one."""
    app = found[f"sample_app-{agp}"]
    kotlin = ["KotlinPlugin"] if agp == 8 else []
    assert app["plugins"] == "[" + ", ".join(["ApplicationPlugin", "ComposePlugin", *kotlin]) + "]"
    assert app["kotlin"] == "[17]"
    assert "local:tiny-model-2-0:" in app["implementation"]
    assert "androidx.camera:camera-view:" in app["implementation"]
    assert app["app"] == "[] null null"
    packed = found[f"packed_sample_app-{agp}"]
    assert packed["app"] == "[:tiny-model-2-0-pack] device_targeting_configuration.xml other"


def test_the_app_sets_versions(found: dict[str, dict[str, str]]) -> None:
    """Properties of the app take precedence over the module's own values."""
    assert found["own"]["sdk"] == "37 26 null"
    assert "litert:1.4.3" in found["own"]["implementation"] and "1.4.2" not in found["own"]["implementation"]


def test_built_in_kotlin_can_be_off(found: dict[str, dict[str, str]]) -> None:
    """Under version 9 with android.builtInKotlin=false, the app's plugin compiles Kotlin."""
    assert found["opted-out"]["plugins"] == "[KotlinPlugin, LibraryPlugin]"
    assert found["opted-out"]["kotlin"] == "[17]"


def test_an_unconditional_plugin_fails(found: dict[str, dict[str, str]]) -> None:
    """The check can fail: under version 9 Gradle refuses a script that always applies the Kotlin plugin."""
    assert "Cannot add extension with name 'kotlin'" in found["always-9"]["error"]
    assert found["always-8"]["kotlin"] == "[17]"


def test_the_catalog_has_what_the_scripts_name() -> None:
    """Each plugin and library of a version catalog is used by a script of its project."""
    for spec in SPECS.values():
        files = {path: data.decode() for path, data in render(spec).items() if path.endswith((".kts", ".toml"))}
        text = "".join(data for path, data in files.items() if path.endswith(".kts"))
        for line in files["android/gradle/libs.versions.toml"].splitlines():
            name = line.partition(" ")[0]
            if "module =" in line:
                assert f"libs.{name.replace('-', '.')}" in text
            elif "id =" in line:
                assert f"libs.plugins.{name.replace('-', '.')}" in text
