"""A target as values, read from profile.toml and ops.toml by `edgepack.profiles.load`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack.profiles.latency import LatencyRule


@dataclass(frozen=True)
class SchemeRule:
    """A scheme that the target supports, with requirements on the file.

    Attributes:
        scheme: Scheme id (`edgepack.schemes`).
        io: TFLite type of the file's inputs and outputs: `FLOAT32`, `INT8` or `UINT8`.
        fully_connected: `per-channel` or `per-tensor`: granularity of FULLY_CONNECTED weights.
        why: Reason for messages, a clause after "because", shown when --scheme auto selects the scheme.
        weights: `per-channel` or `per-tensor`: granularity of all other weights.
        chip: Requirements on the SoC (`{"float16": True}`, `{"min_arch": 73}`): the scheme is offered only when a SoC
            is specified that meets them. Empty for none.
        mixed: Types that single ops may have when the rest is int8, in order of preference: `float32`, `int16`.
        mixed_chip: Requirements of `mixed` on the SoC, in the form of `chip`; empty for none.
        wide_bias: False when the accelerator does not support 64-bit biases: layers whose int16 kernel needs one then
            get a separate addition after them.
        layer_norm: Op that LayerNorm becomes in int8, `L2_NORMALIZATION`; empty where the accelerator does not run it.
        compute: `float16` when the accelerator computes the scheme's files in half precision, empty otherwise.
    """

    scheme: str
    io: str = "FLOAT32"
    fully_connected: str = "per-channel"
    why: str = ""
    weights: str = "per-channel"
    chip: Mapping[str, bool | int] = field(default_factory=dict)
    mixed: tuple[str, ...] = ()
    mixed_chip: Mapping[str, bool | int] = field(default_factory=dict)
    wide_bias: bool = True
    layer_norm: str = ""
    compute: str = ""

    def has_one_scale(self, op: str) -> bool:
        """Return whether the weights of an op share one scale, unlike one scale per channel.

        Args:
            op: TFLite name.
        """
        return "per-tensor" in {self.weights, self.fully_connected if op == "FULLY_CONNECTED" else ""}


@dataclass(frozen=True)
class CompilerRule:
    """How the vendor's compiler is used.

    Attributes:
        id: Key in the entry-point group `edgepack.compilers`.
        policy: `optional` (the uncompiled file runs on the host) or `required` (it does not run uncompiled).
        schemes: Schemes whose files the compiler supports.
        options: Options of the wrapper.
        install: How to install it, a clause for people; empty where there is nothing to say.
    """

    id: str
    policy: str = "optional"
    schemes: tuple[str, ...] = ("int8", "int8-qat")
    options: Mapping[str, Any] = field(default_factory=dict)
    install: str = ""


@dataclass(frozen=True)
class MemoryLayout:
    """How a compiler pads 8-bit weights; 1 and 0 mean no padding.

    Attributes:
        rows: Output channels are padded to a multiple of this.
        columns: Input channels of every kernel tap are padded to a multiple of this.
        channels: Channels of depthwise kernels are padded to a multiple of this.
        row_overhead: Bytes per padded output channel for bias and scale.
    """

    rows: int = 1
    columns: int = 1
    channels: int = 1
    row_overhead: int = 0


@dataclass(frozen=True)
class MemoryRule:
    """On-chip memory for parameters.

    Attributes:
        on_chip_bytes: Size of the memory.
        parameter_bytes: Bytes that are typically free for parameters.
        growth: Lowest and highest ratio of the compiled parameters' size to their size in the file, or in `layout` when
            there is one.
        layout: How the compiler pads weights, None when unknown.
    """

    on_chip_bytes: int
    parameter_bytes: int
    growth: tuple[float, float] = (1.0, 1.0)
    layout: MemoryLayout | None = None


@dataclass(frozen=True)
class BundleRule:
    """Contents of the bundle.

    Attributes:
        template: Folder under templates/ (`android` or `linux`), or under `templates/` of a plugin.
        delegate: Delegate that the loader uses (`edgepack.choices.Delegate`).
        options: Values for the templates.
    """

    template: str
    delegate: str = "none"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PartitionRule:
    """How ops are grouped for the accelerator.

    Attributes:
        strategy: `first` (the accelerator runs only the first supported group), `largest` (the `max_partitions` largest
            groups) or `every` (each supported op, as on a CPU or with a compiler for whole graphs).
        max_partitions: Maximum number of delegated groups; 0 for no limit.
        min_ops: Smallest group that is delegated.
        cut: Cost of a partitioned graph, one or two sentences; shown when ops run on the host.
    """

    strategy: str = "first"
    max_partitions: int = 1
    min_ops: int = 1
    cut: str = ""


@dataclass(frozen=True)
class OpRule:
    """One row of the op table.

    Attributes:
        op: TFLite builtin name, or `CUSTOM:name`.
        constraints: Constraint id -> argument, with the table's defaults; the ids are those of
            `edgepack.profiles.vocabulary`, each implemented by a function of `edgepack.compat`.
        source: Id of the `[[sources]]` entry that the row is based on.
    """

    op: str
    constraints: Mapping[str, Any]
    source: str


@dataclass(frozen=True)
class FailingOps:
    """Ops with which the vendor's compiler fails as a whole.

    Attributes:
        ops: TFLite names.
        constraints: What the op must meet to fail, as in a row of the op table.
        reason: What fails, for the message.
        fix: What helps; empty for the general advice.
        source: Id of the `[[sources]]` entry.
    """

    ops: tuple[str, ...]
    constraints: Mapping[str, Any]
    reason: str
    fix: str
    source: str


@dataclass(frozen=True)
class FileRule:
    """Requirements of the vendor's compiler on the whole file, which it refuses to compile otherwise.

    Attributes:
        source: Id of the `[[sources]]` entry that the rule is based on.
        max_versions: Highest version of each op that the compiler's parser knows, by op name.
        max_builtin_code: Highest builtin operator code that the parser knows, 0 for no limit.
        static_shapes: True when the compiler refuses a file with a dynamic tensor.
        max_runtime_version: Highest `min_runtime_version` metadata (`2.6`) of files for that parser; only a warning.
        refused_types: Data types that no tensor of the file may have.
        refused_io_types: Data types that no input or output of the model may have; inside the model they may occur.
        variables: False when the compiler refuses a file with a variable tensor.
        external_state: True when resource variables, although their type is refused, are kept on the host: edgepack
            compiles the model with each as an input and an output, and puts them back around the compiled part.
        distinct_names: True when names of tensors must differ after every character but letters and digits became `_`,
            and no input may be an output as well.
        failing: Ops that the compiler accepts and then cannot build.
        uncertain: Ops that it accepts and then cannot build in some models, by no known rule.
    """

    source: str
    max_versions: Mapping[str, int] = field(default_factory=dict)
    max_builtin_code: int = 0
    static_shapes: bool = False
    max_runtime_version: str = ""
    refused_types: tuple[str, ...] = ()
    refused_io_types: tuple[str, ...] = ()
    variables: bool = True
    external_state: bool = False
    distinct_names: bool = False
    failing: tuple["FailingOps", ...] = ()
    uncertain: tuple["FailingOps", ...] = ()


@dataclass(frozen=True)
class OpTable:
    """The ops that the accelerator supports.

    Attributes:
        defaults: Constraints of every op of the table unless its row overrides them.
        ops: Rows by op name.
        refused: Ops that are known to be unsupported, with the reason.
        file: Requirements on the whole file, None when there are none.
    """

    defaults: Mapping[str, Any]
    ops: Mapping[str, OpRule]
    refused: Mapping[str, str] = field(default_factory=dict)
    file: FileRule | None = None


@dataclass(frozen=True)
class Variant:
    """A variant of a target: another delegate or another generation of the SoC.

    Attributes:
        id: Key used by --variant and in reports.
        title: Name for people.
        ops: Its op table.
        partition: Its partition rule.
        socs: SoC models (`SM8550`) that select it, sorted; empty for variants that no SoC selects.
        schemes: Its schemes in order of preference, including those that only some SoCs support.
        compiler_options: Options of the compiler's wrapper that differ from the profile's `[compiler.options]`.
    """

    id: str
    title: str
    ops: OpTable
    partition: PartitionRule
    socs: tuple[str, ...] = ()
    schemes: tuple[SchemeRule, ...] = ()
    compiler_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """The source of a fact.

    Attributes:
        id: Key that rows refer to.
        url: Address of the page or file; empty only for recalled facts.
        fact: The fact.
        level: `measured`, `source` (source code), `documentation`, `inferred` (from the other sources) or `recalled`.
        by: What measured, with its version (`edgetpu_compiler 16.0`), or who documents; may be empty.
        date: Day of the measurement or of reading, YYYY-MM-DD; may be empty.
        about: Parts of the profile other than rows of op tables that the source is of (`partition`, `memory`).
    """

    id: str
    url: str
    fact: str
    level: str
    by: str = ""
    date: str = ""
    about: tuple[str, ...] = ()

    @property
    def basis(self) -> str:
        """How the fact is known, for people: "measured with edgetpu_compiler 16.0 on 2026-11-22"."""
        how, by = {
            "measured": ("measured", " with "),
            "source": ("read in the source code", " of "),
            "documentation": ("documented", " by "),
            "inferred": ("inferred", " from "),
            "recalled": ("recalled, not checked", " from "),
        }[self.level]
        return f"{how}{by + self.by if self.by else ''}{' on ' + self.date if self.date else ''}"


@dataclass(frozen=True)
class TargetProfile:
    """A target.

    Attributes:
        id: Key everywhere: command line, folders, manifests.
        title: Name for people.
        summary: One sentence for people.
        folder: Folder of profile.toml; only for reading templates, never written to an output.
        schemes: Schemes in order of preference (the default variant's), without those that only some SoCs support.
        batch: Batch size of the file, 0 for any.
        fallback: Whether ops may fall back to the host: `host` or `deny`.
        partition: The default variant's partition rule.
        ops: The default variant's op table.
        compiler: The vendor's compiler, None when the target has none.
        memory: On-chip memory, None when it is not a limit.
        bundle: Contents of the bundle.
        variants: All variants, the default first.
        socs: SoC model -> facts about it (`arch`, `float16`).
        sources: Sources of the facts.
        sha256: Hash of profile.toml and the files beside it.
        latency: The latency model, None when no figures of the target are known.
    """

    id: str
    title: str
    summary: str
    folder: Path
    schemes: tuple[SchemeRule, ...]
    batch: int
    fallback: str
    partition: PartitionRule
    ops: OpTable
    compiler: CompilerRule | None
    memory: MemoryRule | None
    bundle: BundleRule
    variants: tuple[Variant, ...]
    socs: Mapping[str, Mapping[str, Any]]
    sources: tuple[Source, ...]
    sha256: str
    latency: LatencyRule | None = None

    @property
    def external_state(self) -> bool:
        """True when the compiler gets a model without its resource variables (`FileRule.external_state`)."""
        return self.ops.file is not None and self.ops.file.external_state

    def scheme_rule(self, scheme: str) -> SchemeRule | None:
        """Return the rule for a scheme, None when the target does not support it."""
        return next((rule for rule in self.schemes if rule.scheme == scheme), None)
