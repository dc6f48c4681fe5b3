"""SHA-256 of what is short is that of hashlib, which is loaded once there is much."""

from __future__ import annotations

import hashlib
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.short_hash import hasher, hex_of


@given(st.binary(max_size=1000), st.binary(max_size=1000))
def test_it_is_hashlibs(begin: bytes, more: bytes) -> None:
    one = hasher(len(more), begin)
    one.update(more)
    assert one.hexdigest() == hex_of(begin + more) == hashlib.sha256(begin + more).hexdigest()


def test_openssl_is_loaded_where_there_is_much() -> None:
    script = (
        "import sys\n"
        "from cellwall.runtime.short_hash import hasher, hex_of\n"
        "few = [hex_of(b'%d' % number) for number in range(100)]\n"
        "assert 'hashlib' not in sys.modules\n"
        "much = [hasher(1 << 10) for _ in range(1 << 10)]\n"
        "assert 'hashlib' in sys.modules\n"
        "assert [hex_of(b'%d' % number) for number in range(100)] == few\n"
        "assert hasher(1 << 40).hexdigest() == much[0].hexdigest() == much[-1].hexdigest()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
