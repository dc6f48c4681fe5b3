from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.errors import ImageError
from cellwall.runtime.images.auth import auth_files, find_credentials
from cellwall.runtime.images.challenge import read_challenges, token_url


def encoded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def write(path: Path, document: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


def test_where_docker_and_podman_keep_them(tmp_path: Path, environment: dict[str, str]) -> None:
    assert auth_files(environment) == [
        tmp_path / "run/containers/auth.json",
        tmp_path / "home/.config/containers/auth.json",
        tmp_path / "home/.docker/config.json",
    ]
    chosen = environment | {"REGISTRY_AUTH_FILE": "/a/auth.json", "DOCKER_CONFIG": "/d"}
    assert auth_files(chosen) == [Path("/a/auth.json"), Path("/d/config.json")]


def test_without_any_file_it_is_asked_anonymously(environment: dict[str, str]) -> None:
    assert find_credentials("quay.io", "a/b", environment) is None


def test_podman_s_file_comes_before_docker_s(tmp_path: Path, environment: dict[str, str]) -> None:
    write(tmp_path / "home/.docker/config.json", {"auths": {"quay.io": {"auth": encoded("docker", "d")}}})
    found = find_credentials("quay.io", "a/b", environment)
    assert found is not None and (found.username, found.password) == ("docker", "d")
    file = write(tmp_path / "run/containers/auth.json", {"auths": {"quay.io": {"auth": encoded("podman", "p:q")}}})
    found = find_credentials("quay.io", "a/b", environment)
    assert found is not None and (found.username, found.password, found.origin) == ("podman", "p:q", str(file))


def test_the_most_particular_name_wins(tmp_path: Path, environment: dict[str, str]) -> None:
    auths = {"quay.io": "host", "quay.io/a": "org", "quay.io/a/b": "repository"}
    write(
        tmp_path / "run/containers/auth.json",
        {"auths": {key: {"auth": encoded(user, "x")} for key, user in auths.items()}},
    )
    for path, user in (("a/b", "repository"), ("a/c", "org"), ("z", "host"), ("ab", "host")):
        found = find_credentials("quay.io", path, environment)
        assert found is not None and found.username == user, path


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io"])
def test_docker_hub_s_names(tmp_path: Path, environment: dict[str, str], key: str) -> None:
    write(tmp_path / "home/.docker/config.json", {"auths": {key: {"auth": encoded("hub", "x")}}})
    found = find_credentials("docker.io", "library/ubuntu", environment)
    assert found is not None and found.username == "hub"


@pytest.mark.parametrize("key", ["https://r.example:5000", "http://r.example:5000/v2/", "r.example:5000"])
def test_a_registry_s_whole_url(tmp_path: Path, environment: dict[str, str], key: str) -> None:
    write(tmp_path / "home/.docker/config.json", {"auths": {key: {"username": "u", "password": "p"}}})
    found = find_credentials("r.example:5000", "x", environment)
    assert found is not None and found.basic() == f"Basic {encoded('u', 'p')}"


def test_an_identity_token_stands_for_the_password(tmp_path: Path, environment: dict[str, str]) -> None:
    entry = {"auth": encoded("u", ""), "identitytoken": "refresh me"}
    write(tmp_path / "home/.docker/config.json", {"auths": {"r.example": entry}})
    found = find_credentials("r.example", "x", environment)
    assert found is not None and (found.username, found.identity_token) == ("u", "refresh me")


def test_secrets_stay_out_of_the_repr(tmp_path: Path, environment: dict[str, str]) -> None:
    entry = {"auth": encoded("u", "hunter2"), "identitytoken": "hunter3"}
    write(tmp_path / "home/.docker/config.json", {"auths": {"a": entry, "b": {"auth": encoded("u", "hunter2")}}})
    for domain in ("a", "b"):
        assert "hunter" not in repr(find_credentials(domain, "x", environment))


@pytest.mark.parametrize(
    ("content", "said"), [("{", "isn't JSON"), ('{"auths": {"r.example": {"auth": "%%%"}}}', "isn't base64")]
)
def test_a_broken_file_is_named(tmp_path: Path, environment: dict[str, str], content: str, said: str) -> None:
    file = tmp_path / "home/.docker/config.json"
    write(file, {}).write_text(content)
    with pytest.raises(ImageError, match=said) as caught:
        find_credentials("r.example", "x", environment)
    assert str(file) in str(caught.value)


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real credential helper, on the path: it answers from files beside it, named by host."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "docker-credential-lab"
    program.write_text(
        '#!/bin/sh\nread -r host\ncd "$(dirname "$0")"\n'
        'if [ "$1" = get ] && [ -f "$host" ]; then cat "$host"; else echo "credentials not found in native keychain"; exit 1; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_helpers(tmp_path: Path, environment: dict[str, str], helper: Path) -> None:
    (helper / "quay.io").write_text('{"ServerURL": "quay.io", "Username": "q", "Secret": "s"}')
    (helper / "gcr.io").write_text('{"ServerURL": "gcr.io", "Username": "<token>", "Secret": "t"}')
    write(tmp_path / "home/.docker/config.json", {"credHelpers": {"quay.io": "lab"}, "credsStore": "lab"})
    by_helper = find_credentials("quay.io", "x", environment)
    assert by_helper is not None and (by_helper.username, by_helper.password) == ("q", "s")
    by_store = find_credentials("gcr.io", "x", environment)
    assert by_store is not None and (by_store.identity_token, by_store.password) == ("t", "")
    assert find_credentials("unknown.example", "x", environment) is None


def test_a_helper_that_answers_nonsense(tmp_path: Path, environment: dict[str, str], helper: Path) -> None:
    (helper / "quay.io").write_text("hello")
    write(tmp_path / "home/.docker/config.json", {"credHelpers": {"quay.io": "lab"}})
    with pytest.raises(ImageError, match="docker-credential-lab answered nonsense for quay.io"):
        find_credentials("quay.io", "x", environment)


@pytest.mark.parametrize(("name", "said"), [("gone", "isn't installed"), ("../../bin/sh", "isn't the name")])
def test_a_helper_that_isn_t_there(tmp_path: Path, environment: dict[str, str], name: str, said: str) -> None:
    write(tmp_path / "home/.docker/config.json", {"credsStore": name})
    with pytest.raises(ImageError, match=said):
        find_credentials("quay.io", "x", environment)


def test_challenges() -> None:
    found = read_challenges(
        [
            'Bearer realm="https://auth.example/token?a=1,2",service="reg, the \\"first\\"",scope=repository:x:pull',
            'Negotiate, Basic realm="x"',
            "???",
        ]
    )
    assert [(challenge.scheme, challenge.parameters) for challenge in found] == [
        (
            "bearer",
            {"realm": "https://auth.example/token?a=1,2", "service": 'reg, the "first"', "scope": "repository:x:pull"},
        ),
        ("negotiate", {}),
        ("basic", {"realm": "x"}),
    ]
    assert read_challenges([]) == read_challenges([""]) == []


def test_where_credentials_may_go() -> None:
    assert token_url("https://auth.example/t", plain_allowed=False)
    assert not token_url("http://auth.example/t", plain_allowed=False)
    assert token_url("http://127.0.0.1:5/t", plain_allowed=True)
    for realm in ("file:///etc/passwd", "ftp://x/y", "https:///nohost", "/token"):
        assert not token_url(realm, plain_allowed=True)
