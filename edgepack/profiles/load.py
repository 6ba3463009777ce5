"""Reads a target's profile (profile.toml and its op tables).

Reading is strict: unknown keys are faults. One error reports all faults.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgepack.choices import Delegate, IoType
from edgepack.documents import DocumentError, read_toml
from edgepack.errors import ProfileError
from edgepack.profiles.faults import Faults
from edgepack.profiles.latency import LatencyRule, is_date, read_latency
from edgepack.profiles.model import (
    BundleRule,
    CompilerRule,
    MemoryLayout,
    MemoryRule,
    OpTable,
    PartitionRule,
    SchemeRule,
    Source,
    TargetProfile,
    Variant,
)
from edgepack.profiles.op_tables import read_op_table
from edgepack.profiles.toml_table import TomlTable
from edgepack.profiles.variants import schemes_for
from edgepack.schemes import SCHEMES

#: Version of the profile format.
SCHEMA = 1

_MIXED_TYPES = ("float32", "int16")
_IO_TYPES = tuple(kind.upper() for kind in IoType)
_STRATEGIES = ("first", "largest", "every")
_SOURCE_LEVELS = ("measured", "source", "documentation", "inferred", "recalled")
#: Parts of a profile that a source may be about, beside rows of op tables.
_PARTS = ("schemes", "partition", "memory", "latency", "chips", "file", "defaults", "runtime")
_GRANULARITIES = ("per-channel", "per-tensor")

#: The largest growth measured is below 2 (`coral-layout`); a larger factor is a mistake.
_LARGEST_GROWTH = 1000

#: The largest padding and overhead known are 64 channels and 12 bytes (`coral-layout`); larger than this is a mistake.
_LARGEST_PADDING = 1 << 16

#: Most bytes of on-chip memory, 1 TiB; the largest known has 8 MiB.
_LARGEST_MEMORY = 1 << 40


def load_profile(path: Path | str) -> TargetProfile:
    """Read a target's profile and its op tables.

    Args:
        path: `profile.toml`, or the folder that contains it.

    Returns:
        The target.

    Raises:
        ProfileError: A file is missing, is not TOML or violates the schema; the message lists every fault with its
            file and key path.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "profile.toml"
    return _Loader(path).load()


def parse_toml(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return a TOML file's contents and its bytes.

    Raises:
        ProfileError: The file cannot be read or is not TOML.
    """
    try:
        return read_toml(path)
    except DocumentError as error:
        raise ProfileError(f"{path}: {error}", hint="a target is a folder with profile.toml and ops.toml") from error


class _Loader:
    """Reads one profile and collects the faults of all its files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path.parent
        self.faults = Faults(str(path))
        self.other_faults: list[str] = []
        self.hash = hashlib.sha256()
        self.tables: dict[str, OpTable | None] = {}

    def load(self) -> TargetProfile:
        data, raw = parse_toml(self.path)
        self._add_to_hash(self.path.name, raw)
        top = TomlTable(data, "", self.faults)
        if top.integer("schema") != SCHEMA and top.has("schema"):
            self.faults.expected("schema", str(SCHEMA), data["schema"])
        target_id = top.identifier("id")
        title = top.text("title")
        summary = top.text("summary", "", blank=True)
        sources = tuple(self._source(table) for table in top.tables("sources"))
        if not sources:
            self.faults.add("[[sources]]", "a profile needs at least one source for its facts")
        self._unique("[[sources]]", "id", [source.id for source in sources])
        source_ids = frozenset(source.id for source in sources)

        quantization = top.table("quantization")
        batch = quantization.integer("batch", 0, lowest=0)
        schemes = self._schemes(quantization, required=True)
        quantization.reject_unknown_keys()

        ops = top.table("ops")
        fallback = ops.choice("fallback", ("host", "deny"), "host")
        table_name = ops.text("table", "ops.toml")
        partition = self._partition(ops.table("partition", optional=True), PartitionRule())
        ops.reject_unknown_keys()
        default_table = self._op_table(table_name, source_ids)

        socs = self._socs(top)
        compiler = self._compiler(top.table("compiler", optional=True))
        memory = self._memory(top.table("memory", optional=True))
        latency = self._latency(top.text("latency", ""), source_ids)
        if latency is not None and memory is None:
            self.faults.add("latency", "a latency model needs [memory]: parameters that do not fit are transferred")
        bundle = self._bundle(top.table("bundle"))
        variants = [
            self._variant(
                table,
                default_table=default_table,
                partition=partition,
                schemes=schemes,
                socs=socs,
                source_ids=source_ids,
                has_compiler=compiler is not None,
            )
            for table in top.tables("variants")
        ]
        self._unique("[[variants]]", "id", [variant.id for variant in variants])
        top.reject_unknown_keys()
        if self.faults.messages or self.other_faults:
            faults = [*self.faults.messages, *self.other_faults]
            raise ProfileError(
                "\n".join(faults),
                hint="docs/reference/profile.md describes the format; `edgepack targets lint FILE` checks one file",
                details={"faults": faults},
            )
        if not variants:
            variants = [Variant("", title, default_table, partition, (), schemes)]
        first = variants[0]
        return TargetProfile(
            id=target_id,
            title=title,
            summary=summary,
            folder=self.folder,
            schemes=schemes_for({}, first.schemes),
            batch=batch,
            fallback=fallback,
            partition=first.partition,
            ops=first.ops,
            compiler=compiler,
            memory=memory,
            latency=latency,
            bundle=bundle,
            variants=tuple(variants),
            socs=socs,
            sources=sources,
            sha256=self.hash.hexdigest(),
        )

    def _add_to_hash(self, name: str, raw: bytes) -> None:
        # Names and lengths are part of the hash, so that moving text from one file to another changes it.
        self.hash.update(f"{name}\0{len(raw)}\0".encode())
        self.hash.update(raw)

    def _unique(self, where: str, key: str, values: Iterable[str]) -> None:
        earlier: set[str] = set()
        for i, value in enumerate(values):
            if value and value in earlier:
                self.faults.add(f"{where}[{i}].{key}", f"'{value}' is used twice")
            earlier.add(value)

    def _op_table(self, name: str, source_ids: frozenset[str]) -> OpTable:
        """Return the op table of a file, which is read once even if several variants name it."""
        if name not in self.tables:
            self.tables[name] = None
            if (read := self._beside(name, "[ops].table")) is not None:
                data, faults = read
                self.tables[name] = read_op_table(data, source_ids, faults)
                self.other_faults.extend(faults.messages)
        return self.tables[name] or OpTable({}, {})

    def _latency(self, name: str, source_ids: frozenset[str]) -> LatencyRule | None:
        if not name or (read := self._beside(name, "latency")) is None:
            return None
        data, faults = read
        rule = read_latency(TomlTable(data, "", faults), source_ids, faults)
        self.other_faults.extend(faults.messages)
        return rule

    def _beside(self, name: str, key: str) -> tuple[dict[str, Any], Faults] | None:
        """Return the contents of a file beside profile.toml and its faults, None when it cannot be read."""
        if Path(name).name != name or not name.endswith(".toml"):
            self.faults.add(key, f"expected the name of a .toml file beside profile.toml, got '{name}'")
            return None
        path = self.folder / name
        try:
            data, raw = parse_toml(path)
        except ProfileError as error:
            self.other_faults.append(error.message)
            return None
        self._add_to_hash(name, raw)
        return data, Faults(str(path))

    def _source(self, table: TomlTable) -> Source:
        source = Source(
            table.identifier("id"),
            table.text("url", "", blank=True).strip(),
            table.text("fact"),
            table.choice("level", _SOURCE_LEVELS),
            table.text("by", ""),
            table.text("date", ""),
            table.strings("about"),
        )
        if source.date and not is_date(source.date):
            self.faults.expected(f"{table.path}.date", "a date, YYYY-MM-DD", source.date)
        for part in sorted(set(source.about) - set(_PARTS)):
            self.faults.choice(f"{table.path}.about", _PARTS, part)
        if source.level not in {"recalled", "inferred"} and not source.url and table.has("level"):
            self.faults.add(f"{table.path}.url", f"a source of level '{source.level}' needs its address")
        table.reject_unknown_keys()
        return source

    def _schemes(self, table: TomlTable, *, required: bool) -> tuple[SchemeRule, ...]:
        rules = []
        for entry in table.tables("schemes"):
            rules.append(
                SchemeRule(
                    scheme=entry.choice("scheme", tuple(SCHEMES)),
                    io=entry.choice("io", _IO_TYPES, "FLOAT32"),
                    fully_connected=entry.choice("fully_connected", _GRANULARITIES, "per-channel"),
                    weights=entry.choice("weights", _GRANULARITIES, "per-channel"),
                    why=entry.text("why", "", blank=True),
                    chip=self._chip(entry.table("chip", optional=True)),
                    mixed=self._mixed(entry),
                    mixed_chip=self._chip(entry.table("mixed_chip", optional=True)),
                    wide_bias=entry.boolean("wide_bias") if entry.has("wide_bias") else True,
                    layer_norm=entry.choice("layer_norm", ("L2_NORMALIZATION",), ""),
                    compute=entry.choice("compute", ("float16",), ""),
                )
            )
            entry.reject_unknown_keys()
        if (required or rules) and all(rule.chip for rule in rules):
            self.faults.add(f"{table.path}.schemes", "expected at least one scheme without `chip`, best first")
        self._unique(f"{table.path}.schemes", "scheme", [rule.scheme for rule in rules])
        return tuple(rules)

    def _mixed(self, entry: TomlTable) -> tuple[str, ...]:
        types = entry.strings("mixed")
        for unknown in sorted(set(types) - set(_MIXED_TYPES)):
            self.faults.choice(f"{entry.path}.mixed", _MIXED_TYPES, unknown)
        if entry.has("mixed_chip") and not types:
            self.faults.add(f"{entry.path}.mixed_chip", "has no effect without `mixed`")
        return tuple(dict.fromkeys(types))

    def _chip(self, table: TomlTable) -> dict[str, bool | int]:
        required: dict[str, bool | int] = {}
        if table.has("float16"):
            required["float16"] = table.boolean("float16")
        if table.has("min_arch"):
            required["min_arch"] = table.integer("min_arch", lowest=1)
        if table.present and not required:
            self.faults.add(table.path, "expected float16 or min_arch")
        table.reject_unknown_keys()
        return required

    def _partition(self, table: TomlTable, default: PartitionRule) -> PartitionRule:
        rule = PartitionRule(
            strategy=table.choice("strategy", _STRATEGIES, default.strategy),
            max_partitions=table.integer("max_partitions", default.max_partitions, lowest=0),
            min_ops=table.integer("min_ops", default.min_ops, lowest=1),
            cut=table.text("cut", default.cut, blank=True),
        )
        table.reject_unknown_keys()
        return rule

    def _variant(
        self,
        table: TomlTable,
        *,
        default_table: OpTable,
        partition: PartitionRule,
        schemes: tuple[SchemeRule, ...],
        socs: Mapping[str, Mapping[str, Any]],
        source_ids: frozenset[str],
        has_compiler: bool,
    ) -> Variant:
        identifier = table.identifier("id")
        title = table.text("title")
        table_name = table.text("table", "")
        archs = set(table.strings("archs"))
        known = {str(facts.get("arch", "")) for facts in socs.values()}
        for arch in sorted(archs - known):
            self.faults.add(f"{table.path}.archs", f"no SoC under [socs] has arch '{arch}'")
        variant = Variant(
            id=identifier,
            title=title,
            ops=self._op_table(table_name, source_ids) if table_name else default_table,
            partition=self._partition(table.table("partition", optional=True), partition),
            socs=tuple(sorted(soc for soc, facts in socs.items() if facts.get("arch") in archs)),
            schemes=self._schemes(table, required=False) or schemes,
            compiler_options=table.free("compiler_options"),
        )
        if variant.compiler_options and not has_compiler:
            self.faults.add(f"{table.path}.compiler_options", "the profile has no [compiler]")
        table.reject_unknown_keys()
        return variant

    def _compiler(self, table: TomlTable) -> CompilerRule | None:
        if not table.present:
            return None
        schemes = table.strings("schemes", ("int8", "int8-qat"))
        if not schemes:
            self.faults.expected(f"{table.path}.schemes", f"at least one of {', '.join(SCHEMES)}", [])
        for i, scheme in enumerate(schemes):
            if scheme not in SCHEMES:
                self.faults.choice(f"{table.path}.schemes[{i}]", SCHEMES, scheme)
        rule = CompilerRule(
            id=table.identifier("id"),
            policy=table.choice("policy", ("optional", "required"), "optional"),
            schemes=schemes,
            options=table.free("options"),
            install=table.text("install", "", blank=True),
        )
        table.reject_unknown_keys()
        return rule

    def _memory(self, table: TomlTable) -> MemoryRule | None:
        if not table.present:
            return None
        on_chip = table.integer("on_chip_bytes", lowest=1, highest=_LARGEST_MEMORY)
        growth = table.numbers("growth", 2, (1.0, 1.0))
        layout = self._layout(table.table("layout", optional=True))
        free = table.integer("parameter_bytes", on_chip, lowest=1, highest=_LARGEST_MEMORY)
        rule = MemoryRule(on_chip, free, (growth[0], growth[1]), layout)
        table.reject_unknown_keys()
        if not 0 < growth[0] <= growth[1] <= _LARGEST_GROWTH:
            self.faults.expected(
                f"{table.path}.growth", f"[lowest, highest], above 0 and at most {_LARGEST_GROWTH}", list(growth)
            )
        if rule.parameter_bytes > on_chip:
            self.faults.expected(
                f"{table.path}.parameter_bytes", f"at most on_chip_bytes ({on_chip})", rule.parameter_bytes
            )
        return rule

    def _layout(self, table: TomlTable) -> MemoryLayout | None:
        if not table.present:
            return None
        layout = MemoryLayout(
            rows=table.integer("rows", 1, lowest=1, highest=_LARGEST_PADDING),
            columns=table.integer("columns", 1, lowest=1, highest=_LARGEST_PADDING),
            channels=table.integer("channels", 1, lowest=1, highest=_LARGEST_PADDING),
            row_overhead=table.integer("row_overhead", 0, lowest=0, highest=_LARGEST_PADDING),
        )
        table.reject_unknown_keys()
        return layout

    def _bundle(self, table: TomlTable) -> BundleRule:
        rule = BundleRule(
            template=table.identifier("template"),
            delegate=table.choice("delegate", tuple(Delegate), Delegate.NONE),
            options=table.free("options"),
        )
        table.reject_unknown_keys()
        return rule

    def _socs(self, top: TomlTable) -> dict[str, dict[str, Any]]:
        table = top.table("socs", optional=True)
        socs: dict[str, dict[str, Any]] = {}
        for soc in table.names():
            entry = table.table(soc)
            # The name becomes part of the names of compiled files.
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", soc):
                self.faults.expected(entry.path, "a SoC's name of letters, digits, '-', '_' and '.'", soc)
            facts: dict[str, Any] = {"arch": entry.text("arch")}
            if entry.has("float16"):
                facts["float16"] = entry.boolean("float16")
            if entry.has("manufacturer"):
                facts["manufacturer"] = entry.text("manufacturer")
            entry.reject_unknown_keys()
            socs[soc] = facts
        return socs
