"""Recformer as a ranker: a history is one text, and its CLS state is compared with those of all items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from components.data.batching import Batch, PrefixBatches, TrainingBatches, Windows
from components.data.flat_sequences import Sequences
from components.features.text import BUNDLED, ModelName, PrecisionChoice, token_batches
from components.model import Catalog, Phase, Ranker
from components.schema import PAD
from components.teachers.heads import CosineHead, unit
from components.teachers.recformer.backbone import Architecture, Backbone, add_lora
from components.teachers.recformer.language_models import load_language_model
from components.teachers.recformer.tokens import ItemTokens, TokenBatch, TokenTable, tokenize_items
from components.teachers.transfer import transferred

Pooling = Literal["cls", "avg"]
TRAINING: Final = {  # how its authors tune it (teachers.md, section 2.4)
    "optimizer": "adamw",
    "learning_rate": 5e-5,
    "schedule": "linear",
    "warmup_steps": 100,
    "batch_size": 128,
    "micro_batch": 16,
    "validate_every": 3,
    "patience": 5,
}
TRANSFERRED = "backbone."  # what pre-training hands over to another catalog


class RecformerConfig(BaseModel):
    """Arguments of Recformer; the defaults are its own, with MiniLM in the place of Longformer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: ModelName = Field(BUNDLED, description="the bundled model, or any Hugging Face name or local path")
    num_layers: int | None = Field(None, ge=1, description="keep so many of the first layers; null: all")
    attention: Literal["auto", "dense", "longformer"] = Field(
        "auto", description="auto: dense up to 512 tokens unless the backbone is a Longformer"
    )
    window: int = Field(64, ge=2, description="tokens that a token attends to, both sides together")
    max_tokens: int = Field(512, ge=2, description="longest sequence; older items are cut")
    max_length: int = Field(50, ge=1, description="items of a history that the model sees")
    num_attributes: int = Field(3, ge=1, description="attributes of an item: the first text columns it has")
    attribute_tokens: int = Field(32, ge=1, description="tokens of an attribute, its name included")
    pooling: Pooling = Field("cls", description="the state is that of CLS, or the mean over tokens")
    temperature: float = Field(0.05, gt=0, description="divides the cosines")
    dropout: float = Field(0.1, ge=0, lt=1)
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    freeze_words: bool = Field(True, description="keep the word embeddings as they were pre-trained")
    lora_rank: int | None = Field(None, ge=1, description="train low-rank changes of queries and values alone")
    lora_alpha: float = Field(16.0, gt=0, description="the changes are scaled by alpha / rank")
    gradient_checkpointing: bool = Field(False, description="less memory, one more forward pass")
    precision: PrecisionChoice = Field(
        "auto",
        description="of the language model, in training and after it; auto: bf16 where the hardware computes in it",
    )
    num_negatives: int = Field(0, ge=0, description="random items that compete with the target; 0: all items do")
    batch_tokens: int = Field(8192, ge=1, description="tokens per forward pass, padding included")
    second_stage_epochs: int | None = Field(
        None, ge=1, description="at most so many epochs with fixed item vectors; null: as training.epochs"
    )
    second_stage_patience: int = Field(3, ge=1, description="validations without a gain that end the second stage")


class Recformer(Ranker):
    """History as text -> language model -> a state of norm 1 that is compared with all items' states by cosine.

    The item matrix is a frozen buffer, not a function of the weights: it is made anew before each epoch of the first
    stage of tuning and stays fixed in the second (Li et al. 2023, section 3.3).

    Args:
        shape: of the backbone.
        table: tokens of all items.
        settings: see `RecformerConfig`.
    """

    head: CosineHead
    matrix: Tensor
    architecture: Tensor
    causal = False
    trained_buffers = ("matrix",)

    def __init__(self, shape: Architecture, table: TokenTable, settings: RecformerConfig) -> None:
        super().__init__()
        self.settings, self.max_length = settings, settings.max_length
        self.head = CosineHead(self.unit_vectors, settings.temperature)
        self._assemble(shape, table)

    def _assemble(self, shape: Architecture, table: TokenTable) -> None:
        settings = self.settings
        self.backbone = Backbone(
            shape,
            settings.dropout,
            settings.attention_dropout,
            gradient_checkpointing=settings.gradient_checkpointing,
            precision=settings.precision,
        )
        self.backbone.embeddings.words.requires_grad_(not settings.freeze_words)
        self._set_table(shape, table)
        self.register_buffer("architecture", shape.to_tensor())

    def _set_table(self, shape: Architecture, table: TokenTable) -> None:
        self.tokens = ItemTokens(table, shape.cls_id, shape.pad_id, shape.max_tokens, shape.max_items)
        self.num_items = self.tokens.num_items
        self.register_buffer("matrix", torch.zeros(self.num_items, shape.hidden))
        self._is_encoded = False

    @property
    def temperature(self) -> float:
        """Divides the cosines."""
        return self.head.temperature

    # States

    def states(self, batch: Batch) -> Tensor:
        """(P, D) states of norm 1; every position is a sequence of its own, since the newest item comes first."""
        return self.encode(prefixes(batch, self.max_length))

    def encode(self, histories: Tensor) -> Tensor:
        """(P, K) item numbers, newest first, PAD behind -> (P, D) of norm 1, in passes of at most `batch_tokens`."""
        lengths = self.tokens.lengths(histories).cpu().numpy()
        budget = self.settings.batch_tokens
        parts = [torch.from_numpy(rows).to(histories.device) for rows in token_batches(lengths, budget)]
        if not parts:
            return self.matrix.new_zeros(0, self.matrix.shape[1])
        if len(parts) == 1:  # the order does not matter
            return self.pooled(*self.hidden(histories))
        states = torch.cat([self.pooled(*self.hidden(histories[rows])) for rows in parts])
        return states[torch.cat(parts).argsort()]

    def hidden(self, histories: Tensor) -> tuple[Tensor, TokenBatch]:
        """(P, K) item numbers, newest first -> (P, T, D) hidden states and their tokens."""
        tokens = self.tokens(histories)
        return self.backbone(tokens), tokens

    def pooled(self, hidden: Tensor, tokens: TokenBatch) -> Tensor:
        """(P, T, D) hidden states -> (P, D) of norm 1: CLS, or the mean over tokens."""
        if self.settings.pooling == "cls":
            return unit(hidden[:, 0].float())
        weights = tokens.mask[..., None].to(hidden.dtype)
        return unit(((hidden * weights).sum(dim=1) / weights.sum(dim=1)).float())

    # Items

    @torch.no_grad()
    def refresh(self, rank: int = 0, size: int = 1) -> None:
        """Make the item matrix anew from the weights, dropout off; each of `size` workers encodes its share.

        Args:
            rank: of this worker.
            size: number of workers; with several, a process group must exist.
        """
        training = self.training
        self.eval()
        items, rows = self.tokens.distinct()
        vectors = self.matrix.new_zeros(len(items), self.matrix.shape[1])
        vectors[rank::size] = self.encode(items[rank::size, None])
        if size > 1:
            dist.all_reduce(vectors)  # every row is zero for all workers but one
        self.matrix.copy_(vectors[rows])
        self._is_encoded = True
        self.train(training)

    def unit_vectors(self) -> Tensor:
        """(N, D) item vectors of norm 1; row ``i`` belongs to item ``i + 1``. Made at first use, then fixed."""
        if not self._is_encoded:
            if not bool(self.matrix[:1].any()):  # a checkpoint may have brought them
                self.refresh()
            self._is_encoded = True
        return self.matrix

    def item_vectors(self) -> Tensor:
        """(N + 1, D) item vectors of norm 1, row 0 (PAD) zero: what annotation stores."""
        return F.pad(self.unit_vectors(), (0, 0, 1, 0))

    @torch.no_grad()
    def content_vectors(self, catalog: Catalog | None = None) -> Tensor:
        """See `components.model.ReadsContent`.

        The second stage of tuning changed the weights and not the item matrix, so that a new item's vector is not
        comparable with it: the model's own items are encoded anew with the weights of today.
        """
        own, training = self.tokens, self.training
        try:
            self.eval()
            if catalog is not None:
                self.tokens = self._tokens_of(catalog)
            items, rows = self.tokens.distinct()
            return self.encode(items[:, None])[rows]
        finally:
            self.tokens = own
            self.train(training)

    def _tokens_of(self, catalog: Catalog) -> ItemTokens:
        settings, shape = self.settings, self.backbone.shape
        tokenizer = load_language_model(settings.backbone).tokenizer
        table = tokenize_items(catalog.attributes or {}, tokenizer, settings.num_attributes, settings.attribute_tokens)
        return ItemTokens(table, shape.cls_id, shape.pad_id, shape.max_tokens, shape.max_items).to(self.matrix.device)

    def set_items(self, table: TokenTable) -> None:
        """Rank another catalog: `table` must come from the tokenizer of the backbone."""
        device = self.matrix.device
        self._set_table(self.backbone.shape, table)
        self.to(device)

    # Training

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of ``cosine / temperature`` over all items, or over the target and random ones."""
        states = self.states(batch)
        if self.settings.num_negatives == 0 or len(states) == 0:
            return self.head.loss(states, batch.targets)
        shape = (len(states), self.settings.num_negatives)
        drawn = torch.randint(self.num_items, shape, device=states.device)  # may repeat, may hit the target
        rivals = torch.cat([batch.targets[:, None] - 1, drawn], dim=1)  # (P, 1 + m)
        logits = (self.unit_vectors()[rivals] @ states[:, :, None])[..., 0] / self.temperature
        return F.cross_entropy(logits, torch.zeros_like(batch.targets))

    def training_batches(self, sequences: Sequences, batch_size: int, windows: Windows, seed: int) -> TrainingBatches:
        """One random target per user and epoch; `windows` has no meaning here."""
        return PrefixBatches(sequences, self.max_length, batch_size, seed)

    def phases(self) -> tuple[Phase, ...]:
        """Tuning in two stages: item vectors made anew before each epoch, then fixed at their best."""
        settings = self.settings
        return (
            Phase(before_epoch=self.refresh),
            Phase(epochs=settings.second_stage_epochs, patience=settings.second_stage_patience),
        )

    # Saved models

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors of a saved model; they bring architecture, catalog and item vectors along."""
        shape = Architecture.from_tensor(tensors["architecture"])
        self._assemble(shape, TokenTable(**{n: tensors[f"tokens.{n}"].numpy() for n in TokenTable.empty(0).__dict__}))
        self._add_lora()
        self.load_state_dict(dict(tensors))
        self._is_encoded = True

    def load_pretrained(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the backbone of a model of other items; nothing that belongs to an item.

        Raises:
            ArtifactError: the saved model has other shapes; the message names them.
        """
        own = self.state_dict()
        names = [name for name in own if name.startswith(TRANSFERRED) and "lora_" not in name]
        wanted = {name: name.replace(".base_layer.", ".") for name in names}
        arguments = "backbone, num_layers, max_tokens and max_length"
        self.load_state_dict(transferred(own, tensors, wanted, "recformer", arguments))
        self.matrix.zero_()
        self._is_encoded = False

    def _add_lora(self) -> None:
        if self.settings.lora_rank is not None:
            add_lora(self.backbone, self.settings.lora_rank, self.settings.lora_alpha)

    @staticmethod
    def part_of(name: str) -> str:
        """Tables of words, positions, types and item positions are "embedding", the rest is "network"."""
        return "embedding" if ".embeddings." in name else "network"


def prefixes(batch: Batch, max_length: int) -> Tensor:
    """(P, K) the history of each predicted position, newest item first, PAD behind.

    >>> from components.data.batching import history_batch
    >>> prefixes(history_batch([[3, 5, 7], [2]], 9), 2).tolist()
    [[7, 5], [2, 0]]
    """
    length = batch.items.shape[1]
    steps = torch.arange(min(max_length, length), device=batch.items.device)
    columns = (batch.positions % length)[:, None] - steps  # (P, K)
    rows = batch.items[batch.rows]
    return rows.gather(1, columns.clamp_min(0)).masked_fill(columns < 0, PAD)


def build(catalog: Catalog, settings: RecformerConfig) -> Recformer:
    """Build a Recformer for the catalog's attributes, from a language model.

    A catalog without sequences is that of a saved model: no language model is read, the tensors bring all.

    Raises:
        ConfigError: no item has a text, or the language model cannot be used.
    """
    if catalog.attributes is None and catalog.sequences is None:
        return Recformer(Architecture(), TokenTable.empty(catalog.num_items), settings)
    language_model = load_language_model(settings.backbone)
    shape = language_model.architecture(
        num_layers=settings.num_layers,
        max_tokens=settings.max_tokens,
        max_items=settings.max_length,
        window=settings.window,
        attention=None if settings.attention == "auto" else settings.attention,
    )
    table = tokenize_items(
        catalog.attributes or {}, language_model.tokenizer, settings.num_attributes, settings.attribute_tokens
    )
    model = Recformer(shape, table, settings)
    language_model.initialize(model.backbone)
    model._add_lora()
    return model
