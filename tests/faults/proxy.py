"""A proxy between clients and servers that can cut, delay and lose: it passes bytes on and knows no HTTP.

Each door is an address of its own (of a site, of people), so that one can be in trouble while the others are not.
Connections go to the servers in turn; one that does not answer is passed over, as a load balancer does.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

CHUNK = 64 * 1024
CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 15.0  # of a server that has accepted a request: longer, and its client is told to try again

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Door:
    """One address, and the trouble that it is in."""

    name: str
    cut: bool = False
    delay: float = 0.0  # seconds, of whatever passes
    lose: int = 0  # so many replies that come next are lost, and their connections with them
    port: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Proxy:
    """The doors before some servers; a context manager that works in a thread of its own."""

    def __init__(self, doors: Sequence[str], ports: Sequence[int]) -> None:
        self.doors = {name: Door(name) for name in doors}
        self.lost: Counter[str] = Counter()  # replies, by door
        self._ports = list(ports)
        self._turn = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, name: str) -> None:
        """Break all connections of a door, and refuse new ones until it is mended."""
        self.doors[name].cut = True
        self._call(self._break(self.doors[name]))

    def delay(self, name: str, seconds: float) -> None:
        """Pass everything on later."""
        self.doors[name].delay = seconds

    def lose(self, name: str, replies: int) -> None:
        """Lose the replies that come next: the server has acted, and its client is not told."""
        self.doors[name].lose += replies

    def mend(self, name: str) -> None:
        """End all trouble of a door."""
        door = self.doors[name]
        door.cut, door.delay, door.lose = False, 0.0, 0

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open(self) -> None:
        for door in self.doors.values():

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, door: Door = door) -> None:
                await self._serve(door, reader, writer)

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            door.port = server.sockets[0].getsockname()[1]
            self._servers.append(server)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for door in self.doors.values():
            await self._break(door)
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _break(self, door: Door) -> None:
        for writer in list(door.writers):
            writer.transport.abort()

    async def _serve(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        door.writers.add(writer)
        try:
            if not door.cut and (server := await self._connect()):
                with suppress(ConnectionError, TimeoutError):
                    await self._pass_on(door, (reader, writer), server)
        finally:
            door.writers.discard(writer)
            writer.transport.abort()

    async def _connect(self) -> Streams | None:
        for _ in self._ports:
            self._turn = (self._turn + 1) % len(self._ports)
            with suppress(OSError, TimeoutError):
                opening = asyncio.open_connection("127.0.0.1", self._ports[self._turn])
                return await asyncio.wait_for(opening, CONNECT_SECONDS)
        return None

    async def _pass_on(self, door: Door, client: Streams, server: Streams) -> None:
        exchange = _Exchange(door, self.lost)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(exchange.requests(client[0], server[1]))
                both.create_task(exchange.replies(server[0], client[1]))
        except* (ConnectionError, TimeoutError):
            pass
        finally:
            server[1].transport.abort()


class _Exchange:
    """What passes on one connection; either side ends it with a ConnectionError."""

    def __init__(self, door: Door, lost: Counter[str]) -> None:
        self._door, self._lost = door, lost
        self._waits = False  # for a reply

    async def requests(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while chunk := await client.read(CHUNK):
            self._waits = True
            await self._later(server, chunk)
        raise ConnectionResetError

    async def replies(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while chunk := await self._reply(server):
            self._waits = False
            if self._door.lose > 0:
                self._door.lose -= 1
                self._lost[self._door.name] += 1
                break
            await self._later(client, chunk)
        raise ConnectionResetError

    async def _reply(self, server: asyncio.StreamReader) -> bytes:
        while True:
            try:
                return await asyncio.wait_for(server.read(CHUNK), SILENCE_SECONDS)
            except TimeoutError:
                if self._waits:
                    raise

    async def _later(self, to: asyncio.StreamWriter, chunk: bytes) -> None:
        await asyncio.sleep(self._door.delay)
        to.write(chunk)
        await to.drain()
