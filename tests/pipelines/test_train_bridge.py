"""What the driver is told of a training, and of one that goes on after a kill."""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path

import pytest
from rich.console import Console

from components.training.observer import Place
from pipelines.driver import logging_to
from pipelines.mailbox import Mailbox, Update
from pipelines.progress import PlainBoard
from pipelines.train_bridge import Messenger, show
from tests.components.training.test_loop import student, trainer
from tests.kills import KillAt, KilledError
from tests.pipelines.recorder import Recorder

MIDDLE = Place(epochs=4, epoch=1, step=3, targets=1000, done=400)


class Worker(Messenger):
    """The observer in a worker that may be killed; its mailbox is no actor."""

    def __init__(self, mailbox: Mailbox, kill_at: int = -1) -> None:
        super().__init__(mailbox.post, rank=0, grouped=False)
        self.kill = KillAt(kill_at)

    def step(self, epoch: int, targets: int) -> None:
        super().step(epoch, targets)
        self._send(Update(done=self._done, epoch=epoch))  # as if every step took half a second
        self.kill.step(epoch, targets)


@pytest.mark.parametrize("looks", [1, 2])
def test_a_resumed_training_is_counted_from_its_checkpoint(looks: int, tmp_path: Path) -> None:
    """Whether the driver looks between the death of the first worker and the start of the second, or not."""
    mailbox, progress = Mailbox(), Recorder()
    with pytest.raises(KilledError):
        trainer(student(), tmp_path, observer=Worker(mailbox, 9), checkpoint_seconds=0.0).fit()
    if looks == 2:
        show(mailbox.take(), progress)
        assert (len(progress.done), progress.said) == (2, [])
    loop = trainer(student(), tmp_path, observer=Worker(mailbox))
    history = loop.fit()
    show(mailbox.take(), progress)
    plans = [loop.batches.num_targets(windows) for epoch in range(2) for windows in loop.batches.epoch(epoch)]
    assert progress.done[0] == sum(plans[:8])  # the ninth step was lost with its worker
    assert sum(progress.done) == sum(row["targets"] for row in history.epochs)
    assert progress.said == ["resumed at epoch 2, step 4"]
    assert progress.shown["epoch"] == "4/4"


def test_news_of_one_worker_add_up() -> None:
    mailbox = Mailbox()
    for update in (Update(begun=MIDDLE), Update(done=5, epoch=2), Update(done=7, epoch=2, shown={"loss": 1.5})):
        mailbox.post(update)
    assert mailbox.take() == Update(MIDDLE, 12, 2, 0, {"loss": 1.5})
    assert mailbox.take() == Update(None, 0, 2, 0, {"loss": 1.5})


def test_speed_and_time_left_count_what_was_really_done(tmp_path: Path) -> None:
    now = 100.0
    stream = io.StringIO()
    board = PlainBoard(Console(file=stream, width=200), interval=5, clock=lambda: now)
    progress = board.begin("teach/a", "not done yet")
    now += 60  # waiting for a place
    show(Update(begun=MIDDLE, epoch=1, epochs=4), progress)
    now += 10
    show(Update(done=100, epoch=2, epochs=4), progress)
    assert stream.getvalue().splitlines() == [
        "teach/a: starts (not done yet)",
        "teach/a: 400 of 1,000 targets",
        "teach/a: resumed at epoch 2, step 4",
        "teach/a: 500 of 1,000 targets, 10/s, 50 s left, epoch 2/4, training",
    ]


def test_the_resume_is_noted_in_the_log_of_the_run(tmp_path: Path) -> None:
    board = PlainBoard(Console(file=io.StringIO()))
    log = tmp_path / "logs" / "run.log"
    with logging_to(log):
        say = board.begin("teach/a", "not done yet").say
        thread = threading.Thread(target=say, args=["resumed at epoch 2, step 4"], name="teach/a")
        thread.start()
        thread.join()
        logging.getLogger("some.library").info("chatter")
    assert log.read_text().count("\n") == 1
    assert "INFO teach/a pipelines.progress: resumed at epoch 2, step 4\n" in log.read_text()
    assert logging.getLogger("pipelines").level == logging.NOTSET
