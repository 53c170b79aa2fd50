"""Exit 0 when the server answers: the image's health check, without credentials."""

import http.client
import os
import socket
import sys


class UnixConnection(http.client.HTTPConnection):
    """A connection to a socket in the file system, where a proxy has the port."""

    def connect(self) -> None:
        """Connect to the path that is given as the host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def connect(timeout: float) -> http.client.HTTPConnection:
    """A connection to devpi-server on this host; the same variables tell it where to listen."""
    if path := os.environ.get("DEVPISERVER_UNIX_SOCKET"):
        connection = UnixConnection("localhost", timeout=timeout)
        connection.host = path
        return connection
    return http.client.HTTPConnection(*address(), timeout=timeout)


def address() -> tuple[str, int]:
    """Host and port at which devpi-server listens, as seen from this host."""
    host = os.environ.get("DEVPISERVER_HOST", "127.0.0.1")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(os.environ.get("DEVPISERVER_PORT", "3141"))


def healthy() -> bool:
    """Whether ``/+api``, devpi's cheapest page, answers 200 within three seconds."""
    connection = connect(timeout=3)
    try:
        connection.request("GET", "/+api", headers={"Host": "localhost"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not healthy())
