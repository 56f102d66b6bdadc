"""The declarations: offsets, the layout hash, limits, names; that C and Python use them; that the generated headers compile."""

from __future__ import annotations

import dataclasses
import platform
import re
import shutil
import subprocess
from collections import Counter as Tally
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedstack import paths
from sharedstack.declare import binary, generate, kernel_options, layout
from sharedstack.declare.counters import COUNTERS
from sharedstack.declare.intercepts import FORWARDED, INTERCEPTS, OWN_SHAPE
from sharedstack.declare.kernel_options import CALL_FLAGS, KERNEL_OPTIONS
from sharedstack.declare.layout import CONSTANTS, STRUCTS
from sharedstack.declare.locks import LOCKS
from sharedstack.declare.messages import ERROR_CODES, LISTS, MESSAGES
from sharedstack.declare.model import CACHE_LINE, Field, Line, Placed, Struct, layout_hash, scalar_size
from sharedstack.declare.options import OPTIONS, PROFILES
from sharedstack.declare.raw import SYSTEM_CALLS
from sharedstack.declare.reasons import REASONS

ROOT = Path(__file__).parents[2]
FIELDS = [pytest.param(s, p, id=f"{s.name}.{p.field.name}") for s in STRUCTS for p in s.placed()]

# Declared before they are used: each needs a word on why.
RESERVED_COUNTERS = {
    "attach_failed": "a process that could not attach has no slot to count in",
}
# Reasons that only `inspect` finds, from outside, or only the helper gives.
OUTSIDE_REASONS = {"short_lived", "other_uid", "disabled", "wire_young", "wire_idle", "next_hop", "shared_port"}
RESERVED_CONSTANTS = {"EPF_SNDTIMEO": "time-outs of sends are the kernel's"}


def _text(*folders: str) -> str:
    found = [p for folder in folders for p in sorted((ROOT / folder).rglob("*")) if p.suffix in (".c", ".h", ".S", ".py")]
    return "\n".join(p.read_text(encoding="utf-8") for p in found)


NATIVE = _text("sharedstack/native")
USERS = NATIVE + _text("helper", "sharedstack/inspection", "sharedstack/cli")


# Layout


@pytest.mark.parametrize(("struct", "place"), FIELDS)
def test_offsets(struct: Struct, place: Placed) -> None:
    align = min(scalar_size(place.field.type) or 8, 8)
    assert place.offset % align == 0
    assert place.offset + place.size <= struct.size
    assert place.size == place.item * place.field.count


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda s: s.name)
def test_fields_neither_overlap_nor_share_lines_of_other_owners(struct: Struct) -> None:
    at = 0
    for place in struct.placed():
        assert place.offset >= at
        at = place.offset + place.size
    starts = iter([p.offset for p in struct.placed()])
    for part in struct.parts:
        if isinstance(part, Field):
            offset = next(starts)
            continue
        following = struct.parts[struct.parts.index(part) + 1 :]
        if following and isinstance(following[0], Field):
            offset = struct.place(following[0].name).offset
            assert offset % CACHE_LINE == 0


def test_sizes_keep_records_aligned() -> None:
    for struct in (layout.SLOT, layout.ENDPOINT, layout.PAIR, layout.DIRECTION):
        assert struct.size % CACHE_LINE == 0
    assert layout.PAIR.place("dir").offset % 128 == 0
    assert layout.PAIR.size % 128 == 0
    assert layout.RECORD.size == CONSTANTS["RECORD_ALIGN"]
    for start in (layout.STACK_SLOTS, layout.STACK_FLOWS, layout.STACK_ENDPOINTS, layout.ARENA_PAIRS):
        assert start % 4096 == 0


def test_an_idle_connection_costs_at_most_256_bytes_an_end() -> None:
    assert layout.ENDPOINT.size <= 256


def test_packed_fields_have_room() -> None:
    assert CONSTANTS["N_UNITS"] < 1 << CONSTANTS["CHUNK_LOG_SHIFT"]
    assert CONSTANTS["MAX_RING_UNITS"] * CONSTANTS["UNIT_BYTES"] <= 1 << CONSTANTS["RD_OFF_BITS"]
    assert CONSTANTS["N_SLOTS"] < 1 << (32 - CONSTANTS["LOCK_SLOT_SHIFT"])
    assert CONSTANTS["WORD_OPEN"] == 1 << CONSTANTS["WORD_INDEX_BITS"]
    assert CONSTANTS["WINDOW_BYTES"] % (CONSTANTS["MAX_RING_UNITS"] * CONSTANTS["UNIT_BYTES"]) == 0
    assert layout.ARENA.place("units").size * 8 == CONSTANTS["N_UNITS"]
    assert layout.SLOT.place("bells").field.count == CONSTANTS["N_BELLS"]
    assert layout.SLOT.place("takes").field.count == CONSTANTS["N_TAKES"]


def test_flags_of_one_kind_are_distinct_bits() -> None:
    flags = [v for k, v in CONSTANTS.items() if k.startswith("EPF_")]
    assert len(set(flags)) == len(flags)
    assert all(v & (v - 1) == 0 for v in flags)


def test_counters_and_options_have_64_places() -> None:
    for struct, name, declared in (
        (layout.SLOT, "counters", COUNTERS),
        (layout.STACK, "totals", COUNTERS),
        (layout.STACK, "options", OPTIONS),
    ):
        assert struct.place(name).field.count == 64
        assert len(declared) <= 64


def test_a_struct_too_small_for_its_fields_is_refused() -> None:
    small = Struct("small", 4, "too small", (Field("a", "u32", "fits"), Field("b", "u64", "does not")))
    with pytest.raises(ValueError, match="small"):
        list(small.placed())


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(KeyError, match=r"bell\.nothing"):
        layout.BELL.place("nothing")


# The hash


def _changed(struct: Struct, **changes: object) -> Struct:
    """The struct with its last field changed."""
    *before, last = struct.parts
    assert isinstance(last, Field)
    return dataclasses.replace(struct, parts=(*before, dataclasses.replace(last, **changes)))  # type: ignore[arg-type]


def _hash(*structs: Struct, **constants: int) -> int:
    return layout_hash(structs or STRUCTS, {**CONSTANTS, **constants})


@pytest.mark.parametrize("struct", [s for s in STRUCTS if s.name != "pair"], ids=lambda s: s.name)
@pytest.mark.parametrize("changes", [{"name": "other"}, {"type": "i64"}, {"count": 2}], ids=str)
def test_hash_changes_with_a_field(struct: Struct, changes: dict[str, object]) -> None:
    roomy = dataclasses.replace(struct, size=struct.size + 4096)
    assert _hash(_changed(roomy, **changes)) != _hash(roomy)


@pytest.mark.parametrize("changes", [{"meaning": "in other words"}, {"unit": "furlongs"}, {"owner": "nobody"}, {"derived": True}], ids=str)
def test_hash_does_not_change_with_words(changes: dict[str, object]) -> None:
    assert _hash(_changed(layout.BELL, **changes)) == _hash(layout.BELL)


def test_hash_changes_with_a_new_line_a_size_a_constant() -> None:
    *before, last = layout.ENDPOINT.parts
    moved = dataclasses.replace(layout.ENDPOINT, size=512, parts=(*before, Line("somebody"), last))
    assert len({_hash(layout.ENDPOINT), _hash(dataclasses.replace(layout.ENDPOINT, size=512)), _hash(moved)}) == 3
    assert _hash(UNIT_BYTES=32768) != _hash()


def test_hash_fits_64_bits_and_depends_on_the_order() -> None:
    assert 0 < layout.HASH < 1 << 64
    assert _hash(*reversed(STRUCTS)) != _hash()


# Names


@pytest.mark.parametrize(
    "names",
    [
        [s.name for s in STRUCTS],
        [c.name for c in COUNTERS],
        [r.name for r in REASONS],
        [o.name for o in OPTIONS],
        [i.name for i in INTERCEPTS],
        [m.name for m in MESSAGES],
        [lock.name for lock in LOCKS],
        *[[p.field.name for p in s.placed()] for s in STRUCTS],
    ],
)
def test_names_are_unique_and_plain(names: list[str]) -> None:
    assert [n for n, count in Tally(names).items() if count > 1] == []
    assert all(re.fullmatch(r"[a-z_][a-z0-9_]*", n) for n in names)


def test_options_are_within_their_own_bounds() -> None:
    for o in OPTIONS:
        assert o.low <= o.default <= o.high, o.name
    bounds = {o.name: (o.low, o.high) for o in OPTIONS}
    for profile, values in PROFILES.items():
        for name, value in values.items():
            low, high = bounds[name]
            assert low <= value <= high, f"{profile}: {name}"


def test_messages_answer_with_declared_messages() -> None:
    names = {m.name for m in MESSAGES}
    assert {m.reply for m in MESSAGES if m.reply} <= names
    assert "error" in names
    assert all(t in ("u64", "i64", "str", "bool", *LISTS) for m in MESSAGES for t in m.fields.values())
    assert all(t in ("u64", "i64", "str", "bool") for types in LISTS.values() for t in types)
    assert all(text and code == code.lower() for code, text in ERROR_CODES.items())


def test_locks_are_fields_and_have_repairs() -> None:
    for lock in LOCKS:
        struct, field = lock.where.split(".")
        assert layout.BY_NAME[struct].place(field).field.type == "u32"
        assert re.search(rf"\b{lock.repair}\(", NATIVE), f"{lock.repair} is not in the C code"
    named = {p.field.lock for s in STRUCTS for p in s.placed() if p.field.lock}
    assert named <= {lock.name for lock in LOCKS}


def test_arguments_are_the_names_of_parameters() -> None:
    for i in INTERCEPTS:
        assert len(i.args) == len(i.params)
        assert all(re.fullmatch(r"[a-z_]\w*", a) for a in i.args), i.name


# Use


def _used(prefix: str, name: str) -> bool:
    return f"SHS_{prefix}_{name.upper()}" in NATIVE


def test_every_counter_is_counted_or_reserved() -> None:
    idle = {c.name for c in COUNTERS if not _used("CTR", c.name)}
    assert idle == set(RESERVED_COUNTERS)


def test_every_reason_is_given() -> None:
    idle = {r.name for r in REASONS if not _used("REASON", r.name)}
    assert idle == OUTSIDE_REASONS
    for name in OUTSIDE_REASONS:
        assert f'"{name}"' in USERS


def test_every_option_is_read_by_the_core() -> None:
    unread = [o.name for o in OPTIONS if not re.search(rf"\bopt(\.|->){o.name}\b", NATIVE)]
    assert unread == []


def test_every_constant_is_used_or_reserved() -> None:
    declared = _text("sharedstack/declare")
    idle = {k for k in CONSTANTS if f"SHS_{k}" not in NATIVE and f'"{k}"' not in USERS and declared.count(k) < 2}
    assert idle == set(RESERVED_CONSTANTS)


def test_every_intercept_has_a_handler() -> None:
    for i in INTERCEPTS:
        assert re.search(rf"\bshs_i_{i.same or (i.twin if i.alias else i.name)}\(", NATIVE), i.name


def test_system_calls_have_numbers_and_handlers() -> None:
    headers = subprocess.run(
        ["gcc", "-dM", "-E", "-m64", "-x", "c", "-"], input="#include <sys/syscall.h>\n", capture_output=True, text=True, check=False
    ).stdout
    for s in SYSTEM_CALLS:
        assert bool(s.by) != bool(s.own), s.names
        assert s.way in ("call", "receive", "send"), s.names
        assert len(s.function.params) <= 6 if s.by else re.search(rf"^long shs_raw_{s.own}\(", NATIVE, re.M), s.names
        if platform.machine() == "x86_64" and headers and s.bits != 32:
            assert any(f"SYS_{name} " in headers for name in s.names) or s.names in (("sendfile64",), ("_newselect",)), s.names
    for bits in (32, 64):
        names = [name for s in SYSTEM_CALLS if s.bits in (0, bits) for name in s.names]
        assert len(names) == len(set(names))


def test_the_library_calls_no_syscall_of_its_own() -> None:
    """What it means by that name is libc's, not its export: else its own system calls would come back to it."""
    if shutil.which("objdump") is None:
        pytest.skip("needs objdump")
    symbols = subprocess.run(["objdump", "-R", str(paths.library())], capture_output=True, text=True, check=True).stdout
    assert "__errno_location" in symbols
    assert not re.search(r"\bsyscall\b", symbols)


def test_the_table_of_system_calls_has_each_once() -> None:
    text = generate.raw_header()
    for s in SYSTEM_CALLS:
        assert all(re.search(rf"\[SYS_{name}\] = PLACE_", text) for name in s.names)
    places = re.findall(r"^    \[(PLACE_\w+)\] = \{", text, re.M)
    assert len(places) == len(set(places)) == len(SYSTEM_CALLS)
    assert len(SYSTEM_CALLS) < 256  # a place is a byte


# The generator


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("generated")
    assert generate.main(["generate", str(target)]) == 0
    return target


def _compiles(flag: str, generated: Path, code: str) -> subprocess.CompletedProcess[str]:
    command = ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", flag, f"-I{generated}", "-x", "c", "-"]
    return subprocess.run(command, input=code, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("flag", ["-m64", "-m32"])
def test_generated_headers_compile(flag: str, generated: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    if _compiles(flag, generated, "#include <stdint.h>\n#include <stddef.h>\n").returncode != 0:
        pytest.skip(f"gcc {flag} does not compile here: gcc-multilib is missing, or another architecture")
    code = '#include "layout.gen.h"\n#include "names.gen.h"\n' + "\n".join(
        f'_Static_assert(SHS_CTR_{c.name.upper()} == {i}, "");' for i, c in enumerate(COUNTERS)
    )
    done = _compiles(
        flag, generated, code + "\nstatic const char *const names[] = {SHS_REASON_NAMES};\nint main(void) { return !names[0]; }\n"
    )
    assert done.returncode == 0, done.stderr


def test_numbers_of_kernel_options_are_those_of_the_headers(generated: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    numbers = {o.name: o.number for o in KERNEL_OPTIONS} | CALL_FLAGS
    code = "#include <sys/socket.h>\n#include <netinet/in.h>\n#include <linux/tcp.h>\n" + "".join(
        f'#ifdef {name}\n_Static_assert({name} == {number}, "{name}");\n#endif\n' for name, number in numbers.items()
    )
    code += "".join(f'_Static_assert({name} == {kernel_options.__dict__[name]}, "");\n' for name in ("SOL_SOCKET", "IPPROTO_TCP"))
    done = _compiles("-m64", generated, code + "int main(void) { return 0; }\n")
    assert done.returncode == 0, done.stderr


def test_generating_again_changes_nothing(generated: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in generated.iterdir()}
    assert set(before) == set(generate.FILES)
    assert generate.main(["generate", str(generated)]) == 0
    assert {p.name: p.stat().st_mtime_ns for p in generated.iterdir()} == before


def test_only_declared_functions_are_exported() -> None:
    names = re.findall(r"^    (\w+);$", generate.exports(), re.M)
    assert names == sorted([*(i.name for i in INTERCEPTS), *FORWARDED, *OWN_SHAPE])


def test_the_generator_wants_one_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["generate"]) == 2
    assert "usage" in capsys.readouterr().err


# Views


def _range(type_: str) -> tuple[int, int]:
    bits = (scalar_size(type_) or 0) * 8
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if type_.startswith("i") else (0, (1 << bits) - 1)


@pytest.mark.parametrize(("struct", "place"), FIELDS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_view_round_trip(struct: Struct, place: Placed, data: st.DataObject) -> None:
    field, fill, offset = place.field, data.draw(st.integers(0, 255)), 64
    memory = bytearray([fill]) * (offset + struct.size + 64)
    view = binary.View(struct, memoryview(memory), offset)
    if scalar_size(field.type) is None:
        inner = view[field.name]
        views = inner if isinstance(inner, tuple) else (inner,)
        assert [v.offset for v in views] == [offset + place.offset + i * place.item for i in range(field.count)]
        return
    value: int | bytes | tuple[int, ...]
    if field.type == "u8" and field.count > 1:
        value = data.draw(st.binary(min_size=field.count, max_size=field.count))
    else:
        low, high = _range(field.type)
        one = st.integers(low, high)
        drawn = data.draw(st.lists(one, min_size=field.count, max_size=field.count))
        value = tuple(drawn) if field.count > 1 else drawn[0]
    view[field.name] = value
    assert view[field.name] == value
    at, end = offset + place.offset, offset + place.offset + place.size
    assert set(memory[:at]) <= {fill}
    assert set(memory[end:]) <= {fill}


def test_view_fills_up_short_bytes_and_refuses_long_ones() -> None:
    memory = bytearray(b"\xff" * layout.SLOT.size)
    slot = binary.View(layout.SLOT, memoryview(memory))
    slot["comm"] = b"ls"
    assert slot["comm"] == b"ls".ljust(16, b"\0")
    assert binary.text(slot["comm"]) == "ls"
    with pytest.raises(ValueError, match=r"slot\.comm takes 16 bytes, got 17"):
        slot["comm"] = b"x" * 17


def test_view_items_are_all_fields_in_order() -> None:
    view = binary.View(layout.PAIR, memoryview(bytearray(layout.PAIR.size)))
    assert [name for name, _ in view.items()] == [p.field.name for p in layout.PAIR.placed()]


def test_records_are_found_by_index() -> None:
    stack = memoryview(bytearray(layout.STACK_ENDPOINTS + 8 * layout.ENDPOINT.size))
    arena = memoryview(bytearray(layout.ARENA_PAIRS + 8 * layout.PAIR.size))
    assert binary.slot(stack, 3).offset == layout.STACK_SLOTS + 3 * layout.SLOT.size
    assert binary.endpoint(stack, 5).offset == layout.STACK_ENDPOINTS + 5 * layout.ENDPOINT.size
    assert binary.pair(arena, 7).offset == layout.ARENA_PAIRS + 7 * layout.PAIR.size
    stack[layout.STACK_FLOWS + 8 : layout.STACK_FLOWS + 12] = (77).to_bytes(4, "little")
    assert binary.flow_bucket(stack, 2) == 77
    assert binary.stack(stack).offset == binary.arena(arena).offset == 0
