"""Archives that lie, each by name with the verdict that it must get. Written byte by byte, for no library writes them.

A verdict is either a part of the message that refuses the archive, or the tree that its layer has: paths with what is
there (``f`` and the content, ``d``, ``l`` and the target, ``p``, ``c`` or ``b`` and the device, ``w`` for a whiteout; a directory
that hides lower layers is ``D``). Archives with ``base`` are unpacked on BASE.

Source: POSIX pax, GNU tar manual (Basic Tar Format, Sparse Formats), image-spec layer.md; CVE-2017-1002101, CVE-2018-15664,
CVE-2019-14271, CVE-2021-30465, CVE-2021-41190, CVE-2025-62518 and their kin for what has been tried elsewhere.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from .raw_tar import (
    BLOCK,
    END,
    base_256,
    content,
    file,
    folder,
    hard,
    header,
    long_name,
    octal,
    pax,
    piece,
    sparse,
    symlink,
)

# Paths outside of every layer that some archives reach for; tests that unpack make it with one file in it, and look after it.
# Its name is random: two workers of one run may use it at the same time.
OUTSIDE = b"/tmp/cellwall-outside-" + secrets.token_hex(4).encode()

BASE = (
    folder(b"etc")
    + file(b"etc/passwd", b"root")
    + folder(b"etc/d")
    + file(b"etc/d/deep", b"deep")
    + file(b"top", b"top")
    + END
)
BASE_TREE = {b"etc": b"d", b"etc/passwd": b"froot", b"etc/d": b"d", b"etc/d/deep": b"fdeep", b"top": b"ftop"}


@dataclass(frozen=True)
class Hostile:
    name: str
    archive: bytes
    refused: str = ""
    tree: dict[bytes, bytes] = field(default_factory=dict)
    base: bool = False


def refused(name: str, message: str, *parts: bytes, base: bool = False, end: bytes = END) -> Hostile:
    return Hostile(name, b"".join(parts) + end, refused=message, base=base)


def taken(
    name: str,
    tree: dict[bytes, bytes],
    *parts: bytes,
    base: bool = False,
    end: bytes = END,
) -> Hostile:
    return Hostile(name, b"".join(parts) + end, tree=tree, base=base)


# Its tree goes beyond what Python's rmtree removes: nothing for a folder of pytest's.
DEEP = "1500 folders in one another"
NESTED = b"/".join([b"d"] * 1500)
# Each step goes on where a link to the end of the last one leads: a tree deeper than any path can name.
_STEP = b"/".join([b"n"] * 900)
DEEPER = b"".join(
    long_name(begin + _STEP) + folder(b"") + long_name(begin + _STEP, b"K") + symlink(b"l%d" % number, b"x")
    for number, begin in enumerate([b"", b"l0/", b"l1/", b"l2/"])
)
SMUGGLED = file(b"smuggled", b"inner")

PLACES = [
    taken("absolute name", {b"etc": b"d", b"etc/x": b"fx"}, file(b"/etc/x")),
    refused("name above the root", "leads out", file(b"../x")),
    refused("name that goes up too far", "leads out", file(b"a/../../x")),
    taken("name that goes up inside", {b"b": b"fx"}, file(b"a/../b")),
    taken("dots and slashes", {b"a": b"d", b"a/b": b"fx"}, file(b".//./a/././/b/.")),
    refused("parent is a link out", "whose target the layer lacks", symlink(b"d", OUTSIDE), file(b"d/x")),
    refused(
        "parent is a link to the root's parent", "leads through the link", symlink(b"d", b"../../../tmp"), file(b"d/x")
    ),
    taken(
        "parent is a link that stays inside by going up",
        {b"etc": b"d", b"etc/x": b"fx", b"l": b"l../../../../etc"},
        *(folder(b"etc"), symlink(b"l", b"../../../../etc"), file(b"l/x")),
    ),
    refused(
        "folder swapped for a link out",
        "whose target the layer lacks",
        *(folder(b"d"), file(b"d/a"), symlink(b"d", OUTSIDE), file(b"d/x")),
    ),
    taken(
        "folder swapped for a link to a sibling",
        {b"e": b"d", b"e/x": b"fx", b"d": b"le"},
        *(folder(b"d"), file(b"d/a"), folder(b"e"), symlink(b"d", b"e"), file(b"d/x")),
    ),
    refused("links in a circle", "symbolic links", symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/x")),
    refused("link to itself as parent", "symbolic links", symlink(b"a", b"a"), file(b"a/x")),
    refused("link to /proc as parent", "whose target the layer lacks", symlink(b"p", b"/proc/self/root"), file(b"p/x")),
    refused("file as parent", "which is no directory", file(b"a"), file(b"a/b")),
    refused("pipe as parent", "which is no directory", header(b"a", b"6"), file(b"a/b")),
    taken("file where a link out was", {b"d": b"fx"}, symlink(b"d", OUTSIDE + b"/file"), file(b"d")),
    taken("folder where a link out was", {b"d": b"d"}, symlink(b"d", OUTSIDE), folder(b"d")),
    taken(
        "the same name five times",
        {b"a": b"fend"},
        *(file(b"a"), folder(b"a"), file(b"a/b"), symlink(b"a", b"/"), header(b"a", b"6"), file(b"a", b"end")),
    ),
    refused("the root as a file", "names the layer's root", file(b"./")),
    refused("the root as a link", "names the layer's root", symlink(b"x/..", OUTSIDE)),
    refused("the root as a hard link", "names the layer's root", file(b"a"), hard(b".", b"a")),
]

LINKS = [
    refused("hard link out by an absolute name", "which isn't there", hard(b"h", OUTSIDE + b"/file")),
    refused("hard link out by going up", "leads out", hard(b"h", b"../../.." + OUTSIDE + b"/file")),
    refused("hard link through a link out", "which isn't there", symlink(b"s", OUTSIDE), hard(b"h", b"s/file")),
    refused(
        "hard link through /proc", "which isn't there", symlink(b"s", b"/proc/self/root/"), hard(b"h", b"s/etc/passwd")
    ),
    taken(
        "hard link to a link out, written through",
        {b"h": b"fx", b"s": b"l" + OUTSIDE + b"/file"},
        *(symlink(b"s", OUTSIDE + b"/file"), hard(b"h", b"s"), file(b"h")),
    ),
    refused("hard link to a folder", "hard link to a directory", folder(b"d"), hard(b"h", b"d")),
    refused("hard link to the root", "hard link to a directory", hard(b"h", b".")),
    refused("hard link to what comes later", "which isn't there", hard(b"h", b"a"), file(b"a")),
    taken("hard link to itself", {b"a": b"fx"}, *(file(b"a"), hard(b"a", b"./a"))),
    refused("hard link over the folder that holds its file", "can't be made", file(b"a/b"), hard(b"a", b"a/b")),
    refused("hard link to what a whiteout hides", "hard link to", header(b".wh.top"), hard(b"h", b"top"), base=True),
    refused("link with an empty target", "link to nothing", symlink(b"s", b"")),
    refused("link with a target of 5000 bytes", "can't be made", long_name(b"t" * 5000, b"K"), symlink(b"s", b"")),
    refused("link with a zero byte in its target", "link to nothing", pax((b"linkpath", b"a\0b")), symlink(b"s", b"t")),
    refused(
        "hard link with a zero byte in its target",
        "zero byte",
        file(b"a"),
        pax((b"linkpath", b"a\0b")),
        hard(b"h", b"a"),
    ),
]

WHITEOUTS = [
    taken(
        "whiteout through a link",
        {b"l": b"letc", b"etc": b"d", b"etc/passwd": b"w"},
        *(folder(b"etc"), symlink(b"l", b"etc"), file(b"l/.wh.passwd", b"")),
        base=True,
    ),
    refused(
        "whiteout through a link out",
        "whose target the layer lacks",
        symlink(b"l", OUTSIDE),
        file(b"l/.wh.file", b""),
        base=True,
    ),
    refused("whiteout of nothing", "whiteout of nothing", file(b".wh.", b""), base=True),
    refused("whiteout of the folder", "whiteout of nothing", file(b"etc/.wh..", b""), base=True),
    refused("whiteout of the folder above", "whiteout of nothing", file(b"etc/.wh...", b""), base=True),
    refused("file below a whiteout", "lies below a whiteout", file(b".wh.etc/x"), base=True),
    refused("opaque mark below a whiteout", "lies below a whiteout", file(b".wh.etc/.wh..wh..opq", b""), base=True),
    taken("opaque mark below aufs's own folder", {}, file(b".wh..wh.plnk/.wh..wh..opq", b""), base=True),
    taken(
        "aufs's own files",
        {b"a": b"fx"},
        file(b".wh..wh.aufs"),
        folder(b".wh..wh.plnk"),
        file(b".wh..wh.plnk/9"),
        file(b"a"),
    ),
    taken("whiteout of what the same layer has", {b"top": b"fx"}, file(b"top"), file(b".wh.top", b""), base=True),
    taken(
        "whiteout before a folder of its name",
        {b"etc": b"D", b"etc/x": b"fx"},
        file(b".wh.etc", b""),
        file(b"etc/x"),
        base=True,
    ),
    taken(
        "opaque mark in a file of the same layer's name",
        {b"etc": b"D"},
        *(file(b"etc"), folder(b"etc"), file(b"etc/.wh..wh..opq", b"")),
        base=True,
    ),
    refused(
        "opaque mark below a file", "which is no directory", file(b"etc"), file(b"etc/.wh..wh..opq", b""), base=True
    ),
    taken("whiteouts without a lower layer", {}, file(b".wh.a", b""), file(b".wh..wh..opq", b"")),
    taken("overlayfs's own whiteout", {b"top": b"w"}, header(b"top", b"3"), base=True),
    taken(
        "overlayfs's own attributes",
        {b"etc": b"d"},
        pax(
            (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
            (b"SCHILY.xattr.trusted.overlay.redirect", b"/"),
            (b"SCHILY.xattr.user.overlay.opaque", b"y"),
        ),
        folder(b"etc"),
        base=True,
    ),
    taken("whiteout that carries content", {b"top": b"w"}, file(b".wh.top", b"x" * 1000), base=True),
    taken("whiteout that is a folder", {b"top": b"w"}, folder(b".wh.top"), base=True),
]

NAMES = [
    refused("zero byte in a name", "zero byte", pax((b"path", b"a\0/../../x")), file(b"a")),
    refused("name of a megabyte", "can't be made: File name too long", long_name(b"n" * ((1 << 20) - 1)), file(b"")),
    refused("name longer than any header may be", "too large", long_name(b"n" * (2 << 20)), file(b"")),
    refused("nesting of half a million", "File name too long", long_name(b"a/" * 500_000), folder(b"")),
    refused("name of 256 bytes", "File name too long", long_name(b"n" * 256), file(b"")),
    taken("name of 255 bytes", {b"n" * 255: b"fx"}, long_name(b"n" * 255), file(b"")),
    taken(
        DEEP,
        {b"/".join([b"d"] * depth): b"d" for depth in range(1, 1501)},
        *(long_name(NESTED), folder(b"")),
    ),
    taken("name that isn't UTF-8", {b"\xff\xfe": b"fx"}, file(b"\xff\xfe")),
    taken("name of control characters", {b"\x1b[2J\n\r": b"fx"}, file(b"\x1b[2J\n\r")),
    taken("GNU's name over pax's", {b"gnu": b"fx"}, long_name(b"gnu"), pax((b"path", b"pax")), file(b"old")),
    taken("pax name taken back", {b"old": b"fx"}, pax((b"path", b"")), file(b"old")),
    taken(
        "pax header for all that follows",
        {b"old": b"fx"},
        pax((b"path", b"../x"), (b"size", b"9"), kind=b"g"),
        file(b"old"),
    ),
    refused("pax header twice, then nothing", "before no entry", pax((b"path", b"a")), pax((b"path", b"b"))),
    taken("prefix that goes up inside", {b"x": b"fx"}, file(b"x", prefix=b"a/..")),
    refused("prefix that leads out", "leads out", file(b"x", prefix=b"..")),
]

NUMBERS = [
    taken(
        "size by pax below the header's",
        {b"a": b"fshort"},
        pax((b"size", b"5")),
        header(b"a", size=BLOCK) + content(b"short"),
    ),
    taken(
        "entries hidden behind a size of zero",
        {b"outer": b"f" + SMUGGLED},
        *(pax((b"size", b"%d" % len(SMUGGLED))), header(b"outer", size=0), SMUGGLED),
    ),
    refused("size by pax that is negative", "not a decimal number", pax((b"size", b"-5")), file(b"a")),
    refused("size by pax of thirty digits", "not a decimal number", pax((b"size", b"9" * 30)), file(b"a")),
    refused("size that is negative", "negative size", header(b"a", size=base_256(-1, 12))),
    refused("size of 2**80", "no honest layer|ends inside", header(b"a", size=base_256(1 << 80, 12))),
    refused("size of letters", "no number", header(b"a", size=b"abcdefghijkl")),
    refused("size in digits that aren't octal", "no octal number", header(b"a", size=b"00000000089\0")),
    refused("owner of 2**40", "which no system knows", file(b"a", uid=base_256(1 << 40, 8))),
    refused("owner of 2**32 - 1", "which no system knows", pax((b"uid", b"4294967295")), file(b"a")),
    refused("owner of 2**40 for the root", "which no system knows", folder(b"./", uid=base_256(1 << 40, 8))),
    refused(
        "group of 2**63 for the root", "which no system knows", pax((b"gid", b"9223372036854775808")), folder(b"./")
    ),
    refused("device number of 2**40", "device number", header(b"c", b"3", device=(base_256(1 << 40, 8), 1))),
    refused(
        "device number of twenty digits",
        "device number",
        pax((b"SCHILY.devminor", b"9" * 20)),
        header(b"c", b"3", device=(1, 1)),
    ),
    refused("device number past twelve bits", "device number", header(b"c", b"3", device=(5000, 1))),
    taken(
        "times at the ends of what counts",
        {b"a": b"fx", b"b": b"fx"},
        file(b"a", mtime=base_256(-(1 << 62), 12)),
        pax((b"mtime", b"9" * 19)),
        file(b"b"),
    ),
    refused("time that is none", "not a time", pax((b"mtime", b"1.x")), file(b"a")),
    refused("content of a folder", "carries content", header(b"d/", b"5", size=5) + content(b"hello")),
    refused("content of a link", "carries content", header(b"d", b"2", size=5, link=b"x") + content(b"hello")),
    refused(
        "content of a pipe, by pax", "carries content", pax((b"size", b"5")), header(b"d", b"6") + content(b"hello")
    ),
]

SPARSE = [
    refused("pieces that overlap", "out of order", sparse(b"a", octal(4096, 12), piece(0, 5) + piece(3, 5), b"x" * 10)),
    refused(
        "pieces in reverse", "out of order", sparse(b"a", octal(4096, 12), piece(1024, 5) + piece(0, 5), b"x" * 10)
    ),
    refused("piece beyond the end", "out of order", sparse(b"a", octal(100, 12), piece(99, 5), b"x" * 5)),
    refused("pieces of more than there is", "doesn't fit", sparse(b"a", octal(4096, 12), piece(0, 500), b"x" * 10)),
    refused("pieces of less than there is", "doesn't fit", sparse(b"a", octal(4096, 12), piece(0, 5), b"x" * 10)),
    refused("a hole of 2**62", "can't be made|too large", sparse(b"a", base_256(1 << 62, 12), b"")),
    refused("a hole of 2**63", "can't be made|too large", sparse(b"a", base_256(1 << 63, 12), b"")),
    refused(
        "a hole of 2**66 by pax",
        "can't be made|too large",
        pax((b"GNU.sparse.size", b"%d" % (1 << 66)), (b"GNU.sparse.map", b"%d,1" % (1 << 65))),
        file(b"a"),
    ),
    refused(
        "map that promises a quintillion pieces",
        "too many pieces",
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")),
        file(b"a", b"999999999999999999\n".ljust(BLOCK, b"0")),
    ),
    refused(
        "map without an end",
        "can't be read|too many|decimal",
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")),
        file(b"a", b"1" * 2048),
    ),
    refused("map without a size", "lacks its size", pax((b"GNU.sparse.map", b"0,1")), file(b"a")),
    refused(
        "sparse folder",
        "is sparse and no regular file",
        pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"")),
        folder(b"d"),
    ),
    refused(
        "sparse name that leads out",
        "leads out",
        pax((b"GNU.sparse.name", b"../x"), (b"GNU.sparse.size", b"1"), (b"GNU.sparse.map", b"0,1")),
        file(b"a"),
    ),
]

FORMS = [
    refused("wrong checksum", "checksum", file(b"a"), file(b"b", checksum=b"000001\0 ")),
    refused("header cut short", "ends inside a header", file(b"a"), file(b"b")[:300], end=b""),
    refused("content cut short", "ends inside", header(b"a", size=5000) + b"x" * 700, end=b""),
    refused("extended header cut short", "ends inside", pax((b"path", b"a" * 600))[:700], end=b""),
    refused("ends after an extended header", "after an extended header", pax((b"path", b"a")), end=b""),
    taken("no end", {b"a": b"fx"}, file(b"a"), end=b""),
    taken("entries after the end", {b"a": b"fx"}, file(b"a"), END, file(b"b")),
    taken("rubbish after the end", {b"a": b"fx"}, file(b"a"), END, b"\xff" * 3000),
    taken("nothing at all", {}, end=b""),
    refused("no archive", "checksum", b"<html>" * 300, end=b""),
    refused("unknown type", "type 'Z'", header(b"a", b"Z")),
    refused("part of another volume", "type 'M'", header(b"a", b"M", size=1) + content(b"x")),
    refused("a GNU list of names", "type 'D'", header(b"a/", b"D", size=2) + content(b"Yx")),
    refused("extended header of two megabytes", "too large", pax(raw=b"\0" * (2 << 20)), file(b"a")),
    refused("record longer than its header", "can't be read", pax(raw=b"99 path=x\n"), file(b"a")),
    refused("record of length zero", "can't be read", pax(raw=b"0 path=x\n"), file(b"a")),
    refused("record of negative length", "decimal", pax(raw=b"-9 path=x\n"), file(b"a")),
    refused("record without a line's end", "can't be read", pax(raw=b"9 path=xyz"), file(b"a")),
    refused("record without a key", "can't be read", pax(raw=b"5 =x\n"), file(b"a")),
    refused("attribute of 100 KB", "attribute", pax((b"SCHILY.xattr.user.a", b"v" * 100_000)), file(b"a")),
    taken(
        "attributes without a name, with a strange one",
        {b"a": b"fx"},
        pax((b"SCHILY.xattr.", b"v"), (b"SCHILY.xattr.user.", b"v"), (b"SCHILY.xattr.security.ima", b"v")),
        file(b"a"),
    ),
    taken(
        "capabilities that are none", {b"a": b"fx"}, pax((b"SCHILY.xattr.security.capability", b"rubbish")), file(b"a")
    ),
    refused("attribute in broken base64", "can't be read", pax((b"LIBARCHIVE.xattr.user.a", b"A")), file(b"a")),
]

HOSTILE = [*PLACES, *LINKS, *WHITEOUTS, *NAMES, *NUMBERS, *SPARSE, *FORMS]
assert len({case.name for case in HOSTILE}) == len(HOSTILE)
# Those whose tree any program can take away again.
TAKEN = [case for case in HOSTILE if not case.refused and case.name != DEEP]
