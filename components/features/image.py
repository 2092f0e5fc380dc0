"""Item pictures -> vectors: descriptors that need no weights, or any vision model of Hugging Face."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch.nn import functional as F

from components.errors import ConfigError
from components.features.pictures import UnusablePictureError, decode
from components.features.pretrained import load_weights, loading
from components.features.text import ModelName, PrecisionChoice, fingerprint_folder, resolve_precision_name

DESCRIPTORS: Final = "descriptors"
READY: Final = "ready"
IMAGE_MODELS: Final = (  # what can be given as a vision model
    f"give {DESCRIPTORS!r}, the path of a folder with config.json, preprocessor_config.json and model.safetensors, or "
    "a Hugging Face name that this machine can reach"
)
ENCODING_VERSION: Final = 1  # raise it when the same picture and settings give another vector

SIDE: Final = 64  # pixels to which descriptors scale a picture
GRID: Final = 4  # color is described in GRID x GRID cells
CELL: Final = 16  # pixels of a gradient cell
ORIENTATIONS: Final = 8
HUES: Final = 16
TONES: Final = 8
DESCRIPTOR_DIM: Final = 6 * GRID**2 + HUES + 2 * TONES + 4 * ORIENTATIONS * (SIDE // CELL - 1) ** 2

FloatTable = NDArray[np.float32]


class ImageConfig(BaseModel):
    """How item pictures become vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: ModelName = Field(
        DESCRIPTORS,
        min_length=1,
        description="descriptors (color and gradients, downloads nothing), ready (input.images holds vectors), or any "
        "Hugging Face vision model by name or local path (ViT, CLIP, …)",
    )
    normalize: bool = Field(True, description="scale vectors to norm 1")
    max_pixels: int = Field(50_000_000, ge=1, description="larger pictures count as absent")
    batch_size: int = Field(32, ge=1, description="pictures per forward pass of a vision model")
    precision: PrecisionChoice = Field(
        "auto", description="of a vision model; auto: bf16 where the hardware computes in it"
    )


def image_settings_key(config: ImageConfig, device: str = "cpu") -> str:
    """A hash of everything but the picture that decides a vector."""
    settings: dict[str, Any] = {"version": ENCODING_VERSION, "encoder": config.encoder, "normalize": config.normalize}
    if config.encoder != DESCRIPTORS:
        path = Path(config.encoder)
        settings["encoder"] = fingerprint_folder(path) if path.is_dir() else config.encoder
        settings["precision"] = resolve_precision_name(config.precision, device)
    return "image-" + hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]


def content_key(content: bytes) -> str:
    """What a picture's vector is found by."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class ImageEncoder(Protocol):
    """Turns pictures into vectors.

    Attributes:
        side: pixels a side that it needs about.
    """

    side: int

    def encode(self, images: Sequence[Image.Image]) -> FloatTable:
        """(len(images), d) float32 vectors of RGB pictures."""


def make_encoder(config: ImageConfig, device: str = "cpu") -> ImageEncoder:
    """The encoder that `config` names.

    Raises:
        ConfigError: the vision model cannot be loaded.
    """
    if config.encoder == DESCRIPTORS:
        return DescriptorEncoder(config.normalize)
    return VisionEncoder(config, device)


def encode_contents(
    contents: Sequence[bytes | None], encoder: ImageEncoder, config: ImageConfig
) -> tuple[dict[int, NDArray[np.float32]], dict[int, str]]:
    """Decode and encode pictures, `config.batch_size` at a time, so that few are decoded at once.

    Returns:
        Vectors by index of `contents`, and for all others the reason why there is none.
    """
    vectors: dict[int, NDArray[np.float32]] = {}
    reasons: dict[int, str] = {}
    for begin in range(0, len(contents), config.batch_size):
        decoded: dict[int, Image.Image] = {}
        for index in range(begin, min(begin + config.batch_size, len(contents))):
            try:
                decoded[index] = decode(contents[index], max_pixels=config.max_pixels, side=2 * encoder.side)
            except UnusablePictureError as error:
                reasons[index] = error.reason
        if decoded:
            vectors |= zip(decoded, encoder.encode(list(decoded.values())), strict=True)
    return vectors, reasons


class DescriptorEncoder:
    """Color and gradients of a picture scaled to SIDE x SIDE: no weights, some hundreds of pictures a second and core.

    Three parts, each of norm 1 before they are joined: mean and spread of Lab in a grid of cells, histograms of hue
    (weighted by saturation), saturation and brightness, and histograms of oriented gradients (Dalal and Triggs 2005).

    Args:
        normalize: scale the joined vector to norm 1.
    """

    side = SIDE

    def __init__(self, normalize: bool = True) -> None:
        self.normalize = normalize

    def encode(self, images: Sequence[Image.Image]) -> FloatTable:
        """See `ImageEncoder.encode`."""
        vectors = np.zeros((len(images), DESCRIPTOR_DIM), np.float32)
        for row, image in enumerate(images):
            vectors[row] = self._describe(image)
        return vectors

    def _describe(self, image: Image.Image) -> NDArray[np.float32]:
        from skimage.color import rgb2lab  # here: importing takes a second, and few processes encode
        from skimage.feature import hog

        small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
        lab = np.asarray(rgb2lab(np.asarray(small))) / np.array([100.0, 128.0, 128.0])  # (SIDE, SIDE, 3)
        gradients = hog(lab[..., 0], orientations=ORIENTATIONS, pixels_per_cell=(CELL, CELL), cells_per_block=(2, 2))
        lab[..., 0] -= 0.5  # all channels around 0, as the other parts below: else all pictures look alike
        tones = _histograms(np.asarray(small.convert("HSV")) / 255.0)
        parts = [_layout(lab), tones - tones.mean(), np.asarray(gradients) - np.mean(gradients)]
        joined = np.concatenate([part / max(float(np.linalg.norm(part)), 1e-6) for part in parts])
        if self.normalize:
            joined /= np.linalg.norm(joined)
        return joined.astype(np.float32)


def _layout(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """(6 GRID²,) mean and standard deviation of the three channels in every cell."""
    step = SIDE // GRID
    cells = lab.reshape(GRID, step, GRID, step, 3)
    return np.concatenate([cells.mean(axis=(1, 3)).ravel(), cells.std(axis=(1, 3)).ravel()])


def _histograms(hsv: NDArray[np.float64]) -> NDArray[np.float64]:
    """(HUES + 2 TONES,) shares of pixels by hue, saturation and brightness."""
    hue, saturation, value = (hsv[..., k].ravel() for k in range(3))
    parts = [
        np.histogram(hue, HUES, (0.0, 1.0), weights=saturation * value)[0],
        np.histogram(saturation, TONES, (0.0, 1.0))[0],
        np.histogram(value, TONES, (0.0, 1.0))[0],
    ]
    return np.concatenate(parts) / hue.size


class VisionEncoder:
    """A frozen vision model: CLIP's image features, or the first token of the last hidden state (ViT), or its mean.

    Args:
        config: model and settings.
        device: where it runs.

    Raises:
        ConfigError: the model cannot be loaded, or does not read pictures.
    """

    def __init__(self, config: ImageConfig, device: str = "cpu") -> None:
        from transformers import AutoImageProcessor  # here: importing takes seconds, few processes encode

        self.config, self.device = config, device
        bf16 = resolve_precision_name(config.precision, device) == "bf16"
        with loading("images.encoder", config.encoder, config.encoder, IMAGE_MODELS):
            processors: Any = AutoImageProcessor
            self.processor: Any = processors.from_pretrained(config.encoder)
            model = load_weights(config.encoder, torch.bfloat16 if bf16 else torch.float32)
        self.features = getattr(model, "get_image_features", None)
        if self.features is None and model.main_input_name != "pixel_values":
            raise ConfigError(f"images.encoder: {config.encoder!r} ({type(model).__name__}) does not read pictures")
        self.model = model.to(device).eval()
        vision = getattr(model.config, "vision_config", model.config)
        size = getattr(vision, "image_size", 224)
        self.side = int(size if isinstance(size, int) else max(size))

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> FloatTable:
        """See `ImageEncoder.encode`."""
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        pixels = pixels.to(self.device, self.model.dtype)
        if self.features is not None:
            found = self.features(pixel_values=pixels)
            vectors = getattr(found, "pooler_output", found)  # older versions return the tensor itself
        else:
            hidden = self.model(pixel_values=pixels).last_hidden_state
            vectors = hidden[:, 0] if hidden.ndim == 3 else hidden.flatten(2).mean(2)  # tokens, or a map of a CNN
        vectors = vectors.float()
        table: FloatTable = (F.normalize(vectors, dim=-1) if self.config.normalize else vectors).cpu().numpy()
        return table
