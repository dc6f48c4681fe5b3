"""Pieces that image references are made of, right and wrong."""

from __future__ import annotations

import random

pieces = [
    *(
        "a",
        "b",
        "a1",
        "0",
        "ab",
        "A",
        "Lab",
        "/",
        "/",
        "//",
        ":",
        ":",
        ":1",
        ":t",
        ":5000/",
        ":0/",
        ":65536/",
        ".",
        "..",
        "-",
        "--",
    ),
    *(
        "_",
        "__",
        "___",
        "@",
        f"@sha256:{'0' * 64}",
        "@sha256:0",
        f"@sha512:{'a' * 128}",
        "localhost/",
        "docker.io/",
        "index.docker.io/",
    ),
    *("library/", "[::1]", "[::1]:5/", "quay.io/x", "\u00e9", "\n", " ", "\0", "\ud800", "f" * 64, "x" * 128, "%"),
]


def samples(count: int) -> list[str]:
    """Made of ASCII pieces; the same each time."""
    chance = random.Random(5)
    plain = [piece for piece in pieces if piece.isascii() and "\0" not in piece and "\n" not in piece]
    words = ["a", "ab", "a1", "0", "x" * 20, "localhost", "quay.io"]
    between = ["/", "/", ".", "-", "--", "_", "__", ":5000/", ":", "_.", "___"]
    made = []
    for number in range(count):
        if number % 4 == 0:
            made.append("".join(chance.choices(plain, k=chance.randint(1, 5))))
        else:
            rest = [chance.choice(between) + chance.choice(words) for _ in range(chance.randint(0, 3))]
            made.append(chance.choice(words) + "".join(rest))
    return made
