"""Small files in the exact layouts that readers read, made from a set's declaration.

`LAYOUTS` names the writers by reader, so a new data set with a known reader needs nothing here.
"""

import dataclasses
import json
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from objdisc_jax.data import splits
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.hdf5 import Hdf5Reader
from objdisc_jax.data.datasets.clevr_v1 import ClevrReader
from objdisc_jax.data.datasets.clevrtex import ClevrTexReader
from objdisc_jax.data.datasets.image_folder import ImageFolderReader
from objdisc_jax.data.datasets.ravens import RavensReader
from objdisc_jax.data.datasets.shapes3d import Shapes3dReader
from objdisc_jax.data.datasets.sketchy import SketchyReader

# Of the published ClevrTex masks (datasets differ in nothing but the indices).
PALETTE = [0, 0, 0, 255, 0, 0, 0, 128, 0, 0, 0, 255, 255, 255, 0, 141, 211, 199, 255, 255, 179]


@dataclasses.dataclass(frozen=True)
class Example:
    """What written files hold: full pictures and label maps, counts without the background."""

    image: np.ndarray
    segmentation: np.ndarray
    num_objects: np.ndarray
    splits: Mapping[str, range]


def draw(declaration: DatasetDeclaration, num_images: int) -> Example:
    """Random pictures with 1 to `largest_num_objects` objects, each a random rectangle."""
    rng = np.random.default_rng(len(declaration.name))
    rows, cols = declaration.image_size or (70, 70)
    most = declaration.largest_num_objects or 1
    counts = rng.permutation(np.arange(num_images) % most) + 1
    segmentation = np.zeros((num_images, rows, cols), np.uint8)
    if declaration.has_masks:
        background = len(declaration.background_labels)
        segmentation[:, rows // 2 :] = declaration.background_labels[-1]
        for labels, count in zip(segmentation, counts, strict=True):
            for label in range(background, background + count):
                top, left = rng.integers(rows), rng.integers(cols)
                labels[top : top + rows // 3, left : left + cols // 3] = label
    image = rng.integers(256, size=(num_images, rows, cols, 3), dtype=np.uint8)
    ranges = splits.scaled_splits(declaration.splits, num_images)
    return Example(image, segmentation, counts, ranges)


def write_ours(path: Path, declaration: DatasetDeclaration, num_images: int) -> Example:
    """Label maps and counts, one record a chunk."""
    example = draw(declaration, num_images)
    fields = declaration.fields
    with h5py.File(path, "w") as file:
        chunks = (1, *example.image.shape[1:])
        file.create_dataset(fields["image"], data=example.image, chunks=chunks)
        if declaration.has_masks:
            file[fields["segmentation"]] = example.segmentation
        file[fields["num_objects"]] = example.num_objects
        file.attrs.update(splits.to_attributes(example.splits))
    return example


def write_published(path: Path, declaration: DatasetDeclaration, num_images: int) -> Example:
    """One plane of 0 or 255 per entity, visibility with the background; gzip, automatic chunks."""
    example = draw(declaration, num_images)
    entities = np.arange(declaration.num_entities)
    planes = example.segmentation[:, None] == entities[:, None, None]
    last = len(declaration.background_labels) - 1 + example.num_objects
    arrays = {
        "image": example.image,
        "mask": (planes * np.uint8(255))[..., None],
        "visibility": (entities <= last[:, None]).astype(np.float32),
    }
    _write_gzipped(path, arrays)
    with h5py.File(path, "a") as file:
        # The published files are large enough for the declared splits; this one states its own.
        file.attrs.update(splits.to_attributes(example.splits))
    return example


def write_shapes3d(path: Path, declaration: DatasetDeclaration, num_images: int) -> Example:
    """`images` and `labels`."""
    example = draw(declaration, num_images)
    _write_gzipped(path, {"images": example.image, "labels": np.zeros((num_images, 6))})
    with h5py.File(path, "a") as file:
        file.attrs.update(splits.to_attributes(example.splits))
    # The splits are cut from a permutation: the pictures in its order.
    order = np.random.default_rng(declaration.shuffle_seed).permutation(num_images)
    ranges = {k: np.sort(order[v]) for k, v in example.splits.items()}
    return dataclasses.replace(example, splits=ranges)


def write_ravens(path: Path, declaration: DatasetDeclaration, num_images: int) -> Example:
    """Two files, one count for the three pictures of a scene, rays that miss everything."""
    example = draw(declaration, num_images)
    counts = np.repeat(example.num_objects[::3], 3)
    path.mkdir()
    num_training = example.splits["val"].stop // 3 * 3
    stored = np.where(example.segmentation == 0, 255, example.segmentation).astype(np.uint8)
    parts = {"train": slice(0, num_training), "test": slice(num_training, None)}
    for name, part in parts.items():
        arrays = {
            "color": example.image[part],
            "segm": stored[part],
            "num_objects_on_table": counts[part][::3],
        }
        _write_gzipped(path / f"ravens_robot_data_{name}.h5", arrays)
    ranges = {
        "train": range(0, num_training - 3),
        "val": range(num_training - 3, num_training),
        "test": range(num_training, num_images),
    }
    return dataclasses.replace(example, num_objects=counts, splits=ranges)


def write_clevr(path: Path, declaration: DatasetDeclaration, num_images: int) -> Example:
    """RGBA pictures in three folders, scene files for two of them."""
    example = draw(declaration, num_images)
    for split, records in example.splits.items():
        folder = path / "images" / split
        folder.mkdir(parents=True)
        scenes = []
        for number, record in enumerate(records):
            name = f"CLEVR_{split}_{number:06d}.png"
            Image.fromarray(example.image[record]).convert("RGBA").save(folder / name)
            objects = [{"shape": "cube"}] * int(example.num_objects[record])
            scenes.append({"image_index": number, "image_filename": name, "objects": objects})
        if split != "test":
            (path / "scenes").mkdir(exist_ok=True)
            scene_file = path / "scenes" / f"CLEVR_{split}_scenes.json"
            scene_file.write_text(json.dumps({"info": {"split": split}, "scenes": scenes}))
    return example


def write_clevrtex(path: Path, declaration: DatasetDeclaration, num_images: int) -> Example:
    """RGBA pictures, palette masks, other layers and scene files, in numbered folders."""
    example = draw(declaration, num_images)
    variant = declaration.fields["image"].split("_")[1]
    for record in range(num_images):
        folder = path / f"clevrtex_{variant}" / str(record // 10)
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"CLEVRTEX_{variant}_{record:06d}"
        picture = Image.fromarray(example.image[record]).convert("RGBA")
        picture.save(folder / f"{stem}.png")
        picture.resize((8, 6)).save(folder / f"{stem}_albedo_0001.png")
        mask = Image.fromarray(example.segmentation[record])
        mask.putpalette(PALETTE)
        mask.save(folder / f"{stem}_flat.png")
        scene = {"num_objects": int(example.num_objects[record]), "objects": []}
        (folder / f"{stem}.json").write_text(json.dumps(scene))
    return example


def write_sketchy(path: Path, declaration: DatasetDeclaration, num_images: int) -> Example:
    """PNG crops in a folder per episode."""
    example = draw(declaration, num_images)
    for split, folder in {"train": "train", "val": "valid", "test": "test"}.items():
        for number, record in enumerate(example.splits[split]):
            episode = path / folder / f"ep{number // 4:06d}"
            episode.mkdir(parents=True, exist_ok=True)
            file = episode / f"{episode.name}_t{number // 2 % 2:03d}_fl_c{number % 2}.png"
            Image.fromarray(example.image[record]).save(file)
            (episode / f"{episode.name}_t000_state.pt").touch()
    return example


def write_folder(path: Path, declaration: DatasetDeclaration, num_images: int) -> Example:
    """Pictures of two kinds in a folder and a folder in it, in the order of their names."""
    example = draw(declaration, num_images)
    for record, image in enumerate(example.image):
        folder = path / f"{record // 10}"
        folder.mkdir(parents=True, exist_ok=True)
        suffix = ".BMP" if record % 2 else ".png"
        Image.fromarray(image).save(folder / f"picture {record % 10}{suffix}")
    (path / "notes.txt").touch()
    names = [str(file.relative_to(path)) for file in sorted(path.glob("*/*"))]
    order = np.argsort([zlib.crc32(name.encode()) for name in names], kind="stable")
    image, segmentation = example.image[order], example.segmentation[order]
    return dataclasses.replace(example, image=image, segmentation=segmentation)


def _write_gzipped(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            shape = (None, *values.shape[1:])
            file.create_dataset(key, data=values, maxshape=shape, compression="gzip")


def with_small_disk(command: list[str], largest: int) -> list[str]:
    """A command that runs another one which can write no file of more bytes than that.

    (A `preexec_fn` would fork this process, which JAX's threads forbid.)
    """
    limit = (
        "import os, resource, sys; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest})); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", limit, *command]


Writer = Callable[[Path, DatasetDeclaration, int], Example]
LAYOUTS: Mapping[object, Mapping[str, Writer]] = {
    Hdf5Reader: {"ours": write_ours, "published": write_published},
    Shapes3dReader: {"published": write_shapes3d},
    RavensReader: {"published": write_ravens},
    ClevrReader: {"published": write_clevr},
    ClevrTexReader: {"published": write_clevrtex},
    SketchyReader: {"published": write_sketchy},
    ImageFolderReader: {"any": write_folder},
}


def layouts(declaration: DatasetDeclaration) -> Mapping[str, Writer]:
    """The writers for a data set; an error tells how to add one for a new reader."""
    if declaration.reader not in LAYOUTS:
        raise LookupError(
            f"Nothing in tests/data/examples.py writes files for {declaration.reader}, the reader "
            f"of '{declaration.name}': add a writer to LAYOUTS."
        )
    return LAYOUTS[declaration.reader]
