"""The installed C and C++ library: relocatable, found by CMake and pkg-config, packaged by CPack."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cpp_tools
import pytest
from bundle_specs import write_tree
from cpp_tools import loader_of, run, runtime_library, tflite_library
from test_bundle_render import TASKS

from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec

pytestmark = pytest.mark.slow
KWS = "mlperf-tiny/kws_reference_int8.tflite"


@pytest.fixture(autouse=True)
def _compilers() -> None:
    cpp_tools.needs_compilers()


def bundle_of(spec: BundleSpec, folder: Path) -> cpp_tools.Loader:
    return loader_of(write_tree(render(spec), folder))


needs_cmake = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("make") is None, reason="needs CMake and make: install both"
)
STRICT_BUILD = [f"-DCMAKE_{language}_FLAGS=-Wall -Wextra -Werror" for language in ("C", "CXX")]
CONSUMER = """cmake_minimum_required(VERSION 3.16)
project(consumer LANGUAGES C CXX)
find_package(NAME 1.0 CONFIG REQUIRED)
find_package(NAME 2.0 CONFIG QUIET)
if(NAME_FOUND)
  message(FATAL_ERROR "version 2 was accepted")
endif()
find_package(NAME 1.0 CONFIG REQUIRED)
add_executable(consumer main.cpp)
target_link_libraries(consumer PRIVATE edgepack::NAME)
"""
PROGRAM = """#include <cstdio>
#include "NAME/NAME.hpp"
int main() { edgepack::NAME::Model model; std::puts(model.status().runtime); }
"""


def succeed(*command: object, **options: object) -> str:
    """Run a command that must succeed, and return what it prints."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_cmake
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "static"])
def test_installation_can_be_moved_and_found(
    make_spec: Callable[..., BundleSpec], tmp_path: Path, shared: bool
) -> None:
    """Ctest passes; of installations in two prefixes, one moved, each has its model; CMake and pkg-config find them."""
    loader = bundle_of(make_spec(KWS, "cpu"), tmp_path / "bundle")
    name, build_dir = loader.name, tmp_path / "build"
    flags = [*STRICT_BUILD, f"-D{name.upper()}_RUNTIME_LIBRARY={runtime_library('tflite')}"]
    succeed("cmake", "-S", loader.folder, "-B", build_dir, *flags, f"-DBUILD_SHARED_LIBS={'ON' if shared else 'OFF'}")
    succeed("cmake", "--build", build_dir, "--parallel", 2)
    succeed("ctest", "--test-dir", build_dir, "--output-on-failure")
    for prefix in ("first", "second"):
        succeed("cmake", "--install", build_dir, "--prefix", tmp_path / prefix)
    (tmp_path / "second").rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "bundle")
    shutil.rmtree(build_dir)
    consumer = tmp_path / "consumer"
    consumer.mkdir()
    (consumer / "CMakeLists.txt").write_text(CONSUMER.replace("NAME", name))
    (consumer / "main.cpp").write_text(PROGRAM.replace("NAME", name))
    for prefix in (tmp_path / "first", tmp_path / "moved"):
        done = run(prefix / "bin" / f"{name}_self_test")
        assert done.returncode == 0, done.stdout + done.stderr
        if shared:
            # A program elsewhere finds the model by the library that it loads.
            built = tmp_path / f"built-{prefix.name}"
            succeed("cmake", "-S", consumer, "-B", built, *STRICT_BUILD, f"-DCMAKE_PREFIX_PATH={prefix}")
            succeed("cmake", "--build", built)
            done = run(built / "consumer")
            assert (done.returncode, done.stdout) == (0, "TensorFlow Lite 2.18.0\n"), done.stderr
        if shutil.which("pkg-config") is not None:
            environment = {**os.environ, "PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
            query = ["pkg-config", "--cflags", "--libs", *([] if shared else ["--static"]), f"{name} >= 1.0"]
            options = succeed(*query, env=environment).split()
            assert options[0].startswith(f"-I{prefix}/"), options
            # A program with the static library finds the model where it is installed beside it.
            program = prefix / "bin" / "consumer"
            succeed("c++", "-std=c++17", consumer / "main.cpp", "-o", program, *options)
            done = run(program, LD_LIBRARY_PATH=str(prefix / "lib"))
            assert (done.returncode, done.stdout) == (0, "TensorFlow Lite 2.18.0\n"), done.stderr


FRAMES = """#include "NAME/NAME.hpp"
int main() {
  const unsigned char pixels[12] = {0};
  edgepack::NAME::Model model;
  return model.detect(edgepack::Frame(EDGEPACK_RGB, 2, 2, edgepack::Plane(pixels, 12))).empty() ? 0 : 1;
}
"""


@needs_cmake
def test_installation_has_the_headers_of_frames_and_results(tmp_path: Path) -> None:
    """A program that uses frames and detections compiles and links with what is installed; nothing else is there."""
    loader = bundle_of(TASKS["joined"], tmp_path / "bundle")
    name, build_dir, prefix = loader.name, tmp_path / "build", tmp_path / "prefix"
    succeed("cmake", "-S", loader.folder, "-B", build_dir, *STRICT_BUILD)
    succeed("cmake", "--build", build_dir)
    succeed("cmake", "--install", build_dir, "--prefix", prefix)
    shutil.rmtree(tmp_path / "bundle")
    include = next((prefix / "include").iterdir())
    shared = {path.name for path in (include / "edgepack").iterdir()}
    assert shared == {"model.h", "model.hpp", "frame.h", "frame.hpp", "detection.h", "detection.hpp"}
    (tmp_path / "main.cpp").write_text(FRAMES.replace("NAME", name))
    libraries = [f"-L{prefix / 'lib'}", f"-l{name}", "-ldl", "-lm"]
    succeed("c++", "-std=c++17", f"-I{include}", tmp_path / "main.cpp", "-o", tmp_path / "program", *libraries)
    assert "CMAKE_BUILD_TYPE:STRING=Release" in (build_dir / "CMakeCache.txt").read_text()


@needs_cmake
@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb: install dpkg")
def test_debian_packages_of_two_models_install_together(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """Cpack makes a .deb; those of two models share no file, and the self-test in the extracted package passes."""
    names = ("first model", "second model")
    contents = []
    for index, name in enumerate(names):
        loader = bundle_of(make_spec(KWS, "cpu", name=name), tmp_path / name)
        build_dir = tmp_path / f"build{index}"
        runtime = f"-D{loader.name.upper()}_RUNTIME_LIBRARY={runtime_library('tflite')}"
        succeed("cmake", "-S", loader.folder, "-B", build_dir, "-DBUILD_SHARED_LIBS=ON", runtime)
        succeed("cmake", "--build", build_dir, "--parallel", 2)
        succeed("cpack", "-B", tmp_path / "packages", cwd=build_dir)
        package = next((tmp_path / "packages").glob(f"edgepack-{loader.name.replace('_', '-')}_1.1.0_*.deb"))
        succeed("dpkg-deb", "--extract", package, tmp_path / "root")
        listed = succeed("dpkg-deb", "--contents", package).splitlines()
        contents.append({line.split()[5] for line in listed if not line.startswith("d")})
        done = run(tmp_path / "root" / "usr" / "bin" / f"{loader.name}_self_test")
        assert done.returncode == 0, done.stdout + done.stderr
    assert contents[0] and not contents[0] & contents[1]


@needs_cmake
def test_cross_compiled_library_runs_on_aarch64(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """Cross-compiled with Debian's toolchain, the self-test agrees on TensorFlow Lite for arm64 under qemu-user.

    LiteRT 2.3.0 for aarch64 is not run: under qemu 7.2 it ends with a segmentation fault when it compiles a model.
    """
    tools = {"aarch64-linux-gnu-gcc": "g++-aarch64-linux-gnu", "qemu-aarch64": "qemu-user"}
    missing = [package for tool, package in tools.items() if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs a cross compiler and an emulator: install {', '.join(missing)}")
    loader = bundle_of(make_spec(KWS, "cpu"), tmp_path / "bundle")
    succeed(
        "cmake", "-S", loader.folder, "-B", tmp_path / "build", *STRICT_BUILD, "-DBUILD_SHARED_LIBS=ON",
        "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        "-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc", "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
        "-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;/usr/aarch64-linux-gnu",
        f"-D{loader.name.upper()}_RUNTIME_LIBRARY={tflite_library('linux-arm64')}",
    )  # fmt: skip
    succeed("cmake", "--build", tmp_path / "build", "--parallel", 2)
    printed = succeed("ctest", "--test-dir", tmp_path / "build", "--verbose")
    assert "model.tflite on cpu, TensorFlow Lite 2.18.0" in printed
    succeed("cpack", "-B", tmp_path / "packages", cwd=tmp_path / "build")
    package = f"edgepack-{loader.name.replace('_', '-')}_1.1.0_arm64.deb"
    assert [path.name for path in (tmp_path / "packages").glob("*.deb")] == [package]
