"""The memory of the newest values: never another answer than the database's."""

import random

import pytest
from newest import Newest, Value


def memory(size: int = 100, head: int = 0) -> Newest:
    return Newest(size, head, lambda value: value == "large" or (isinstance(value, tuple) and value[2] == "large"))


def test_what_was_written_last_is_true_at_every_serial_since() -> None:
    newest = memory()
    newest.commit(1, {"a": ("KIND", -1, "one")})
    newest.commit(2, {"b": ("KIND", -1, "two")})
    assert newest.at("a", 1) == newest.at("a", 2) == (1, -1, "one")


def test_before_it_was_written_it_is_not() -> None:
    newest = memory()
    newest.commit(1, {"a": ("KIND", -1, "one")})
    newest.commit(2, {"a": ("KIND", 1, "two")})
    assert newest.at("a", 1) is None and newest.at("a", 2) == (2, 1, "two")


def test_a_deletion_is_a_value_too() -> None:
    newest = memory()
    newest.commit(1, {"a": ("KIND", -1, "one")})
    newest.commit(2, {"a": ("KIND", 1, None)})
    assert newest.at("a", 2) == (2, 1, None)


def test_a_serial_that_it_has_not_heard_of_is_left_to_the_database() -> None:
    newest = memory()
    newest.commit(1, {"a": ("KIND", -1, "one")})
    assert newest.at("a", 2) is None  # committed, and we are not told yet


def test_what_a_slow_reader_read_does_not_replace_what_was_written_since() -> None:
    newest = memory()
    newest.commit(1, {"a": ("KIND", -1, "one")})
    newest.commit(2, {"a": ("KIND", 1, "two")})
    newest.learn("a", 1, (1, -1, "one"))
    assert newest.at("a", 2) == (2, 1, "two")


@pytest.mark.parametrize("way", ["read", "written"])
def test_large_values_are_not_kept_nor_what_they_replaced(way: str) -> None:
    newest = memory()
    newest.commit(1, {"a": ("KIND", -1, "one")})
    newest.commit(2, {"a": ("KIND", 1, "large")})
    if way == "read":
        newest.learn("a", 2, (2, 1, "large"))
    assert newest.at("a", 2) is None


def test_it_forgets_what_was_not_used_for_longest() -> None:
    newest = memory(size=2)
    newest.commit(1, {"a": ("KIND", -1, 1), "b": ("KIND", -1, 2)})
    assert newest.at("a", 1)
    newest.commit(2, {"c": ("KIND", -1, 3)})
    assert newest.at("b", 2) is None and newest.at("a", 2) and newest.at("c", 2)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_order_of_commits_and_reads_the_answer_is_the_databases(seed: int) -> None:
    choice = random.Random(seed)
    newest, history = memory(size=5), [dict[str, Value]()]  # what every key held at each serial
    told = 0
    for _ in range(2000):
        key = choice.choice("abcdefgh")
        match choice.randrange(4):
            case 0:  # the database commits
                before = history[-1].get(key, (-1, -1, None))[0]
                history.append({**history[-1], key: (len(history), before, choice.randrange(9))})
            case 1 if told < len(history) - 1:  # and tells of it, at its leisure
                told += 1
                newest.commit(
                    told, {name: ("KIND", value[1], value[2]) for name, value in history[told].items() if value[0] == told}
                )
            case _:  # a reader at some serial
                serial = choice.choice([len(history) - 1, told, choice.randrange(len(history))])
                true = history[serial].get(key)
                found = newest.at(key, serial)
                assert found is None or found == true
                if found is None and true:
                    newest.learn(key, serial, true)
