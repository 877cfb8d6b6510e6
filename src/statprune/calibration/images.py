"""Images from a folder, a data set or memory -> batches of pixels, by the model's own image processor."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from statprune.calibration.samples import Batch, Samples, require_some
from statprune.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
IMAGES_RULE = (
    "one image a sample, as RGB, through the model's own image processor; drawn at random without "
    "replacement, in drawn order"
)
AT_ONCE = 16
"""Images in a batch."""


def images(
    data: Any,
    processor: Any,
    *,
    column: str | None,
    samples: int,
    generator: torch.Generator,
) -> Samples:
    """Random images as batches of pixel_values; their attention_mask is made when the model has run.

    Args:
        data: A folder of images, or of a data set saved with `save_to_disk`; a `datasets.Dataset` with a
            column of images; a list of PIL images, of paths, or of arrays of 0 to 255.
        processor: The model's own.
        column: The column of images; None where there is one only.
        samples: Images asked for.
        generator: Draws them.

    Raises:
        DataError: There is no image, one cannot be read, or the processor or pillow is missing.
    """
    require_some(samples, 1)
    require_pillow()
    if not callable(processor) or not (
        hasattr(processor, "image_mean") or hasattr(processor, "image_processor")
    ):
        raise DataError(
            "images, and no image processor: give tokenizer=AutoImageProcessor.from_pretrained(...), or "
            "batches with pixel_values."
        )
    readers, source = _readers(data, column)
    if not readers:
        raise DataError(f"{source['source']}: no images; give at least one")
    drawn = torch.randperm(len(readers), generator=generator, device=generator.device)[:samples].tolist()
    batches: list[Batch] = []
    for start in range(0, len(drawn), AT_ONCE):
        read = [readers[number]() for number in drawn[start : start + AT_ONCE]]
        pixels = processor(images=read, return_tensors="pt")["pixel_values"]
        batches.append(
            {"pixel_values": pixels, "attention_mask": torch.ones((len(pixels), 1), dtype=torch.int64)}
        )
    protocol = {
        "rule": IMAGES_RULE,
        "samples": len(drawn),
        "asked": samples,
        "seq_len": 1,
        "tokens": len(drawn),
        "seed": generator.initial_seed(),
        "source": source | {"records": len(readers)},
        "join": None,
        "available": len(readers),
    }
    few = f"{samples} samples asked, {len(readers)} images available; all are used"
    return Samples(batches, protocol, len(drawn), (few,) if len(drawn) < samples else ())


def require_pillow() -> None:
    """Raise DataError where the library that reads images is not installed."""
    if find_spec("PIL") is None:
        raise DataError("images need pillow, which is not installed: pip install 'statprune[images]'.")


Readers = Sequence[Callable[[], Any]]


def _readers(data: Any, column: str | None) -> tuple[Readers, dict[str, Any]]:
    """What reads each image, and where they come from."""
    if isinstance(data, str | Path):
        return _on_disk(Path(os.path.expanduser(data)), column)
    if isinstance(data, datasets.Dataset):
        return _of_data_set(data, column, "data set in memory"), {
            "source": "memory",
            "kind": "data set in memory",
        }
    if isinstance(data, Mapping) or not isinstance(data, Sequence):
        raise DataError(f"images in memory: {type(data).__name__} found; give a list of images")
    readers = [_reader(each, f"list in memory, image {number}") for number, each in enumerate(data, start=1)]
    return readers, {"source": "memory", "kind": "list"}


def _on_disk(path: Path, column: str | None) -> tuple[Readers, dict[str, Any]]:
    source = {"source": path.name if path.is_absolute() else str(path), "kind": "folder"}
    if not path.is_dir():
        raise DataError(
            f"{path}: no folder of images. Give one; load a data set of the hub with datasets.load_dataset, "
            f"and give what it returns."
        )
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        data = datasets.load_from_disk(str(path))
        if isinstance(data, datasets.DatasetDict):
            data = data["train"] if "train" in data else next(iter(data.values()))
        return _of_data_set(data, column, str(path)), source | {"kind": "saved data set"}
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith(".")
    )
    if not files:
        raise DataError(f"{path}: no images ({' '.join(SUFFIXES)}) in it; give a folder that holds some")
    return [_reader(file, str(file)) for file in files], source


def _of_data_set(data: datasets.Dataset, column: str | None, place: str) -> Readers:
    found = [name for name, kind in data.features.items() if isinstance(kind, datasets.Image)]
    chosen = column or (found[0] if len(found) == 1 else None)
    if chosen not in found:
        there = ", ".join(found) or "none"
        asked = f"column {column!r} holds no images" if column else f"{len(found)} columns of images"
        raise DataError(f"{place}: {asked} (columns of images: {there}); name one as the text column")

    def read(number: int) -> Any:
        return _as_rgb(data[number][chosen], f"{place}, record {number + 1}")

    return [partial(read, number) for number in range(len(data))]


def _reader(element: Any, place: str) -> Callable[[], Any]:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - an extra

    if isinstance(element, str | Path):

        def opened() -> Any:
            try:
                with Image.open(element) as image:
                    return image.convert("RGB")
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                raise DataError(
                    f"{place}: no image that can be read ({error}); remove or repair it"
                ) from error

        return opened
    return lambda: _as_rgb(element, place)


def _as_rgb(element: Any, place: str) -> Any:
    """A PIL image in RGB.

    Raises:
        DataError: the element is something else, or an array whose numbers are not 0 to 255: a processor
            would scale them again.
    """
    from PIL import Image  # noqa: PLC0415 - an extra

    if isinstance(element, Image.Image):
        return element.convert("RGB")
    array = element.numpy() if isinstance(element, torch.Tensor) else element
    if not isinstance(array, np.ndarray):
        raise DataError(f"{place}: {type(element).__name__} found; give a PIL image, a path or an array")
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise DataError(
            f"{place}: an array of {array.shape} {array.dtype}; give uint8 from 0 to 255 of (height, width) "
            f"or (height, width, 3), or batches with pixel_values"
        )
    if array.ndim == 3 and array.shape[2] not in (3, 4) and array.shape[0] in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 3 and array.shape[2] not in (3, 4):
        raise DataError(f"{place}: an array of {array.shape}; give 1 or 3 channels, the last dimension")
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
