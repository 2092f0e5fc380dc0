"""ESAPN: a policy per side enlarges embeddings one size at a time and learns by reward (section 2.3, Algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from components.embedding_size.config import NormMode, StreamModelConfig
from components.embedding_size.networks import SizeChain, StateNetwork
from components.embedding_size.side import adam_tensors, below, make_adam, module_tensors, restore_adam
from components.embedding_size.sizes import LARGEST, NUM_SIZES, WIDTH
from components.embedding_size.stores import AllSizes, ExactStore
from components.embedding_size.visits import LossQueues, Visits, rewards


def policy_loss(logits: Tensor, actions: Tensor, reward: Tensor) -> Tensor:
    """Sum over rows of -R log pi(a): its gradient is that of Eq. 6 with one sample per state, downhill for Eq. 7.

    >>> round(float(policy_loss(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([0.04]))), 7)
    0.0277259

    Args:
        logits: (B, 2).
        actions: (B,) 1 enlarges, 0 leaves.
        reward: (B,) R.
    """
    return (functional.cross_entropy(logits, actions, reduction="none") * reward).sum()


class EsapnSide:
    """One side of ESAPN; see `components.embedding_size.side.Side`.

    Args:
        config: learning rates, mode of normalization, and what the policy learns on.
        generator: of new embeddings and of sampled actions.
    """

    dim = WIDTH

    def __init__(self, config: StreamModelConfig, generator: torch.Generator) -> None:
        self.mode: NormMode = config.bn_mode
        make = AllSizes if self.mode == "branches" else ExactStore
        self.store = make(config.learning_rate, generator, drift=config.row_updates == "dense")
        self.network = SizeChain()
        self.policy = StateNetwork(config.max_frequency, 2)
        self.optimizer = make_adam(self.policy, config.policy_learning_rate)
        self.queues = LossQueues(config.history_losses)
        self.generator, self.mask_in_loss = generator, config.mask_in_loss
        self._tape = (torch.zeros(0), torch.zeros(0), torch.zeros(0))  # logits, actions, whether there was a choice

    @property
    def sizes(self) -> Tensor:
        """(N,) index of everybody's size."""
        return self.store.sizes

    def ensure(self, count: int) -> None:
        """See `Side.ensure`."""
        self.store.ensure(count)

    def trial(self, visits: Visits, step: int) -> Tensor:
        """Enlarge at random, as the policy says how likely, for this once: nothing is written."""
        held = self.store.size_of(visits.rows)
        logits = self._logits(visits, held, track=True)
        actions = torch.multinomial(logits.detach().softmax(1), 1, generator=self.generator).squeeze(1)
        free = held < LARGEST
        actions = actions * free
        self._tape = (logits, actions, free)
        with torch.no_grad():
            parts = self.store.branches(visits.unique, step, learn=False)
            return self._vectors(parts, visits, held, held + actions, track=False)

    def leaves(self) -> list[Tensor]:
        """The policy learns by reward, not through the model."""
        return []

    def learn(self, visits: Visits, losses: Tensor, gradients: list[Tensor]) -> None:
        """Reward the sampled actions by Eq. 2, and step the policy."""
        logits, actions, free = self._tape
        reward = rewards(self.queues, visits.rows, losses)
        if not self.mask_in_loss:
            reward = reward * free  # where there was no choice there is nothing to learn
        policy_loss(logits, actions, reward).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()

    def adapt(self, visits: Visits, step: int) -> None:
        """Enlarge whoever the policy says; an entity that occurs several times is decided on by its last state."""
        held = self.store.size_of(visits.rows)
        with torch.no_grad():
            logits = self._logits(visits, held, track=False)[visits.last]
        wanted = (logits[:, 1] > logits[:, 0]) & (held[visits.last] < LARGEST)
        if wanted.any():
            self.store.enlarge(visits.unique[wanted], self.network.transforms, step)

    def vectors(self, visits: Visits, step: int) -> Tensor:
        """See `Side.vectors`."""
        held = self.store.size_of(visits.rows)
        parts = self.store.branches(visits.unique, step, learn=True)
        return self._vectors(parts, visits, held, held, track=True)

    def update(self, step: int) -> None:
        """See `Side.update`."""
        self.store.update(step)

    def finish(self, visits: Visits, losses: Tensor) -> None:
        """See `Side.finish`."""
        self.queues.push(visits, losses)

    def served(self, entities: Tensor, step: int) -> Tensor:
        """See `Side.served`."""
        places = self.store.places(entities)
        held = self.store.size_of(entities)
        parts = self.store.branches(entities, step, learn=False)
        if self.mode == "branches":  # of all six branches only its own counts
            places = [torch.nonzero(held == size).flatten() for size in range(NUM_SIZES)]
            parts = [part[place] for part, place in zip(parts, places, strict=True)]
        wide = self.network.widen(parts)[torch.argsort(torch.cat(places))]
        groups = torch.zeros_like(held) if self.mode == "selected" else held
        return torch.tanh(self.network.norm.running(wide, groups))

    def _logits(self, visits: Visits, held: Tensor, *, track: bool) -> Tensor:
        state = functional.one_hot(held, NUM_SIZES).to(self.policy.output.weight.dtype)
        logits: Tensor = self.policy(visits.frequency, state, track=track)
        return logits

    def _vectors(self, parts: list[Tensor], visits: Visits, held: Tensor, asked: Tensor, *, track: bool) -> Tensor:
        """(B, 128) with everybody in the size that is asked for.

        An embedding of the next size is what the next map makes of it, so both have the same vector behind all maps:
        what is asked for only decides which statistics normalize it. That is all that a policy can learn from.
        """
        wide, norm = self.network.widen(parts), self.network.norm
        if self.mode == "branches":
            by_entity = wide.view(NUM_SIZES, len(visits.unique), WIDTH).transpose(0, 1).flatten(1)  # (U, 768)
            branches = by_entity.index_select(0, visits.inverse).view(-1, NUM_SIZES, WIDTH)
            enlarged = torch.nonzero(asked != held).flatten()
            if len(enlarged):
                branches[enlarged, asked[enlarged]] = branches[enlarged, held[enlarged]]
            chosen = torch.arange(len(asked)) * NUM_SIZES + asked
            normalized = norm.branches(branches, track=track).flatten(0, 1).index_select(0, chosen)
        else:
            order = torch.cat(self.store.places(visits.unique))
            rows = wide[torch.argsort(order)[visits.inverse]]
            normalized = norm(rows, track=track) if self.mode == "selected" else self._grouped(rows, asked, track)
        return torch.tanh(normalized)

    def _grouped(self, rows: Tensor, asked: Tensor, track: bool) -> Tensor:
        groups = [torch.nonzero(asked == size).flatten() for size in range(NUM_SIZES)]
        parts = [
            self.network.norm(rows[group], track=track, group=size) for size, group in enumerate(groups) if len(group)
        ]
        return torch.cat(parts)[torch.argsort(torch.cat(groups))]

    def tensors(self) -> dict[str, Tensor]:
        """See `Side.tensors`."""
        found = {f"store.{name}": one for name, one in self.store.tensors().items()}
        found |= module_tensors(self.policy, "policy.") | adam_tensors(self.optimizer, "adam.")
        return {**found, "queues.losses": self.queues.losses.clone(), "queues.pushed": self.queues.pushed.clone()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See `Side.restore`."""
        self.store.restore(below(tensors, "store."))
        self.policy.load_state_dict(below(tensors, "policy."))
        restore_adam(self.optimizer, below(tensors, "adam."))
        self.queues.losses, self.queues.pushed = tensors["queues.losses"].clone(), tensors["queues.pushed"].clone()
