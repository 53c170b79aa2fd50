"""What devpi-server is told of at its start: a tween that answers from what is kept (``keeper.py``)."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graceful
import old_paths
from devpi_server.config import hookimpl
from fetch import Fetches
from keeper import WITHIN, Keeper
from page import page_of
from page_store import PageStore
from pyramid.request import Request
from pyramid.response import Response
from pyramid.tweens import INGRESS

FILE = re.compile(r"/[^/+]+/[^/+]+/\+f/[^/]+/[^/]+/[^/]+(?<!\.metadata)")
DOCUMENTATION = re.compile(r"/([^/+]+)/([^/+]+)/([^/+]+)/([^/+]+)/\+doc/.*")


def readable(handler: Callable[[Request], Any], _: Any) -> Callable[[Request], Any]:
    """Refuse an address that is not UTF-8, before somebody stumbles over it."""

    def handle(request: Request) -> Any:
        try:
            str(request.path_info)
        except UnicodeDecodeError:
            return Response(status=400, text="The address is not UTF-8.\n")
        return handler(request)

    return handle


def tween(handler: Callable[[Request], Any], registry: Any) -> Callable[[Request], Any]:
    """Stand before devpi's own handling of a request."""
    keeper: Keeper = registry["keeper"]
    fetches = Fetches()

    def handle(request: Request) -> Any:
        if request.method == "GET" and FILE.fullmatch(request.path_info):
            keeper.started.set()
            return fetches.serve(request, handler)
        if WITHIN in request.environ:
            return handler(request)
        keeper.started.set()
        # Whoever sends it could choose the addresses in our pages.
        request.environ.pop("HTTP_X_DEVPI_ABSOLUTE_URLS", None)
        if page := page_of(request):
            return keeper.serve(request, page)
        if request.method != "GET" or not (found := DOCUMENTATION.fullmatch(request.path_info)):
            return handler(request)
        user, index, project, version = found.groups()
        with keeper.flight(project) as flight:
            response = handler(request)
            if response.status_code == 200:
                keeper.link_documentation(f"{user}/{index}", project, version, flight)
        return response

    return handle


class Plugin:
    """What devpi-server is told of at its start."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    @hookimpl(trylast=True)  # after devpi-web, whose tween comes last then
    def devpiserver_pyramid_configure(self, pyramid_config: Any) -> None:
        """Put the tween where it sees requests before a transaction is begun for them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        keeper = Keeper(pyramid_config.registry["xom"], PageStore(self.folder, self.limit))
        keeper.watch()
        pyramid_config.registry["keeper"] = keeper
        graceful.use()
        old_paths.use(pyramid_config)
        pyramid_config.add_tween("plugin.readable", under=INGRESS, over="devpi_server.views.tween_request_logging")
        pyramid_config.add_tween("room.tween", under="plugin.readable", over="devpi_server.views.tween_request_logging")
        pyramid_config.add_tween(
            "plugin.tween",
            under="devpi_server.views.tween_request_logging",
            over="devpi_server.views.tween_keyfs_transaction",
        )
