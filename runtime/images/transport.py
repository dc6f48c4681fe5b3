"""One registry endpoint over HTTP: scheme, certificates, log-in, redirects. Retries are registry.py's.

httpx is imported when the first endpoint is made. All of it runs in the event loop of a pull.

Source: distribution-spec; distribution's token authentication specification; RFC 9110; RFC 6749 section 6.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from ..errors import ImageError, RegistryError
from ..frozen import field, frozen, slotted
from .auth import Credentials, find_credentials
from .challenge import Challenge, read_challenges, token_url
from .settings import Patience, RegistryConfig, is_loopback

if TYPE_CHECKING:
    import httpx

# Makes the content of a request; called anew when it is sent again.
Body = Callable[[], bytes | AsyncIterator[bytes]]

_REDIRECTS = 5
_TOKEN_LIMIT_BYTES = 1 << 20
# The token specification's default life, less a little for the way.
_TOKEN_LIFE_S = 60
_TOKEN_MARGIN_S = 5
# Where administrators of docker and podman put a registry's certificate. Source: containers-certs.d(5).
_CERTIFICATE_FOLDERS = ("/etc/containers/certs.d", "/etc/docker/certs.d")


@frozen
class Address:
    """Where a registry is asked: ``schemes`` are tried in order, ``prefix`` goes before the repository's path."""

    host: str
    domain: str
    prefix: str = ""
    schemes: tuple[str, ...] = ("https",)
    insecure: bool = False
    ca_file: Path | None = None
    mirror: bool = False


def addresses(domain: str, config: RegistryConfig) -> list[Address]:
    """Where images of ``domain`` are looked for, mirrors first."""
    own = config.settings(domain)
    found = []
    for text in own.mirrors:
        parts = urlsplit(text if "://" in text else f"//{text}")
        settings = config.settings(parts.netloc)
        insecure = settings.insecure or parts.scheme == "http"
        schemes = (parts.scheme,) if parts.scheme in ("http", "https") else _schemes(parts.netloc, insecure)
        prefix = parts.path.strip("/").removeprefix("v2").strip("/")
        found.append(Address(parts.netloc, parts.netloc, prefix, schemes, insecure, settings.ca_file, True))
    host = "registry-1.docker.io" if domain == "docker.io" else domain
    found.append(Address(host, domain, "", _schemes(domain, own.insecure), own.insecure, own.ca_file))
    return found


def _schemes(host: str, insecure: bool) -> tuple[str, ...]:
    # docker falls back to plain HTTP for insecure registries, and for every one on this machine.
    return ("https", "http") if insecure or is_loopback(host) else ("https",)


@slotted
class _Token:
    header: str
    expires: float = field(default=float("inf"))


class Endpoint:
    """A registry that is being asked. Answers come open: the caller reads and closes them."""

    def __init__(self, address: Address, patience: Patience) -> None:
        import httpx

        from ... import __version__

        self.address = address
        self._scheme = address.schemes[0] if len(address.schemes) == 1 else ""
        self._tokens: dict[str, _Token] = {}
        self._lock = asyncio.Lock()
        try:
            self._client = httpx.AsyncClient(
                verify=_context(address),
                timeout=httpx.Timeout(patience.read_s, connect=patience.connect_s, pool=None),
                limits=httpx.Limits(max_connections=patience.parallel + 2),
                headers={"User-Agent": f"cellwall/{__version__}", "Accept-Encoding": "identity"},
                # Like docker, never through a proxy to this machine itself.
                trust_env=not is_loopback(address.host),
            )
        except (ImportError, ValueError, httpx.InvalidURL) as err:
            # httpx reads HTTPS_PROXY and the like at once, and refuses a scheme that it can't speak.
            raise RegistryError(address.host, 0, f"the proxy in the environment can't be used: {err}") from err

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, repository: str, what: str, headers: dict[str, str]) -> httpx.Response:
        """The open answer to GET ``/v2/<repository>/<what>``, see ``ask``."""
        return await self.ask("GET", repository, what, headers)

    async def ask(
        self,
        method: str,
        repository: str,
        what: str,
        headers: dict[str, str],
        *,
        body: Body | None = None,
        actions: str = "pull",
        mounted: str = "",
    ) -> httpx.Response:
        """The open answer to a request for ``/v2/<repository>/<what>``, logged in where that was asked for.

        ``what`` may also be the whole URL that an earlier answer named. ``body`` is called for each time that it is sent.
        ``actions`` is what a log-in must allow (``pull``, or ``pull,push``), ``mounted`` another repository to be read.
        Raises RegistryError for 401 that no log-in mends, for redirects that lead nowhere good and for certificates that
        aren't trusted; httpx.TransportError for the network's failures.
        """
        name = "/".join(filter(None, (self.address.prefix, repository)))
        scope = f"repository:{name}:{actions}" + (f" repository:{mounted}:pull" if mounted else "")
        if not self._scheme:
            async with self._lock:
                if not self._scheme:
                    self._scheme = await self._find_scheme()
        url = urljoin(f"{self._scheme}://{self.address.host}/v2/{name}/", what)
        if self._scheme == "https" and not url.startswith("https:") and not self.address.insecure:
            raise RegistryError(url, 0, f"{self.address.host} sends the upload to {url[:100]}, which isn't https")
        used = self._token(scope)
        response = await self._follow(method, url, headers, used, body)
        if response.status_code != 401:
            return response
        challenges = read_challenges(response.headers.get_list("www-authenticate"))
        await response.aclose()
        async with self._lock:
            # Another layer's request may have got a fresh token while this one waited.
            if (token := self._token(scope)) is None or token == used:
                self._tokens.pop(scope, None)
                token = await self._log_in(challenges, name, scope, url)
        response = await self._follow(method, url, headers, token, body)
        if response.status_code == 401:
            await response.aclose()
            self._tokens.pop(scope, None)
            raise self._refused(url, scope, await self._credentials(name))
        return response

    async def _find_scheme(self) -> str:
        """The first scheme that answers at all. Raises what the first one failed with where none does."""
        import httpx

        failure: Exception | None = None
        for scheme in self.address.schemes:
            try:
                response = await self._send("GET", f"{scheme}://{self.address.host}/v2/", {}, None)
                await response.aclose()
                return scheme
            except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError) as err:
                failure = failure if failure is not None and _tls_failed(failure) else err
        assert failure is not None
        raise failure

    async def _send(
        self, method: str, url: str, headers: dict[str, str], authorization: str | None, body: Body | None = None
    ) -> httpx.Response:
        import httpx

        sent = {**headers, "Authorization": authorization} if authorization else headers
        try:
            content = body() if body is not None else None
            request = self._client.build_request(method, url, headers=sent, content=content)
            return await self._client.send(request, stream=True)
        except httpx.ConnectError as err:
            if certificate_failed(err):
                raise RegistryError(
                    url,
                    0,
                    f"the certificate of {self.address.host} isn't trusted ({_reason(err)}); "
                    f"name its CA as ca_file in config.toml, or set insecure = true for it",
                ) from err
            raise
        except (httpx.InvalidURL, UnicodeError, OverflowError) as err:
            raise RegistryError(url, 0, f"{self.address.host} can't be asked: {str(err).lower()}") from err

    async def _follow(
        self, method: str, url: str, headers: dict[str, str], authorization: str | None, body: Body | None
    ) -> httpx.Response:
        """The answer after redirects. The log-in goes only to the registry itself, never on to where it sends us."""
        import httpx

        start = urlsplit(url)
        if (start.scheme, start.netloc) != (self._scheme, self.address.host):
            # An upload may go on at another host: the registry's own log-in isn't for it.
            authorization = None
        for _ in range(_REDIRECTS):
            response = await self._send(method, url, headers, authorization, body)
            if response.status_code not in (301, 302, 303, 307, 308) or "location" not in response.headers:
                return response
            await response.aclose()
            try:
                target = str(response.url.join(response.headers["location"]))
            except (httpx.InvalidURL, ValueError) as err:
                raise RegistryError(url, response.status_code, f"{self.address.host} redirects to nonsense") from err
            parts = urlsplit(target)
            if parts.scheme not in ("http", "https") or (start.scheme == "https" and parts.scheme != "https"):
                if not (self.address.insecure and parts.scheme == "http"):
                    raise RegistryError(
                        url, response.status_code, f"{url} redirects to {target[:100]}, which isn't https"
                    )
            if (parts.scheme, parts.netloc) != (start.scheme, start.netloc):
                authorization = None
            url = target
        raise RegistryError(url, 0, f"{self.address.host} redirects more than {_REDIRECTS} times")

    # -- log-in

    def _token(self, scope: str) -> str | None:
        token = self._tokens.get(scope)
        return token.header if token is not None and token.expires > time.monotonic() else None

    async def _credentials(self, name: str) -> Credentials | None:
        # Files and helper programs: in a thread, so that the other layers go on.
        return await asyncio.to_thread(find_credentials, self.address.domain, name)

    async def _log_in(self, challenges: list[Challenge], name: str, scope: str, url: str) -> str:
        credentials = await self._credentials(name)
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                token = await self._fetch_token(challenge, credentials, scope, url)
                self._tokens[scope] = token
                return token.header
        for challenge in challenges:
            if challenge.scheme == "basic":
                if credentials is None:
                    raise self._refused(url, scope, None)
                self._tokens[scope] = _Token(credentials.basic())
                return credentials.basic()
        raise RegistryError(
            url, 401, f"{self.address.host} asks for a log-in of a kind that isn't known here: basic and bearer are; "
            "check that it is a registry"
        )  # fmt: skip

    def _refused(self, url: str, scope: str, credentials: Credentials | None) -> RegistryError:
        host = self.address.domain
        log_in = f"log in with `docker login {host}`, `podman login {host}` or `skopeo login {host}`"
        if "push" in scope:
            who = f"the log-in of {credentials.origin} may not write there" if credentials else "nobody is logged in"
            return RegistryError(url, 401, f"{host} refuses the push: {who}; {log_in}")
        if credentials is None:
            return RegistryError(url, 401, f"{host} refuses: the image doesn't exist, or it needs a log-in: {log_in}")
        return RegistryError(url, 401, f"{host} refuses the log-in of {credentials.origin}: {log_in} again")

    async def _fetch_token(self, challenge: Challenge, credentials: Credentials | None, scope: str, url: str) -> _Token:
        """A bearer token from the server that the registry named."""
        from json import loads

        realm = token_url(challenge.parameters["realm"], plain_allowed=self._scheme == "http" or self.address.insecure)
        if not realm:
            raise RegistryError(url, 401, f"{self.address.host} names a token server that isn't https: refused")
        # The registry names only what the request at hand takes, and a push goes on to more than that.
        asked = scope if "push" in scope else challenge.parameters.get("scope") or scope
        query: dict[str, Any] = {"scope": asked.split(" ")}
        if service := challenge.parameters.get("service"):
            query["service"] = service
        if credentials is not None and credentials.identity_token:
            form = {
                **query,
                "scope": asked,
                "grant_type": "refresh_token",
                "client_id": "cellwall",
                "refresh_token": credentials.identity_token,
            }
            request = self._client.build_request("POST", realm, data=form)
        else:
            if credentials is not None:
                query["account"] = credentials.username
            headers = {"Authorization": credentials.basic()} if credentials is not None else {}
            request = self._client.build_request("GET", realm, params=query, headers=headers)
        response = await self._client.send(request, stream=True)
        try:
            raw = await read_limited(response, _TOKEN_LIMIT_BYTES, realm)
        finally:
            await response.aclose()
        if response.status_code in (400, 401, 403):
            raise self._refused(url, scope, credentials)
        if response.status_code != 200:
            raise RegistryError(
                realm, response.status_code, f"the token server {realm} answered {response.status_code}"
            )
        try:
            document = loads(raw)
            token = document.get("token") or document["access_token"]
            life = float(document.get("expires_in") or _TOKEN_LIFE_S)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
            raise RegistryError(realm, 200, f"the token server {realm} answered no token") from err
        return _Token(f"Bearer {token}", time.monotonic() + max(life - _TOKEN_MARGIN_S, 1))


async def read_limited(response: httpx.Response, limit_bytes: int, where: str) -> bytes:
    """The whole body; RegistryError where it is longer than ``limit_bytes``."""
    pieces: list[bytes] = []
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > limit_bytes:
            raise RegistryError(where, response.status_code, f"{where} answered more than {limit_bytes} bytes; refused")
        pieces.append(piece)
    return b"".join(pieces)


def _context(address: Address) -> ssl.SSLContext:
    """The system's trust store (as docker and podman use it, not certifi's), and the registry's own certificates."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not any((paths.cafile, paths.capath)):
        import certifi

        context.load_verify_locations(certifi.where())
    files = [address.ca_file] if address.ca_file is not None else []
    for folder in _CERTIFICATE_FOLDERS:
        files += sorted(Path(folder, address.host).glob("*.crt"))
    for file in files:
        try:
            context.load_verify_locations(file)
        except (OSError, ssl.SSLError) as err:
            raise ImageError(f"the CA file {file} for {address.host} can't be read: {err}") from err
    if address.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _chain(err: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    step: BaseException | None = err
    while step is not None and all(step is not seen for seen in found):
        found.append(step)
        step = step.__cause__ or step.__context__
    return found


def certificate_failed(err: BaseException) -> bool:
    """Whether a certificate that isn't trusted is behind ``err``: asking again can't mend that."""
    return any(isinstance(step, ssl.SSLCertVerificationError) for step in _chain(err))


def _tls_failed(err: BaseException) -> bool:
    return any(isinstance(step, ssl.SSLError) for step in _chain(err))


def _reason(err: BaseException) -> str:
    for step in _chain(err):
        if isinstance(step, ssl.SSLCertVerificationError):
            return step.verify_message.lower().rstrip(".")
    return str(err)
