"""The table of all options of build, check and compare, in the order of their help pages."""

from functools import partial

from edgepack.choices import (
    AndroidRuntime,
    CompilePolicy,
    Delivery,
    Effort,
    Language,
    Platform,
    RangeMethod,
    Repair,
    Resize,
    SchemeChoice,
)
from edgepack.project.definition import Kind, Option, Panel, Scope, Variation

_ALL = ("build", "check", "compare")
_CHECKED = ("build", "check")
_MEASURED = ("build", "compare")

_model, _data, _accuracy, _target, _bundle, _run = (
    partial(Option, panel) for panel in (Panel.MODEL, Panel.DATA, Panel.ACCURACY, Panel.TARGET, Panel.BUNDLE, Panel.RUN)
)

OPTIONS = (
    _model(
        "input-shape",
        Kind.SHAPES,
        "Shape of an input with unknown dimensions, such as image=1,224,224,3; repeatable.",
        "model.input_shapes",
        "NAME=DIMS",
        commands=_ALL,
        scope=Scope.MODEL,
    ),
    _model(
        "signature",
        Kind.TEXT,
        "Signature of a SavedModel.",
        "model.signature",
        "NAME",
        show_default="serving_default",
        commands=_ALL,
        scope=Scope.MODEL,
    ),
    _model(
        "allow-code",
        Kind.FLAG,
        "Run Lambda layers and custom code of the model.",
        "model.allow_code",
        commands=_ALL,
        scope=Scope.MODEL,
    ),
    _data(
        "samples",
        Kind.SOURCE,
        "Representative samples: an .npz, an .npy, a folder of images or module:function.",
        "samples",
        "SRC",
        commands=_MEASURED,
    ),
    _data(
        "eval",
        Kind.SOURCE,
        "Samples to measure accuracy on: with labels top-1, with a COCO JSON mAP, with images and masks mIoU.",
        "eval",
        "SRC",
        commands=_MEASURED,
    ),
    _data(
        "train",
        Kind.SOURCE,
        "Labelled samples for quantization-aware training (int8-qat).",
        "train",
        "SRC",
        commands=_MEASURED,
        variations={"compare": Variation("Labelled samples to train on; adds the training recipes to the comparison.")},
    ),
    _data("labels", Kind.PATH, "Text file with one class name per line.", "labels", "FILE", commands=_MEASURED),
    _data("metadata", Kind.PATH, "A model.toml: names, descriptions, pixel normalization, labels.", "metadata", "FILE"),
    _data(
        "preprocess",
        Kind.TEXT,
        "Normalization of pixels: input = (pixel - MEAN) / STD; auto takes the usual one with which labelled images "
        "are recognized best.",
        "preprocess",
        "MEAN,STD|auto",
        show_default="the model's metadata or first ops, else 0,255",
        commands=_MEASURED,
    ),
    _data(
        "resize",
        Kind.CHOICE,
        "How an image gets the input's size, of samples and in the loaders.",
        "resize",
        "HOW",
        choices=Resize,
        commands=_MEASURED,
    ),
    _data(
        "task",
        Kind.TEXT,
        "What the outputs mean: classification, detection, segmentation, keypoints, embedding, audio or none, with "
        "facts such as detection,boxes=cxcywh.",
        "task",
        "TASK",
        show_default="recognized",
        commands=_MEASURED,
    ),
    _data(
        "calibration-samples",
        Kind.INTEGER,
        "Largest number of samples used for calibration.",
        "calibration_samples",
        "N",
        minimum=1,
    ),
    _data(
        "random-calibration",
        Kind.FLAG,
        "Calibrate on random numbers when there are no samples; the bundle records it.",
        "random_calibration",
    ),
    _accuracy(
        "scheme", Kind.CHOICE, "Quantization scheme.", "scheme", "SCHEME", choices=SchemeChoice, commands=_CHECKED
    ),
    _accuracy("effort", Kind.CHOICE, "Time spent on the accuracy of int8.", "effort", "EFFORT", choices=Effort),
    _accuracy(
        "ranges",
        Kind.CHOICE,
        "How activation ranges are chosen.",
        "method",
        "METHOD",
        choices=RangeMethod,
        show_default="the one that loses least",
    ),
    _accuracy(
        "per-tensor", Kind.FLAG, "Quantize each weight tensor with one scale instead of one per channel.", "per_tensor"
    ),
    _accuracy(
        "epochs",
        Kind.INTEGER,
        "Epochs of training with --train.",
        "epochs",
        "N",
        minimum=0,
        show_default="the recipe's",
        commands=_MEASURED,
        variations={"compare": Variation("Epochs of each training stage.", Panel.DATA, "4 to 6, by stage")},
    ),
    _accuracy(
        "max-drop",
        Kind.NUMBER,
        "Largest loss of accuracy in percentage points (else exit 8).",
        "max_drop",
        "POINTS",
        minimum=0,
    ),
    _accuracy("strict", Kind.FLAG, "Refuse a file that loses accuracy or is likely unusable (exit 8).", "strict"),
    _accuracy(
        "max-size",
        Kind.SIZE,
        "Largest size of the .tflite, such as 500KB, 1MB or 1MiB (else exit 8).",
        "max_size",
        "SIZE",
    ),
    _accuracy(
        "max-download",
        Kind.SIZE,
        "Largest size of the .tflite after gzip compression (else exit 8).",
        "max_download",
        "SIZE",
    ),
    _target(
        "target",
        Kind.TEXTS,
        "Target to build for, or `all`; repeatable.",
        metavar="ID",
        short="-t",
        commands=_ALL,
        variations={"compare": Variation("Target whose schemes are compared; repeatable.", show_default="all")},
        scope=Scope.NOWHERE,
        instead="use `targets` of a model or of [defaults]",
    ),
    _target(
        "variant",
        Kind.TEXT,
        "Variant of the target; `edgepack targets show ID` lists them.",
        "target.variant",
        "ID",
        commands=_CHECKED,
    ),
    _target(
        "soc",
        Kind.TEXTS,
        "Chip to compile for, such as SM8550; the first one selects the variant; repeatable.",
        "target.socs",
        "CHIP",
        commands=_ALL,
    ),
    _target(
        "runtime-version",
        Kind.INTEGER,
        "Runtime version whose op versions are checked.",
        "target.runtime_version",
        "VERSION",
        show_default="the newest",
        commands=_CHECKED,
    ),
    _target(
        "require-full",
        Kind.FLAG,
        "Fail (exit 3) when an op stays on the host.",
        "target.require_full",
        commands=_CHECKED,
    ),
    _target(
        "repair",
        Kind.CHOICE,
        "Which rewrites of unsupported ops are applied.",
        "target.repair",
        "MODE",
        choices=Repair,
        commands=_CHECKED,
    ),
    _target(
        "cut-tail",
        Kind.FLAG,
        "Move unsupported final ops (ARG_MAX, SOFTMAX) into the loader as postprocessing.",
        "target.cut_tail",
        commands=_CHECKED,
    ),
    _target(
        "compile",
        Kind.CHOICE,
        "Run the vendor's compiler if it is installed, always, or not at all.",
        "compile",
        "WHEN",
        choices=CompilePolicy,
    ),
    _target(
        "compile-timeout", Kind.NUMBER, "Time limit of the vendor's compiler.", "compile_timeout", "SECONDS", minimum=1
    ),
    _target(
        "simulate",
        Kind.FLAG,
        "Run what was compiled for --soc on the vendor's simulator of the accelerator, and compare with the CPU.",
        "simulate",
        commands=_MEASURED,
    ),
    _target(
        "simulate-seconds",
        Kind.NUMBER,
        "About how long the simulation of one file takes; it decides how many samples are run.",
        "simulate_seconds",
        "SECONDS",
        minimum=1,
        commands=_MEASURED,
    ),
    _target("segments", Kind.INTEGER, "Split the model into N pipelined segments, one per Edge TPU.", "segments", "N"),
    _target(
        "co-compile",
        Kind.PATHS,
        "Another int8 .tflite or bundle that shares the Edge TPU's memory; repeatable.",
        "co_compile",
        "PATH",
    ),
    _bundle(
        "out",
        Kind.PATH,
        "Folder to write the bundles to.",
        "out",
        "DIR",
        short="-o",
        show_default="the current folder",
        scope=Scope.NOWHERE,
        instead="use `out` of [project]",
    ),
    _bundle(
        "name",
        Kind.TEXT,
        "Name of the bundles.",
        "name",
        "NAME",
        show_default="the model's",
        scope=Scope.NOWHERE,
        instead="use `name` of a model",
    ),
    _bundle(
        "force", Kind.FLAG, "Replace an existing bundle, unless it contains files of yours.", "force", in_project=True
    ),
    _bundle("sign", Kind.FLAG, "Sign the bundles, with an identity of Sigstore unless --sign-key is given.", "sign"),
    _bundle(
        "sign-key",
        Kind.PATH,
        "Private key (PEM, elliptic curve) to sign the bundles with, offline.",
        "sign_key",
        "FILE",
    ),
    _bundle(
        "platform",
        Kind.CHOICE,
        "Operating system of a CPU target's bundle.",
        "platform",
        "OS",
        choices=Platform,
        show_default="the target's",
    ),
    _bundle("language", Kind.CHOICE, "Language of the Android loader.", "language", "LANGUAGE", choices=Language),
    _bundle(
        "package",
        Kind.TEXT,
        "Package of the Android code; the model's name is appended.",
        "package",
        "PACKAGE",
        show_default="com.example",
    ),
    _bundle("delivery", Kind.CHOICE, "How an Android bundle reaches the app.", "delivery", "FORM", choices=Delivery),
    _bundle(
        "runtime",
        Kind.CHOICE,
        "LiteRT of the Android loader: CompiledModel of 2.x, or the Interpreter of 1.x.",
        "runtime",
        "LITERT",
        choices=AndroidRuntime,
        show_default="litert2 for compiled files and ML Drift, else litert1",
    ),
    _bundle(
        "sample-app", Kind.FLAG, "Add an Android app that shows the model's results on the camera image.", "sample_app"
    ),
    _run(
        "dry-run",
        Kind.FLAG,
        "Run every stage but write no bundle; of a project, show the plan.",
        "dry_run",
        scope=Scope.NOWHERE,
        instead="a flag only, because it concerns one run",
    ),
    _run(
        "timeout",
        Kind.NUMBER,
        "Time limit of the conversion, and then of each target; training is not counted.",
        "model.timeout",
        "SECONDS",
        minimum=1,
        commands=_ALL,
        scope=Scope.MODEL,
    ),
    _run(
        "memory-limit",
        Kind.MEMORY,
        "Memory that each child process may hold, such as 8GB.",
        "model.memory_limit",
        "SIZE",
        show_default="3/4 of the machine's, at most 16 GiB",
        commands=_ALL,
        scope=Scope.MODEL,
    ),
    _run(
        "no-cache",
        Kind.FLAG,
        "Recompute every step and store nothing in the cache.",
        "model.cache",
        negated=True,
        commands=_ALL,
        scope=Scope.MODEL,
    ),
    _run(
        "cache",
        Kind.TEXT,
        "Cache that several machines share: s3://, gs://, az:// or file:///FOLDER; `off` for none.",
        "model.cache_url",
        "URL",
        show_default="EDGEPACK_CACHE_URL",
        commands=_ALL,
        scope=Scope.NOWHERE,
        instead="use `cache` of [project]",
    ),
    _run(
        "json",
        Kind.FLAG,
        "Print one JSON document on stdout.",
        commands=_ALL,
        scope=Scope.NOWHERE,
        instead="a flag only, because it concerns the output of one run",
    ),
)

#: Options by name.
BY_NAME = {option.name: option for option in OPTIONS}

#: Keys of a model or of the defaults, and those that may also stand in the table of a target.
MODEL_KEYS = tuple(option.name for option in OPTIONS if option.scope != Scope.NOWHERE)
TARGET_KEYS = tuple(option.name for option in OPTIONS if option.scope == Scope.TARGET)


def options_of(command: str) -> tuple[Option, ...]:
    """Return the options of a command, in the order of its help page."""
    return tuple(option for option in OPTIONS if command in option.commands)
