"""A streaming model behind an endpoint: read from its folder, and copied into a form that ranks all items at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import Tensor

from components.artifacts.format import read_json
from components.embedding_size.config import CLASSES, StreamModelConfig
from components.embedding_size.learner import StreamLearner
from components.embedding_size.norm import EPSILON
from components.errors import ArtifactError
from components.schema import CONFIG_FILE, MODEL_FILE

STREAM_KIND: Final = "stream"  # in the config.json of a finished stream


def is_stream(folder: Path) -> bool:
    """Whether `folder` holds a finished stream."""
    file = folder / CONFIG_FILE
    return file.is_file() and read_json(file).get("kind") == STREAM_KIND


def read_learner(folder: Path) -> StreamLearner:
    """The model of a finished stream, ready to go on.

    Raises:
        ArtifactError: the folder holds no such model.
    """
    config = read_json(folder / CONFIG_FILE)
    if config.get("kind") != STREAM_KIND:
        kind = config.get("kind")
        raise ArtifactError(f"{folder}: its {CONFIG_FILE} is of kind {kind!r}, expected {STREAM_KIND!r}")
    learner = StreamLearner(config["method"], StreamModelConfig.model_validate(config["config"]), config["seed"])
    learner.restore(load_file(folder / MODEL_FILE), config)
    return learner


@dataclass(frozen=True)
class RankingCopy:
    """What answers while the model learns: it never changes, another one takes its place as a whole.

    The head's first layer, with the normalizations around it, is affine in user and item; so the items' part of it is
    kept, and a request adds the user's to all of them.

    Attributes:
        users: (U, 128) vectors of the users.
        weight: (512, 128) makes the users' part of the hidden layer of them.
        items: (I, 512) the items' part.
        output: (out, 512) and (out,) of the last layer.
        step: of the model that was copied.
        task: ``binary`` or ``five-class``.
    """

    users: Tensor
    weight: Tensor
    items: Tensor
    output: tuple[Tensor, Tensor]
    step: int
    task: str

    def scores(self, user: int) -> Tensor:
        """(I,) probability that the user rates each item above the threshold; of five classes the expected grade."""
        return self._scores(self.weight @ self.users[user] + self.items)

    def score(self, user: int, item: int) -> float:
        """The same of one item."""
        return float(self._scores((self.weight @ self.users[user] + self.items[item]).unsqueeze(0))[0])

    def _scores(self, hidden: Tensor) -> Tensor:
        logits = torch.tanh(hidden) @ self.output[0].T + self.output[1]
        if self.task == "binary":
            return torch.sigmoid(logits[:, 0])
        return logits.softmax(1) @ torch.arange(CLASSES, dtype=logits.dtype)


@torch.no_grad()
def copy_for_ranking(learner: StreamLearner, users: int, items: int) -> RankingCopy:
    """A copy of the model as it stands.

    Args:
        learner: the model.
        users: how many of them, from number 0 on.
        items: the same.
    """
    head = learner.head
    outer = head.outer.weight * (head.outer.running_var[0] + EPSILON).rsqrt()  # (256,)
    inner = head.inner.weight * (head.inner.running_var[0] + EPSILON).rsqrt()  # (512,)
    shift = head.outer.bias - head.outer.running_mean[0] * outer
    weight = inner.unsqueeze(1) * head.hidden.weight  # (512, 256)
    constant = weight @ shift + inner * (head.hidden.bias - head.inner.running_mean[0]) + head.inner.bias
    mapped = weight * outer
    width = mapped.shape[1] // 2
    vectors = (
        learner.users.served(torch.arange(users), learner.steps),
        learner.items.served(torch.arange(items), learner.steps),
    )
    output = (head.output.weight.detach().clone(), head.output.bias.detach().clone())
    return RankingCopy(
        vectors[0],
        mapped[:, :width].contiguous(),
        vectors[1] @ mapped[:, width:].T + constant,
        output,
        learner.steps,
        learner.config.task,
    )
