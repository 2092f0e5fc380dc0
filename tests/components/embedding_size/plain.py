"""A plain ESAPN: tables of all sizes, a dense Adam, dictionaries and deques, and loops over rows for all that is kept.

It follows the pseudo-code of the algorithm line by line and shares with the learner nothing but the networks' shapes
and the numbers that they begin with.
"""

from __future__ import annotations

from collections import defaultdict, deque
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.embedding_size.config import StreamModelConfig
from components.embedding_size.esapn import EsapnSide
from components.embedding_size.learner import StreamLearner
from components.embedding_size.sizes import LARGEST, NUM_SIZES, SIZES


class PlainNorm(nn.Module):
    """Batch normalization written out; running statistics per group, used below eight rows."""

    def __init__(self, width: int, groups: int = 1) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.means = [torch.zeros(width) for _ in range(groups)]
        self.variances = [torch.ones(width) for _ in range(groups)]

    def forward(self, rows: Tensor, track: bool, group: int = 0) -> Tensor:
        mean, variance = self.means[group], self.variances[group]
        if len(rows) >= 8:
            mean, variance = rows.mean(0), rows.var(0, unbiased=False)
            if track:
                unbiased = rows.var(0, unbiased=True).detach()
                self.means[group] = 0.9 * self.means[group] + 0.1 * mean.detach()
                self.variances[group] = 0.9 * self.variances[group] + 0.1 * unbiased
        return (rows - mean) / torch.sqrt(variance + 1e-5) * self.weight + self.bias


class PlainPolicy(nn.Module):
    def __init__(self, max_frequency: int) -> None:
        super().__init__()
        self.max_frequency = max_frequency
        self.frequencies = nn.Embedding(max_frequency + 1, 32)
        self.outer, self.inner = PlainNorm(32), PlainNorm(512)
        self.hidden, self.output = nn.Linear(38, 512), nn.Linear(512, 2)

    def forward(self, frequency: Tensor, sizes: Tensor, track: bool) -> Tensor:
        seen = self.outer(self.frequencies(frequency.clamp(max=self.max_frequency)), track)
        both = torch.cat([seen, functional.one_hot(sizes, NUM_SIZES).to(seen.dtype)], 1)
        return self.output(torch.tanh(self.inner(self.hidden(both), track)))


class PlainSide(nn.Module):
    """Users, or items."""

    def __init__(self, count: int, config: StreamModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.mode = config.bn_mode
        self.tables = nn.ParameterList(torch.randn(count, size) for size in SIZES)
        self.maps = nn.ModuleList(nn.Linear(small, large) for small, large in pairwise(SIZES))
        self.norm = PlainNorm(SIZES[-1], NUM_SIZES)
        self.policy = PlainPolicy(config.max_frequency)
        self.learning = torch.optim.Adam(self.policy.parameters(), lr=config.policy_learning_rate)
        self.sizes = [0] * count
        self.queues: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=config.history_losses))
        self.frequency: dict[int, int] = defaultdict(int)
        self.generator = generator

    def held(self, rows: list[int]) -> Tensor:
        return torch.tensor([self.sizes[row] for row in rows])

    def count(self, rows: list[int]) -> Tensor:
        found = []
        for row in rows:
            self.frequency[row] += 1
            found.append(self.frequency[row])
        return torch.tensor(found)

    def chain(self, rows: Tensor, size: int) -> Tensor:
        for widen in self.maps[size:]:
            rows = widen(rows)
        return rows

    def vectors(self, rows: list[int], asked: Tensor, track: bool) -> Tensor:
        held, index = self.held(rows), torch.tensor(rows)
        branches = []
        for size in range(NUM_SIZES):
            part = self.tables[size][index]
            if size:
                larger = self.maps[size - 1](self.tables[size - 1][index])
                part = torch.where(((asked == size) & (held == size - 1)).unsqueeze(1), larger, part)
            branches.append(self.chain(part, size))
        if self.mode == "branches":
            branches = [self.norm(branch, track, size) for size, branch in enumerate(branches)]
        chosen = torch.stack([branches[int(size)][row] for row, size in enumerate(asked)])
        if self.mode == "selected":
            chosen = self.norm(chosen, track)
        if self.mode == "group":
            parts: dict[int, Tensor] = {}
            for size in range(NUM_SIZES):
                members = [row for row in range(len(rows)) if asked[row] == size]
                if members:
                    parts |= dict(zip(members, self.norm(chosen[members], track, size), strict=True))
            chosen = torch.stack([parts[row] for row in range(len(rows))])
        return torch.tanh(chosen)

    def sample(self, rows: list[int], frequency: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.policy(frequency, self.held(rows), True)
        actions = torch.multinomial(logits.detach().softmax(1), 1, generator=self.generator)[:, 0]
        for row, entity in enumerate(rows):
            if self.sizes[entity] == LARGEST:
                actions[row] = 0
        return logits, actions

    def reinforce(self, rows: list[int], logits: Tensor, actions: Tensor, losses: Tensor) -> None:
        total = torch.zeros(())
        for row, entity in enumerate(rows):
            if self.sizes[entity] < LARGEST and self.queues[entity]:
                reward = sum(self.queues[entity]) / len(self.queues[entity]) - float(losses[row])
                total = total - torch.log_softmax(logits[row], 0)[actions[row]] * reward
        if total.requires_grad:
            self.learning.zero_grad()
            total.backward()
            self.learning.step()

    def enlarge(self, rows: list[int], frequency: Tensor, optimizer: torch.optim.Adam) -> None:
        with torch.no_grad():
            logits = self.policy(frequency, self.held(rows), False)
        decisions = {}
        for row, entity in enumerate(rows):
            decisions[entity] = bool(logits[row, 1] > logits[row, 0])
        for entity, wanted in decisions.items():
            size = self.sizes[entity]
            if wanted and size < LARGEST:
                with torch.no_grad():
                    self.tables[size + 1][entity] = self.maps[size](self.tables[size][entity])
                    for moment in ("exp_avg", "exp_avg_sq"):
                        state = optimizer.state[self.tables[size + 1]]
                        if state:
                            state[moment][entity] = 0
                self.sizes[entity] = size + 1


class PlainEsapn:
    """The whole, with tables for a known number of users and items.

    Args:
        users: how many.
        items: how many.
        config: as the learner's.
        seed: of the actions.
    """

    def __init__(self, users: int, items: int, config: StreamModelConfig, seed: int) -> None:
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)
        self.users, self.items = (PlainSide(count, config, self.generator) for count in (users, items))
        self.outer, self.inner = PlainNorm(256), PlainNorm(512)
        self.hidden, self.output = nn.Linear(256, 512), nn.Linear(512, config.num_outputs)
        self.model = nn.ModuleList([self.outer, self.inner, self.hidden, self.output])
        for side in (self.users, self.items):
            self.model += [side.tables, side.maps, side.norm]
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self.past: tuple[list[int], list[int], Tensor, Tensor, Tensor] | None = None

    def begin_as(self, learner: StreamLearner) -> None:
        """Take over the numbers with which a learner begins; its tables must be filled."""
        self.generator.set_state(learner.generator.get_state())
        for own, theirs in ((self.users, learner.users), (self.items, learner.items)):
            assert isinstance(theirs, EsapnSide)
            everybody = torch.arange(len(own.sizes))
            for index, part in enumerate(theirs.store.branches(everybody, 0, learn=False)):
                if len(part):
                    own.tables[index].data.copy_(part)
            own.maps.load_state_dict(theirs.network.transforms.state_dict())
            for name in ("frequencies", "hidden", "output"):
                getattr(own.policy, name).load_state_dict(getattr(theirs.policy, name).state_dict())
        self.hidden.load_state_dict(learner.head.hidden.state_dict())
        self.output.load_state_dict(learner.head.output.state_dict())

    def forward(self, users: Tensor, items: Tensor, track: bool) -> Tensor:
        rows = self.outer(torch.cat([users, items], 1), track)
        return self.output(torch.tanh(self.inner(self.hidden(rows), track)))

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.config.task == "binary":
            return (torch.sigmoid(logits[:, 0]) - labels) ** 2
        return -torch.log_softmax(logits, 1)[torch.arange(len(labels)), labels]

    def step(self, users: list[int], items: list[int], labels: Tensor) -> Tensor:
        """(B,) losses before learning."""
        if self.past is not None:
            self._policies(*self.past)
        seen = self.users.count(users), self.items.count(items)
        self.users.enlarge(users, seen[0], self.optimizer)
        self.items.enlarge(items, seen[1], self.optimizer)
        vectors = [
            side.vectors(rows, side.held(rows), True) for side, rows in ((self.users, users), (self.items, items))
        ]
        losses = self.losses(self.forward(*vectors, True), labels)
        self.optimizer.zero_grad()
        losses.sum().backward()
        for parameter in self.model.parameters():  # a size that nobody has yet counts its steps like the others
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        self.optimizer.step()
        for row, (user, item) in enumerate(zip(users, items, strict=True)):
            self.users.queues[user].append(float(losses[row].detach()))
            self.items.queues[item].append(float(losses[row].detach()))
        self.past = (users, items, labels, *seen)
        return losses.detach()

    def _policies(self, users: list[int], items: list[int], labels: Tensor, *seen: Tensor) -> None:
        sides = ((self.users, users, seen[0]), (self.items, items, seen[1]))
        sampled = [side.sample(rows, frequency) for side, rows, frequency in sides]
        with torch.no_grad():
            vectors = [
                side.vectors(rows, side.held(rows) + actions, False)
                for (side, rows, _), (_, actions) in zip(sides, sampled, strict=True)
            ]
            losses = self.losses(self.forward(*vectors, False), labels)
        for (side, rows, _), (logits, actions) in zip(sides, sampled, strict=True):
            side.reinforce(rows, logits, actions, losses)
