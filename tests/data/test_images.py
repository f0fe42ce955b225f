"""Image files of all kinds that people have: what is read of them, and how others are refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from objdisc_jax.data import datasets, images, loader, metadata
from objdisc_jax.data.errors import BadImageError, DataError
from objdisc_jax.data.images import ReadOptions, read_rgb, to_rgb

ROWS, COLUMNS = 24, 32
MATTE = (10, 200, 90)
RNG = np.random.default_rng(0)
GREY = np.add.outer(np.arange(ROWS) * 3, np.arange(COLUMNS) * 5).astype(np.uint8)
COLOR = np.stack([GREY, GREY[::-1], 255 - GREY], -1)
ALPHA = RNG.integers(256, size=GREY.shape, dtype=np.uint8)
ALPHA[:8], ALPHA[8:16] = 0, 255
KEYED = np.where(GREY == GREY[5, 7], 0, 255).astype(np.uint8)
COLOR_KEYED = np.where((COLOR == COLOR[5, 7]).all(-1), 0, 255).astype(np.uint8)
TURNED = np.rot90(COLOR, -1)  # what orientation 6 asks for


def read(path, **options):
    return np.asarray(read_rgb(path, ReadOptions(**options))).astype(int)


def composited(color, alpha, matte):
    color = color if color.ndim == 3 else np.stack([color] * 3, -1)
    share = alpha[..., None] / 255
    return np.rint(color * share + np.array(matte) * (1 - share))


def saved(mode, array, file_type, **options):
    content = io.BytesIO()
    Image.frombytes(mode, (COLUMNS, ROWS), np.ascontiguousarray(array).tobytes()).save(
        content, file_type, **options
    )
    return content.getvalue()


def chunk(kind, content):
    checksum = struct.pack(">L", zlib.crc32(kind + content))
    return struct.pack(">L", len(content)) + kind + content + checksum


def png(samples, bits, color_type, *chunks):
    """A PNG file of whole numbers [h, w] or [h, w, c] of so many bits."""
    values = samples.reshape(ROWS, -1).astype(">u2")
    single = np.unpackbits(values.view(np.uint8).reshape(ROWS, -1, 2), axis=2)[:, :, 16 - bits :]
    rows = np.packbits(single.reshape(ROWS, -1), axis=1)
    header = struct.pack(">LLBBBBB", COLUMNS, ROWS, bits, color_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(samples, bits, photometric, entries=(), order="<", *, deflate=False):
    """A TIFF of samples [h, w] or [h, w, c], with further entries."""
    per_pixel = samples.shape[2] if samples.ndim == 3 else 1
    data = zlib.compress(samples.tobytes()) if deflate else samples.tobytes()
    data += bytes(len(data) % 2)
    sizes = {256: COLUMNS, 257: ROWS, 262: photometric, 273: 8, 277: per_pixel, 279: len(data)}
    found = [(tag, 4, (value,)) for tag, value in sizes.items()]
    found += [(258, 3, (bits,) * per_pixel), (259, 3, (8 if deflate else 1,)), *entries]
    found.sort(key=lambda entry: entry[0])
    at = 8 + len(data)
    heap, heap_at, directory = (
        b"",
        at + 2 + 12 * len(found) + 4,
        struct.pack(order + "H", len(found)),
    )
    for tag, kind, values in found:
        packed = values
        if not isinstance(values, bytes):
            packed = struct.pack(order + {3: "H", 4: "L"}[kind] * len(values), *values)
        place = packed.ljust(4, b"\0")
        if len(packed) > 4:
            place, heap = struct.pack(order + "L", heap_at + len(heap)), heap + packed
        count = len(packed) // metadata._SIZES[kind]
        directory += struct.pack(order + "HHL", tag, kind, count) + place
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "L", at) + data + directory + bytes(4) + heap


def block(*entries):
    """EXIF of entries: tag, type, count, and up to 8 bytes."""
    directory, heap = struct.pack("<H", len(entries)), b""
    for tag, kind, count, value in entries:
        place = value.ljust(4, b"\0")
        if len(value) > 4:
            place = struct.pack("<L", 14 + 12 * len(entries) + len(heap))
            heap += value
        directory += struct.pack("<HHL", tag, kind, count) + place
    return b"II*\0\x08\0\0\0" + directory + bytes(4) + heap


def oriented(value=b"\6\0", kind=3, count=1):
    return 274, kind, count, value


ODD = {
    "resolution as text": (oriented(), (282, 2, 6, b"72.0 \0"), (296, 3, 1, b"\3\0")),
    "a negative by 0": (oriented(), (282, 10, 1, struct.pack("<ll", -1, 0)), (296, 3, 1, b"\2\0")),
    "NaN": (oriented(), (282, 12, 1, struct.pack("<d", np.nan)), (296, 3, 1, b"\3\0")),
    "bytes": (oriented(), (282, 7, 8, b"\xff" * 8), (283, 7, 8, b"\xff" * 8), (296, 3, 1, b"\3\0")),
    "data beyond the end": (oriented(), (270, 2, 1 << 31, b"\xff" * 4), (305, 2, 99, b"\xff" * 4)),
    "negative directory": (oriented(), (34665, 9, 1, struct.pack("<l", -5))),
    "circular directory": (oriented(), (34665, 4, 1, struct.pack("<L", 8))),
    "unknown type": (oriented(), (270, 99, 1, b"abcd")),
}
NOT_TURNED = {
    "0": (oriented(b"\0\0"),),
    "9": (oriented(b"\x09\0"),),
    "text": (oriented(b"6\0", kind=2, count=2),),
    "fraction": (oriented(struct.pack("<LL", 6, 1), kind=5),),
    "two": (oriented(b"\6\0\6\0", count=2),),
    "none": (oriented(b"", count=0),),
}


def with_exif(file_type, exif):
    """An image file with EXIF that Pillow itself would not write."""
    if file_type in ("webp", "avif"):
        return saved("RGB", COLOR, file_type, exif=exif, lossless=True, quality=100)
    if file_type == "png":
        return png(COLOR, 8, 2, (b"eXIf", exif))
    if file_type == "raw.png":  # as ImageMagick does
        text = f"\nexif\n{len(exif) + 6:8}\n".encode() + (b"Exif\0\0" + exif).hex().encode()
        return png(COLOR, 8, 2, (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)))
    content = saved("RGB", COLOR, "jpeg", quality=100, subsampling=0)
    segment = b"Exif\0\0" + exif
    return content[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + content[2:]


@pytest.mark.parametrize("file_type", ["jpg", "png", "raw.png", "webp"])
def test_only_the_orientation_of_exif_matters(tmp_path, file_type):
    file = tmp_path / f"image.{file_type}"
    for expected, blocks in ((TURNED, ODD), (COLOR, NOT_TURNED)):
        for name, entries in blocks.items():
            file.write_bytes(with_exif(file_type, block(*entries)))
            found = read(file)
            assert found.shape == expected.shape, name
            assert abs(found - expected).max() < (6 if file_type == "jpg" else 1), name
    for cut in (block(*ODD["bytes"])[:-3], block(*ODD["bytes"])[:24]):
        file.write_bytes(with_exif(file_type, cut))
        assert read(file).shape == TURNED.shape
    for cut in (b"II*\0\x08", b"no EXIF at all", block(oriented())[:12], b"II+\0\x08\0\0\0" * 2):
        file.write_bytes(with_exif(file_type, cut))
        assert read(file).shape == COLOR.shape


def test_odd_exif_does_not_keep_an_avif_from_being_turned(tmp_path):
    """It is turned by boxes of its own; Pillow reads and writes its EXIF when it opens one."""
    if not Image.registered_extensions().get(".avif"):
        pytest.skip("this Pillow reads no AVIF")
    exif = Image.Exif()
    exif[270], exif[274] = "q" * 200, 6
    content = saved("RGB", COLOR, "avif", quality=100, subsampling="4:4:4", exif=exif)
    at = content.rindex(b"MM\0*", 0, content.index(b"q" * 200))
    for odd in (*ODD.values(), None):
        replaced = block(*odd) if odd else b"no EXIF at all"
        file = tmp_path / "image.avif"
        file.write_bytes(content[:at] + replaced + content[at + len(replaced) :])
        assert read(file).shape == TURNED.shape
        assert abs(read(file) - TURNED).mean() < 3


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflate", [False, True])
def test_odd_tags_of_a_tiff_are_not_looked_at(tmp_path, order, deflate, capfd):
    file = tmp_path / "image.tif"
    turned = (274, 3, (6,))
    texts = [(282, 2, b"72.0 \0"), (283, 2, b"72.0 \0"), (296, 3, (3,)), (34675, 7, bytes(6))]
    for odd in (texts, [(296, 3, (99,)), (34665, 4, ((1 << 32) - 1,)), (305, 2, b"\xff\xfe")]):
        file.write_bytes(tiff(COLOR, 8, 2, [turned, *odd], order, deflate=deflate))
        np.testing.assert_array_equal(read(file), TURNED)
    assert not capfd.readouterr().err  # libtiff's warnings


@pytest.mark.parametrize(
    ("file_type", "options"),
    [("MPO", {"save_all": True, "append_images": [Image.new("RGB", (4, 4))]}), ("JPEG", {})],
)
def test_index_of_further_images_is_not_looked_at(tmp_path, file_type, options):
    content = saved("RGB", COLOR, file_type, quality=100, **options)
    (tmp_path / "plain.jpg").write_bytes(content)
    odd = b"\xff\xe2" + struct.pack(">H", 40) + b"MPF\0II*\0\x08\0\0\0" + b"\x7f" * 26
    (tmp_path / "odd.jpg").write_bytes(content[:2] + odd + content[2:])
    np.testing.assert_array_equal(read(tmp_path / "odd.jpg"), read(tmp_path / "plain.jpg"))


@pytest.mark.parametrize(
    "error", [TypeError("x"), KeyError(3), struct.error("x"), RuntimeError("x"), MemoryError()]
)
@pytest.mark.parametrize("reader", [read_rgb, images.read_labels, images.stored_size])
def test_whatever_a_decoder_raises_is_a_bad_image(tmp_path, monkeypatch, error, reader):
    def fail(*_):
        raise error

    (tmp_path / "odd.png").write_bytes(png(GREY, 8, 0))
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(BadImageError, match=r"odd\.png (cannot be read|needs more memory)"):
        reader(tmp_path / "odd.png")


def test_what_the_system_refuses_is_not_called_damaged(tmp_path, monkeypatch):
    def refuse(self, *_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "open", refuse)
    with pytest.raises(BadImageError, match=r"read: Permission denied. See to") as error:
        read_rgb(tmp_path / "a.png")
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [with_exif("jpg", block(oriented())), with_exif("png", block(oriented()))]
    + [tiff(COLOR, 8, 2, [(274, 3, (6,))], deflate=deflate) for deflate in (False, True)],
)
def test_files_too_large_for_the_memory_are_turned_as_well(tmp_path, monkeypatch, content):
    monkeypatch.setattr(images, "_MOST_IN_MEMORY", 100)
    (tmp_path / "image").write_bytes(content)
    found = read(tmp_path / "image")
    assert abs(found - TURNED).max() < 6


@pytest.mark.parametrize("at_end", [False, True])
def test_text_and_profiles_of_any_size_are_no_obstacle(tmp_path, at_end, monkeypatch):
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 1000)
    long = zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1))
    chunks = [
        (b"iCCP", b"profile\0\0" + long),
        (b"zTXt", b"comment\0\0" + long),
        (b"iTXt", b"comment\0\1\0\0\0" + long),
        *[(b"tEXt", b"comment\0" + b"x" * 600)] * 2,
        (b"eXIf", block(oriented())),
        (b"pHYs", b"cut"),
        (b"acTL", b"cut"),
    ]
    content = png(COLOR, 8, 2) if at_end else png(COLOR, 8, 2, *chunks)
    if at_end:
        content = content[:-12] + b"".join(chunk(*one) for one in chunks) + content[-12:]
    (tmp_path / "image.png").write_bytes(content)
    np.testing.assert_array_equal(read(tmp_path / "image.png"), TURNED)


def test_image_beyond_the_limit_of_pixels_is_told_how_to_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", ROWS * COLUMNS // 3)
    file = tmp_path / "panorama.png"
    file.write_bytes(png(COLOR, 8, 2))
    for options in ({}, {"max_pixels": 700}):
        with pytest.raises(
            BadImageError, match=r"panorama.png is too large .*--max-pixels N, "
        ) as e:
            read(file, **options)
        assert "damaged" not in str(e.value)
    np.testing.assert_array_equal(read(file, max_pixels=ROWS * COLUMNS), COLOR)


PALETTE = RNG.integers(256, size=(16, 3), dtype=np.uint8)
INDICES = GREY % 16
OPACITY = RNG.integers(256, size=16, dtype=np.uint8)
PREMULTIPLIED = np.rint(COLOR * (ALPHA[..., None] / 255)).astype(np.uint8)
COLOR_MAP = (320, 3, tuple((np.pad(PALETTE, ((0, 240), (0, 0))).T.astype(int) * 257).ravel()))


def _key(*values):
    return b"tRNS", struct.pack(f">{len(values)}H", *map(int, values))


TRANSPARENT = {
    "RGBA.png": (png(np.dstack([COLOR, ALPHA]), 8, 6), COLOR, ALPHA),
    "RGBA16.png": (png(np.dstack([COLOR, ALPHA]).astype(int) * 257, 16, 6), COLOR, ALPHA),
    "LA.png": (png(np.dstack([GREY, ALPHA]), 8, 4), GREY, ALPHA),
    "LA16.png": (png(np.dstack([GREY, ALPHA]).astype(int) * 257, 16, 4), GREY, ALPHA),
    "palette.png": (
        png(INDICES, 4, 3, (b"PLTE", PALETTE.tobytes()), (b"tRNS", OPACITY.tobytes())),
        PALETTE[INDICES],
        OPACITY[INDICES],
    ),
    "palette of one.png": (
        png(INDICES, 8, 3, (b"PLTE", PALETTE.tobytes()), (b"tRNS", b"\xff\xff\0")),
        PALETTE[INDICES],
        np.where(INDICES == 2, 0, 255),
    ),
    "key.png": (png(GREY, 8, 0, _key(GREY[5, 7])), GREY, KEYED),
    "key1.png": (png(GREY >> 7, 1, 0, _key(1)), (GREY >> 7) * 255, np.where(GREY > 127, 0, 255)),
    "key2.png": (png(GREY % 4, 2, 0, _key(2)), GREY % 4 * 85, np.where(GREY % 4 == 2, 0, 255)),
    "key4.png": (png(INDICES, 4, 0, _key(7)), INDICES * 17, np.where(INDICES == 7, 0, 255)),
    "key16.png": (
        png(GREY.astype(int) * 256 + 3, 16, 0, _key(int(GREY[5, 7]) * 256 + 3)),
        GREY,
        KEYED,
    ),
    "color key.png": (png(COLOR, 8, 2, _key(*COLOR[5, 7])), COLOR, COLOR_KEYED),
    "color key16.png": (
        png(COLOR.astype(int) * 257, 16, 2, _key(*COLOR[5, 7].astype(int) * 257)),
        COLOR,
        COLOR_KEYED,
    ),
    "straight.tif": (tiff(np.dstack([COLOR, ALPHA]), 8, 2, [(338, 3, (2,))]), COLOR, ALPHA),
    "RGBa.tif": (tiff(np.dstack([PREMULTIPLIED, ALPHA]), 8, 2, [(338, 3, (1,))]), COLOR, ALPHA),
    "La.tif": (
        tiff(np.dstack([PREMULTIPLIED[..., 0], ALPHA]), 8, 1, [(338, 3, (1,))]),
        GREY,
        ALPHA,
    ),
    "PA.tif": (
        tiff(np.dstack([INDICES, ALPHA]), 8, 3, [(338, 3, (2,)), COLOR_MAP]),
        PALETTE[INDICES],
        ALPHA,
    ),
    "more samples.tif": (
        tiff(np.dstack([COLOR, ALPHA]), 8, 2, [(338, 3, (0,))]),
        COLOR,
        np.full_like(ALPHA, 255),
    ),
    **{
        f"RGBA.{kind}": (saved("RGBA", np.dstack([COLOR, ALPHA]), kind, **options), COLOR, ALPHA)
        for kind, options in {
            "webp": {"lossless": True, "exact": True},
            "tga": {},
            "dds": {},
        }.items()
    },
    "animated.png": (
        saved(
            "RGBA",
            np.dstack([COLOR, ALPHA]),
            "png",
            save_all=True,
            append_images=[Image.new("RGBA", (COLUMNS, ROWS))],
        ),
        COLOR,
        ALPHA,
    ),
}


@pytest.mark.parametrize("name", TRANSPARENT)
@pytest.mark.parametrize("matte", [(0, 0, 0), MATTE])
def test_transparent_images_are_composited(tmp_path, name, matte):
    content, color, alpha = TRANSPARENT[name]
    (tmp_path / name).write_bytes(content)
    found = read(tmp_path / name, matte=matte)
    most = 1 if name in ("RGBa.tif", "La.tif") else 0
    assert abs(found - composited(color, np.asarray(alpha), matte)).max() <= most


def test_gif_with_a_transparent_colour_is_composited(tmp_path):
    image = Image.fromarray(INDICES)
    image.putpalette(PALETTE.tobytes())
    image.save(tmp_path / "a.gif", transparency=5)
    expected = composited(PALETTE[INDICES], np.where(INDICES == 5, 0, 255), MATTE)
    np.testing.assert_array_equal(read(tmp_path / "a.gif", matte=MATTE), expected)


def test_data_set_says_on_which_colour(tmp_path):
    hidden = np.dstack([np.full_like(COLOR, 255), np.zeros_like(ALPHA)])
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(hidden, 8, 6))
    config = datasets.get("image_folder").default_config()
    config.update(path=str(tmp_path), resolution=(8, 8))
    assert not loader.load(config, "train").read([0])["image"].any()
    config.matte = MATTE
    image = loader.load(config, "train").read([0])["image"]
    np.testing.assert_array_equal(image, np.broadcast_to(MATTE, image.shape))
    config.matte = (0, 0, 256)
    with pytest.raises(
        DataError, match=r"data\.matte: got \(0, 0, 256\); it is red, green and blue"
    ):
        loader.load(config, "train")


FLOATS = [(339, 3, (3,))]
SIGNED = [(339, 3, (2,))]
DEEP = {
    "float.tif": (tiff((GREY / 255).astype("<f4"), 32, 1, FLOATS), GREY),
    "float255.tif": (tiff(GREY.astype(">f4"), 32, 1, FLOATS, ">"), GREY),
    "rounded.tif": (tiff((GREY * (1.0002 / 255)).astype("<f4"), 32, 1, FLOATS), GREY),
    "int255.tif": (tiff(GREY.astype("<i4"), 32, 1, SIGNED), GREY),
    "int65535.tif": (tiff(GREY.astype("<i4") * 257, 32, 1, SIGNED), GREY),
    "unsigned.tif": (tiff(GREY.astype("<u4") * 257, 32, 1), GREY),
    "int16.tif": (tiff(GREY.astype("<i2") * 128, 16, 1, SIGNED), GREY >> 1),
    "uint16.tif": (tiff(GREY.astype(">u2") * 257, 16, 1, order=">"), GREY),
    "uint16.png": (png(GREY.astype(int) * 257, 16, 0), GREY),
    "uint16.pgm": (
        b"P5 %d %d 65535\n" % (COLUMNS, ROWS) + (GREY.astype(int) * 257).astype(">u2").tobytes(),
        GREY,
    ),
    "10 bits.pgm": (
        b"P5 %d %d 1023\n" % (COLUMNS, ROWS) + (GREY.astype(int) * 4).astype(">u2").tobytes(),
        GREY * (255 / 255.75),
    ),
    "float.pfm": (saved("F", (GREY / 255).astype("<f4"), "ppm"), GREY),
    "bits.png": (png(GREY >> 7, 1, 0), (GREY >> 7) * 255),
    "min is white.tif": (tiff(GREY, 8, 0), 255 - GREY),
    "min is white16.tif": (tiff(GREY.astype("<u2") * 257, 16, 0), 255 - GREY),
    "min is white float.tif": (tiff((GREY / 255).astype("<f4"), 32, 0, FLOATS), 255 - GREY),
}


@pytest.mark.parametrize("name", DEEP)
def test_samples_are_scaled_by_their_values_and_declared_depth(tmp_path, name, caplog):
    content, expected = DEEP[name]
    (tmp_path / name).write_bytes(content)
    found = read(tmp_path / name)
    assert (found == found[..., :1]).all()
    assert abs(found[..., 0] - expected).max() <= (1 if name == "10 bits.pgm" else 0)
    assert not caplog.records


@pytest.mark.parametrize("name", [*TRANSPARENT, *DEEP])
def test_image_in_memory_becomes_what_its_file_does(tmp_path, name):
    content, *_ = {**TRANSPARENT, **DEEP}[name]
    (tmp_path / name).write_bytes(content)
    with Image.open(tmp_path / name) as image:
        stated = image.info.get("transparency")
        found = np.asarray(to_rgb(image, ReadOptions(MATTE)))
        assert image.info.get("transparency") == stated
    np.testing.assert_array_equal(found, read(tmp_path / name, matte=MATTE))


@pytest.mark.filterwarnings("ignore:Tag data")  # of Pillow, which is asked to open the file
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("file_type", ["jpeg", "png", "webp"])
def test_image_in_memory_is_turned_whatever_else_its_exif_says(tmp_path, name, file_type):
    (tmp_path / "a").write_bytes(with_exif(file_type, block(*ODD[name])))
    with Image.open(tmp_path / "a") as image:
        found = np.asarray(to_rgb(image))
    np.testing.assert_array_equal(found, read(tmp_path / "a"))


def test_packed_samples_of_12_bits_are_taken_as_that(tmp_path):
    pairs = (GREY.astype(int) * 16).reshape(-1, 2)
    first, second = pairs.T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    content = tiff(packed.astype(np.uint8).reshape(ROWS, -1), 12, 1)
    (tmp_path / "a.tif").write_bytes(content)
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[..., 0], GREY)


@pytest.mark.parametrize(
    "content",
    [
        tiff(np.where(GREY > 9, np.nan, 0.5).astype("<f4"), 32, 1, FLOATS),
        tiff(np.where(GREY > 9, np.inf, 0.5).astype("<f4"), 32, 1, FLOATS),
        tiff((GREY / 255 - 0.5).astype("<f4"), 32, 1, FLOATS),
        tiff((GREY * 2.0).astype("<f4"), 32, 1, FLOATS),
        tiff(GREY.astype("<i4") - 1, 32, 1, SIGNED),
        tiff(GREY.astype("<i4") * 300, 32, 1, SIGNED),
        tiff(GREY / 255, 64, 1, FLOATS),
    ],
)
def test_samples_of_an_unknown_range_are_refused_without_speaking_of_damage(tmp_path, content):
    (tmp_path / "odd.tif").write_bytes(content)
    with pytest.raises(
        BadImageError, match=r"odd\.tif (has|cannot be read: its) .*sample"
    ) as error:
        read(tmp_path / "odd.tif")
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("12.png", png(GREY.astype(int) * 16, 16, 0), GREY >> 4),
        ("10.tif", tiff(GREY.astype("<u2") * 4, 16, 1), GREY >> 6),
        ("RGB.png", png(np.stack([GREY.astype(int) * 16] * 3, -1), 16, 2), GREY >> 4),
        ("RGBA.tif", tiff(np.stack([GREY.astype("<u2") * 16] * 3, -1), 16, 2), GREY >> 4),
        ("float.tif", tiff((GREY / 16).astype("<f4"), 32, 1, FLOATS), np.rint(GREY / 16)),
    ],
)
def test_dark_images_of_many_bits_are_told_of(tmp_path, caplog, name, content, expected):
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(read(tmp_path / name)[..., 0], expected)
    read(tmp_path / name)
    (record,) = caplog.records  # one, however often it is read
    assert record.levelname == "WARNING"
    assert f"{name} is dark: " in record.getMessage()


def test_image_that_is_transparent_all_over_is_told_of(tmp_path, caplog):
    (tmp_path / "none.png").write_bytes(png(np.dstack([COLOR, ALPHA * 0]), 8, 6))
    assert not read(tmp_path / "none.png").any()
    assert "none.png is transparent all over" in caplog.text


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colour_spaces_are_converted(tmp_path, mode):
    image = Image.frombytes(mode, (COLUMNS, ROWS), RNG.bytes(ROWS * COLUMNS * len(mode[:4])))
    if mode == "YCbCr":
        image = Image.fromarray(COLOR).convert(mode)
    image.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), np.asarray(image.convert("RGB")))


def test_images_are_read_by_their_content_whatever_their_suffix(tmp_path):
    for suffix in images.SUFFIXES:
        (tmp_path / f"a{suffix.upper()}").write_bytes(png(COLOR, 8, 2))
        np.testing.assert_array_equal(read(tmp_path / f"a{suffix.upper()}"), COLOR)
