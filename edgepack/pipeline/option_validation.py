"""Checks of options that need no model: everything here is refused before the first conversion.

`edgepack.choices` checks the values of single options. This module checks options against each other, against the
targets and against the file system. Options that concern some targets only take effect there; the other targets are
built without them, with a note.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgepack.bundle.languages.jvm import jvm_segment
from edgepack.bundle.names import file_stem
from edgepack.bundle.signature import require_signer
from edgepack.bundle.write import require_replaceable
from edgepack.choices import AndroidRuntime, CompilePolicy, Delegate, Delivery, Platform, SchemeChoice
from edgepack.compilers import get_compiler
from edgepack.compilers.simulator import simulating_compiler
from edgepack.errors import ModelFileError, SamplesError, ToolMissingError, UsageError
from edgepack.files import open_regular
from edgepack.pipeline.input_values import AUTO
from edgepack.pipeline.options import BuildOptions
from edgepack.profiles.model import TargetProfile
from edgepack.profiles.variants import choose_variant
from edgepack.samples import Preprocess, SampleSource


def validate_build(profiles: Sequence[TargetProfile], options: BuildOptions, model: Path) -> list[str]:
    """Check the options of a build.

    Args:
        profiles: The targets.
        options: The options; their single values have been checked when they were created.
        model: The user's model.

    Returns:
        A note for each option that has no effect on some of the targets.

    Raises:
        UsageError: A file does not exist, options contradict each other, a target has no such variant or chip, or an
            option has no effect on any target.
        ToolMissingError: The bundles are to be signed, and the package for that is not installed.
        BundleError: A bundle exists and `force` is not set, or its folder holds something else.
    """
    validate_inputs(options, model)
    if options.per_tensor and options.scheme == SchemeChoice.INT8_QAT:
        raise UsageError(
            "--per-tensor: quantization-aware training (int8-qat) uses one scale per channel",
            hint="leave --per-tensor out, or use --scheme int8",
        )
    _require_package(options.package)
    for profile in profiles:
        choose_variant(profile, variant=options.target.variant, soc=options.target.soc)
    _require_runtime(profiles, options)
    notes = _target_notes(profiles, options)
    if options.simulate:
        notes += validate_simulation(profiles, options)
    if options.signer is not None:
        require_signer(options.signer)
    if not options.dry_run:
        for profile in profiles:
            require_replaceable(bundle_path(model, profile, options), options.force)
    return notes


def validate_inputs(options: BuildOptions, model: Path) -> None:
    """Check that the model and every file that the options name exist, and the form of --preprocess.

    Raises:
        UsageError: A file does not exist or cannot be read, or --preprocess is neither MEAN,STD nor auto.
    """
    require_file("", model)
    require_sources({"--samples": options.samples, "--eval": options.eval, "--train": options.train})
    for option, path in (("--labels", options.labels), ("--metadata", options.metadata)):
        if path is not None:
            require_file(option, path)
    for path in options.co_compile:
        require_file("--co-compile", path)
    if options.preprocess not in ("", AUTO):
        Preprocess.parse(options.preprocess)


def bundle_name(model: Path, options: BuildOptions) -> str:
    """Return the name of the bundles: --name, else the model's file name without its suffix."""
    return options.name or model.name.removesuffix("/").rsplit(".", 1)[0]


def bundle_path(model: Path, profile: TargetProfile, options: BuildOptions) -> Path:
    """Return the folder that a target's bundle is written to."""
    return bundle_folder(model, profile.id, options)


def bundle_folder(model: Path, target: str, options: BuildOptions) -> Path:
    """Return the folder that the bundle of a target, named by its id, is written to."""
    return options.out / f"{file_stem(bundle_name(model, options))}-{target}"


def platform_of(profile: TargetProfile, options: BuildOptions) -> str:
    """Return --platform where it can change the target's bundle, empty for a target that keeps its own."""
    return options.platform or "" if profile.bundle.delegate == Delegate.NONE else ""


def delivery_of(profile: TargetProfile, options: BuildOptions) -> str:
    """Return --delivery for a target with an Android bundle, `module` for any other."""
    return options.delivery if _is_android(profile, options) else Delivery.MODULE


def runtime_option(profile: TargetProfile, options: BuildOptions) -> str:
    """Return --runtime for a target with an Android bundle, empty for any other and where it was not given."""
    return options.runtime or "" if _is_android(profile, options) else ""


def sample_app_option(profile: TargetProfile, options: BuildOptions) -> bool:
    """Return --sample-app for a target with an Android bundle, False for any other."""
    return options.sample_app and _is_android(profile, options)


def supports_segments(profile: TargetProfile) -> bool:
    """Return whether the target's compiler can split a model into segments and compile several models together."""
    return profile.compiler is not None and get_compiler(profile.compiler.id).supports_segments


def supports_simulation(profile: TargetProfile) -> bool:
    """Return whether the target's compiler can run its files on a simulator of the accelerator."""
    return profile.compiler is not None and get_compiler(profile.compiler.id).supports_simulation


def validate_simulation(profiles: Sequence[TargetProfile], options: BuildOptions) -> list[str]:
    """Check --simulate: for which targets it can be done, and whether everything for it is installed.

    Returns:
        A note where some of the targets have no simulator.

    Raises:
        UsageError: No target has a simulator, nothing would be compiled, or no chip is named.
        ToolMissingError: The compiler or its simulator is not installed.
    """
    notes = _effect(
        "--simulate", "targets whose compiler has a simulator of the accelerator", profiles, supports_simulation
    )
    if options.compile == CompilePolicy.NEVER:
        raise UsageError("--simulate needs the compiler, but --compile never turns it off")
    for profile in profiles:
        if not supports_simulation(profile):
            continue
        if profile.socs and not options.target.socs:
            raise UsageError(
                "--simulate runs what was compiled for a chip, and no chip is named",
                hint="add --soc, such as --soc SM8550",
            )
        assert profile.compiler is not None
        compiler = simulating_compiler(profile.compiler.id)
        compiler.find_simulator()
        tool = compiler.find()
        if not tool.found:
            raise ToolMissingError(f"--simulate needs the compiler: {tool.problem}", hint=tool.install)
    return notes


def require_file(option: str, path: Path) -> None:
    """Refuse a file or folder that does not exist or cannot be read.

    Args:
        option: Option that names the file, empty for the model.
        path: The file or folder.

    Raises:
        UsageError: It does not exist, or the option's file cannot be read.
        ModelFileError: The model cannot be read.
    """
    where = f"{option}: " if option else ""
    try:
        next(path.iterdir(), None) if path.is_dir() else open_regular(path).close()
    except FileNotFoundError:
        raise UsageError(f"{where}'{path}' does not exist") from None
    except OSError as error:
        # A model that exists and cannot be read has the exit code that its reader gives it.
        kind = UsageError if option else ModelFileError
        raise kind(f"{where}cannot read '{path}': {error.strerror or error}") from error


def require_sources(sources: Mapping[str, SampleSource]) -> None:
    """Refuse samples that do not exist; `module:function` is looked up when the samples are read.

    Args:
        sources: Source by option; empty sources are allowed, and objects are checked when they are read.

    Raises:
        SamplesError: A file or folder does not exist.
    """
    for option, source in sources.items():
        if isinstance(source, str) and source and ":" not in source and not Path(source).exists():
            raise SamplesError(
                f"{option}: samples '{source}' do not exist",
                hint="expected an .npz, an .npy, a folder of images or module:function",
            )


def _require_package(package: str) -> None:
    """Refuse a package whose segments would have to be changed, beyond case and underscores, to be legal."""
    if package and any(jvm_segment(part) != part.lower().replace("_", "") for part in package.split(".")):
        raise UsageError(
            f"--package: expected a package name such as com.example.app, got '{package}'",
            hint="a segment starts with a letter, holds letters and digits, and is not a keyword of Kotlin or Java",
        )


def _require_runtime(profiles: Sequence[TargetProfile], options: BuildOptions) -> None:
    """Refuse LiteRT 1 for files that would be compiled ahead of time, which only LiteRT 2 runs."""
    if options.runtime != AndroidRuntime.LITERT1 or not options.target.socs or options.compile == CompilePolicy.NEVER:
        return
    for profile in profiles:
        if profile.bundle.delegate != Delegate.QNN or profile.compiler is None:
            continue
        if options.compile == CompilePolicy.REQUIRE or get_compiler(profile.compiler.id).find().found:
            raise UsageError(
                f"--runtime litert1 cannot run files compiled ahead of time, which --soc {options.target.soc} asks for",
                hint="omit --runtime, or add --compile never to leave the files out",
            )


def _is_android(profile: TargetProfile, options: BuildOptions) -> bool:
    return (platform_of(profile, options) or profile.bundle.template) != Platform.LINUX


def _target_notes(profiles: Sequence[TargetProfile], options: BuildOptions) -> list[str]:
    """Return a note for each option that has no effect on some targets; refuse one that has none on any target."""
    if options.segments == 1 or options.segments < 0:
        raise UsageError(f"--segments: expected 2 or more, got {options.segments}")
    compiler_option = "--segments" if options.segments else "--co-compile" if options.co_compile else ""
    if compiler_option and options.compile == CompilePolicy.NEVER:
        raise UsageError(f"{compiler_option} needs the compiler, but --compile never turns it off")
    notes = []
    if options.delivery != Delivery.MODULE:
        option = f"--delivery {options.delivery}"
        notes += _effect(option, "Android bundles", profiles, lambda profile: _is_android(profile, options))
    for option, given in ((f"--runtime {options.runtime}", options.runtime), ("--sample-app", options.sample_app)):
        if given:
            notes += _effect(option, "Android bundles", profiles, lambda profile: _is_android(profile, options))
    if options.platform:
        option = f"--platform {options.platform}"
        notes += _effect(
            option,
            "targets without an accelerator, such as cpu",
            profiles,
            lambda profile: profile.bundle.template == options.platform or bool(platform_of(profile, options)),
        )
    if compiler_option:
        notes += _effect(compiler_option, "the Edge TPU", profiles, supports_segments)
    return notes


def _effect(
    option: str, scope: str, profiles: Sequence[TargetProfile], applies: Callable[[TargetProfile], bool]
) -> list[str]:
    others = [profile.id for profile in profiles if not applies(profile)]
    if len(others) == len(profiles):
        raise UsageError(f"{option} applies to {scope} only, and to none of the targets: {', '.join(others)}")
    return [f"{option} applies to {scope} only: {', '.join(others)} built without it"] if others else []
