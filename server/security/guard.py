"""All of it for one process: who may call, the certificates, and the files of both, watched."""

from __future__ import annotations

import asyncio
import ssl

from ..config import ServerConfig
from .access import Access
from .certificates import Certificates
from .reloading import Reloader


class Guard:
    """Belongs to one event loop, from ``open`` to ``close``."""

    def __init__(self, config: ServerConfig) -> None:
        """Reads the keys. Raises ConfigInvalid where they cannot be read."""
        self._tls = config.tls
        self.access = Access(config.security)
        self.certificates: Certificates | None = None
        """In force once it is open; None where TLS is off."""
        self._reloader: Reloader | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def context(self) -> ssl.SSLContext | None:
        """For servers that speak through `ssl`; None where TLS is off."""
        return None if self.certificates is None else self.certificates.context

    def open(self) -> None:
        """Reads the certificates, and watches all files from now on.

        Raises:
            ConfigInvalid: the TLS files do not work.
        """
        self.certificates = Certificates.of(self._tls)
        self._reloader = Reloader(self.access, *([] if self.certificates is None else [self.certificates]))
        self._watching = asyncio.create_task(self._reloader.run())

    async def reload(self) -> None:
        """Reads everything again. What cannot be used changes nothing, and the log says why."""
        if self._reloader is not None:
            await self._reloader.reload()

    def close(self) -> None:
        """Watches no more. Idempotent."""
        if self._watching is not None:
            self._watching.cancel()
