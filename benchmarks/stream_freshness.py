"""From a rating that is sent to the prediction that knows it: how long, and whether a request fails meanwhile.

    python -m benchmarks.stream_freshness RUN/stream/esapn/seed-0 --rate 200 --seconds 30

Serves the stream on loopback, sends ratings of known users and items at a steady rate, asks for recommendations beside
it, and looks every few milliseconds up to which event the answering version has learned.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from pipelines.serving.command import check_port
from pipelines.serving.endpoint import running
from serve.settings import Settings
from serve.stream.identities import read_items, read_users

LOOK_S = 0.01
SENDERS = 16


class Load:
    """Sends ratings and questions, and notes when each rating was learned."""

    def __init__(self, url: str, users: list[str], items: list[str], rate: float, seconds: float) -> None:
        self.url, self.users, self.items, self.rate, self.seconds = url, users, items, rate, seconds
        self.sent: list[float] = []  # when event number i + 1 was sent
        self.learned: list[float] = []  # when an answer first knew it
        self.failed: list[str] = []
        self.asked = 0
        self.latency: list[float] = []
        self.over = threading.Event()

    def run(self) -> None:
        """All of it; returns when every event was learned, or half a minute later."""
        threads = [threading.Thread(target=one) for one in (self._ask, self._look)]
        for one in threads:
            one.start()
        self._send()
        deadline = time.monotonic() + 30
        while len(self.learned) < len(self.sent) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        self.over.set()
        for one in threads:
            one.join()

    def _send(self) -> None:
        """Several senders in turn: each waits until its rating is on the disk."""
        started = time.monotonic()
        senders = [threading.Thread(target=self._send_some, args=(started, first)) for first in range(SENDERS)]
        for one in senders:
            one.start()
        for one in senders:
            one.join()

    def _send_some(self, started: float, first: int) -> None:
        draw = random.Random(first)  # noqa: S311 - no secret
        with httpx.Client(base_url=self.url, timeout=10) as client:
            for number in range(first, int(self.rate * self.seconds), SENDERS):
                time.sleep(max(0.0, started + number / self.rate - time.monotonic()))
                body = {
                    "user_id": draw.choice(self.users),
                    "item_id": draw.choice(self.items),
                    "value": draw.randint(1, 5),
                }
                before = time.monotonic()
                if self._good(client.post("/v1/events", json=body)):
                    self.sent.append(before)

    def _ask(self) -> None:
        draw = random.Random(1)  # noqa: S311 - no secret
        with httpx.Client(base_url=self.url, timeout=10) as client:
            while not self.over.is_set():
                before = time.monotonic()
                self._good(client.post("/v1/recommend", json={"user_id": draw.choice(self.users), "k": 10}))
                self.latency.append(time.monotonic() - before)
                self.asked += 1
                self.over.wait(0.05)

    def _look(self) -> None:
        body = {"user_id": self.users[0], "item_id": self.items[0]}
        with httpx.Client(base_url=self.url, timeout=10) as client:
            while not self.over.is_set():
                answer = client.post("/v1/predict", json=body)
                if self._good(answer):
                    now, known = time.monotonic(), answer.json()["learned_events"]
                    self.learned += [now] * (known - len(self.learned))
                self.over.wait(LOOK_S)

    def _good(self, answer: httpx.Response) -> bool:
        if answer.status_code != 200:
            self.failed.append(f"{answer.status_code} {answer.text[:200]}")
        return answer.status_code == 200


def measure(args: argparse.Namespace) -> dict[str, Any]:
    artifact = args.artifact.resolve()
    check_port("127.0.0.1", args.port)
    with tempfile.TemporaryDirectory(prefix="fresh") as folder:

        def make(known: Settings) -> Any:
            from serve.stream.endpoint import build_stream

            return build_stream(str(artifact), known, folder)

        with running(make, Settings(), "127.0.0.1", args.port, 1, args.proxy):
            users, (items, _) = read_users(artifact), read_items(artifact)
            load = Load(f"http://127.0.0.1:{args.port}", users, items, args.rate, args.seconds)
            load.run()
    count = min(len(load.sent), len(load.learned))
    waits = np.array(load.learned[:count]) - np.array(load.sent[:count])
    return {
        "events": len(load.sent),
        "learned": len(load.learned),
        "events_per_second": len(load.sent) / max(load.sent[-1] - load.sent[0], 1e-9),
        "freshness_s": {str(part): float(np.quantile(waits, part)) for part in (0.5, 0.9, 0.99, 1.0)},
        "recommendations": load.asked,
        "recommend_ms": {str(part): 1000 * float(np.quantile(load.latency, part)) for part in (0.5, 0.99)},
        "failed": len(load.failed),
        "first_failures": load.failed[:3],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="a finished stream")
    parser.add_argument("--rate", type=float, default=200.0, help="events per second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--port", type=int, default=18311)
    parser.add_argument("--proxy", choices=("auto", "haproxy", "plain"), default="auto")
    print(json.dumps(measure(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
