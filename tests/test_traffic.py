"""What the proxy's log tells of clients, line by line."""

from pypi_tasks.traffic import Told, tally

LOG = """
10.0.0.1 [2026-11-25T02:00:00+00:00] "GET /pypi/stable HTTP/1.1" 200 512 7.904 s waited "pip/25.0"
10.0.0.2 [2026-11-25T02:00:01+00:00] "POST /pypi/stable/ HTTP/1.1" 200 15 3.100 s waited "twine/6.1"
10.0.0.2 [2026-11-25T02:00:09+00:00] "POST /pypi/stable/ HTTP/1.1" 200 15 90.000 s "twine/6.1"
10.0.0.3 [2026-11-25T02:00:10+00:00] "GET /nothing HTTP/1.1" 404 9 0.001 s "curl \\x22 503 9 1.000 s waited \\x22"
2026/11/25 02:00:11 [warn] 1#1: something of nginx's own
"""


def test_what_waited_is_counted_with_the_longest_wait() -> None:
    assert tally(LOG) == Told(waited=2, longest=7.904, failed=0)
    assert str(tally(LOG)) == "2 waited, the longest 7.9 s, 0 failed"


def test_what_the_server_failed_at_is_counted_whether_or_not_it_waited() -> None:
    failed = '10.0.0.1 [2026-11-25T02:00:00+00:00] "GET / HTTP/1.1" {} 5 60.000 s{} "pip/25.0"\n'
    assert tally(failed.format(503, " waited") + failed.format(502, "")) == Told(waited=1, longest=60.0, failed=2)


def test_an_empty_log_tells_of_nobody() -> None:
    assert tally("") == Told()
