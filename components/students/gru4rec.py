"""GRU4Rec: a recurrent network over the history (Hidasi et al. 2016; Tan et al. 2016), in RecBole's flavor."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from components.layers.dropout import Dropout
from components.model import Catalog
from components.students.sequential import (
    SequentialConfig,
    SequentialStudent,
    assemble,
    at_positions,
    make_item_embedding,
)


class GRU4RecConfig(SequentialConfig):
    """Arguments of GRU4Rec."""

    dropout: float = Field(0.3, ge=0, lt=1, description="rate on item vectors")
    hidden_dim: int = Field(128, ge=1, description="width of the recurrent state")
    num_layers: int = Field(1, ge=1, description="recurrent layers")


class GRUEncoder(nn.Module):
    """Item vectors of a history -> one state per predicted position: dropout -> GRU -> output layer.

    Rows are padded on the right, so what the network reads of padding comes after every state that is asked for, and
    nothing needs to be packed.

    Args:
        gru: recurrent layers with ``batch_first=True``, item vectors (B, L, D) -> (B, L, H).
        output: (P, H) -> (P, D).
        dropout: rate on item vectors.
    """

    def __init__(self, gru: nn.GRU, output: nn.Module, dropout: float) -> None:
        super().__init__()
        if not gru.batch_first:
            raise ValueError("gru must have batch_first=True, got batch_first=False")
        self.gru, self.output, self.dropout = gru, output, Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D), (P,) -> (P, D).

        The recurrence reads a whole row for its last state too, so `last_only` saves no more than what `positions`
        does: only their states pass the output layer.
        """
        hidden, _ = self.gru(self.dropout(x))  # (B, L, H)
        states: Tensor = self.output(at_positions(hidden, positions))
        return states


def make_gru(dim: int, hidden_dim: int, num_layers: int = 1) -> nn.GRU:
    """GRU without bias, all weights Xavier-uniform (students.md, section 2)."""
    gru = nn.GRU(dim, hidden_dim, num_layers, bias=False, batch_first=True)
    for weight in gru.parameters():
        nn.init.xavier_uniform_(weight)
    return gru


def build(catalog: Catalog, config: GRU4RecConfig) -> SequentialStudent:
    """Build a GRU4Rec with Xavier-normal item vectors, tied unless it is compressed."""
    init_std = (2.0 / (catalog.num_items + 1 + config.dim)) ** 0.5
    item_embedding = make_item_embedding(catalog, config, init_std)
    gru = make_gru(config.dim, config.hidden_dim, config.num_layers)
    network = GRUEncoder(gru, nn.Linear(config.hidden_dim, config.dim), config.dropout)
    return assemble(catalog, config, item_embedding, network)
