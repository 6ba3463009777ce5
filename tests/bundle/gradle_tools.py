"""Gradle's own project model, in which generated build scripts are evaluated.

Gradle's distribution is on no repository that the tests reach, but its API with all classes is, as is Kotlin's compiler
with the two plugins that Gradle uses for scripts. Stand-ins (standins/gradle) take the place of the Android plugin and
of the Kotlin DSL's functions. A script becomes the body of a function, unchanged.
"""

import os
import re
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from kotlin_tools import STANDINS, Kotlin, fetch

from edgepack.bundle.android_runtime import VERSIONS

_GRADLE = ["dev.gradleplugins:gradle-api:8.6:jar"]
_KOTLIN = [
    f"org.jetbrains.kotlin:{artifact}:{VERSIONS['kotlin']}:jar"
    for artifact in (
        "kotlin-gradle-plugin-api",
        "kotlin-gradle-plugin-annotations",
        "kotlin-sam-with-receiver-compiler-plugin-embeddable",
        "kotlin-assignment-compiler-plugin-embeddable",
    )
]
#: The annotation of Gradle that each plugin of the compiler looks for.
_ANNOTATIONS = {"samWithReceiver": "HasImplicitReceiver", "assignment": "SupportsKotlinAssignmentOverloading"}
#: What a plugin of the `plugins` block makes known to the script.
_ACCESSORS = {
    "com.android.library": ("android", "com.android.build.api.dsl.LibraryExtension"),
    "com.android.application": ("android", "com.android.build.api.dsl.ApplicationExtension"),
    "com.android.ai-pack": ("aiPack", "com.android.build.api.dsl.AiPackExtension"),
}


@dataclass(frozen=True)
class Case:
    """A script in a project.

    Attributes:
        script: Its name.
        agp: Major version of the Android Gradle Plugin.
        properties: Properties of the project, as gradle.properties sets them.
    """

    script: str
    agp: int
    properties: Mapping[str, str]


@dataclass(frozen=True)
class Gradle:
    """Gradle with compiled scripts.

    Attributes:
        classpath: Gradle, the stand-ins and the scripts.
        folder: Folder for the projects.
    """

    classpath: str
    folder: Path

    def evaluate(self, cases: Mapping[str, Case]) -> dict[str, dict[str, str]]:
        """Evaluate cases in one JVM and return what each configured, by its name."""
        arguments = [
            ",".join([name, f"scripts.{case.script}.Script", str(case.agp), *map("=".join, case.properties.items())])
            for name, case in cases.items()
        ]
        options = ["-XX:TieredStopAtLevel=1", "--add-opens=java.base/java.lang=ALL-UNNAMED", f"-Dfolder={self.folder}"]
        done = subprocess.run(
            ["java", *options, "-cp", self.classpath, "EvaluateKt", *arguments],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, dict[str, str]] = {name: {} for name in cases}
        for line in done.stdout.splitlines():
            name, key, value = line.split(" ", 2)
            found[name][key] = value
        return found


def compile_scripts(kotlin: Kotlin, scripts: Mapping[str, tuple[str, str]], folder: Path) -> Gradle:
    """Compile build scripts with all warnings as errors.

    Args:
        kotlin: The compilers.
        scripts: Text and version catalog of each script, by its name; one named `settings` is for settings.
        folder: Scratch folder.
    """
    gradle, plugins = fetch(_GRADLE, transitive=True), fetch(_KOTLIN)
    if gradle is None or plugins is None:
        pytest.skip("evaluating build scripts needs Gradle's API, which Maven could not download")
    sources = sorted((STANDINS / "gradle").glob("*.*"))
    for name, (text, catalog) in scripts.items():
        place = folder / "scripts" / name / "Script.kt"
        place.parent.mkdir(parents=True)
        place.write_text(as_function(name, text, catalog), encoding="utf-8")
        sources.append(place)
    jars = [*sorted(gradle.glob("*.jar")), *sorted(plugins.glob("kotlin-gradle-plugin-*.jar"))]
    # The Kotlin of the compiler itself, not the one that Gradle 8.6 has.
    jars = [kotlin.stdlib, *(jar for jar in jars if not jar.name.startswith("kotlin-stdlib"))]
    classpath = os.pathsep.join(map(str, jars))
    classes = folder / "classes"
    flags = ["-Werror", "-Wextra", "-no-stdlib", "-no-reflect", "-jvm-target", "17"]
    flags += ["-cp", classpath, "-d", str(classes)]
    flags += [f"-Xplugin={jar}" for jar in sorted(plugins.glob("kotlin-*-compiler-plugin-embeddable-*.jar"))]
    for plugin, annotation in _ANNOTATIONS.items():
        flags += ["-P", f"plugin:org.jetbrains.kotlin.{plugin}:annotation=org.gradle.api.{annotation}"]
    done = kotlin.compilers.compile("kotlin", *flags, *map(str, sources))
    assert done.returncode == 0, done.stderr
    java = [str(path) for path in sources if path.suffix == ".java"]
    path = os.pathsep.join([str(classes), classpath])
    done = kotlin.compilers.compile("java", "-nowarn", "--release", "17", "-cp", path, "-d", str(classes), *java)
    assert done.returncode == 0, done.stderr
    return Gradle(os.pathsep.join([str(classes), str(STANDINS / "gradle"), classpath]), folder / "projects")


def as_function(name: str, text: str, catalog: str) -> str:
    """Return a script as the body of a function, with the names that Gradle makes known to it."""
    lines = text.splitlines()
    imports = [line for line in lines if line.startswith("import ")]
    body = "\n".join(line for line in lines if not line.startswith("import "))
    receiver = "Settings" if name == "settings" else "Project"
    applied = re.findall(r'^    id\("([^"]+)"\)|^    alias\(libs\.plugins\.([\w.]+)\)$', body, re.MULTILINE)
    known = _plugins(catalog)
    accessors = [_ACCESSORS[plugin] for one in applied if (plugin := one[0] or known[one[1]]) in _ACCESSORS]
    return "\n".join(
        [
            f"package scripts.{name}",
            "import org.gradle.api.*",
            "import org.gradle.api.initialization.*",
            "import org.gradle.api.initialization.resolve.*",
            "import org.gradle.kotlin.dsl.*",
            *imports,
            *(
                f"fun Project.{word}(block: {kind}.() -> Unit) = extensions.getByType({kind}::class.java).block()"
                for word, kind in accessors
            ),
            _catalog(catalog),
            f"fun {receiver}.evaluate() {{",
            body,
            "}",
        ]
    )


def _plugins(catalog: str) -> dict[str, str]:
    """Return the id of each plugin of a version catalog by its accessor."""
    return {name.replace("-", "."): entry["id"] for name, entry in tomllib.loads(catalog).get("plugins", {}).items()}


def _catalog(catalog: str) -> str:
    """Return a version catalog as an object with its accessors, plugins as ids and libraries as coordinates."""
    document = tomllib.loads(catalog)
    tree: dict[str, object] = {}
    for name, entry in document.get("plugins", {}).items():
        assert entry["version"]["ref"] in document["versions"]
        _put(tree, ["plugins", *name.split("-")], entry["id"])
    for name, entry in document.get("libraries", {}).items():
        version = document["versions"][entry["version"]["ref"]] if "version" in entry else ""
        _put(tree, name.split("-"), ":".join(filter(None, [entry["module"], version])))
    return "\n".join(["private object libs {", *_objects(tree, "    "), "}"])


def _put(tree: dict[str, object], names: Sequence[str], value: str) -> None:
    *parents, last = names
    for parent in parents:
        inner = tree.setdefault(parent, {})
        assert isinstance(inner, dict)
        tree = inner
    tree[last] = value


def _objects(tree: Mapping[str, object], indent: str) -> list[str]:
    lines = []
    for name, value in tree.items():
        if isinstance(value, dict):
            lines += [f"{indent}object {name} {{", *_objects(value, indent + "    "), f"{indent}}}"]
        else:
            lines.append(f'{indent}const val {name} = "{value}"')
    return lines
