from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from serve.haproxy import STARTED_WITH, binary, environment


def test_statistics_and_metrics_are_fenced_into_loopback(tmp_path: Path) -> None:
    """The script rewrites the configuration that Ray Serve generates, and then becomes the binary."""
    config = tmp_path / "node" / "haproxy.cfg"
    config.parent.mkdir()
    config.write_text(
        "frontend prometheus\n    bind :9101\nfrontend http\n    bind 127.0.0.1:8000\nlisten stats\n  bind *:8404\n"
    )
    started = environment(Path("/bin/echo"), tmp_path)[STARTED_WITH]
    done = subprocess.run([started, "-db", "-f", str(config), "-sf", "7"], capture_output=True, text=True, check=True)
    assert done.stdout == f"-db -f {config} -sf 7\n"
    lines = [line.strip() for line in config.read_text().splitlines() if "bind" in line]
    assert lines == ["bind 127.0.0.1:9101", "bind 127.0.0.1:8000", "bind 127.0.0.1:8404"]


def test_clients_have_limited_time_for_the_head_of_a_request(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text("defaults\n    mode http\n    option log-health-checks\n    timeout client 60s\n")
    variables = environment(Path("/bin/echo"), tmp_path, answer_s=20.5)
    subprocess.run([variables[STARTED_WITH], "-f", str(config)], capture_output=True, check=True)
    assert "    option log-health-checks\n    timeout http-request 10s\n    timeout client" in config.read_text()
    assert variables["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"] == "26"  # later than the application's own limit


def test_state_stays_in_the_private_folder(tmp_path: Path) -> None:
    variables = environment(Path("/bin/true"), tmp_path)
    paths = [value for value in variables.values() if value.startswith("/")]
    assert len(paths) == 6
    assert all(Path(path).is_relative_to(tmp_path) for path in paths)
    assert Path(variables[STARTED_WITH]).stat().st_mode & 0o077 == 0


def test_two_instances_use_different_ports(tmp_path: Path) -> None:
    variables = environment(Path("/bin/true"), tmp_path)
    assert variables["RAY_SERVE_HAPROXY_STATS_PORT"] != variables["RAY_SERVE_HAPROXY_METRICS_PORT"]


def test_a_binary_that_does_not_start_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "haproxy"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o700)
    monkeypatch.setenv(STARTED_WITH, str(broken))
    assert binary() is None
    broken.write_text("#!/bin/sh\nexit 0\n")
    assert binary() == broken
