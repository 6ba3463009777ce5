"""The steps that several targets and several builds share: each computed once, kept by content hash, run in a child."""

import contextlib
import io
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgepack._version import __version__
from edgepack.cache import Cache, hash_path, key_of, sha256
from edgepack.child import ChildCrash, Worker
from edgepack.convert import ConvertOptions, FloatModel, convert
from edgepack.errors import ConversionError, EdgepackError, QuantizationError, UnfitModelError
from edgepack.pipeline.options import ModelOptions, Progress, silent
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.quantizer import QuantizationRefused
from edgepack.runtime.metrics import Quality
from edgepack.runtime.postprocessing import PostprocessStep
from edgepack.runtime.timing import Latency
from edgepack.samples import SampleSet
from edgepack.schemes import get_scheme, plain_type

_COMPONENTS = ("tensorflow", "tf-keras", "ai-edge-litert", "ai-edge-quantizer", "numpy")


class Session:
    """Owner of the cache and of the child processes of one build.

    Args:
        options: How the model is read.
        progress: Told what is being done.
    """

    def __init__(self, options: ModelOptions, progress: Progress = silent) -> None:
        self.options = options
        self.progress = progress
        self.cache = Cache(enabled=options.cache)
        self.threads = max(1, min(4, os.cpu_count() or 1))
        self._searches: dict[str, Mapping[str, bytes]] = {}
        self._tensorflow = Worker()
        self._native = Worker()
        self._warming: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle()
        self._tensorflow.close()
        self._native.close()

    @cached_property
    def versions(self) -> dict[str, str]:
        """Versions that results depend on: edgepack's code and the packages it computes with."""
        found = {"edgepack": __version__, "code": _code_digest()}
        for name in _COMPONENTS:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = ""
        return found

    def float_model(self, path: Path) -> tuple[FloatModel, dict[str, Any]]:
        """Convert the user's model, or take a .tflite as it is.

        Returns:
            The float model and `{format, bytes, sha256}` of the user's file.

        Raises:
            EdgepackError: The model cannot be read or converted.
        """
        options = ConvertOptions(
            input_shapes=dict(self.options.input_shapes),
            allow_code=self.options.allow_code,
            signature=self.options.signature,
        )
        digest = hash_path(path) if path.exists() else ""
        key = key_of("convert", {"model": digest, "options": _plain(options), "versions": self.versions})
        files = self.cache.get(key)
        if files is None:
            if path.suffix != ".tflite":
                self.progress(f"converting {path.name} (TensorFlow, in a child process)")
                self._warm()
            model = convert(
                path,
                worker=self._tensorflow,
                options=options,
                timeout=self.options.timeout,
                log_dir=self.cache.root / "logs",
            )
            meta = asdict(model)
            del meta["tflite"]
            self.cache.put(key, {"model.tflite": model.tflite, "meta.json": _json(meta)})
        else:
            meta = json.loads(files["meta.json"])
            model = FloatModel(tflite=files["model.tflite"], **{**meta, "notes": tuple(meta["notes"])})
        size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
        return model, {"format": model.source_format, "bytes": size, "sha256": digest}

    def calibration(self, tflite: bytes, samples: SampleSet | int) -> bytes:
        """Return what the activations of a float model look like on the samples (or on so many random ones)."""
        what = {"random": samples} if isinstance(samples, int) else {"samples": samples.digest}
        key = key_of("calibrate", {"model": sha256(tflite), **what, "versions": self.versions})

        def compute() -> dict[str, bytes]:
            count = samples if isinstance(samples, int) else len(samples)
            self.progress(f"calibrating on {count} {'random ' if isinstance(samples, int) else ''}samples")
            return {"calibration.npz": self._run("calibrate", tflite, samples, self.threads)}

        return self.cached(key, compute)["calibration.npz"]

    def quantized(
        self, tflite: bytes, rule: SchemeRule, calibration: bytes | None, method: str
    ) -> tuple[bytes, str, tuple[str, ...]]:
        """Return (file of the scheme, tool that wrote it, notes).

        TFLiteConverter's quantizer takes over where ai-edge-quantizer refuses the model.
        """
        parts = {
            "model": sha256(tflite),
            "rule": _form(rule),
            "calibration": None if calibration is None else sha256(calibration),
            "method": method,
            "versions": self.versions,
        }

        def compute() -> dict[str, bytes]:
            self.progress(f"quantizing to {rule.scheme}")
            try:
                data, tool, notes = self._run("quantize", tflite, rule, calibration, method)
            except QuantizationRefused as refused:
                if calibration is None:
                    raise
                data, tool, notes = self._fall_back(tflite, rule, calibration, method, refused)
            return {"model.tflite": data, "meta.json": _json({"tool": tool, "notes": notes})}

        files = self.cached(key_of("quantize", parts), compute)
        meta = json.loads(files["meta.json"])
        return files["model.tflite"], meta["tool"], tuple(meta["notes"])

    def improved(
        self,
        tflite: bytes,
        rule: SchemeRule,
        samples: SampleSet,
        effort: str,
        *,
        judged: SampleSet | None = None,
        limit: float | None = None,
        kept_as: str = "float32",
    ) -> tuple[bytes, str, tuple[str, ...], dict[str, Any]]:
        """Return (int8 file, tool that wrote it, notes, report of the steps), improved with an effort.

        With a limit the fewest ops are kept in float32 or int16 that hold it: most percentage points lost on the
        samples `judged`.

        Raises:
            AccuracyError: Not even with every op kept that may be is the limit held.
            QuantizationRefused: ai-edge-quantizer cannot take the model.
        """
        model, ranges, report = self._search(tflite, rule, samples, effort)
        told: dict[str, Any] = {}
        extra: tuple[Any, ...] = ()
        if limit is not None and judged is not None:
            told = {"kept_as": kept_as, "limit": limit, "judged": judged.digest, "samples": samples.digest}
            extra = (samples, tflite, judged, limit, kept_as)
            self.progress(f"keeping single ops in {plain_type(kept_as)}")

        def write() -> dict[str, bytes]:
            data, tool, notes, *mixed = self._improving(
                "mix_ops" if extra else "with_ranges", model, rule, ranges, *extra
            )
            return {"model.tflite": data, "meta.json": _json({"tool": tool, "notes": notes, "mixed": mixed})}

        made = {"model": sha256(model), "rule": _form(rule), "ranges": ranges, **told}
        files = self.cached(key_of("quantize", {**made, "versions": self.versions}), write)
        meta = json.loads(files["meta.json"])
        if meta["mixed"]:
            report = {**report, "mixed": meta["mixed"][0]}
        return files["model.tflite"], meta["tool"], tuple(meta["notes"]), report

    def _search(
        self, tflite: bytes, rule: SchemeRule, samples: SampleSet, effort: str
    ) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
        """Return (improved float model, its ranges, report of the steps): the long part, once for all that needs it."""
        # Ranges alone fit every form of the file, so one search serves all targets; more effort shapes weights as well.
        dense = "per-channel" if effort == "low" else rule.fully_connected
        like = SchemeRule(rule.scheme, "INT8", fully_connected=dense, weights=rule.weights)
        parts = {"model": sha256(tflite), "rule": _form(like), "samples": samples.digest, "effort": effort}

        def search() -> dict[str, bytes]:
            self.progress("choosing ranges" if effort == "low" else f"improving int8 with effort {effort}")
            data, ranges, report = self._improving("improve_float", tflite, like, samples, effort)
            return {"model.tflite": data, "meta.json": _json({"ranges": ranges, "report": report})}

        key = key_of("improve", {**parts, "versions": self.versions})
        # Also without a cache on disk, which is for what earlier runs left there.
        if key not in self._searches:
            self._searches[key] = self.cached(key, search)
        meta = json.loads(self._searches[key]["meta.json"])
        return self._searches[key]["model.tflite"], meta["ranges"], meta["report"]

    def _improving(self, function: str, *arguments: Any) -> Any:
        return self.run_native(
            f"edgepack.pipeline.improving:{function}",
            *arguments,
            on_event=lambda event: self.progress(f"  {event[0]}: {event[1]} of {event[2]}"),
        )

    def qualities(
        self,
        reference: bytes,
        candidates: Mapping[str, bytes],
        samples: SampleSet,
        tail: Sequence[PostprocessStep] = (),
    ) -> dict[str, Quality]:
        """Return what each candidate lost against the reference on the samples, after steps that only it lacks."""
        parts = {
            "reference": sha256(reference),
            "candidates": {name: sha256(data) for name, data in candidates.items()},
            "samples": samples.digest,
            "tail": [step.to_json() for step in tail],
            "versions": self.versions,
        }

        def compute() -> dict[str, bytes]:
            self.progress(f"measuring {', '.join(candidates)} on {len(samples)} samples")
            arguments = (reference, dict(candidates), samples, tuple(tail))
            found = self._run("evaluate", *arguments, module="edgepack.runtime.evaluate")
            return {"quality.json": _json({name: asdict(quality) for name, quality in found.items()})}

        stored = json.loads(self.cached(key_of("measure", parts), compute)["quality.json"])
        return {name: Quality(**{**fields, "collapsed": tuple(fields["collapsed"])}) for name, fields in stored.items()}

    def golden(
        self, tflite: bytes, samples: list[dict[str, Any]]
    ) -> tuple[list[tuple[list[Any], list[Any]]], int, float]:
        """Return raw (inputs, outputs) for each sample of real values, and how far kernels differ on them.

        The last two are the spread in steps of quantized outputs and the relative one of float outputs.
        """
        import numpy as np

        digest = sha256(b"".join(s[name].tobytes() for s in samples for name in sorted(s)))
        key = key_of("golden", {"model": sha256(tflite), "samples": digest, "versions": self.versions})

        def compute() -> dict[str, bytes]:
            cases = self._run("golden_vectors", tflite, samples, module="edgepack.runtime.evaluate")
            spread = self._run("kernel_spread", tflite, cases, module="edgepack.runtime.evaluate")
            stream = io.BytesIO()
            arrays = {
                f"{c:03d}_{kind}_{i:03d}": array
                for c, case in enumerate(cases)
                for kind, arrays in zip(("in", "out"), case, strict=True)
                for i, array in enumerate(arrays)
            }
            np.savez(stream, **arrays)
            return {"golden.npz": stream.getvalue(), "spread.json": _json(spread)}

        files = self.cached(key, compute)
        loaded = np.load(io.BytesIO(files["golden.npz"]))
        cases: list[tuple[list[Any], list[Any]]] = [([], []) for _ in samples]
        for name in sorted(loaded.files):
            case, kind, _ = name.split("_")
            cases[int(case)][kind == "out"].append(loaded[name])
        steps, relative = json.loads(files["spread.json"])
        return cases, steps, relative

    def latency(self, tflite: bytes) -> Latency | None:
        """Return how long a model takes here, None when it does not run here. Never kept: a machine changes."""
        self.progress("timing on this machine")
        try:
            found: Latency = self._run("latency", tflite, module="edgepack.runtime.timing")
        except UnfitModelError:
            return None
        return found

    def _fall_back(
        self, tflite: bytes, rule: SchemeRule, calibration: bytes, method: str, refused: QuantizationRefused
    ) -> tuple[bytes, str, tuple[str, ...]]:
        """Quantize with TFLiteConverter's own quantizer, fed with our ranges."""
        self.progress("ai-edge-quantizer refused the model; using TFLiteConverter's quantizer (TensorFlow)")
        carrying = self._run("carry_ranges", tflite, rule, calibration, method)
        try:
            made = self._tensorflow.call(
                "edgepack.convert.mlir_quantize:mlir_quantize",
                carrying,
                io=rule.io,
                fully_connected=rule.fully_connected,
                weights=rule.weights,
                activations=get_scheme(rule.scheme).activations,
                timeout=self.options.timeout,
            )
        except (ChildCrash, ConversionError) as error:
            why = error.reason if isinstance(error, ChildCrash) else error.message
            raise QuantizationError(
                f"neither quantizer takes the model. ai-edge-quantizer: {refused.message}. TFLiteConverter: {why}",
                hint=refused.hint or "build float16, or dynamic-range where the target takes it",
                details={"log_tail": error.log_tail if isinstance(error, ChildCrash) else ""},
            ) from error
        tool = f"TFLiteConverter {self.versions['tensorflow']}"
        data, tool, notes = self._run("adopt", made, tflite, rule, tool)
        return data, tool, (f"quantized by TFLiteConverter: {refused.message}", *notes)

    def _warm(self) -> None:
        """Let the other child load the runtime and the quantizer while TensorFlow converts."""

        def load() -> None:
            with contextlib.suppress(ChildCrash):
                self._native.call("edgepack.pipeline.native:load_packages")

        self._native.start()
        self._warming = threading.Thread(target=load, daemon=True)
        self._warming.start()

    def _settle(self) -> None:
        """Wait until nobody else talks to the native child."""
        warming, self._warming = self._warming, None
        if warming is not None:
            warming.join()

    def _run(self, function: str, *args: Any, module: str = "edgepack.pipeline.native") -> Any:
        return self.run_native(f"{module}:{function}", *args)

    def run_native(self, function: str, *args: Any, on_event: Callable[[Any], None] | None = None) -> Any:
        """Run a native step, `module:function`, in the child; its death becomes one error."""
        self._settle()
        try:
            return self._native.call(function, *args, on_event=on_event)
        except ChildCrash as crash:
            step = function.rpartition(":")[2]
            kind: type[EdgepackError] = QuantizationError if step in {"quantize", "calibrate"} else UnfitModelError
            raise kind(
                f"the runtime failed in the step '{step}': {crash.reason}",
                hint="run `edgepack inspect` on the model; if it is sound, report this with the log below",
                details={"log_tail": crash.log_tail},
            ) from crash

    def cached(self, key: str, compute: Callable[[], dict[str, bytes]]) -> dict[str, bytes]:
        """Return a result from the cache, computed and stored when it is not there."""
        files = self.cache.get(key)
        if files is None:
            files = compute()
            self.cache.put(key, files)
        return files


def _plain(options: ConvertOptions) -> dict[str, Any]:
    return {
        **asdict(options),
        "input_shapes": {name: list(shape) for name, shape in sorted(options.input_shapes.items())},
    }


def _form(rule: SchemeRule) -> dict[str, Any]:
    """Return what a rule says about the file, for cache keys."""
    fields = ("scheme", "io", "fully_connected", "weights", "wide_bias")
    return {field: getattr(rule, field) for field in fields}


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _code_digest() -> str:
    """Return a digest of edgepack's own code, so that a changed rule never meets a stale result."""
    package = Path(__file__).resolve().parent.parent
    rooms = ("convert", "quantize", "graph", "runtime", "samples", "repair", "compat", "profiles", "pipeline")
    return sha256(b"".join(file.read_bytes() for room in rooms for file in sorted((package / room).rglob("*.py"))))[:16]
