from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.errors import InvalidReference
from cellwall.runtime.images.digest import Digest
from cellwall.runtime.images.reference import HOST, LocalSource, Reference, parse_image

DIGEST = str(Digest.of(b""))


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04", "ubuntu:24.04"),
        ("training/webapp", "docker.io/training/webapp:latest", "training/webapp:latest"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("index.docker.io/library/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest", "127.0.0.1:5000/a/b/c:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        ("REGISTRY/x", "REGISTRY/x:latest", "REGISTRY/x:latest"),
        ("quay.io/podman/stable", "quay.io/podman/stable:latest", "quay.io/podman/stable:latest"),
        (f"ubuntu@{DIGEST}", f"docker.io/library/ubuntu@{DIGEST}", f"ubuntu@{DIGEST}"),
        (f"ubuntu:1@{DIGEST}", f"docker.io/library/ubuntu:1@{DIGEST}", f"ubuntu:1@{DIGEST}"),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest", "a__b/c-d.e:latest"),
        # Read back, ``library/x/y`` and ``x/y`` are two repositories, and ``my.org/x`` would be a host.
        ("library/x/y", "docker.io/library/x/y:latest", "library/x/y:latest"),
        ("docker.io/my.org/x", "docker.io/my.org/x:latest", "docker.io/my.org/x:latest"),
    ],
)
def test_names_as_docker_reads_them(text: str, full: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.familiar() == familiar
    assert Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a name is needed|image name is needed"),
        ("Ubuntu", "lower case"),
        ("ubuntu:", "isn't a tag"),
        ("ubuntu:-1", "isn't a tag"),
        ("ubuntu:" + "x" * 129, "isn't a tag"),
        ("ubuntu:1\n", "isn't a tag"),
        ("ubuntu:l\u0661", "isn't a tag"),
        ("a//b", "repository name"),
        ("a/../b", "repository name"),
        ("-a", "repository name"),
        ("http://x/y", "host name|repository name"),
        ("x@sha256:123", "64 lower-case"),
        ("x@latest", "isn't a digest"),
        ("x" * 256, "longer than"),
        ("f" * 64, "image id"),
        ("a b", "repository name"),
        ("localhost:65536/x", "host name, with or without a port"),
        ("localhost:0/x", "host name, with or without a port"),
    ],
)
def test_what_isn_t_a_name(text: str, said: str) -> None:
    with pytest.raises(InvalidReference, match=said):
        Reference.parse(text)


component = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
host = st.sampled_from(["docker.io", "localhost", "localhost:5000", "127.0.0.1:1", "quay.io", "[::1]:443", "Upper"])
tag = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(host, st.lists(component, min_size=1, max_size=4), st.none() | tag, st.booleans())
def test_every_form_of_a_reference_reads_back(domain: str, parts: list[str], tag: str | None, pinned: bool) -> None:
    path = "/".join(parts)
    if domain == "docker.io" and len(parts) == 1:
        path = f"library/{path}"
    if tag is None:
        pinned = True
    reference = Reference(domain, path, tag, Digest(DIGEST) if pinned else None)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar()) == reference


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference as err:
        assert "\n" not in str(err)
        return
    assert Reference.parse(str(reference)) == reference
    assert ".." not in reference.path.split("/")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("host", HOST),
        ("oci:/a/b", LocalSource("oci", Path("/a/b"))),
        ("oci:/a/b:1.0", LocalSource("oci", Path("/a/b"), "1.0")),
        ("oci:/a/b:docker.io/library/x:1", LocalSource("oci", Path("/a/b"), "docker.io/library/x:1")),
        ("oci-archive:/x.tar", LocalSource("oci-archive", Path("/x.tar"))),
        ("docker-archive:/x.tar:busybox:1", LocalSource("docker-archive", Path("/x.tar"), "busybox:1")),
        ("docker-archive:x.tar", LocalSource("docker-archive", Path.cwd() / "x.tar")),
    ],
)
def test_images_on_this_machine(text: str, source: LocalSource) -> None:
    found = parse_image(text)
    assert found == source
    assert parse_image(str(found)) == found


def test_a_source_needs_a_path() -> None:
    with pytest.raises(InvalidReference, match="a path is needed"):
        parse_image("oci:")


def test_other_names_are_references() -> None:
    assert parse_image("ubuntu") == Reference.parse("ubuntu")
    assert parse_image("docker://quay.io/x:1") == Reference.parse("quay.io/x:1")
    assert parse_image("host/x") == Reference.parse("host/x")


ALIASES = {"ubuntu64": "docker.io/library/ubuntu", "lab": "quay.io/lab/base:7"}


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("ubuntu64", "docker.io/library/ubuntu:latest"),
        ("ubuntu64:22.04", "docker.io/library/ubuntu:22.04"),
        (f"ubuntu64@{DIGEST}", f"docker.io/library/ubuntu@{DIGEST}"),
        ("lab", "quay.io/lab/base:7"),
        ("lab:8", "quay.io/lab/base:8"),
        ("x/lab", "docker.io/x/lab:latest"),
    ],
)
def test_aliases(text: str, full: str) -> None:
    assert str(parse_image(text, ALIASES)) == full
