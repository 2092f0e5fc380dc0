"""Column names, dtypes and the padding id: written once, used everywhere."""

from __future__ import annotations

from typing import Final

# Interactions and items as users bring them.
USER_ID: Final = "user_id"
ITEM_ID: Final = "item_id"
TIMESTAMP: Final = "timestamp"  # int64, seconds since the epoch
POSITION: Final = "position"  # int64, order within the user where no timestamps exist
RATING: Final = "rating"  # float32, optional
IMAGE: Final = "image"  # bytes of an encoded picture, optional

# The prepared set.
USER: Final = "user"  # int32, 1..U
ITEM: Final = "item"  # int32, 1..N, 1 = most frequent in the training part
ITEMS: Final = "items"  # list<int32>, time order
TIMESTAMPS: Final = "timestamps"  # list<int64>, null where the log has no times
RATINGS: Final = "ratings"  # list<float32>, null where the log has no ratings
TRAIN_END: Final = "train_end"  # int32: items[:train_end] is the training part
VALID_END: Final = "valid_end"  # int32: items[train_end:valid_end] validates, items[valid_end:] tests
COUNT: Final = "count"  # int64, interactions in the training part
TEXT: Final = "text"  # str, one sentence made from the text columns
TITLE: Final = "title"  # str, how people call the item, optional
STATE_PREFIX: Final = "state_"  # annotated sequences: one column of teacher states per teacher, state_NAME
VALID_STATE_PREFIX: Final = "valid_state_"  # the same at the validation history: one state, or none without such a case

PAD: Final = 0  # padding item; real items are numbered from 1
UNKNOWN: Final = 0  # an item id that the catalogue does not hold

# Files of the prepared set and of artifacts.
ITEMS_FILE: Final = "items.parquet"
ATTRIBUTES_FILE: Final = "attributes.parquet"  # of artifacts: a column of lists of texts per item attribute
USERS_FILE: Final = "users.parquet"
SEQUENCES_FOLDER: Final = "sequences"
RATINGS_FOLDER: Final = "ratings"  # of a set prepared as a stream of ratings
REJECTED_FOLDER: Final = "rejected"
MANIFEST_FILE: Final = "manifest.json"
CONFIG_FILE: Final = "config.json"
MODEL_FILE: Final = "model.safetensors"
METRICS_FILE: Final = "metrics.json"
SCHEMA_VERSION: Final = 1
