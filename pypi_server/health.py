"""Exit 0 when the server answers: the image's health check, without credentials."""

import http.client
import os
import sys


def address() -> tuple[str, int]:
    """Host and port at which devpi-server listens, as seen from this host; the same variables set it there."""
    host = os.environ.get("DEVPISERVER_HOST", "127.0.0.1")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(os.environ.get("DEVPISERVER_PORT", "3141"))


def healthy(host: str, port: int) -> bool:
    """Whether ``/+api``, devpi's cheapest page, answers 200 within three seconds."""
    connection = http.client.HTTPConnection(host, port, timeout=3)
    try:
        connection.request("GET", "/+api")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not healthy(*address()))
