"""Generate C headers, wrappers and the export list from the declarations: `python -m sharedstack.declare.generate DIR`.

Written files: layout.hash, layout.gen.h, names.gen.h, intercepts.gen.h, raw.gen.h, sim.gen.h, wrappers.gen.c, exports.map.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from . import layout, sim, wire
from .counters import COUNTERS
from .intercepts import DIRECT, FORWARDED, INTERCEPTS, LATE, OWN_SHAPE, Intercept
from .kernel_options import KERNEL_OPTIONS, WHEN
from .messages import MAX_MESSAGE, MESSAGES, PROTOCOL_VERSION
from .model import Struct, c_type
from .names import BELL_PREFIX, DEFAULT_STACK, MAX_STACK_NAME, SHM_PREFIX
from .options import OPTIONS, PROFILES
from .raw import SYSTEM_CALLS, SystemCall
from .reasons import REASONS

HEAD = "/* Generated from sharedstack/declare; do not edit. */\n"
# variadic in libc: how many parameters are not
_FIXED_ARITY = {"fcntl": 2, "fcntl64": 2, "ioctl": 2, "prctl": 1, "syscall": 1}
# newer than the oldest libc that we are built with
_UNDECLARED = ("execveat", "pidfd_getfd")


def _struct(struct: Struct) -> str:
    lines = [f"/* {struct.meaning} */", f"struct shs_{struct.name} {{"]
    asserts = [f'_Static_assert(sizeof(struct shs_{struct.name}) == {struct.size}, "{struct.name}: size");']
    at = pads = 0
    for p in struct.placed():
        if p.offset > at:
            lines.append(f"    uint8_t pad_{pads}[{p.offset - at}];")
            pads += 1
        align = "_Alignas(8) " if p.item % 8 == 0 else ""
        array = f"[{p.field.count}]" if p.field.count > 1 else ""
        lines.append(f"    {align}{c_type(p.field.type)} {p.field.name}{array}; /* {p.field.meaning} */")
        asserts.append(f'_Static_assert(offsetof(struct shs_{struct.name}, {p.field.name}) == {p.offset}, "{struct.name}.{p.field.name}");')
        at = p.offset + p.size
    if at < struct.size:
        lines.append(f"    uint8_t pad_{pads}[{struct.size - at}];")
    return "\n".join([*lines, "};", *asserts, ""])


def layout_header() -> str:
    """The structs with an assertion for every offset, and the constants."""
    out = [HEAD, "#pragma once\n#include <stddef.h>\n#include <stdint.h>\n"]
    for name, value in layout.CONSTANTS.items():
        out.append(f"#define SHS_{name} {value:#x}ull" if value > 0x7FFFFFFF else f"#define SHS_{name} {value}")
    out.append(f"#define SHS_LAYOUT_HASH {layout.HASH:#x}ull\n")
    out += [_struct(s) for s in layout.STRUCTS]
    return "\n".join(out)


def sim_header() -> str:
    """What tests of the engine are given and tell."""
    out = [HEAD, "#pragma once\n#include <stddef.h>\n#include <stdint.h>\n"]
    out += [f"#define SHS_{name} {value}" for name, value in sim.CONSTANTS.items()]
    return "\n".join([*out, *(_struct(s) for s in sim.STRUCTS)])


def names_header() -> str:
    """Reasons, counters, options, messages and names."""
    out = [HEAD, "#pragma once\n#include <stdint.h>\n"]
    for title, prefix, names in (
        ("Why a direction is on the kernel path.", "REASON", [r.name for r in REASONS]),
        ("Counters of a slot.", "CTR", [c.name for c in COUNTERS]),
        ("Counters of an engine.", "WCTR", [name for name, _ in wire.COUNTERS]),
    ):
        out += [
            f"/* {title} */",
            "enum {",
            *(f"    SHS_{prefix}_{n.upper()} = {i}," for i, n in enumerate(names)),
            f"    SHS_{prefix}_COUNT = {len(names)}",
            "};",
        ]
    texts = ", \\\n    ".join('"' + r.name + ": " + r.text.replace('"', "'") + '"' for r in REASONS)
    out.append("#define SHS_REASON_NAMES \\\n    " + texts)
    out += [
        "/* Options; see `sharedstack options`. */",
        "struct shs_options {",
        *(f"    uint64_t {o.name}; /* {o.meaning} */" for o in OPTIONS),
        "};",
    ]
    rows = ", \\\n".join(f'    X({o.name}, "{o.env}", {o.default}ull, {o.low}ull, {o.high}ull)' for o in OPTIONS)
    out.append("#define SHS_OPTION_LIST(X) \\\n" + rows.replace(", \\\n", " \\\n"))
    profile_rows = [f'    X("{profile}", {name}, {value}ull)' for profile, values in PROFILES.items() for name, value in values.items()]
    out.append("#define SHS_PROFILE_LIST(X) \\\n" + " \\\n".join(profile_rows))
    out += [
        "/* Which values of an option lower a connection. */",
        "enum {",
        *(f"    SHS_WHEN_{w} = {i}," for i, w in enumerate(WHEN)),
        "};",
    ]
    option_rows = [f"    {{{o.level}, {o.number}, SHS_WHEN_{o.when}}}, /* {o.name} */" for o in KERNEL_OPTIONS]
    out.append("/* level, number, when */\n#define SHS_KERNEL_OPTIONS \\\n" + " \\\n".join(option_rows))
    out.append(f"#define SHS_PROTOCOL_VERSION {PROTOCOL_VERSION}\n#define SHS_MAX_MESSAGE {MAX_MESSAGE}")
    out += [f'#define SHS_MSG_{m.name.upper()} "{m.name}"' for m in MESSAGES]
    out.append(f'#define SHS_SHM_PREFIX "{SHM_PREFIX}"\n#define SHS_BELL_PREFIX "{BELL_PREFIX}"')
    out.append(f'#define SHS_DEFAULT_STACK "{DEFAULT_STACK}"\n#define SHS_MAX_STACK_NAME {MAX_STACK_NAME}')
    return "\n".join(out) + "\n"


def _params(i: Intercept) -> str:
    return ", ".join(i.params)


def _call(i: Intercept) -> str:
    return ", ".join(i.args)


def _only32(i: Intercept, text: str) -> str:
    """Twins are there in 32-bit builds alone."""
    return f"#if __SIZEOF_POINTER__ == 4\n{text.rstrip()}\n#endif\n" if i.twin else text


def _own() -> list[Intercept]:
    """Those that libc has a function of its own for."""
    return [i for i in INTERCEPTS if not i.alias and not i.same]


def _result(i: Intercept) -> str:
    """The type in which a handler returns a value or -errno."""
    return {"ssize_t": "ssize_t", "int": "int", "long": "long", "void": "void"}.get(i.ret, "intptr_t")


def intercepts_header() -> str:
    """Pointers to libc's functions, native callers (-errno) and the prototypes of the handlers."""
    out = [HEAD, "#pragma once", '#include "preload/types.h"\n', "/* libc's own functions */", "struct shs_real {"]
    out += [_only32(i, f"    {i.ret} (*{i.name})({_params(i)});") for i in _own()]
    out += ["};", "extern struct shs_real shs_real;\n"]
    for i in _own():
        result, star = _result(i), "" if i.ret.endswith("*") else " "
        handler = f"/* {i.note or i.area} */\n{result} shs_i_{i.name}({_params(i)});"
        if i.ret == "void":
            out.append(handler)
            continue
        cast = "(intptr_t)" if result == "intptr_t" else ""
        failed = "r == NULL" if i.error == "NULL" else f"r == {i.error}"
        native = (
            f"static inline {result} shs_n_{i.name}({_params(i)})\n{{\n    {i.ret}{star}r = shs_real.{i.name}({_call(i)});\n"
            f"    return {failed} ? -errno : {cast}r;\n}}\n"
        )
        out.append(_only32(i, f"{handler}\n{native}"))
    return "\n".join(out)


def _direct(i: Intercept, acts: str) -> list[str]:
    """The shortest way, before all others; what follows is a function of its own, so that this one needs no frame (preload/direct.h)."""
    call = f"shs_real.{acts}({_call(i)})"
    side = "SHS_RECEIVE" if i.area == "receive" else "SHS_SEND"
    return [
        "    uint32_t outer;",
        f"    enum shs_direct way = shs_direct_enter({i.args[0]}, {side}, &outer);",
        "    if (way == SHS_DIRECT)",
        f"        return {call};",
        "    if (SHS_UNLIKELY(way == SHS_INDIRECT))",
        f"        return {_INDIRECT}{i.name}({_call(i)});",
        f"    {i.ret} r = {call};",
        "    shs_direct_leave(outer);",
        "    return r;",
        "}\n",
    ]


def _indirect(i: Intercept, acts: str) -> list[str]:
    return [
        f"static __attribute__((noinline)) {i.ret} {_INDIRECT}{i.name}({_params(i)})",
        "{",
        "    if (SHS_UNLIKELY(shs_plain()))",
        f"        return shs_real.{acts}({_call(i)});",
        f"    return ({i.ret})shs_errno(shs_i_{acts}({_call(i)}));",
        "}\n",
    ]


_INDIRECT = "indirect_"
_PLAIN = {"signal": "shs_plain_signal"}


def wrappers() -> str:
    """The exported functions, all of one shape, and the resolver of libc's."""
    out = [
        HEAD,
        '#include "intercepts.gen.h"',
        '#include "preload/boundary.h"',
        '#include "preload/direct.h"',
        "#include <stdarg.h>\n",
        "struct shs_real shs_real;\n",
    ]
    out.append("void shs_resolve(void)\n{")
    out += [_only32(i, f'    shs_real.{i.name} = (__typeof__(shs_real.{i.name}))shs_next("{i.name}");') for i in _own()]
    out.append("}\n")
    for i in INTERCEPTS:
        acts = i.same or (i.twin if i.alias else i.name)
        fixed = _FIXED_ARITY.get(acts)
        params = ", ".join([*i.params[:fixed], "..."]) if fixed else _params(i)
        if i.name.startswith("__") or i.same or i.name in _UNDECLARED:
            declared = [f"{i.ret} {i.name}({params}); /* libc declares it only where it is used */".replace("* ", "*")]
        else:
            declared = []
        exported = [f"SHS_EXPORT {i.ret} {i.name}({params})".replace("* ", "*"), "{"]
        if acts in DIRECT:
            out.append(_only32(i, "\n".join([*declared, *_indirect(i, acts), *exported, *_direct(i, acts)])))
            continue
        body = [*declared, *exported]
        if fixed:
            body += ["    va_list ap;", f"    va_start(ap, {i.args[fixed - 1]});"]
            for param, name in zip(i.params[fixed:], i.args[fixed:], strict=True):
                body.append(f"    {param} = va_arg(ap, {param.removesuffix(name).strip()});")
            body.append("    va_end(ap);")
        if i.name in LATE:
            found = f'(__typeof__(shs_real.{i.name}))shs_late("{LATE[i.name]}", "{i.name}")'
            body.append(f"    if ((shs_off(), !shs_real.{i.name}) && !(shs_real.{i.name} = {found})) {{")
            body += ["        errno = ENOSYS;", f"        return {i.error};", "    }"]
        ret = "" if i.ret == "void" else "return "
        body.append(f"    if (SHS_UNLIKELY({_PLAIN.get(i.area, 'shs_plain') if not i.ends else 'shs_plain_end'}())) {{")
        body.append(f"        {ret}shs_real.{acts}({_call(i)});")
        if i.ret == "void":
            body += ["        return;", "    }", f"    shs_i_{acts}({_call(i)});"]
        elif i.ret == "long":  # any value but the last 4095 is a result
            body += ["    }", f"    return (long)shs_pointer(shs_i_{acts}({_call(i)}), (void *)-1);"]
        elif i.error in ("NULL", "SIG_ERR"):
            body += ["    }", f"    return ({i.ret})shs_pointer(shs_i_{acts}({_call(i)}), {i.error});"]
        else:
            body += ["    }", f"    return ({i.ret})shs_errno(shs_i_{acts}({_call(i)}));"]
        out.append(_only32(i, "\n".join([*body, "}\n"])))
    for name, (params, call) in FORWARDED.items():
        last = params.split()[-1].lstrip("*")
        out.append(
            f"int {name}({params}, ...);\nSHS_EXPORT int {name}({params}, ...)\n{{\n    va_list args;\n    va_start(args, {last});\n"
            f"    int r = {call};\n    va_end(args);\n    return r;\n}}\n"
        )
    return "\n".join(out)


def _adapter(s: SystemCall) -> str:
    """A system call's arguments to those of the intercepted function."""
    casts = [p.removesuffix(name).strip() for p, name in zip(s.function.params, s.function.args, strict=True)]
    # the kernel takes an unsigned int there, and does not look at what is in the rest of the register
    given = ", ".join(f"({'unsigned int' if cast == 'nfds_t' else cast})c->arg[{at}]" for at, cast in enumerate(casts))
    return f"static long raw_{s.by}(const struct shs_raw *c)\n{{\n    return (long)shs_i_{s.by}({given});\n}}\n"


def _only(bits: int, text: str) -> str:
    return f"#if __SIZEOF_POINTER__ == {bits // 8}\n{text.rstrip()}\n#endif\n" if bits else text


def raw_header() -> str:
    """The table of system calls: by number the place of an entry, and the entries."""
    out = [HEAD, *(_adapter(s) for s in SYSTEM_CALLS if s.by)]
    places = [f"PLACE_{s.handler.upper()}_{at}" for at, s in enumerate(SYSTEM_CALLS)]
    out += ["enum {", "    PLACE_NONE,", *(f"    {place}," for place in places), "};\n", "static const struct entry entries[] = {"]
    for place, s in zip(places, SYSTEM_CALLS, strict=True):
        handler = f"raw_{s.by}" if s.by else f"shs_raw_{s.own}"
        quiet = "true" if s.quiet else "false"
        entry = f"    [{place}] = {{{handler}, {s.after or 'NULL'}, WAY_{s.way.upper()}, {quiet}}},\n"
        out.append(_only(s.bits, entry).rstrip())
    out += ["};\n", "static const uint8_t place_of[] = {"]
    for place, s in zip(places, SYSTEM_CALLS, strict=True):
        for name in s.names:
            out.append(_only(s.bits, f"#ifdef SYS_{name}\n    [SYS_{name}] = {place},\n#endif\n").rstrip())
    return "\n".join([*out, "};", ""])


def exports() -> str:
    """The version script: nothing but what is intercepted leaves the library."""
    names = "".join(f"    {name};\n" for name in sorted([*(i.name for i in INTERCEPTS), *FORWARDED, *OWN_SHAPE]))
    return f"{{\n  global:\n{names}  local:\n    *;\n}};\n"


def layout_hash_text() -> str:
    """The layout hash alone, for who has no time to compute it (`sharedstack run`)."""
    return f"{layout.HASH:016x}\n"


FILES = {
    "layout.hash": layout_hash_text,
    "layout.gen.h": layout_header,
    "names.gen.h": names_header,
    "intercepts.gen.h": intercepts_header,
    "raw.gen.h": raw_header,
    "sim.gen.h": sim_header,
    "wrappers.gen.c": wrappers,
    "exports.map": exports,
}


def main(argv: list[str]) -> int:
    """Write all generated files into the directory `argv[1]`."""
    if len(argv) != 2:
        print("usage: python -m sharedstack.declare.generate DIR", file=sys.stderr)
        return 2
    target = Path(argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for name, make in FILES.items():
        text = re.sub(r"\n{3,}", "\n\n", make())
        path = target / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
