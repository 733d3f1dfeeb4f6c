"""By what a cache knows its own work: an HMAC-SHA256 with a secret that never leaves it."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from x2ct.built.cachefolder import os_errors
from x2ct.built.recipe import canonical
from x2ct.textfiles import Json


def seal(folder: Path, content: Mapping[str, Json]) -> str:
    """The seal on a sidecar's content, whatever its file is called, in hexadecimal.

    Raises:
        InputError: the folder can't be written.
    """
    said = {name: value for name, value in content.items() if name not in ("file", "seal")}
    return hmac.new(_secret(folder), canonical(said), hashlib.sha256).hexdigest()


def is_sealed(folder: Path, content: Mapping[str, Json], found: str) -> bool:
    """Whether what was found is the seal on this content."""
    return hmac.compare_digest(found, seal(folder, content))


def _secret(folder: Path) -> bytes:
    """Made once; by a link, so that of two processes that make it the first wins and none reads half of it."""
    path = folder / "secret"
    with os_errors(folder):
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside = folder / f".secret.{os.getpid()}.{secrets.token_hex(4)}"
            with open(beside, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
                stream.write(secrets.token_bytes(32))
            try:
                os.link(beside, path)
            except FileExistsError:  # the other's
                pass
            finally:
                beside.unlink()
        return path.read_bytes()
