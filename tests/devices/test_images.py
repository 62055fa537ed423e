import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from devices.protocol.images import decode_image
from devices.protocol.messages import BadRequest, InferenceRequest

COLOUR = np.random.default_rng(5).integers(0, 256, (3, 24, 32), dtype=np.uint8)
GREY = COLOUR[:1]


def request(image, format="raw", shape=None):
    return InferenceRequest(id=9, deadline_s=1.0, image=image, format=format, shape=shape)


def encoded(format, pixels=COLOUR, mode=None, **settings):
    array = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    image = Image.fromarray(array)
    if mode is not None:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, format, **settings)
    return file.getvalue()


def refusal(image, format="raw", shape=None, input_shape=(3, 24, 32)):
    with pytest.raises(BadRequest) as caught:
        decode_image(request(image, format, shape), input_shape)
    assert (caught.value.code, caught.value.id) == ("bad_image", 9)
    assert len(caught.value.message) < 300
    return caught.value.message


def test_a_raw_image_is_its_bytes_in_memory_of_its_own():
    for shape in (None, (3, 24, 32)):
        image = decode_image(request(COLOUR.tobytes(), shape=shape), (3, 24, 32))
        np.testing.assert_array_equal(image, COLOUR)
        assert image.dtype == np.uint8
        assert image.flags.writeable
        assert image.flags.c_contiguous


def test_a_png_is_its_pixels():
    image = decode_image(request(encoded("PNG"), "png"), (3, 24, 32))
    np.testing.assert_array_equal(image, COLOUR)
    assert image.flags.writeable
    assert image.flags.c_contiguous
    grey = decode_image(request(encoded("PNG", GREY), "png"), (1, 24, 32))
    np.testing.assert_array_equal(grey, GREY)


@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"quality": 30}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_what_pillow_makes_of_it(settings, mode, channels):
    jpeg = encoded("JPEG", mode=mode, **settings)
    opened = Image.open(io.BytesIO(jpeg)).convert("RGB" if channels == 3 else "L")
    image = decode_image(request(jpeg, "jpeg"), (channels, 24, 32))
    np.testing.assert_array_equal(image, np.atleast_3d(np.asarray(opened)).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_usual_mode_of_png_is_taken(mode):
    png = encoded("PNG", mode=mode)
    opened = Image.open(io.BytesIO(png))
    image = decode_image(request(png, "png"), (3, 24, 32))
    np.testing.assert_array_equal(image, np.asarray(opened.convert("RGB")).transpose(2, 0, 1))


def test_grey_becomes_colour_and_colour_its_luma_whatever_the_format():
    wide = decode_image(request(GREY.tobytes(), shape=(1, 24, 32)), (3, 24, 32))
    np.testing.assert_array_equal(wide, np.repeat(GREY, 3, axis=0))
    np.testing.assert_array_equal(
        decode_image(request(encoded("PNG", GREY), "png"), (3, 24, 32)), wide
    )
    luma = decode_image(request(COLOUR.tobytes(), shape=(3, 24, 32)), (1, 24, 32))
    np.testing.assert_array_equal(decode_image(request(encoded("PNG"), "png"), (1, 24, 32)), luma)


def test_a_raw_image_of_another_size_or_length_is_refused():
    raw = COLOUR.tobytes()
    assert "2304 bytes; 2303 came" in refusal(raw[:-1])
    assert "2304 bytes; 2305 came" in refusal(raw + b"x")
    assert "32 × 24" in refusal(raw, shape=(3, 32, 24))
    assert "2 channels" in refusal(raw[:1536], shape=(2, 24, 32))
    assert "65535 × 65535" in refusal(raw, shape=(65535, 65535, 65535))
    assert "no image" in refusal(None)


@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_an_image_of_another_size_is_refused_not_resized(format):
    image = encoded(format, COLOUR[:, :16])
    assert "is 16 × 32 (height × width), the network takes 24 × 32" in refusal(image, format)


@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_a_file_cut_anywhere_is_refused(format):
    image = encoded(format)
    for length in range(1, len(image) - 2, 7):
        refusal(image[:length], format)


def test_a_format_is_not_guessed():
    assert "no JPEG" in refusal(encoded("PNG"), "jpeg")
    assert "no PNG" in refusal(encoded("JPEG"), "png")
    for other in ("GIF", "BMP", "TIFF", "WEBP", "PPM"):
        assert "no PNG" in refusal(encoded(other), "png")
        assert "no JPEG" in refusal(encoded(other), "jpeg")


def chunk(kind, content=b""):
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(*chunks, width=32, height=24, bits=8, colour=2):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks)


PIXELS = chunk(
    b"IDAT", zlib.compress(b"".join(b"\0" + row.T.tobytes() for row in COLOUR.transpose(1, 0, 2)))
)
END = chunk(b"IEND")


def test_the_png_made_here_is_a_png():
    image = decode_image(request(png(PIXELS, END), "png"), (3, 24, 32))
    np.testing.assert_array_equal(image, COLOUR)


def test_chunks_that_pixels_do_not_need_are_never_inflated():
    """Text of 60 MB in 60 kB; neither it nor a broken profile harms the image."""
    bomb = b"Comment\0\0" + zlib.compress(bytes(60_000_000), 9)
    image = png(
        chunk(b"zTXt", bomb), chunk(b"iCCP", b"x\0\0junk"), chunk(b"acTL", b"junk"), PIXELS, END
    )
    decoded = decode_image(request(image, "png"), (3, 24, 32))
    np.testing.assert_array_equal(decoded, COLOUR)


def test_a_second_header_is_refused():
    second = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
    assert "its one header" in refusal(png(second, PIXELS, END), "png")
    assert "its one header" in refusal(b"\x89PNG\r\n\x1a\n" + PIXELS + END, "png")


def test_sixteen_bits_are_refused():
    assert "16 bits" in refusal(png(PIXELS, END, bits=16), "png")


def test_a_png_of_too_many_chunks_is_refused():
    assert "more than 1024 chunks" in refusal(png(*1024 * [chunk(b"IDAT")], END), "png")


def test_a_jpeg_of_too_many_scans_is_refused():
    jpeg = encoded("JPEG", progressive=True)
    scan = jpeg.rindex(b"\xff\xda")
    scans = jpeg[:scan] + 80 * jpeg[scan:-2] + jpeg[-2:]
    assert "more than 64 scans" in refusal(scans, "jpeg")


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def test_segments_that_pixels_do_not_need_are_skipped():
    plain = encoded("JPEG")
    exif = segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff") + segment(0xFE, b"a comment")
    profile = segment(0xE2, b"ICC_PROFILE\0junk") + segment(0xE2, b"MPF\0junk")
    changed = plain[:2] + exif + b"\xff\xff" + plain[3:20] + profile + plain[20:]
    np.testing.assert_array_equal(
        decode_image(request(changed, "jpeg"), (3, 24, 32)),
        decode_image(request(plain, "jpeg"), (3, 24, 32)),
    )


def test_what_pillow_raises_becomes_a_bad_request(monkeypatch):
    for problem in (MemoryError(), RecursionError("deep"), OSError("x" * 1000), ValueError()):

        def fail(*_, problem=problem):
            raise problem

        monkeypatch.setattr("devices.protocol.images.PngImageFile", fail)
        assert "cannot be read" in refusal(encoded("PNG"), "png")


@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_a_bomb_costs_nothing(format):
    """A file that declares 30000 × 30000 pixels is refused for its header."""
    if format == "png":
        image = png(
            chunk(b"IDAT", zlib.compress(bytes(900_000), 9)), END, width=30000, height=30000
        )
    else:
        image = bytearray(encoded("JPEG"))
        start = image.index(b"\xff\xc0")
        image[start + 5 : start + 9] = struct.pack(">HH", 30000, 30000)
        image = bytes(image)
    assert "30000 × 30000" in refusal(image, format)
