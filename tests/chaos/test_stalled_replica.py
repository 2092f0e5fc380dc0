"""A replica that stands still, and an endpoint that is told to stop: people notice as little as can be."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.serving_process import Served
from tests.tiny_artifact import write_artifact

pytestmark = pytest.mark.chaos
BODY = {"history": ["id-3"], "k": 5}
REPLACED_S = 30.0  # the promise: a stalled replica is replaced within this time
QUIET_S = 5.0  # of good answers alone, before it counts as over


@dataclass(frozen=True)
class Asked:
    """One request: when it began and ended, and its status, or the name of the connection's error."""

    began: float
    ended: float
    status: int | str


class Visitors:
    """Ask one after the other, in some threads, until the block ends."""

    def __init__(self, url: str, count: int = 3) -> None:
        self.url, self.asked, self._stop = url, list[Asked](), threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=40) as client:
            while not self._stop.wait(0.02):
                began, status = time.monotonic(), 0
                try:
                    status = client.post(f"{self.url}/v1/recommend", json=BODY).status_code
                except httpx.TransportError as error:
                    self.asked.append(Asked(began, time.monotonic(), type(error).__name__))
                else:
                    self.asked.append(Asked(began, time.monotonic(), status))


def replicas(served: Served) -> list[psutil.Process]:
    """The processes of the endpoint's replicas that are not stopped."""
    found = []
    for process in psutil.Process(served.process.pid).children(recursive=True):
        if "ServeReplica" in process.name() or any("ServeReplica" in part for part in process.cmdline()):
            found.append(process)
    return found


@pytest.mark.parametrize("count", [1, 2])
def test_a_replica_that_stands_still_is_replaced(tmp_path: Path, count: int) -> None:
    run = tmp_path / "run"
    write_artifact(run / "export", num_items=200)
    with Served(run, replicas=count) as served, Visitors(served.url) as visitors:
        before = replicas(served)
        assert len(before) == count
        os.kill(before[0].pid, signal.SIGSTOP)
        stalled = time.monotonic()
        good = stalled  # when the last request that met the stalled replica had its answer from another one
        while True:
            now = time.monotonic()
            assert now - stalled < 2 * REPLACED_S + QUIET_S, f"still failing: {visitors.asked[-5:]}"
            fresh = [one for one in visitors.asked if one.began > stalled]
            bad = [one for one in fresh if one.status != 200]
            good = max([stalled, *(one.began for one in bad)])
            new = [one for one in replicas(served) if one.pid not in {old.pid for old in before}]
            if new and now - good > QUIET_S and any(one.status == 200 and one.began > good for one in fresh):
                break
            threading.Event().wait(0.2)
        print(f"{count} replicas: the last request that failed began {good - stalled:.1f} s after the stall")
        assert good - stalled < REPLACED_S


def test_a_normal_stop_fails_no_request_that_was_accepted(tmp_path: Path) -> None:
    """Those that come while it stops may be refused, at connecting or with a 503; nothing is cut or gets a 500."""
    run = tmp_path / "run"
    write_artifact(run / "export", num_items=200)
    with Served(run, replicas=2) as served, Visitors(served.url) as visitors:
        deadline = time.monotonic() + 60
        while len(visitors.asked) < 50 and time.monotonic() < deadline:
            threading.Event().wait(0.1)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(90) == 0
    statuses = {one.status for one in visitors.asked}
    assert 200 in statuses
    assert statuses <= {200, 503, "ConnectError"}
