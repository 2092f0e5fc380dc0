"""Stage ``features``: item texts and pictures to vectors, by pools of Ray Data actors, each only once ever."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray

from components.data.prepared import PreparedSet
from components.errors import ConfigError, DataError
from components.features.cache import VectorCache
from components.features.image import ImageConfig
from components.features.text import TextConfig, TextEncoder, drop_words, settings_key
from components.schema import TEXT
from pipelines.actor_pool import available, pool_options
from pipelines.image_features import image_table
from pipelines.ray_session import use_gpu
from pipelines.stages import EXTRA_MANIFEST_FILE, Progress, StageContext
from pipelines.storage.place import working_folder

VECTOR: Final = "vector"
TEXT_FILE: Final = "text.npy"
TEXT_WORDS_FILE: Final = "text_words.npy"
IMAGE_FILE: Final = "image.npy"
CACHE_FOLDER: Final = Path(".cache") / "features"  # below the output folder, beside all runs
BLOCK_ITEMS: Final = 256  # texts encoded and stored together
BLOCKS_PER_ACTOR: Final = 4  # an actor loads a language model for seconds: fewer blocks are not worth one more

FloatTable = NDArray[np.float32]


def run(context: StageContext) -> None:
    """Write ``text.npy`` (N + 1, d), and what else is configured.

    That is ``image.npy`` (N + 1, d'), and for a pre-training domain ``text_words.npy``, the copy with word drop.

    Raises:
        ConfigError: the section `features` is missing, or pictures are configured and the run's own data has none.
        DataError: no item has a text, and no pictures are configured.
    """
    config, images = context.config.features, context.config.images
    if config is None:
        raise ConfigError("features: not configured; add a section `features` to encode item texts")
    folder = context.input("/".join(filter(None, ("prepare", context.name))))
    prepared = PreparedSet(folder)
    if images is None and not any(prepared.texts):
        raise DataError(
            f"none of the {prepared.num_items:,} items of {context.name or 'the log'} has a text; check "
            "input.items and input.text_columns"
        )
    wanted = {TEXT_FILE: prepared.texts}
    if config.word_drop is not None and context.name:
        wanted[TEXT_WORDS_FILE] = [drop_words(text, config.word_drop) for text in prepared.texts]
    cache_folder = working_folder(context.config.output) / CACHE_FOLDER
    cluster = context.config.cluster
    gpu = use_gpu(cluster, available("GPU"))
    custom = cluster.placement.of("teachers" if gpu else "data")
    encoded = encode_texts(
        [text for texts in wanted.values() for text in texts],
        config,
        cache_folder,
        context.progress,
        gpu=gpu,
        custom=custom,
        timing=context.timing,
    )
    for part, (name, texts) in enumerate(wanted.items()):
        vectors = encoded[part * len(texts) : (part + 1) * len(texts)]
        if images is not None:  # beside pictures, no text must be known as such, and not as the vector of nothing
            vectors = vectors * np.array([bool(text) for text in texts], np.float32)[:, None]
        padding = np.zeros((1, encoded.shape[1]), np.float32)
        np.save(context.folder / name, np.concatenate([padding, vectors]), allow_pickle=False)
    if images is not None:
        _write_images(context, images, folder, cache_folder, gpu, custom)


def _write_images(
    context: StageContext,
    config: ImageConfig,
    prepared: Path,
    cache_folder: Path,
    gpu: bool,
    custom: Mapping[str, float],
) -> None:
    """Write ``image.npy``, and to the manifest how many items have no vector and why."""
    table = image_table(prepared, config, cache_folder, context.progress, gpu=gpu, custom=custom)
    if table is None and not context.name:
        raise ConfigError("images: the input has no pictures; set input.images or input.item_columns.image")
    counts: dict[str, Any] = {"images": "the domain has none"}
    if table is not None:
        np.save(context.folder / IMAGE_FILE, table.vectors, allow_pickle=False)
        context.timing.update(table.timing)
        counts = {"images": table.counts}
    text = json.dumps(counts, indent=2, sort_keys=True) + "\n"
    (context.folder / EXTRA_MANIFEST_FILE).write_text(text, encoding="utf-8")


def encode_texts(
    texts: Sequence[str],
    config: TextConfig,
    cache_folder: Path,
    progress: Progress,
    *,
    gpu: bool = False,
    custom: Mapping[str, float] | None = None,
    timing: dict[str, float] | None = None,
    alone: bool = False,
) -> FloatTable:
    """(len(texts), d) vectors; only texts that the cache lacks are encoded, and what is encoded is stored at once.

    Args:
        texts: one per item, repeats allowed.
        config: model and settings.
        cache_folder: where vectors of all runs are kept.
        progress: told of every block.
        gpu: give every actor a GPU.
        custom: resources that say where actors run.
        timing: takes ``encoded``, ``encode_seconds`` and ``items_per_second``.
        alone: encode in this process, without Ray: few texts are done before a pool of actors would have started.
    """
    device = "cuda" if gpu else "cpu"
    cache = VectorCache(cache_folder, settings_key(config, device))
    unique = list(dict.fromkeys(texts))
    known = cache.load(unique)
    missing = sorted((text for text in unique if text not in known), key=lambda text: (len(text), text))
    progress.start(len(unique), "texts", len(known))
    started = time.perf_counter()
    encode = _encode_alone if alone else partial(_encode_blocks, custom=custom)
    for block, vectors in encode(_blocks(missing), config, device):
        cache.store(block, vectors)
        known.update(zip(block, vectors, strict=True))
        rate = (len(known) - len(unique) + len(missing)) / (time.perf_counter() - started)
        progress.advance(len(block), items_per_second=round(rate, 1))
    if timing is not None:
        seconds = time.perf_counter() - started
        timing |= {"encoded": len(missing), "encode_seconds": seconds}
        timing["items_per_second"] = len(missing) / seconds if missing else 0.0
    return np.stack([known[text] for text in texts])


def _blocks(texts: list[str]) -> list[list[str]]:
    """Equal blocks of texts alike in length.

    All but the last have `BLOCK_ITEMS` texts, and whole blocks are stored: a run that was killed goes on with the very
    same blocks, and so with the same bytes.
    """
    return [texts[begin : begin + BLOCK_ITEMS] for begin in range(0, len(texts), BLOCK_ITEMS)]


class _BlockEncoder:
    """An actor of the pool: loads the model once, then encodes block after block."""

    def __init__(self, config: dict[str, Any], device: str) -> None:
        self.encoder = TextEncoder(TextConfig.model_validate(config), device)

    def __call__(self, block: pa.Table) -> pa.Table:
        texts = block.column(TEXT).to_pylist()
        vectors = self.encoder.encode(texts)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        return block.append_column(VECTOR, flat)


def _encode_alone(blocks: list[list[str]], config: TextConfig, device: str) -> Iterator[tuple[list[str], FloatTable]]:
    encoder = _loaded(config, device, settings_key(config, device)) if blocks else None
    return ((block, encoder.encode(block)) for block in blocks if encoder is not None)


@lru_cache(maxsize=1)
def _loaded(config: TextConfig, device: str, files: str) -> TextEncoder:
    """The encoder, kept for the next items: an endpoint encodes a few at a time. `files` is a hash of the model's."""
    return TextEncoder(config, device)


def _encode_blocks(
    blocks: list[list[str]], config: TextConfig, device: str, custom: Mapping[str, float] | None = None
) -> Iterator[tuple[list[str], FloatTable]]:
    """Blocks with their vectors, in the order in which they are done."""
    if not blocks:
        return
    encoded = ray.data.from_arrow([pa.table({TEXT: block}) for block in blocks]).map_batches(
        _BlockEncoder,
        batch_size=BLOCK_ITEMS,
        batch_format="pyarrow",
        fn_constructor_args=(config.model_dump(), device),
        **pool_options(device, len(blocks), BLOCKS_PER_ACTOR, custom),
    )
    for table in encoded.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield _unpack(cast(pa.Table, table))


def _unpack(table: pa.Table) -> tuple[list[str], FloatTable]:
    vectors = table.column(VECTOR).combine_chunks()
    values: FloatTable = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
    return table.column(TEXT).to_pylist(), values.astype(np.float32, copy=False)
