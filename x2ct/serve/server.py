"""The server from its start to the signal that ends it."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from x2ct.errors import InputError, MissingRuntimeError
from x2ct.jobs.options import Limits
from x2ct.jobs.sample import SampleJob, open_sampler
from x2ct.serve.app import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

TOKEN_VARIABLE = "X2CT_TOKEN"
LEAST_TOKEN = 16
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
_CONNECTIONS = 512
_CLOSING_S = 5.0


@dataclass(frozen=True)
class Service:
    """The options of `x2ct serve`."""

    template: SampleJob  # model, device and all other settings of `open_sampler`; a request may change the others
    host: str = "127.0.0.1"
    port: int = 8000  # 0 takes a free one
    allowed: tuple[str, ...] = ()  # further names that clients may have for this server, in the Host header
    token: str = ""  # what clients must send; empty asks for none
    limits: Limits = field(default_factory=Limits)

    @property
    def local(self) -> bool:
        """True where only this machine can reach the server."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The Host headers that are answered: a page elsewhere that resolves to this machine has another one."""
        return (*LOOPBACK, *self.allowed) if self.local or self.allowed else ("*",)


def read_token(file: Path | None) -> str:
    """Return the token out of a file, else out of the environment, else "".

    Raises InputError: the file can't be read, or the token is too short or not ASCII.
    """
    source: str | Path = file or TOKEN_VARIABLE
    try:
        token = file.read_text(encoding="utf-8").strip() if file else os.environ.get(TOKEN_VARIABLE, "").strip()
    except (OSError, ValueError) as error:
        raise InputError.of(source, "token", found=error, expected="a text file") from None
    if (file or token) and not (len(token) >= LEAST_TOKEN and token.isascii() and token.isprintable()):
        expected = f"at least {LEAST_TOKEN} printable ASCII characters"
        raise InputError.of(source, "token", found=f"{len(token)} characters", expected=expected)
    return token


class _Server(uvicorn.Server):
    """Ends a running job in its grace on the first signal, at its next evaluation on the second."""

    signal: int | None = None

    @property
    def app(self) -> FastAPI:
        return self.config.app  # type: ignore[return-value]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.app.state.jobs.hurry()
        self.signal, self.should_exit = sig, True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals as uvicorn does, without raising them again at the end."""
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.app.state.jobs.drain()
        await super().shutdown(sockets)


def run(service: Service, started: Callable[[str], object] = lambda address: None) -> int | None:
    """Serve until SIGTERM or SIGINT; `started` is called with the address once it is listened on.

    Returns the signal, where jobs had to be cancelled for it, else None. Raises X2CTError, any of the family: the model
    can't be opened or compiled, or the address can't be had.
    """
    sampler = open_sampler(service.template)
    listening = _listen(service)
    _silence_libraries()
    server: _Server

    def stop() -> None:
        server.should_exit = True

    hosts, token = service.hosts, service.token
    app = create_app(sampler, service.template, service.limits, token=token, hosts=hosts, failed=stop)
    quiet: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False}
    closing_s = round(service.limits.grace_s + _CLOSING_S)
    server = _Server(uvicorn.Config(app, limit_concurrency=_CONNECTIONS, timeout_graceful_shutdown=closing_s, **quiet))
    host, port = listening.getsockname()[:2]
    started(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
    server.run(sockets=[listening])
    if (failure := app.state.jobs.failure) is not None:
        raise failure
    return server.signal if app.state.jobs.cut else None


def deployment(service: Service) -> Any:
    """Return the same application for Ray Serve, as `ray.serve.run` takes it; Ray listens in place of `service`.

    Each replica opens and compiles the model when it starts. A job is known to the replica that took it, so that with
    more than one replica only requests that are answered at once can be made (`wait=true`). Raises MissingRuntimeError
    without Ray Serve.
    """
    try:
        from ray import serve
    except ImportError as error:
        lacking = error.name or "ray"
        raise MissingRuntimeError(f"Ray Serve needs {lacking}, which isn't here: pip install 'ray[serve]'") from error

    def build() -> FastAPI:
        _silence_libraries()
        sampler = open_sampler(service.template)
        sampler.compile()  # a replica that can't is a deployment that fails, and not one that is never ready
        return create_app(sampler, service.template, service.limits, token=service.token, hosts=service.hosts)

    ingress: Any = serve.deployment(serve.ingress(build)())
    quiet = {"enable_access_log": False}  # a job's address is in it
    return ingress.options(name="x2ct", max_ongoing_requests=_CONNECTIONS, logging_config=quiet).bind()


def _silence_libraries() -> None:
    """Silence uvicorn and the readers: their logs of a request could name a patient."""
    for name in ("uvicorn", "uvicorn.error", "asyncio", "tifffile", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _listen(service: Service) -> socket.socket:
    try:
        place = socket.getaddrinfo(service.host, service.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(*place[:3])
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place[4])
        listening.listen(_CONNECTIONS)
    except OSError as error:
        where, expected = f"{service.host}:{service.port}", "an address of this machine that is free"
        raise InputError.of(where, "address", found=error, expected=expected) from None
    return listening
