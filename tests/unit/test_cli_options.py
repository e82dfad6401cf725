from __future__ import annotations

import pytest

from services.cli.options import DEFAULT_URL, problem_with_urls, urls_of


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, [DEFAULT_URL]),
        (["ws://one:1/ws, wss://two/ws"], ["ws://one:1/ws", "wss://two/ws"]),
        (["http://127.0.0.1:8000"], ["ws://127.0.0.1:8000/ws"]),
        (["https://baton.example/"], ["wss://baton.example/ws"]),
        (["https://baton.example/hr/ws"], ["wss://baton.example/hr/ws"]),
    ],
)
def test_the_address_of_a_page_is_as_good_as_that_of_its_socket(given: list[str] | None, expected: list[str]) -> None:
    assert urls_of(given) == expected
    assert problem_with_urls(urls_of(given)) == ""


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/ws", "http://", "nonsense"])
def test_what_is_no_address_of_a_gateway_is_named(url: str) -> None:
    assert url.removeprefix("http") in problem_with_urls(urls_of([url]))
