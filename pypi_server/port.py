"""Hold the port that clients use, and hand it to every proxy that asks: the whole life of the container ``port``.

The listening socket is this process's own, and so it stays open while proxies come and go: who connects meanwhile waits in
its queue, and is not refused. A proxy that has got it accepts connections by itself; no byte of a client's passes through here.
"""

import os
import select
import socket
from pathlib import Path

PORT = 3141
QUEUE = 4096


def serve(port: int, path: Path) -> None:
    """Listen on the port, and send that socket to whoever connects to the socket at ``path``."""
    with socket.create_server(("0.0.0.0", port), backlog=QUEUE) as held, socket.socket(socket.AF_UNIX) as desk:
        # nginx takes an inherited socket as it is: of two workers that see a connection, one would hang in accept(2).
        held.setblocking(False)
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        desk.bind(str(new))
        desk.listen()
        new.rename(path)
        print(f"port {port} is held", flush=True)
        proxies: list[socket.socket] = []
        while True:
            proxy, _ = desk.accept()
            socket.send_fds(proxy, [b"\0"], [held.fileno()])
            # Kept open: its end tells the proxy that this process has gone, and the port with it.
            gone, _, _ = select.select(proxies, [], [], 0)
            proxies = [one for one in proxies if one not in gone] + [proxy]


if __name__ == "__main__":
    serve(PORT, Path(os.environ["PORT_SOCKET"]))
