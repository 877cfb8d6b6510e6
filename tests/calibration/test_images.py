"""Images from folders, data sets and memory become the pixels that the model's own processor makes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

import statprune
from statprune.calibration import images as reading
from statprune.calibration.images import images
from statprune.calibration.samples import Samples
from statprune.checkpoint import load as loading
from statprune.checkpoint.load import load
from statprune.errors import DataError, ModelError
from tests.tiny import tiny_model

Image = pytest.importorskip("PIL.Image")

ARRAYS = [
    np.random.default_rng(seed).integers(0, 256, (14 + seed, 20, 3), dtype=np.uint8) for seed in range(8)
]
PICTURES = [Image.fromarray(array) for array in ARRAYS]


def processor() -> Any:
    from transformers import ViTImageProcessorPil  # noqa: PLC0415 - needs pillow

    return ViTImageProcessorPil(size={"height": 12, "width": 12})


def drawn(data: Any, *, column: str | None = None, samples: int = 99, seed: int = 0) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    return images(data, processor(), column=column, samples=samples, generator=generator)


def expected() -> torch.Tensor:
    """Resized, scaled to 0 to 1, less the mean, by the deviation: by hand."""
    rows = []
    for picture in PICTURES:
        small = np.asarray(picture.resize((12, 12), Image.Resampling.BILINEAR), dtype=np.float64)
        rows.append(torch.tensor((small / 255 - 0.5) / 0.5).permute(2, 0, 1).float())
    return torch.stack(rows)


def folder(root: Path) -> Path:
    (root / "class").mkdir()
    for number, picture in enumerate(PICTURES):
        picture.save(root / ("class" if number % 2 else ".") / f"{number}.png")
    (root / "notes.txt").write_text("no image")
    return root


def saved(root: Path) -> Path:
    data_set().save_to_disk(str(root / "saved"))
    return root / "saved"


def data_set() -> datasets.Dataset:
    features = datasets.Features({"label": datasets.Value("int64"), "image": datasets.Image()})
    return datasets.Dataset.from_dict({"label": list(range(8)), "image": PICTURES}, features=features)


FORMS: dict[str, Callable[[Path], Any]] = {
    "pictures": lambda _: PICTURES,
    "arrays": lambda _: ARRAYS,
    "arrays, channels first": lambda _: [torch.tensor(array).permute(2, 0, 1) for array in ARRAYS],
    "paths": lambda root: sorted(folder(root).rglob("*.png")),
    "folder": folder,
    "data set": lambda _: data_set(),
    "saved data set": saved,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pixels(form: str, tmp_path: Path) -> None:
    taken = drawn(FORMS[form](tmp_path))
    found = torch.cat([batch["pixel_values"] for batch in taken.batches])
    for row in expected():
        gaps = (found - row).abs().amax(dim=(1, 2, 3))
        assert gaps.min() < 1e-5, "this image was not drawn, or became something else"
    assert (len(found), taken.protocol["samples"], taken.protocol["available"]) == (8, 8, 8)
    assert taken.notes == ("99 samples asked, 8 images available; all are used",)
    assert json.loads(json.dumps(taken.protocol)) == taken.protocol
    assert str(tmp_path) not in json.dumps(taken.protocol)


def test_the_seed_draws() -> None:
    one, same, other = (
        drawn(PICTURES, samples=4, seed=seed).batches[0]["pixel_values"] for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len(one) == 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no images"),
        ([ARRAYS[0] / 255], "image 1: an array of .* float64; give uint8 from 0 to 255"),
        ([ARRAYS[0], "nowhere.png"], r"image 2: no image that can be read \(.*nowhere\.png"),
        ([3], "image 1: int found; give a PIL image"),
        ([np.zeros((4, 5, 7), dtype=np.uint8)], "give 1 or 3 channels"),
        ({"image": PICTURES}, "dict found; give a list"),
        ("somebody/pictures", "no folder of images. Give one; load a data set of the hub with"),
        (datasets.Dataset.from_dict({"text": ["a"]}), r"0 columns of images \(columns of images: none\)"),
    ],
)
def test_what_is_no_image(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        drawn(data)


def test_columns_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'label' holds no images"):
        drawn(data_set(), column="label")
    with pytest.raises(DataError, match="no images"):
        drawn(tmp_path)
    (folder(tmp_path) / "a.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"a\.png: no image that can be read"):
        drawn(tmp_path)


def test_without_pillow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reading, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"pip install 'statprune\[images\]'"):
        drawn(PICTURES)
    tiny_model("vit").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "NoSuchThing"}')
    monkeypatch.setattr(loading, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"need pillow: pip install 'statprune\[images\]'"):
        load(tmp_path)


def test_a_processor_is_needed_and_can_be_given() -> None:
    with pytest.raises(DataError, match="no image processor"):
        statprune.compress(tiny_model("vit"), data=PICTURES, keep=0.7)
    model = tiny_model("vit")
    result = statprune.compress(model, tokenizer=processor(), data=PICTURES, keep=0.7)
    assert result.record["data"]["tokens"] == 80
    assert result.record["context"] == 10
    with pytest.raises(DataError, match="leave out the second column and seq_len"):
        statprune.compress(tiny_model("vit"), tokenizer=processor(), data=PICTURES, keep=0.7, seq_len=8)
