"""`edgepack.check`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgepack.api.call import Call, at_least, by_chip, in_order, model_options, texts, writable_or_none
from edgepack.api.target_results import CheckedTarget, CheckResult
from edgepack.api.types import InputShapes, ModelLike, ProgressLike, Size, Targets
from edgepack.choices import SchemeChoice, parse_choice
from edgepack.limits import TARGET_SECONDS
from edgepack.pipeline.options import TargetOptions

if TYPE_CHECKING:
    from edgepack.pipeline.check import CheckedTarget as PipelineCheck


def check(
    model: ModelLike,
    targets: Targets,
    *,
    input_shape: InputShapes = (),
    signature: str = "",
    allow_code: bool = False,
    scheme: str = "auto",
    variant: str = "",
    soc: str | Sequence[str] = (),
    runtime_version: int = 0,
    require_full: bool = False,
    repair: str = "exact",
    cut_tail: bool = False,
    ask_compiler: bool | None = None,
    sarif: str | os.PathLike[str] | None = None,
    summary: str | os.PathLike[str] | None = None,
    timeout: float = TARGET_SECONDS,
    memory_limit: Size = "",
    no_cache: bool = False,
    cache: str = "",
    progress: ProgressLike = None,
) -> CheckResult:
    """Report per-op accelerator support, with reasons and fixes.

    The options are those of `edgepack check`. A .tflite is checked without a child process.

    Args:
        model: A path, the bytes of a .tflite, a model of Keras 3 or tf-keras, or a tf.Module.
        targets: Target ids, `"hexagon@SM8550"` with a chip, or `"all"`.
        input_shape: Shapes of inputs with unknown dimensions, with the batch dimension.
        signature: Signature of a SavedModel, method of a tf.Module.
        allow_code: Run Lambda layers and custom code of a model file.
        scheme: Scheme of the preview of a float model.
        variant: Variant of the target.
        soc: Chips of targets that name none themselves; the first one selects the variant.
        runtime_version: Runtime version whose op versions are checked; 0 for the newest.
        require_full: Fail when an op stays on the host.
        repair: Which rewrites of unsupported ops are applied.
        cut_tail: Move unsupported final ops into the loader as postprocessing.
        ask_compiler: Whether the vendor's compiler is asked where each op runs, instead of the op table; None asks it
            for a chip whose compiler is installed, and a model that it answers within seconds.
        sarif: File to write the findings to as SARIF 2.1.0, None for none.
        summary: File to write a summary in Markdown to, None for none.
        timeout: Time limit of the conversion in seconds.
        memory_limit: Memory that each child process may hold: bytes, or a text such as `8GB`.
        no_cache: Recompute every step and store nothing in the cache.
        cache: URL of a cache that several machines share, `off` for none; empty for EDGEPACK_CACHE_URL.
        progress: Called with a sentence about each step; False for silence, None to show it in a notebook or terminal.

    Returns:
        One entry per target; one that refuses the model has an `error`.

    Raises:
        EdgepackError: What concerns every target. Its `hint` says what to do.
    """
    from edgepack.pipeline.check import check as run

    choice = parse_choice("--scheme", SchemeChoice, scheme)
    at_least("runtime_version", runtime_version, 0, whole=True)
    reading = model_options(input_shape, signature, allow_code, timeout, memory_limit, no_cache, cache)
    target = TargetOptions(variant, (), runtime_version or None, require_full, repair, cut_tail)  # type: ignore[arg-type]
    findings = writable_or_none("sarif", sarif)
    markdown = writable_or_none("summary", summary)
    groups = by_chip(targets, texts(soc))
    with Call(progress) as call:
        path, reading = call.model(model, reading)
        entries: list[CheckedTarget] = []
        raw: list[PipelineCheck] = []
        for group in groups:
            own = replace(target, socs=group.socs)
            checked = run(
                path,
                group.targets,
                reading,
                own,
                scheme=choice,
                ask_compiler=ask_compiler,
                progress=call.progress,
            )
            raw += checked.results
            for one in checked.results:
                if one.error is not None:
                    call.name_files(one.error)
                entries.append(CheckedTarget.of(one, group.chip))
        result = CheckResult(in_order(entries, targets))
        if findings is not None:
            from edgepack.files import write_atomically
            from edgepack.pipeline.reports.document import json_text
            from edgepack.pipeline.reports.sarif import sarif as sarif_document

            reports = [entry.report for entry in result if entry.report is not None]
            write_atomically(findings, json_text(sarif_document(reports, call.shown(path))) + "\n")
        if markdown is not None:
            from edgepack.files import write_atomically
            from edgepack.pipeline.reports.summary import check_summary

            write_atomically(markdown, check_summary(call.shown(path), raw))
        return result
