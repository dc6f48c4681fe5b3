"""Reads images from registries: manifests and blobs, from mirrors first, with retries and resumed downloads.

Source: distribution-spec (pulling manifests, pulling blobs), RFC 9110 section 14 (Range).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import DigestMismatch, ImageError, NotFound, RegistryError
from ..frozen import frozen
from .digest import Digest
from .manifest import ACCEPTED, MANIFEST_LIMIT_BYTES, Descriptor, Index, Manifest, read_manifest_or_index
from .reference import Reference
from .retry import Attempts, Busy, Truncated, busy
from .settings import RegistryConfig
from .transport import Address, Endpoint, addresses, read_limited

if TYPE_CHECKING:
    import httpx


@frozen
class Report:
    """Callbacks of a pull, called from the event loop's thread. ``layer`` is a short digest, or empty."""

    moved: Callable[[Descriptor, int], object]
    retrying: Callable[[str, str], object]


class RegistryClient:
    """One repository at one registry and its mirrors. All methods run in one event loop; ``close`` it there."""

    def __init__(self, reference: Reference, config: RegistryConfig, report: Report) -> None:
        self._reference = reference
        self._config = config
        self._report = report
        self._endpoints: dict[Address, Endpoint] = {}
        self._addresses = addresses(reference.domain, config)
        self._slots = asyncio.Semaphore(config.patience.parallel)

    async def close(self) -> None:
        for endpoint in self._endpoints.values():
            await endpoint.close()

    def _endpoint(self, address: Address) -> Endpoint:
        if address not in self._endpoints:
            self._endpoints[address] = Endpoint(address, self._config.patience)
        return self._endpoints[address]

    async def manifest(self, target: str | Digest) -> Manifest | Index:
        """The manifest or index that a tag or a digest names. A mirror that fails is passed over.

        Raises NotFound, DigestMismatch, RegistryError, ImageError (nonsense), UnsupportedError (schema 1, artifacts).
        """
        own: Exception | None = None
        for address in list(self._addresses):
            try:
                found = await self._manifest_from(address, target)
            except (ImageError, NotFound) as err:
                if address.mirror:
                    self._report.retrying("", f"mirror {address.host} passed over: {err}")
                else:
                    own = err
                continue
            # Who has the manifest is asked first for what it names.
            self._addresses.remove(address)
            self._addresses.insert(0, address)
            return found
        assert own is not None
        raise own

    async def _manifest_from(self, address: Address, target: str | Digest) -> Manifest | Index:
        import httpx

        endpoint = self._endpoint(address)
        where = f"manifest of {self._reference.familiar()}"
        url = f"{address.host}/{self._reference.path}"
        attempts = Attempts(
            self._config.patience,
            f"can't read {where} at {address.host}",
            url,
            lambda why: self._report.retrying("", why),
        )
        while True:
            try:
                response = await endpoint.get(
                    self._reference.path, f"manifests/{target}", {"Accept": ", ".join(ACCEPTED)}
                )
                try:
                    if (answer := busy(response)) is not None:
                        raise answer
                    raw = await read_limited(response, MANIFEST_LIMIT_BYTES, where)
                finally:
                    await response.aclose()
            except (httpx.TransportError, Busy) as err:
                await attempts.failed(err)
                continue
            return self._read_manifest(address, response, raw, target, where)

    def _read_manifest(
        self, address: Address, response: httpx.Response, raw: bytes, target: str | Digest, where: str
    ) -> Manifest | Index:
        status, url = response.status_code, str(response.url)
        media_type = response.headers.get("content-type", "")
        if status == 404:
            raise NotFound(
                f"no such image: {self._reference.familiar()} ({address.host} doesn't have it); check the name and the tag"
            )
        if status == 403:
            raise RegistryError(
                url, 403, f"{address.host} denies access to {self._reference.familiar()}; "
                "check the name, and that your log-in may read it"
            )  # fmt: skip
        if status != 200:
            raise RegistryError(url, status, f"{where}: {address.host} answered {status}{_said(raw)}")
        if media_type.partition(";")[0].strip().lower() == "text/html":
            raise RegistryError(
                url, status, f"{where}: {address.host} answered an HTML page where a manifest was due; "
                "is it a registry, or does a proxy or a log-in page stand in between?"
            )  # fmt: skip
        promised = target if isinstance(target, Digest) else response.headers.get("docker-content-digest")
        if promised:
            expected = Digest.parse(promised)
            actual = Digest.of(raw, expected.algorithm)
            if actual != expected:
                raise DigestMismatch(expected, actual, where)
        try:
            return read_manifest_or_index(raw, media_type, where)
        except ImageError as err:
            raise RegistryError(url, status, str(err)) from err

    async def blob_bytes(self, blob: Descriptor) -> bytes:
        """A small blob, verified. The caller has limited its size."""
        from io import BytesIO

        buffer = BytesIO()
        await self._fetch(blob, buffer, lambda current: None, lambda current: None)
        return buffer.getvalue()

    async def blob(self, blob: Descriptor, path: Path, came: Callable[[int], object]) -> None:
        """Downloads a layer to ``path``, verified and synced; at most ``patience.parallel`` at once. ``came``: see Origin.fetch."""
        async with self._slots:
            with open(path, "w+b", buffering=0) as file:
                await self._fetch(blob, file, lambda current: self._report.moved(blob, current), came)
                await asyncio.to_thread(os.fsync, file.fileno())

    async def _fetch(
        self, blob: Descriptor, file: BinaryIO, moved: Callable[[int], object], came: Callable[[int], object]
    ) -> None:
        own: Exception | None = None
        for address in self._addresses:
            try:
                await _Download(self, address, blob, file, moved, came).run()
                return
            except (ImageError, NotFound) as err:
                self._report.retrying(blob.digest.short, f"{address.host}: {err}")
                if own is None or not address.mirror:
                    own = err
        assert own is not None
        raise own


class _Download:
    """One blob from one address: every try goes on where the last one ended."""

    def __init__(
        self,
        client: RegistryClient,
        address: Address,
        blob: Descriptor,
        file: BinaryIO,
        moved: Callable[[int], object],
        came: Callable[[int], object],
    ) -> None:
        self._client = client
        self._moved = moved
        self._came = came
        self._endpoint = client._endpoint(address)
        self._blob = blob
        self._file = file
        self._what = f"layer {blob.digest.short} of {client._reference.familiar()}"
        self._url = f"{address.host}/{client._reference.path}"
        self._resumed = False
        self._begin_again()

    def _begin_again(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash = self._blob.digest.hasher()
        self._at = 0
        self._came(0)

    async def run(self) -> None:
        import httpx

        blob = self._blob
        attempts = Attempts(
            self._client._config.patience,
            f"can't download {self._what} from {self._endpoint.address.host}",
            self._url,
            lambda why: self._client._report.retrying(blob.digest.short, why),
        )
        while True:
            before = self._at
            try:
                await self._read_some()
                if self._at == blob.size_bytes:
                    actual = Digest(f"{blob.digest.algorithm}:{self._hash.hexdigest()}")
                    if actual == blob.digest:
                        return
                    if not self._resumed:
                        raise DigestMismatch(blob.digest, actual, self._what)
                    # Two halves of different files: a whole download may still be right.
                    self._resumed = False
                    self._begin_again()
                    continue
                raise Truncated(f"it ended after {self._at} of {blob.size_bytes} bytes")
            except (httpx.TransportError, Busy, Truncated) as err:
                if self._at > before:
                    attempts.moved_on()
                await attempts.failed(err)

    async def _read_some(self) -> None:
        """Reads on from where the file ends, until the answer does. Raises what ends it early."""
        blob, start = self._blob, self._at
        headers = {"Range": f"bytes={start}-"} if start else {}
        response = await self._endpoint.get(self._client._reference.path, f"blobs/{blob.digest}", headers)
        try:
            if (answer := busy(response)) is not None:
                raise answer
            if start:
                if response.status_code == 206 and response.headers.get("content-range", "").startswith(
                    f"bytes {start}-"
                ):
                    self._resumed = True
                else:
                    # No ranges here: from the beginning.
                    self._begin_again()
                    if response.status_code in (206, 416):
                        raise Truncated("it can't be resumed")
            if response.status_code == 404:
                raise NotFound(f"{self._what}: {self._endpoint.address.host} doesn't have it; push the image again")
            if response.status_code not in (200, 206):
                raw = await read_limited(response, MANIFEST_LIMIT_BYTES, self._what)
                status = response.status_code
                message = f"{self._what}: {self._endpoint.address.host} answered {status}{_said(raw)}"
                raise RegistryError(str(response.url), status, message)
            async for piece in response.aiter_raw():
                if self._at + len(piece) > blob.size_bytes:
                    raise ImageError(f"{self._what}: longer than the {blob.size_bytes} bytes that the manifest says")
                # A full disk shows here, and ends the pull as an OSError.
                written = 0
                while written < len(piece):
                    written += self._file.write(piece[written:])
                self._hash.update(piece)
                self._at += len(piece)
                self._came(self._at)
                self._moved(self._at)
        finally:
            await response.aclose()


def _said(raw: bytes) -> str:
    """The registry's own words on an error, in brackets. Source: distribution-spec, error codes."""
    import json

    try:
        errors = json.loads(raw)["errors"]
        words = "; ".join(str(error.get("message") or error.get("code")) for error in errors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return f" ({words[:200]})" if words else ""
