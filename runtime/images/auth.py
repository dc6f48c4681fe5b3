"""Credentials for registries, from the files and helpers that docker and podman keep them in. Nothing is ever written.

Source: docker-login(1), the protocol of docker-credential-helpers, containers-auth.json(5).
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ImageError
from ..frozen import field, frozen

_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")
# A helper may ask a keyring or a cloud's token service, but not for ever.
_HELPER_TIMEOUT_S = 30.0


@frozen
class Credentials:
    """``identity_token`` is a refresh token (OAuth 2) that stands in for the password. Secrets stay out of the repr."""

    username: str
    password: str = field(repr=False, default="")
    identity_token: str = field(repr=False, default="")
    origin: str = ""

    def basic(self) -> str:
        """The value of an Authorization header. Source: RFC 7617."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def auth_files(environment: Mapping[str, str] | None = None) -> list[Path]:
    """The files that may hold credentials, in the order they are asked."""
    env = os.environ if environment is None else environment
    home = Path(env.get("HOME") or os.path.expanduser("~"))
    if chosen := env.get("REGISTRY_AUTH_FILE"):
        found = [Path(chosen)]
    else:
        # podman keeps root's file in /run/containers where there is no session.
        runtime = Path(env.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.geteuid()}")
        config = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
        found = [folder / "containers" / "auth.json" for folder in (runtime, config)]
    return [*found, Path(env.get("DOCKER_CONFIG") or home / ".docker") / "config.json"]


def find_credentials(domain: str, path: str, environment: Mapping[str, str] | None = None) -> Credentials | None:
    """The credentials for the repository ``path`` at ``domain``, or None: then it is asked anonymously.

    Raises ImageError where a file or helper is there but can't be used, with the file's name.
    """
    for file in auth_files(environment):
        try:
            raw = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as err:
            raise ImageError(f"can't read the credentials in {file}: {(err.strerror or '').lower()}") from err
        try:
            document = json.loads(raw or b"{}")
        except (ValueError, RecursionError) as err:
            raise ImageError(f"the credentials file {file} isn't JSON: log in again to write it afresh") from err
        if isinstance(document, dict):
            found = _in_document(document, file, domain, path)
            if found is not None:
                return found
    return None


def _names(domain: str, path: str) -> list[str]:
    """The keys that may hold the credentials, most particular first. podman's may name a repository or part of one."""
    parts = path.split("/")
    particular = ["/".join([domain, *parts[:count]]) for count in range(len(parts), 0, -1)]
    hosts = [_HUB_KEY, *_HUB_HOSTS] if domain in _HUB_HOSTS else [domain]
    return [*particular, *hosts]


def _in_document(document: dict[str, Any], file: Path, domain: str, path: str) -> Credentials | None:
    names = _names(domain, path)
    helpers = document.get("credHelpers")
    for name in names:
        if isinstance(helpers, dict) and isinstance(helper := helpers.get(name), str):
            return _ask_helper(helper, name, file)
    auths = document.get("auths")
    if isinstance(auths, dict):
        # docker writes whole URLs for some registries: https://host/v1/.
        by_host = {_host_of(key): value for key, value in auths.items() if isinstance(key, str)}
        for name in names:
            entry = auths.get(name) or by_host.get(name)
            if isinstance(entry, dict) and (found := _read_entry(entry, file)) is not None:
                return found
    if isinstance(store := document.get("credsStore"), str) and store:
        return _ask_helper(store, _HUB_KEY if domain in _HUB_HOSTS else domain, file)
    return None


def _host_of(key: str) -> str:
    return key.removeprefix("https://").removeprefix("http://").partition("/v")[0].rstrip("/")


def _read_entry(entry: dict[str, Any], file: Path) -> Credentials | None:
    token = entry.get("identitytoken")
    username, password = entry.get("username"), entry.get("password")
    if isinstance(encoded := entry.get("auth"), str) and encoded:
        try:
            username, _, password = base64.b64decode(encoded, validate=True).decode().rstrip("\0").partition(":")
        except ValueError as err:  # binascii's and UTF-8's own are of this kind, and so is that of letters beyond ASCII
            raise ImageError(f"the credentials file {file} has an auth that isn't base64: log in again") from err
    for said in (token, username, password):
        if isinstance(said, str) and not _is_text(said):
            raise ImageError(f"the credentials file {file} has a name or password that isn't text: log in again")
    if isinstance(token, str) and token:
        return Credentials(username if isinstance(username, str) else "", "", token, str(file))
    if isinstance(username, str) and username and isinstance(password, str):
        return Credentials(username, password, "", str(file))
    return None


def _is_text(said: str) -> bool:
    """Whether ``said`` can be sent: a JSON string may hold half of a pair of surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in said)


def _ask_helper(helper: str, server: str, file: Path) -> Credentials | None:
    program = f"docker-credential-{helper}"
    # The name comes from a file: it must stay a program's name, not become a path.
    if "/" in helper or "\0" in helper or not _is_text(helper):
        raise ImageError(f"{file}: {helper[:100]!r} isn't the name of a credential helper")
    try:
        answer = subprocess.run([program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_TIMEOUT_S)
    except FileNotFoundError as err:
        raise ImageError(f"{file} names the credential helper {program[:100]}, which isn't installed") from err
    except OSError as err:
        reason = (err.strerror or "").lower()
        raise ImageError(f"the credential helper {program[:100]} can't be started: {reason}") from err
    except subprocess.TimeoutExpired as err:
        raise ImageError(f"the credential helper {program} didn't answer in {_HELPER_TIMEOUT_S:.0f} s") from err
    if answer.returncode != 0:
        said = (answer.stdout or answer.stderr).decode(errors="replace").strip()
        if "credentials not found" in said.lower():
            return None
        raise ImageError(f"the credential helper {program} failed for {server}: {said[:200]}")
    try:
        document = json.loads(answer.stdout)
        username, secret = document["Username"], document["Secret"]
        if not (isinstance(username, str) and isinstance(secret, str) and _is_text(username) and _is_text(secret)):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise ImageError(f"the credential helper {program} answered nonsense for {server}") from err
    if username == "<token>":
        return Credentials("", "", secret, program)
    return Credentials(username, secret, "", program)
