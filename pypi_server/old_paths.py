"""A pypiserver's addresses of files, /packages/FILE, for lock files that have them: each leads to the file's own address.

The proxy asks for them as USER/INDEX/+packages/FILE, and for the list of all, which `pip --find-links` reads, without a FILE.
Mirrors are left out: a pypiserver has no files but its own.
"""

import html
from collections.abc import Iterator
from typing import Any

from devpi_common.validation import normalize_name
from pyramid.httpexceptions import HTTPFound, HTTPNotFound
from pyramid.response import Response

ROUTE = "/{user}/{index}/+packages/{file:[^/]*}"
PAGE = "<!DOCTYPE html>\n<html><head><title>Packages</title></head><body>\n{}</body></html>\n"


def use(config: Any) -> None:
    """Tell devpi of the addresses; `pyramid.config.Configurator`."""
    config.add_route(ROUTE, ROUTE)
    config.add_view(answer, route_name=ROUTE, request_method=("GET", "HEAD"), permission="pkg_read")


def projects(file: str) -> list[str]:
    """The projects that a file of this name may be of, normalised: a dash ends the name, but which one?"""
    parts = file.split("-")
    return [normalize_name("-".join(parts[:end])) for end in range(len(parts) - 1, 0, -1)]


def links(stage: Any, file: str) -> Iterator[Any]:
    """The links of an index and of its bases that may be a file's, or all of them where none is named."""
    for one in stage.sro():
        if one.ixconfig["type"] != "mirror":
            for project in projects(file) if file else sorted(one.list_projects_perstage()):
                yield from one.get_simplelinks_perstage(project)


def answer(context: Any, request: Any) -> Any:
    """The way to a file, or the list of all; 404 for one that is not there."""
    file = request.matchdict["file"]
    found: dict[str, Any] = {}
    for link in links(context.stage, file):
        found.setdefault(link.key, link)
    if file:
        if file not in found:
            raise HTTPNotFound(f"{file} is not there.")
        return HTTPFound(f"{request.application_url}/{found[file].href.partition('#')[0]}")
    rows = []
    for name, link in sorted(found.items()):
        digest = link.href.partition("#")[2]
        rows.append(f'<a href="{html.escape(name)}#{html.escape(digest)}">{html.escape(name)}</a><br>\n')
    return Response(PAGE.format("".join(rows)), content_type="text/html")
