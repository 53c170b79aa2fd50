"""What devpi knows of a page's future: which indexes can change it, and when its mirrors should be asked again."""

import time
from dataclasses import dataclass
from typing import Any

from page import Page

CHECK_AGAIN = 60.0  # seconds, for a page that upstream did not answer for


@dataclass(frozen=True)
class Outlook:
    """What a page depends on, and for how many seconds it is good; None while the database does not change."""

    indexes: frozenset[str]
    public: frozenset[str]
    seconds: float | None = None
    keep: bool = True


def look(xom: Any, page: Page) -> Outlook:
    """What devpi says of a page's index: the indexes that it inherits from, whose files anybody may read, and when
    the mirrors among them should be asked again."""
    with xom.keyfs.read_transaction():
        stage = xom.model.getstage(page.index)
        if stage is None:
            return Outlook(frozenset(), frozenset(), keep=False)
        stages = list(stage.sro())
        names = frozenset(one.name for one in stages)
        public = frozenset(one.name for one in stages if ":ANONYMOUS:" in one.customizer.get_principals_for_pkg_read())
        mirrors = [one for one in stages if one.ixconfig["type"] == "mirror"]
        if page.form == "metadata":
            return Outlook(frozenset({page.index}), public & {page.index}, keep=page.index in public)
        if not page.subject:  # a mirror's own list of names is not in the database
            return Outlook(names, public, keep=all(one.no_project_list for one in mirrors))
        if stage.get_mirror_whitelist_info(page.subject)["blocked_by_mirror_whitelist"]:
            return Outlook(names, public)
        seconds = [seconds_left(one, page.subject) for one in mirrors]
        if None in seconds:
            return Outlook(names, public, keep=False)
        return Outlook(names, public, min((one for one in seconds if one is not None), default=None))


def seconds_left(mirror: Any, project: str) -> float | None:
    """For how long a mirror's links are good; None where it should have some, but upstream did not answer."""
    if not mirror.no_project_list and project not in mirror.cache_projectnames.get():
        return float(mirror.cache_expiry)
    asked = mirror.cache_retrieve_times
    if asked.is_expired(project, mirror.cache_expiry):
        return CHECK_AGAIN if mirror.is_project_cached(project) else None
    age = time.time() - float(asked.get_timestamp(project))
    return max(1.0, float(mirror.cache_expiry) - age)
