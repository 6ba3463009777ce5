"""profile.toml and its op tables -> TargetProfile.

Strict: unknown keys are faults, and all faults come in one error.
"""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgepack.errors import ProfileError
from edgepack.profiles.faults import Faults
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
from edgepack.profiles.optable import read_op_table
from edgepack.profiles.table import Table
from edgepack.profiles.variants import schemes_for
from edgepack.schemes import SCHEMES

#: Version of the profile format.
SCHEMA = 1

MIXED = ("float32", "int16")
IO_TYPES = ("FLOAT32", "INT8", "UINT8")
STRATEGIES = ("first", "largest", "every")
LEVELS = ("measured", "source", "documentation", "recalled")
DELEGATES = ("none", "gpu", "qnn", "edgetpu")


def load_profile(path: Path | str) -> TargetProfile:
    """Read a target's profile and its op tables.

    Args:
        path: `profile.toml`, or the folder that holds it.

    Returns:
        The target as values.

    Raises:
        ProfileError: A file is missing or not TOML, or breaks the schema; the message lists every fault found, each
            with the file and the key path.
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
        data = path.read_bytes()
    except OSError as error:
        raise ProfileError(
            f"{path}: cannot be read: {error.strerror or error}",
            hint="a target is a folder with profile.toml and ops.toml",
        ) from error
    try:
        return tomllib.loads(data.decode("utf-8")), data
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: not valid TOML: {error}") from error


class _Loader:
    """Reads one profile; collects faults of all its files."""

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
        top = Table(data, "", self.faults)
        if top.integer("schema") not in (SCHEMA, None):
            self.faults.expected("schema", str(SCHEMA), data["schema"])
        target_id = top.identifier("id")
        title = top.text("title")
        summary = top.text("summary", "")
        sources = tuple(self._source(table) for table in top.tables("sources"))
        if not sources:
            self.faults.add("[[sources]]", "a profile needs at least one source for its facts")
        self._unique("[[sources]]", "id", [source.id for source in sources])
        source_ids = frozenset(source.id for source in sources)

        quantization = top.table("quantization")
        batch = quantization.integer("batch", 0, lowest=0)
        schemes = self._schemes(quantization, required=True)
        quantization.done()

        ops = top.table("ops")
        fallback = ops.choice("fallback", ("host", "deny"), "host")
        table_name = ops.text("table", "ops.toml")
        partition = self._partition(ops.table("partition", optional=True), PartitionRule())
        ops.done()
        default_table = self._op_table(table_name, source_ids)

        socs = self._socs(top)
        compiler = self._compiler(top.table("compiler", optional=True))
        memory = self._memory(top.table("memory", optional=True))
        bundle = self._bundle(top.table("bundle"))
        variants = [
            self._variant(
                table,
                default_table=default_table,
                partition=partition,
                schemes=schemes,
                socs=socs,
                source_ids=source_ids,
            )
            for table in top.tables("variants")
        ]
        self._unique("[[variants]]", "id", [variant.id for variant in variants])
        top.done()
        if self.faults.found or self.other_faults:
            faults = [*self.faults.found, *self.other_faults]
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
            bundle=bundle,
            variants=tuple(variants),
            socs=socs,
            sources=sources,
            sha256=self.hash.hexdigest(),
        )

    def _add_to_hash(self, name: str, raw: bytes) -> None:
        # Names and lengths go in as well, so that moving text from one file to another changes the hash.
        self.hash.update(f"{name}\0{len(raw)}\0".encode())
        self.hash.update(raw)

    def _unique(self, where: str, key: str, values: Iterable[str]) -> None:
        seen: set[str] = set()
        for i, value in enumerate(values):
            if value and value in seen:
                self.faults.add(f"{where}[{i}].{key}", f"'{value}' stands here twice")
            seen.add(value)

    def _op_table(self, name: str, source_ids: frozenset[str]) -> OpTable:
        """Return the table of a file, read once however many variants name it."""
        if name not in self.tables:
            path = self.folder / name
            self.tables[name] = None
            if Path(name).name != name or not name.endswith(".toml"):
                self.faults.add("[ops].table", f"expected the name of a .toml file beside profile.toml, got '{name}'")
            else:
                try:
                    data, raw = parse_toml(path)
                except ProfileError as error:
                    self.other_faults.append(error.message)
                else:
                    self._add_to_hash(name, raw)
                    faults = Faults(str(path))
                    self.tables[name] = read_op_table(data, source_ids, faults)
                    self.other_faults.extend(faults.found)
        return self.tables[name] or OpTable({}, {})

    def _source(self, table: Table) -> Source:
        source = Source(
            table.identifier("id"), table.text("url", ""), table.text("fact"), table.choice("level", LEVELS)
        )
        if source.level != "recalled" and not source.url and table.has("level"):
            self.faults.add(f"{table.path}.url", f"a source of level '{source.level}' needs the address it was read at")
        table.done()
        return source

    def _schemes(self, table: Table, *, required: bool) -> tuple[SchemeRule, ...]:
        rules = []
        for entry in table.tables("schemes"):
            rules.append(
                SchemeRule(
                    scheme=entry.choice("scheme", tuple(SCHEMES)),
                    io=entry.choice("io", IO_TYPES, "FLOAT32"),
                    fully_connected=entry.choice("fully_connected", ("per-channel", "per-tensor"), "per-channel"),
                    weights=entry.choice("weights", ("per-channel", "per-tensor"), "per-channel"),
                    why=entry.text("why", ""),
                    chip=self._chip(entry.table("chip", optional=True)),
                    mixed=self._mixed(entry),
                    mixed_chip=self._chip(entry.table("mixed_chip", optional=True)),
                    wide_bias=entry.boolean("wide_bias") if entry.has("wide_bias") else True,
                )
            )
            entry.done()
        if (required or rules) and not any(not rule.chip for rule in rules):
            self.faults.add(f"{table.path}.schemes", "expected at least one scheme for every chip, best first")
        self._unique(f"{table.path}.schemes", "scheme", [rule.scheme for rule in rules])
        return tuple(rules)

    def _mixed(self, entry: Table) -> tuple[str, ...]:
        found = entry.strings("mixed")
        for unknown in sorted(set(found) - set(MIXED)):
            self.faults.choice(f"{entry.path}.mixed", MIXED, unknown)
        if entry.has("mixed_chip") and not found:
            self.faults.add(f"{entry.path}.mixed_chip", f"says nothing without mixed = [{', '.join(MIXED)}]")
        return tuple(dict.fromkeys(found))

    def _chip(self, table: Table) -> dict[str, bool | int]:
        found: dict[str, bool | int] = {}
        if table.has("float16"):
            found["float16"] = table.boolean("float16")
        if table.has("min_arch"):
            found["min_arch"] = table.integer("min_arch", lowest=1)
        if table.present and not found:
            self.faults.add(table.path, "expected float16 or min_arch")
        table.done()
        return found

    def _partition(self, table: Table, default: PartitionRule) -> PartitionRule:
        rule = PartitionRule(
            strategy=table.choice("strategy", STRATEGIES, default.strategy),
            max_partitions=table.integer("max_partitions", default.max_partitions, lowest=0),
            min_ops=table.integer("min_ops", default.min_ops, lowest=1),
            cut=table.text("cut", default.cut),
        )
        table.done()
        return rule

    def _variant(
        self,
        table: Table,
        *,
        default_table: OpTable,
        partition: PartitionRule,
        schemes: tuple[SchemeRule, ...],
        socs: Mapping[str, Mapping[str, Any]],
        source_ids: frozenset[str],
    ) -> Variant:
        identifier = table.identifier("id")
        title = table.text("title")
        table_name = table.text("table", "")
        archs = set(table.strings("archs"))
        known = {str(facts.get("arch", "")) for facts in socs.values()}
        for arch in sorted(archs - known):
            self.faults.add(f"{table.path}.archs", f"no chip under [socs] has arch '{arch}'")
        variant = Variant(
            id=identifier,
            title=title,
            ops=self._op_table(table_name, source_ids) if table_name else default_table,
            partition=self._partition(table.table("partition", optional=True), partition),
            socs=tuple(sorted(soc for soc, facts in socs.items() if facts.get("arch") in archs)),
            schemes=self._schemes(table, required=False) or schemes,
        )
        table.done()
        return variant

    def _compiler(self, table: Table) -> CompilerRule | None:
        if not table.present:
            return None
        schemes = table.strings("schemes", ("int8", "int8-qat"))
        for i, scheme in enumerate(schemes):
            if scheme not in SCHEMES:
                self.faults.choice(f"{table.path}.schemes[{i}]", SCHEMES, scheme)
        rule = CompilerRule(
            id=table.identifier("id"),
            policy=table.choice("policy", ("optional", "required"), "optional"),
            schemes=schemes,
            options=table.free("options"),
        )
        table.done()
        return rule

    def _memory(self, table: Table) -> MemoryRule | None:
        if not table.present:
            return None
        on_chip = table.integer("on_chip_bytes", lowest=1)
        growth = table.numbers("growth", 2, (1.0, 1.0))
        layout = self._layout(table.table("layout", optional=True))
        rule = MemoryRule(on_chip, table.integer("parameter_bytes", on_chip, lowest=1), (growth[0], growth[1]), layout)
        table.done()
        if growth[0] > growth[1]:
            self.faults.expected(f"{table.path}.growth", "[lowest, highest]", list(growth))
        if rule.parameter_bytes > on_chip:
            self.faults.expected(
                f"{table.path}.parameter_bytes", f"at most on_chip_bytes ({on_chip})", rule.parameter_bytes
            )
        return rule

    def _layout(self, table: Table) -> MemoryLayout | None:
        if not table.present:
            return None
        layout = MemoryLayout(
            rows=table.integer("rows", 1, lowest=1),
            columns=table.integer("columns", 1, lowest=1),
            channels=table.integer("channels", 1, lowest=1),
            row_overhead=table.integer("row_overhead", 0, lowest=0),
        )
        table.done()
        return layout

    def _bundle(self, table: Table) -> BundleRule:
        rule = BundleRule(table.identifier("template"), table.text("delegate", "none"), table.free("options"))
        if rule.delegate not in DELEGATES:
            self.faults.choice(f"{table.path}.delegate", DELEGATES, rule.delegate)
        table.done()
        return rule

    def _socs(self, top: Table) -> dict[str, dict[str, Any]]:
        table = top.table("socs", optional=True)
        found: dict[str, dict[str, Any]] = {}
        for soc in table.names():
            entry = table.table(soc)
            facts: dict[str, Any] = {"arch": entry.text("arch")}
            if entry.has("float16"):
                facts["float16"] = entry.boolean("float16")
            if entry.has("manufacturer"):
                facts["manufacturer"] = entry.text("manufacturer")
            entry.done()
            found[soc] = facts
        return found
