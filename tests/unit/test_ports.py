"""Free ports: one that was found stays free for who was told of it."""

from __future__ import annotations

import socket

import pytest

from services.cli.ports import free_ports, is_free


def test_a_port_that_was_found_is_kept_from_whoever_wants_just_any() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        assert is_free(port), "a server may listen there"
        # The system gives nobody a port that could not be taken like this.
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


def test_of_ports_that_are_preferred_the_free_ones_come_first() -> None:
    (free,) = free_ports(1)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        taken = held.getsockname()[1]
        found = free_ports(2, [taken, free])
    assert found[0] == free
    assert taken not in found
