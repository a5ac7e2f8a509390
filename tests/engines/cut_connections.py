"""Owns a proxy before PostgreSQL that cuts connections at a commit: before the server hears of it, or before its answer."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import sqlalchemy

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


@dataclass
class Cuts:
    """How often a commit is cut, and how often it was, by what the server made of it."""

    url: str
    chance: random.Random
    share: float = 0.0
    lost: int = 0
    done: int = 0
    open: list[socket.socket] = field(default_factory=list)


@contextmanager
def cutting(url: str, seed: int) -> Iterator[Cuts]:
    """A proxy before the server of `url`; nothing is cut until `share` is set."""
    parsed = sqlalchemy.make_url(url)
    listener = socket.create_server(("127.0.0.1", 0))
    address = parsed.set(port=listener.getsockname()[1]).render_as_string(hide_password=False)
    cuts = Cuts(url=address, chance=random.Random(seed))
    serving = threading.Thread(target=_serve, args=(listener, (parsed.host, parsed.port), cuts))
    serving.start()
    try:
        yield cuts
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        serving.join()


def _serve(listener: socket.socket, server: tuple[str | None, int | None], cuts: Cuts) -> None:
    relays: list[threading.Thread] = []
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            behind = socket.create_connection(server)  # type: ignore[arg-type]
            cuts.open += [client, behind]
            for relay in (_to_server, _to_client):
                relays.append(threading.Thread(target=relay, args=(client, behind, cuts)))
                relays[-1].start()
    for each in cuts.open:
        _end(each)
    for thread in relays:
        thread.join()
    for each in cuts.open:
        each.close()


def _to_server(client: socket.socket, behind: socket.socket, cuts: Cuts) -> None:
    with suppress(OSError):
        while content := client.recv(65536):
            if COMMIT in content and cuts.chance.random() < cuts.share:
                if cuts.chance.random() < 0.5:
                    cuts.lost += 1
                    break
                _end(client)  # the answer to this goes nowhere
                cuts.done += 1
                behind.sendall(content)
                behind.shutdown(socket.SHUT_WR)
                return
            behind.sendall(content)
    _end(client)
    _end(behind)


def _to_client(client: socket.socket, behind: socket.socket, cuts: Cuts) -> None:
    with suppress(OSError):
        while content := behind.recv(65536):
            with suppress(OSError):
                client.sendall(content)
    _end(client)
    _end(behind)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
