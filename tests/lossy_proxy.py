"""A proxy that loses replies: the server has acted, and its client never hears of it."""

import selectors
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PIECE = 65536  # bytes


class LossyProxy(socketserver.ThreadingTCPServer):
    """Passes connections on to a port of this machine; loses as many replies as ``losses`` says, and counts them."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.upstream = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.losses = self.lost = 0

    def loses_this(self) -> bool:
        """Say whether to lose the reply that has begun."""
        if not self.losses:
            return False
        self.losses -= 1
        self.lost += 1
        return True


class _Connection(socketserver.BaseRequestHandler):
    server: LossyProxy

    def handle(self) -> None:
        with socket.create_connection(self.server.upstream) as upstream, selectors.DefaultSelector() as selector:
            selector.register(self.request, selectors.EVENT_READ, upstream)
            selector.register(upstream, selectors.EVENT_READ, self.request)
            while self._pass_on(selector, upstream):
                pass

    def _pass_on(self, selector: selectors.BaseSelector, upstream: socket.socket) -> bool:
        """Pass on what came; False when a side has closed, or its reply is lost."""
        for key, _ in selector.select():
            source: socket.socket = key.fileobj  # type: ignore[assignment]
            try:
                piece = source.recv(PIECE)
            except ConnectionResetError:
                return False
            if not piece or (source is upstream and self.server.loses_this()):
                return False
            key.data.sendall(piece)
        return True


@contextmanager
def lossy_proxy(port: int) -> Iterator[LossyProxy]:
    """Run a proxy before a port."""
    with LossyProxy(port) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
