"""Assertions of the scripts that run py-consul and python-consul."""

import threading

import consul


def equal(seen, expected):
    assert seen == expected, f"{seen!r} instead of {expected!r}"


def rejects(reason, call, *arguments, **named):
    """Asserts that the call fails with this reason in the client's error."""
    try:
        seen = call(*arguments, **named)
    except consul.ConsulException as error:
        assert reason in str(error), f"{error} instead of {reason!r}"
    else:
        raise AssertionError(f"{call} returned {seen!r} instead of failing")


def when_changed(read, change):
    """Returns the result of a blocking query during which the change happens."""
    index, _ = read()
    found = []
    waiting = threading.Thread(target=lambda: found.append(read(index=index, wait="30s")))
    waiting.start()
    change()
    waiting.join()
    assert int(found[0][0]) > int(index), f"{index} was followed by {found[0][0]}"
    return found[0][1]
