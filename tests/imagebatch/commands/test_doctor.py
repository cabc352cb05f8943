"""What is missing on a machine, in one line."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.support.calls import Call


def test_a_sound_machine(call: Call, tmp_path: Path) -> None:
    """Free ports and enough disk: 0, and a line per check."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    outcome = call("doctor", "--ports", port, "--path", tmp_path / "not/yet", "--min-free-gb", 0.001)
    assert outcome.code == 0
    assert outcome.last["found"][0] == f"port {port} is free"


def test_everything_missing_is_said_at_once(call: Call, tmp_path: Path) -> None:
    """A taken port, no Java and too little disk are one line that says what to do about each."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = call("doctor", "--ports", port, "--java", tmp_path / "java", "--min-free-gb", 10**9)
    assert outcome.code == 78
    (line,) = outcome.err.splitlines()
    assert f"port {port} is taken: stop what listens there" in line
    assert "install Java 11 or newer" in line
    assert "1e+09 GB are needed: make room" in line


def test_an_old_or_broken_java_is_refused(call: Call, tmp_path: Path) -> None:
    """The version is asked for, not assumed."""
    for text, code in (
        ('openjdk version "1.8.0_392"', 78),
        ("nonsense", 78),
        ('openjdk version "17.0.1"', 0),
    ):
        java = tmp_path / "java"
        java.write_text(f"#!/bin/sh\necho '{text}' >&2\n")
        java.chmod(0o755)
        assert call("doctor", "--java", java, "--min-free-gb", 0).code == code, text


def test_a_port_must_be_a_number(call: Call) -> None:
    """Wrong usage is 2, not a missing thing."""
    assert call("doctor", "--ports", "http").code == 2
