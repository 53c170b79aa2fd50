"""Have devpi make do with the links of a mirror that it knows, however old: a reader does not wait for upstream.

devpi looks upstream by itself, while the reader waits, once its links are older than the mirror's ``mirror_cache_expiry``. A
page whose successor is fetched in the background (``keeper.py``) needs to be rendered before that too: when an upload, or a
change of an index, has made untrue what was kept.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from devpi_common.validation import normalize_name
from devpi_server.mirror import MirrorStage


class Knowledge(threading.local):
    """Of a thread: whether what is known is enough for it, and whether some of that is too old."""

    enough = False
    old = False


knowledge = Knowledge()
ask = MirrorStage.get_simplelinks_perstage


def get_simplelinks_perstage(mirror: Any, project: str) -> Any:
    """devpi's method of this name, which is how every page gets a mirror's links."""
    if not knowledge.enough:
        return ask(mirror, project)
    name, asked = normalize_name(project), mirror.cache_retrieve_times
    old = asked.is_expired(name, mirror.cache_expiry)
    _, links, _, _ = mirror._load_cache_links(name)
    if links is None and not (old and asked.get_timestamp(name) > 0):
        return ask(mirror, project)  # nobody has looked so far
    knowledge.old = knowledge.old or old
    if links is None:
        raise mirror.UpstreamNotFoundError(f"{name} was not there when we looked")
    return mirror.SimpleLinks(links, core_metadata=mirror.provides_core_metadata)


MirrorStage.get_simplelinks_perstage = get_simplelinks_perstage


@contextlib.contextmanager
def is_enough(enough: bool) -> Iterator[Knowledge]:
    """In this thread, for a while."""
    knowledge.enough, knowledge.old = enough, False
    try:
        yield knowledge
    finally:
        knowledge.enough = False
