"""Writes images to registries: blobs that the registry lacks, then the manifest, so that a name never stands for half an image.

A blob that another repository of the registry has is mounted from there. A large one goes in pieces, and after a broken
connection the upload goes on where the registry says that it ended.

Source: distribution-spec (pushing blobs, pushing manifests, mounting blobs from another repository).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import ImageError, RegistryError
from ..frozen import frozen
from .digest import Digest
from .manifest import MANIFEST_LIMIT_BYTES, Descriptor, Manifest
from .progress import Reporter
from .reference import Reference
from .retry import Attempts, Busy, busy
from .settings import RegistryConfig
from .transport import Endpoint, addresses, read_limited

if TYPE_CHECKING:
    import httpx

    from .image import Phase

# What is larger goes in pieces of this size: a broken connection costs at most one of them.
PIECE_BYTES = 32 << 20
_READ = 256 << 10
# What a registry answers that takes no pieces: then the blob goes whole.
_NO_PIECES = (400, 404, 405, 411, 416, 501)


@frozen
class Blob:
    """One blob to send: ``path`` has its content, ``sources`` are repositories of the same registry that may have it."""

    described: Descriptor
    path: Path
    sources: tuple[str, ...] = ()


class Pusher:
    """One repository at its registry, never at a mirror. All methods run in one event loop; ``close`` it there."""

    def __init__(
        self, reference: Reference, config: RegistryConfig, reporter: Reporter, piece_bytes: int = PIECE_BYTES
    ) -> None:
        self.reference = reference
        self.piece_bytes = piece_bytes
        self._patience = config.patience
        self._reporter = reporter
        self._endpoint = Endpoint(addresses(reference.domain, config)[-1], config.patience)
        self._slots = asyncio.Semaphore(config.patience.parallel)

    async def close(self) -> None:
        await self._endpoint.close()

    async def push(self, manifest: Manifest, blobs: Sequence[Blob]) -> None:
        """Send what the registry lacks of ``blobs``, and then ``manifest`` under the reference's tag.

        Raises RegistryError (no rights, no room, nonsense) and ImageError.
        """
        tasks = [asyncio.ensure_future(self._blob(blob)) for blob in blobs]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._manifest(manifest)

    async def _ask(
        self,
        method: str,
        what: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        *,
        file: tuple[Path, int, int] | None = None,
        mounted: str = "",
        layer: Descriptor | None = None,
    ) -> tuple[httpx.Response, bytes]:
        """One answer, read. ``file`` is a path, an offset and a length that are sent. Raises Busy, httpx.TransportError."""

        def content() -> bytes | AsyncIterator[bytes]:
            return self._pieces(*file, layer) if file is not None else body or b""

        sent = dict(headers or {})
        if file is not None:
            sent |= {"Content-Length": str(file[2]), "Content-Type": "application/octet-stream"}
        response = await self._endpoint.ask(
            method,
            self.reference.path,
            what,
            sent,
            body=content if method not in ("GET", "HEAD") else None,
            actions="pull,push",
            mounted=mounted,
        )
        try:
            raw = await read_limited(response, MANIFEST_LIMIT_BYTES, f"{method} {what[:100]}")
        finally:
            await response.aclose()
        if _disk_full(response.status_code, raw):
            host = self._endpoint.address.host
            raise RegistryError(
                str(response.url), response.status_code, f"{host} has no room left for {self._what(layer)}"
            )
        if (answer := busy(response)) is not None:
            raise answer
        return response, raw

    async def _pieces(self, path: Path, offset: int, length: int, layer: Descriptor | None) -> AsyncIterator[bytes]:
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            end = offset + length
            while offset < end:
                data = file.read(min(_READ, end - offset))
                if not data:
                    raise ImageError(f"{path} is shorter than it was: pull or commit the image again")
                yield data
                offset += len(data)
                if layer is not None:
                    self._reporter.moved(layer.digest.short, "uploading", offset, layer.size_bytes)

    def _what(self, layer: Descriptor | None) -> str:
        name = self.reference.familiar()
        return f"layer {layer.digest.short} of {name}" if layer is not None else name

    def _attempts(self, layer: Descriptor | None) -> Attempts:
        short = layer.digest.short if layer is not None else ""
        host = self._endpoint.address.host
        return Attempts(
            self._patience,
            f"can't push {self._what(layer)} to {host}",
            f"{host}/{self.reference.path}",
            lambda why: self._reporter.tell(short, "retrying", message=why),
        )

    def _refuse(self, response: httpx.Response, raw: bytes, layer: Descriptor | None) -> RegistryError:
        status, host = response.status_code, self._endpoint.address.host
        said = _said(raw)
        if status in (401, 403):
            message = (
                f"{host} denies the push of {self.reference.familiar()}{said}; check that the log-in may write there"
            )
        else:
            message = f"pushing {self._what(layer)}: {host} answered {status}{said}"
        return RegistryError(str(response.url), status, message)

    # -- blobs

    async def _blob(self, blob: Blob) -> None:
        import httpx

        described = blob.described
        short, size = described.digest.short, described.size_bytes
        self._reporter.tell(short, "waiting", 0, size)
        async with self._slots:
            attempts = self._attempts(described)
            upload = _Upload(self, blob)
            while True:
                before = upload.at
                try:
                    phase, message = await upload.run()
                except (httpx.TransportError, Busy) as err:
                    if upload.at > before:
                        attempts.moved_on()
                    await attempts.failed(err)
                    continue
                self._reporter.tell(short, phase, size, size, message)
                return

    async def _manifest(self, manifest: Manifest) -> None:
        import httpx

        attempts = self._attempts(None)
        target = self.reference.tag or manifest.digest
        while True:
            try:
                response, raw = await self._ask(
                    "PUT", f"manifests/{target}", {"Content-Type": manifest.media_type}, manifest.raw
                )
            except (httpx.TransportError, Busy) as err:
                await attempts.failed(err)
                continue
            break
        if response.status_code not in (200, 201, 202):
            raise self._refuse(response, raw, None)
        told = response.headers.get("docker-content-digest")
        if told and told != manifest.digest:
            raise RegistryError(
                str(response.url), response.status_code, f"the registry stored {told} where {manifest.digest} was sent"
            )


class _Upload:
    """One blob on its way. Every ``run`` goes on where the last one ended; ``at`` is how far the registry has it."""

    def __init__(self, pusher: Pusher, blob: Blob) -> None:
        self._pusher = pusher
        self._blob = blob
        self._location = ""
        self._mounts = list(blob.sources)
        self._whole = blob.described.size_bytes <= pusher.piece_bytes
        self.at = 0

    async def run(self) -> tuple[Phase, str]:
        """``pushed``, ``mounted`` (and from where) or ``there``. Raises RegistryError, Busy, httpx.TransportError."""
        described = self._blob.described
        if not self._location:
            response, raw = await self._pusher._ask("HEAD", f"blobs/{described.digest}")
            if response.status_code == 200:
                return "there", ""
            if response.status_code != 404:
                raise self._pusher._refuse(response, raw, described)
            if source := await self._begin():
                return "mounted", f"from {source}"
        elif not self._whole:
            await self._resume()
        while not self._whole and self.at < described.size_bytes:
            await self._send_piece()
        await self._finish()
        return "pushed", ""

    async def _begin(self) -> str:
        """Begin an upload, or have the blob mounted: returns the repository that it came from, where it did."""
        described = self._blob.described
        source = self._mounts.pop(0) if self._mounts else ""
        query = f"?mount={described.digest}&from={source}" if source else ""
        response, raw = await self._pusher._ask("POST", f"blobs/uploads/{query}", mounted=source, layer=described)
        if response.status_code == 201 and source:
            return source
        if response.status_code not in (202, 201):
            raise self._pusher._refuse(response, raw, described)
        self._take_location(response)
        self.at = 0
        return ""

    def _take_location(self, response: httpx.Response) -> None:
        location = response.headers.get("location", "")
        if not location:
            raise RegistryError(
                str(response.url), response.status_code, "the registry began an upload and didn't say where"
            )
        self._location = str(response.url.join(location))

    async def _resume(self) -> None:
        """Ask how far the registry has it after a failure; begins again where it has forgotten the upload."""
        response, _ = await self._pusher._ask("GET", self._location)
        if response.status_code != 204:
            self._location = ""
            await self._begin()
            return
        self.at = _end_of(response.headers.get("range", ""))
        if "location" in response.headers:
            self._take_location(response)

    async def _send_piece(self) -> None:
        blob, start = self._blob, self.at
        length = min(self._pusher.piece_bytes, blob.described.size_bytes - start)
        response, raw = await self._pusher._ask(
            "PATCH",
            self._location,
            {"Content-Range": f"{start}-{start + length - 1}"},
            file=(blob.path, start, length),
            layer=blob.described,
        )
        if response.status_code in _NO_PIECES and start == 0:
            self._whole = True
            await self._begin()
            return
        if response.status_code not in (202, 204):
            raise self._pusher._refuse(response, raw, blob.described)
        self._take_location(response)
        told = response.headers.get("range", "")
        self.at = _end_of(told) if told else start + length
        if self.at <= start:
            raise RegistryError(
                str(response.url), response.status_code, f"the registry took nothing of {blob.described.digest.short}"
            )

    async def _finish(self) -> None:
        """Send what is left, with the digest that makes a blob of it."""
        described = self._blob.described
        sign = "&" if urlsplit(self._location).query else "?"
        rest = described.size_bytes if self._whole else 0
        response, raw = await self._pusher._ask(
            "PUT",
            f"{self._location}{sign}digest={described.digest}",
            file=(self._blob.path, 0, rest),
            layer=described,
        )
        if response.status_code == 404:
            # The registry has forgotten the upload, or it was finished by a try whose answer was lost.
            self._location = ""
            raise Busy(404, None, "the registry lost the upload")
        if response.status_code == 400 and not await asyncio.to_thread(_intact, self._blob):
            raise ImageError(f"layer {described.digest.short} in the image store is damaged: pull the image again")
        if response.status_code not in (201, 204):
            raise self._pusher._refuse(response, raw, described)
        told = response.headers.get("docker-content-digest")
        if told and Digest.parse(told) != described.digest:
            raise RegistryError(
                str(response.url), response.status_code, f"the registry stored {told} where {described.digest} was sent"
            )


def _intact(blob: Blob) -> bool:
    """Whether the blob here is what its digest says: the registry doubts it."""
    hasher = blob.described.digest.hasher()
    with open(blob.path, "rb") as file:
        while data := file.read(_READ):
            hasher.update(data)
    return bool(hasher.hexdigest() == blob.described.digest.encoded)


def _end_of(text: str) -> int:
    """The number of bytes that ``Range: 0-N`` says are there. Source: distribution-spec: N is inclusive."""
    first, sign, last = text.removeprefix("bytes=").partition("-")
    # An upload that has nothing yet answers 0-0: as much as one that has one byte, which no registry's client stops at.
    return int(last) + 1 if sign and first == "0" and last.isdecimal() and last != "0" else 0


def _disk_full(status: int, raw: bytes) -> bool:
    """Whether the answer says that there's no room: 507, or what Debian's docker-registry makes of ENOSPC (28)."""
    return status == 507 or (status >= 500 and (b'"Err":28' in raw or b"no space left on device" in raw))


def _said(raw: bytes) -> str:
    """The registry's own words on an error, in brackets. Source: distribution-spec, error codes."""
    try:
        errors = json.loads(raw)["errors"]
        words = "; ".join(str(error.get("message") or error.get("code")) for error in errors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return f" ({words[:200]})" if words else ""
