"""What a target is, as values. Made from profile.toml and ops.toml by `edgepack.profiles.load`; holds no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SchemeRule:
    """A scheme the target accepts, with what the file must look like.

    Attributes:
        scheme: Scheme id (`edgepack.schemes`).
        io: TFLite type that the file's inputs and outputs must have: `FLOAT32`, `INT8` or `UINT8`.
        fully_connected: `per-channel` or `per-tensor`: granularity of FULLY_CONNECTED weights.
        why: Half a sentence that completes "because", shown when --scheme auto takes it.
        weights: `per-channel` or `per-tensor`: granularity of all other weights.
        chip: What a chip must be like (`{"float16": True}`, `{"min_arch": 73}`); the scheme is offered only when a chip
            was given that is like this. Empty for every chip.
        mixed: Types that single ops may be kept in when the rest is int8, in order of preference: `float32`, `int16`.
        mixed_chip: What a chip must be like for that, in the form of `chip`; empty for every chip.
        wide_bias: False where the accelerator takes no bias of 64 bits: layers whose kernel for int16 activations needs
            one get it added behind them.
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


@dataclass(frozen=True)
class CompilerRule:
    """The vendor's compiler.

    Attributes:
        id: Key in the entry-point group `edgepack.compilers`.
        policy: `optional` (the uncompiled file runs on the host) or `required` (it does not run without).
        schemes: Schemes whose files the compiler takes.
        options: Free options of the wrapper.
    """

    id: str
    policy: str = "optional"
    schemes: tuple[str, ...] = ("int8", "int8-qat")
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MemoryLayout:
    """How a compiler pads 8-bit weights; 1 and 0 stand for no padding.

    Attributes:
        rows: Output channels are padded to a multiple of this.
        columns: Input channels of every kernel tap are padded to a multiple of this.
        channels: Channels of depthwise kernels are padded to a multiple of this.
        row_overhead: Bytes for each padded output channel: its bias and its scale.
    """

    rows: int = 1
    columns: int = 1
    channels: int = 1
    row_overhead: int = 0


@dataclass(frozen=True)
class MemoryRule:
    """On-chip memory for parameters, as a range.

    Attributes:
        on_chip_bytes: Size of the memory.
        parameter_bytes: What is typically free for parameters.
        growth: Lowest and highest factor by which the compiler's parameters grow over the file's, or over what the
            layout gives when there is one.
        layout: How the compiler pads weights, None when that is not known.
    """

    on_chip_bytes: int
    parameter_bytes: int
    growth: tuple[float, float] = (1.0, 1.0)
    layout: MemoryLayout | None = None


@dataclass(frozen=True)
class BundleRule:
    """What the bundle is.

    Attributes:
        template: Folder under templates/ (or under the plugin's own folder `templates/`): `android` or `linux`.
        delegate: Which delegate the loader asks for: `none`, `gpu`, `qnn`, `edgetpu`.
        options: Free values for the templates.
    """

    template: str
    delegate: str = "none"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PartitionRule:
    """How ops are grouped for the accelerator.

    Attributes:
        strategy: `first` (only the first supported group goes to the accelerator), `largest` (the `max_partitions`
            largest groups) or `every` (each supported op, kernel by kernel, as a CPU or a whole-graph compiler does).
        max_partitions: How many groups may be delegated; 0 means no limit.
        min_ops: Smallest group that is delegated.
        cut: What a cut graph costs, one sentence; shown when ops stay behind on the host.
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
        constraints: Constraint id -> argument, defaults of the table included; each id stands in
            `edgepack.profiles.vocabulary` and is a documented function of `edgepack.compat`.
        source: Where the row comes from: id of a `[[sources]]` entry.
    """

    op: str
    constraints: Mapping[str, Any]
    source: str


@dataclass(frozen=True)
class FileRule:
    """What the vendor's compiler demands of the whole file; a file that breaks it is not compiled at all.

    Attributes:
        source: Where the rule comes from: id of a `[[sources]]` entry.
        max_versions: Highest version of each op that the compiler's parser knows, by op name.
        max_builtin_code: Highest builtin operator code that the parser knows, 0 for no limit.
        static_shapes: True when one dynamic tensor makes the compiler refuse the file.
        max_runtime_version: Highest `min_runtime_version` metadata (`2.6`) of files made for that parser; only a hint.
    """

    source: str
    max_versions: Mapping[str, int] = field(default_factory=dict)
    max_builtin_code: int = 0
    static_shapes: bool = False
    max_runtime_version: str = ""


@dataclass(frozen=True)
class OpTable:
    """Which ops the accelerator takes.

    Attributes:
        defaults: Constraints that hold for every op of the table unless its row says otherwise.
        ops: Rows by op name.
        refused: Ops known to be refused, with the reason's sentence.
        file: What is demanded of the whole file, None when there is no such demand.
    """

    defaults: Mapping[str, Any]
    ops: Mapping[str, OpRule]
    refused: Mapping[str, str] = field(default_factory=dict)
    file: FileRule | None = None


@dataclass(frozen=True)
class Variant:
    """One form of a target: another delegate or another generation of the chip.

    Attributes:
        id: Key used by --variant and in reports.
        title: Name for people.
        ops: Its op table.
        partition: Its partition rule.
        socs: SoC models (`SM8550`) that select it, sorted; empty for variants not chosen by chip.
        schemes: Its schemes in order of preference, those that only some chips take included.
    """

    id: str
    title: str
    ops: OpTable
    partition: PartitionRule
    socs: tuple[str, ...] = ()
    schemes: tuple[SchemeRule, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where a fact comes from.

    Attributes:
        id: Key that rows refer to.
        url: Address of the page or file, without which the fact is only recalled.
        fact: What it says.
        level: `measured`, `source`, `documentation` or `recalled`.
    """

    id: str
    url: str
    fact: str
    level: str


@dataclass(frozen=True)
class TargetProfile:
    """A target.

    Attributes:
        id: Key everywhere: command line, folders, manifests.
        title: Name for people.
        summary: One sentence for people.
        folder: Where profile.toml is; only for reading templates, never written out.
        schemes: Schemes in order of preference (the default variant's), without those that only some chips take.
        batch: Batch size that the file must have, 0 for any.
        fallback: `host` or `deny`: whether ops may stay on the host.
        partition: The default variant's partition rule.
        ops: The default variant's op table.
        compiler: None when there is nothing to compile.
        memory: None when it is not a limit.
        bundle: What the bundle is.
        variants: All variants, the default first.
        socs: SoC model -> facts about it (`arch`, `float16`).
        sources: Where the facts come from.
        sha256: Hash of profile.toml and its op tables.
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

    def scheme_rule(self, scheme: str) -> SchemeRule | None:
        """Return the rule for a scheme, None when the target does not accept it."""
        return next((rule for rule in self.schemes if rule.scheme == scheme), None)
