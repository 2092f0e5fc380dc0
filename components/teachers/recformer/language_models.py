"""Where a backbone's first weights come from: a BERT, RoBERTa or Longformer of Hugging Face, or the bundled MiniLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from components.errors import ConfigError
from components.features.pretrained import load_weights, loading, read_model_configuration
from components.features.text import TEXT_MODELS, resolve_model
from components.teachers.recformer.backbone import Architecture, AttentionKind, Backbone
from components.teachers.recformer.tokens import NUM_TYPES

FIRST_POSITION: Final = {"bert": 0, "roberta": None, "longformer": None}  # None: the one after the padding token's
DENSE_LIMIT: Final = 512  # longest sequences for which attention over all pairs is the better choice
INIT_STD: Final = 0.02
PARTS: Final = {  # name in a layer of ours: name in a layer of Hugging Face
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "projection": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "norm": "output.LayerNorm",
}


@dataclass(frozen=True)
class LanguageModel:
    """A pre-trained language model.

    Attributes:
        name: as the user gave it.
        config: of Hugging Face.
        tokenizer: of Hugging Face.
        tensors: its weights by name.
    """

    name: str
    config: Any
    tokenizer: Any
    tensors: dict[str, Tensor]

    def architecture(
        self,
        *,
        num_layers: int | None,
        max_tokens: int,
        max_items: int,
        window: int,
        attention: AttentionKind | None,
    ) -> Architecture:
        """The backbone that takes these weights.

        Args:
            num_layers: keep so many of the first layers; None keeps all.
            max_tokens: longest sequence.
            max_items: most items of a history.
            window: of attention.
            attention: None chooses: dense for at most 512 tokens of a model that has no global projections.

        Raises:
            ConfigError: more layers than there are, or an odd window.
        """
        if num_layers is not None and num_layers > self.config.num_hidden_layers:
            raise ConfigError(f"num_layers: {self.name!r} has {self.config.num_hidden_layers} layers, got {num_layers}")
        if window < 2 or window % 2:
            raise ConfigError(f"window: expected an even number of at least 2, got {window}")
        dense = max_tokens <= DENSE_LIMIT and self.config.model_type != "longformer"
        mask_id = self.tokenizer.mask_token_id
        return Architecture(
            hidden=self.config.hidden_size,
            num_layers=num_layers or self.config.num_hidden_layers,
            num_heads=self.config.num_attention_heads,
            inner=self.config.intermediate_size,
            vocabulary=self.config.vocab_size,
            epsilon=self.config.layer_norm_eps,
            pad_id=self.config.pad_token_id or 0,
            cls_id=self.tokenizer.cls_token_id,
            mask_id=-1 if mask_id is None else mask_id,
            max_tokens=max_tokens,
            max_items=max_items,
            window=window,
            attention=attention or ("dense" if dense else "longformer"),
        )

    def initialize(self, backbone: Backbone) -> None:
        """Put the weights into `backbone` the Longformer way (Beltagy et al. 2020, section 5).

        Position rows repeat the model's own, the global projections begin as copies of the local ones, token types as
        its type 0 with a little noise, and item positions, which it does not know, as noise.
        """
        shape, own = backbone.shape, self.tensors
        first = FIRST_POSITION[self.config.model_type]
        known = own["embeddings.position_embeddings.weight"][shape.pad_id + 1 if first is None else first :]
        rows = (torch.arange(shape.num_positions) - shape.pad_id - 1) % len(known)
        types = own["embeddings.token_type_embeddings.weight"][:1].repeat(NUM_TYPES, 1)
        types[1:] += INIT_STD * torch.randn(NUM_TYPES - 1, shape.hidden)
        tensors = {
            "embeddings.words.weight": own["embeddings.word_embeddings.weight"],
            "embeddings.positions.weight": known[rows],
            "embeddings.types.weight": types,
            "embeddings.items.weight": INIT_STD * torch.randn(shape.max_items + 1, shape.hidden),
        }
        for kind in ("weight", "bias"):
            tensors[f"embeddings.norm.{kind}"] = own[f"embeddings.LayerNorm.{kind}"]
            for layer in range(shape.num_layers):
                for ours, theirs in PARTS.items():
                    tensors[f"layers.{layer}.{ours}.{kind}"] = own[f"encoder.layer.{layer}.{theirs}.{kind}"]
                if shape.attention == "longformer":
                    tensors |= self._global_projections(layer, kind)
        backbone.load_state_dict(tensors)

    def _global_projections(self, layer: int, kind: str) -> dict[str, Tensor]:
        found = {}
        for name in ("query", "key", "value"):
            local = f"encoder.layer.{layer}.attention.self.{name}.{kind}"
            theirs = f"encoder.layer.{layer}.attention.self.{name}_global.{kind}"
            found[f"layers.{layer}.attention.{name}_global.{kind}"] = self.tensors.get(theirs, self.tensors[local])
        return found


def read_language_model_configuration(name: str) -> Any:
    """The configuration of a language model that can become a Recformer.

    Raises:
        ConfigError: it cannot be read, or is of another architecture.
    """
    config = read_model_configuration("backbone", name, resolve_model(name), TEXT_MODELS)
    if config.model_type not in FIRST_POSITION:
        raise ConfigError(
            f"backbone: {name!r} is of architecture {config.model_type!r}; "
            f"Recformer can start from: {', '.join(FIRST_POSITION)}"
        )
    if config.hidden_act != "gelu":
        raise ConfigError(f"backbone: {name!r} has the activation {config.hidden_act!r}; expected 'gelu'")
    return config


def load_language_model(name: str) -> LanguageModel:
    """Read a language model by its Hugging Face name or from a local folder; no code of the model's own is run.

    Raises:
        ConfigError: it cannot be read, or is of an architecture that cannot become a Recformer.
    """
    from transformers import AutoTokenizer  # here: importing takes seconds

    path, config = resolve_model(name), read_language_model_configuration(name)
    with loading("backbone", name, path, TEXT_MODELS):
        tokenizer: Any = AutoTokenizer.from_pretrained(path)
        model = load_weights(path)
    if tokenizer.cls_token_id is None:
        raise ConfigError(f"backbone: the tokenizer of {name!r} has no CLS token, which Recformer's states come from")
    return LanguageModel(name, config, tokenizer, model.state_dict())
