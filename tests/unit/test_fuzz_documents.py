"""JSON and headers from registries, archives and auth files, in every wrong shape: the project's own errors, on one line."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cellwall.runtime.errors import CellwallError, ImageError
from cellwall.runtime.images.auth import find_credentials
from cellwall.runtime.images.catalog import Catalog
from cellwall.runtime.images.challenge import Challenge, read_challenges, token_url
from cellwall.runtime.images.history import dockerfile, steps
from cellwall.runtime.images.image import read_config
from cellwall.runtime.images.layout import Layout
from cellwall.runtime.images.manifest import OCI_INDEX, OCI_MANIFEST, Manifest, read_manifest, read_manifest_or_index
from cellwall.runtime.images.platforms import Platform
from cellwall.runtime.options import RunOptions
from cellwall.runtime.spec import command_of

from ..registries import make_image, make_index, tar_of, write_layout

IMAGE = make_image(
    [tar_of({"a": b"1"}), tar_of({"b": b"2"})],
    config={
        "User": "1:1",
        "WorkingDir": "/w",
        "Entrypoint": ["e"],
        "Labels": {"a": "b"},
        "Volumes": {"/v": {}},
        "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGTERM",
        "OnBuild": ["RUN x"],
        "Shell": ["sh"],
    },
)
MANIFEST: dict[str, Any] = json.loads(IMAGE.manifest)
CONFIG: dict[str, Any] = json.loads(IMAGE.config)
INDEX: dict[str, Any] = json.loads(make_index({"linux/amd64": IMAGE, "linux/arm/v7": IMAGE}))

odd_text = st.sampled_from(["", "\0", "\ud800", "\x1b[31m\n", "sha256:", "é" * 9, "/", "..", "x" * 3000]) | st.text(
    max_size=5
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 1 << 63, 0, -1]),
    st.floats(),
    odd_text,
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=3), max_leaves=6
)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within a document."""
    yield above
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from places(below, (*above, key))


def changed(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy of the document with another value at one place."""
    if not place:
        return value
    made = copy.deepcopy(document)
    here = made
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = value
    return made


def spoilt(document: Any) -> st.SearchStrategy[Any]:
    """The document with one value replaced by any other, or with a key too many."""
    replaced = st.builds(changed, st.just(document), st.sampled_from(list(places(document))), values)
    return replaced | st.builds(lambda key, value: {**document, key: value}, odd_text | st.just("manifests"), values)


def one_line(error: Exception) -> None:
    assert isinstance(error, CellwallError), repr(error)
    assert str(error).isprintable() and len(str(error)) < 1000, str(error)


def raw(document: Any) -> bytes:
    # Python's own NaN and Infinity are among what a registry may send, and so are halves of surrogate pairs.
    try:
        return json.dumps(document).encode()
    except ValueError:  # an int that is too long for text
        return b"1" * 5000


@settings(max_examples=250, deadline=None)
@given(spoilt(MANIFEST) | spoilt(INDEX) | values, st.sampled_from([OCI_MANIFEST, OCI_INDEX, "", "text/html", "a;b"]))
@example(changed(MANIFEST, ("config", "mediaType"), "\x1b[31m\nx"), "")
@example(changed(MANIFEST, ("mediaType",), "\x1b[31m"), OCI_INDEX)
@example(changed(INDEX, ("manifests", 0, "platform", "variant"), "v\u00b2"), OCI_INDEX)
def test_any_manifest_is_read_or_refused(document: Any, media_type: str) -> None:
    try:
        found = read_manifest_or_index(raw(document), media_type, "here")
    except CellwallError as error:
        one_line(error)
        return
    if isinstance(found, Manifest):
        again = found.as_oci()
        assert [layer.digest for layer in again.layers] == [layer.digest for layer in found.layers]
        assert read_manifest(again.raw, OCI_MANIFEST).config.digest == found.config.digest
        return
    assert all(str(platform).isprintable() for platform in found.platforms())
    for wanted in ("linux/amd64", "linux/arm/v7", "linux/arm/v99999999999"):
        found.select(Platform.parse(wanted))


@settings(max_examples=300, deadline=None)
@given(spoilt(CONFIG) | values)
@example(changed(CONFIG, ("config", "Env", 0), "A=\0"))
@example(changed(CONFIG, ("config", "Labels", "a"), 5))
@example(changed(CONFIG, ("config", "OnBuild"), "RUN"))
def test_any_config_is_read_or_refused(document: Any) -> None:
    manifest = read_manifest(IMAGE.manifest, OCI_MANIFEST)
    try:
        config, layers = read_config(raw(document), manifest, "here")
    except CellwallError as error:
        one_line(error)
        return
    assert len(layers) == 2
    inner = config.get("config") or {}
    words = command_of(RunOptions(image="x"), config)
    assert all(isinstance(word, str) and "\0" not in word for word in [*words, *(inner.get("Env") or [])])
    assert all(isinstance(value, str) for value in (inner.get("Labels") or {}).values())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spoilt(
        {
            "schemaVersion": 2,
            "manifests": [
                {**INDEX["manifests"][0], "annotations": {"org.opencontainers.image.ref.name": "docker.io/library/x:1"}}
            ],
        }
    )
)
def test_any_index_of_a_store_is_read_or_refused(tmp_path: Path, document: Any) -> None:
    folder = write_layout(tmp_path / "layout", {"x": IMAGE})
    (folder / "index.json").write_bytes(raw(document))
    layout = Layout(folder)
    try:
        catalog = Catalog(layout)
        for _, image in catalog.readable():
            assert [step.created_by for step in steps(image)] == ["layer 0", "layer 1"]
            assert dockerfile(image)
        layout.reached_blobs()
    except CellwallError as error:
        one_line(error)
    # Nothing is deleted where it can't be known what is needed.
    layout.sweep(set, lambda name: True, lambda name, chain_id: True)
    if isinstance(document, dict) and document.get("manifests") == INDEX["manifests"]:
        assert layout.has_blob(read_manifest(IMAGE.manifest, OCI_MANIFEST).config.digest, len(IMAGE.config))


@pytest.mark.parametrize(
    "text", [b"[" * 200_000, b'{"a":' * 100_000, b"1" * 10_000, b"NaN", b"\xff\xfe", b'"\xff"', b""]
)
def test_deep_long_and_no_json(text: bytes, tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        read_manifest_or_index(text, OCI_MANIFEST, "here")
    with pytest.raises(ImageError):
        read_config(text, read_manifest(IMAGE.manifest, OCI_MANIFEST), "here")
    file = tmp_path / "auth.json"
    file.write_bytes(text)
    try:
        assert find_credentials("h.io", "x", {"REGISTRY_AUTH_FILE": str(file), "HOME": str(tmp_path)}) is None
    except ImageError as error:
        one_line(error)


def test_the_last_of_two_keys_counts_as_in_go() -> None:
    twice = IMAGE.manifest.replace(b'{"schemaVersion": 2,', b'{"schemaVersion": 2, "layers": [], "config": {},', 1)
    found = read_manifest_or_index(twice, OCI_MANIFEST, "here")
    assert isinstance(found, Manifest) and len(found.layers) == 2


AUTH = {
    "auths": {"h.io": {"auth": "dTpw", "identitytoken": "t"}, "https://h.io/v1/": {"username": "u", "password": "p"}},
    "credHelpers": {"other.io": "none-such"},
    "credsStore": "",
}


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spoilt(AUTH) | values)
@example({"auths": {"h.io": {"auth": "é"}}})
@example({"auths": {"h.io": {"username": "\ud800", "password": "p"}}})
@example({"credsStore": "a\0b"})
@example({"credsStore": "a\ud800"})
@example({"credsStore": "a" * 5000})
def test_any_auth_file_gives_credentials_or_one_line(tmp_path: Path, document: Any) -> None:
    file = tmp_path / "auth.json"
    file.write_bytes(raw(document))
    try:
        found = find_credentials("h.io", "x/y", {"REGISTRY_AUTH_FILE": str(file), "HOME": str(tmp_path)})
    except ImageError as error:
        one_line(error)
        return
    if found is not None:
        assert found.basic().isascii()
        found.identity_token.encode()


def test_an_auth_file_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a directory"):
        find_credentials("h.io", "x", {"REGISTRY_AUTH_FILE": str(tmp_path), "HOME": str(tmp_path)})


@pytest.mark.parametrize(
    "answer", ['{"Username": 5, "Secret": "s"}', '{"Username": "u", "Secret": null}', "[" * 99_999, "\xff"]
)
def test_a_helper_that_answers_nonsense(answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "answer").write_text(answer, encoding="latin-1")
    helper = tmp_path / "docker-credential-odd"
    helper.write_text(f"#!/bin/sh\ncat {tmp_path}/answer\n")
    (tmp_path / "config.json").write_text('{"credsStore": "odd"}')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    environment = {"DOCKER_CONFIG": str(tmp_path), "HOME": str(tmp_path)}
    with pytest.raises(ImageError, match="can't be started: permission denied|isn't installed"):
        find_credentials("h.io", "x", environment)
    helper.chmod(0o755)
    with pytest.raises(ImageError, match="answered nonsense"):
        find_credentials("h.io", "x", environment)


pieces = st.sampled_from(
    [
        "Bearer",
        "basic",
        'realm="',
        "realm=",
        '"',
        ",",
        "=",
        " ",
        "\t",
        "\\",
        "https://a",
        "https://[",
        "scope",
        "é",
        "\0",
    ]
)


@given(st.lists(st.lists(pieces, max_size=12).map("".join) | st.text(max_size=20), max_size=3))
@example(["Bearer realm=https://["])
def test_any_challenge_is_read(headers: list[str]) -> None:
    for found in read_challenges(headers):
        assert re.fullmatch(r"[a-z][a-z0-9._~+-]*", found.scheme)
        for plain in (True, False):
            url = token_url(found.parameters.get("realm", ""), plain_allowed=plain)
            assert not url or url.startswith(("https://", "http://")) or ":" in url


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(st.characters(codec="ascii"), max_size=20), max_size=4
    )
)
def test_a_challenge_that_is_written_is_read_back(parameters: dict[str, str]) -> None:
    written = ", ".join('{}="{}"'.format(key, re.sub(r'(["\\])', r"\\\1", value)) for key, value in parameters.items())
    if "\n" in written or "\r" in written:
        return
    assert read_challenges([f"Bearer {written}"]) == [Challenge("bearer", parameters)]


@pytest.mark.parametrize("text", [" ", " ,", ", ", "a", "a=", 'a="', "a=\\", "\t", "a b=c,"])
def test_no_challenge_takes_for_ever(text: str) -> None:
    """Two runs of blanks that may follow each other would take hours for this many, where one takes none."""
    for end in ("", "!", '"'):
        read_challenges([f"Bearer {text * 200_000}{end}"])
