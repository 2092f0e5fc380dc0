"""A tiny random BERT on disk, with a vocabulary of whole words, digits and pieces."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch

WORDS = ["red", "green", "blue", "black", "shoe", "hat", "coat", "sock", "title", "brand", "old", "new", "fine", "wide"]
PIECES = [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
SIGNS = list("abcdefghijklmnopqrstuvwxyz0123456789!.,'[]")


def tiny_bert(folder: Path, *, hidden: int = 16, layers: int = 2, heads: int = 2, positions: int = 128) -> Path:
    """Write it; the tokenizer knows `WORDS` as one token each."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *SIGNS, *PIECES]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden,
        max_position_embeddings=positions,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@cache
def shared_bert() -> str:
    """Folder of one tiny BERT for the whole test process: width 16, 2 layers."""
    return str(tiny_bert(Path(tempfile.mkdtemp(prefix="bert"))))
