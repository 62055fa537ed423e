"""Images of requests: from the bytes that a device sent to the array that a network takes.

The bytes may come from anyone. Nothing is decoded before the size that its header declares is
known to be the network's, so an image costs no more than the network's own input. Only the parts
of a file that pixels need reach Pillow: text, colour profiles, EXIF and thumbnails could cost more
than the image (compressed text inflates) and open more code to anyone.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from devices.protocol.cbor_limits import short
from devices.protocol.messages import BadRequest, InferenceRequest

# PNG chunks or JPEG segments. A PNG of 1 MiB in chunks of 8 KiB, which is usual, has 128.
_MOST_PARTS = 1024
# Each scan of a progressive JPEG costs a pass over all pixels; encoders make about ten.
_MOST_JPEG_SCANS = 64
_START_OF_IMAGE, _START_OF_SCAN = b"\xff\xd8", b"\xff\xda"
# Comments and application data, but for JFIF's (0xe0) and Adobe's (0xee), which name the colours.
_JPEG_EXTRAS = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PIXEL_CHUNKS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
# Modes of Pillow with eight bits or fewer for a channel. Of sixteen it would cut the upper half.
_MODES = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"))


class _ImageError(Exception):
    """Why an image is refused."""


def decode_image(request: InferenceRequest, input_shape: Sequence[int]) -> NDArray[np.uint8]:
    """The image that a request brings, as a network takes it.

    Never resized: its height and width must be the network's. Where only the channels differ, grey
    becomes red, green and blue alike, and colour becomes grey by its luma (ITU-R BT.601, as Pillow
    does). Transparency and orientation tags are ignored.

    Args:
        input_shape: channels (1 or 3, or those of a raw image), height and width.

    Returns:
        An array (C, H, W) of its own memory.

    Raises:
        BadRequest: with code "bad_image"; no other exception leaves this function.
    """
    channels, height, width = input_shape
    try:
        if not request.image:
            raise _ImageError("the request has no image")
        if request.format == "raw":
            pixels = _raw(request.image, request.shape or (channels, height, width), height, width)
        elif request.format == "jpeg":
            pixels = _jpeg(request.image, height, width, channels)
        else:
            pixels = _png(request.image, height, width, channels)
        return _with_channels(pixels, channels)
    except _ImageError as problem:
        raise BadRequest("bad_image", str(problem), request.id) from None
    except Exception as problem:  # whatever Pillow raises, zlib, struct, or the memory
        reason = short(str(problem)) or type(problem).__name__
        raise BadRequest(
            "bad_image", f"the {request.format} image cannot be read: {reason}", request.id
        ) from None


def _raw(image: bytes, shape: tuple[int, ...], height: int, width: int) -> NDArray[np.uint8]:
    if shape[1:] != (height, width):
        raise _wrong_size(shape[1], shape[2], height, width)
    expected = math.prod(shape)
    if len(image) != expected:
        given = " × ".join(map(str, shape))
        raise _ImageError(f"a raw image of {given} has {expected} bytes; {len(image)} came")
    # Copied here: numpy's own copy lets go of the interpreter lock, and must then wait for it.
    return np.frombuffer(bytearray(image), np.uint8).reshape(shape)


def _jpeg(image: bytes, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    needed = _pixel_segments(image)
    # In compressed data 0x00 follows 0xff, so this is a marker wherever it stands.
    if needed.count(_START_OF_SCAN) > _MOST_JPEG_SCANS:
        raise _ImageError(f"the JPEG has more than {_MOST_JPEG_SCANS} scans")
    with JpegImageFile(BytesIO(needed)) as opened:
        return _pixels(opened, height, width, channels)


def _pixel_segments(image: bytes) -> bytes:
    """A JPEG without the segments before its first scan that pixels do not need."""
    if not image.startswith(_START_OF_IMAGE):
        raise _ImageError("the image is no JPEG")
    kept = [_START_OF_IMAGE]
    position = len(_START_OF_IMAGE)
    for _ in range(_MOST_PARTS):
        if image.startswith(_START_OF_SCAN, position):
            kept.append(image[position:])
            return b"".join(kept)
        if position + 4 > len(image):
            raise _ImageError("the JPEG is truncated")
        if image.startswith(b"\xff\xff", position):  # fill before a marker
            position += 1
            continue
        escape, marker, length = struct.unpack_from(">BBH", image, position)
        # Markers from 0xc0 to 0xfe but 0xd0 to 0xd9 head a segment with its length.
        if escape != 0xFF or not 0xC0 <= marker < 0xFF or 0xD0 <= marker <= 0xD9 or length < 2:
            raise _ImageError("the JPEG's header is damaged")
        end = position + 2 + length
        if marker not in _JPEG_EXTRAS:
            kept.append(image[position:end])
        position = end
    raise _ImageError(f"the JPEG has more than {_MOST_PARTS} segments before its pixels")


def _png(image: bytes, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    needed = _pixel_chunks(image, height, width)
    with PngImageFile(BytesIO(needed)) as opened:
        return _pixels(opened, height, width, channels)


def _pixel_chunks(image: bytes, height: int, width: int) -> bytes:
    """A PNG without the chunks that pixels do not need; its header and chunk lengths are valid.

    Text and colour profiles are compressed: a small file could make a decoder inflate megabytes.
    """
    if not image.startswith(_PNG_SIGNATURE):
        raise _ImageError("the image is no PNG")
    kept = [_PNG_SIGNATURE]
    position = len(_PNG_SIGNATURE)
    for number in range(_MOST_PARTS):
        if position + 12 > len(image):
            raise _ImageError("the PNG is truncated")
        length, kind = struct.unpack_from(">I4s", image, position)
        end = position + 12 + length
        if end > len(image):
            raise _ImageError("the PNG is truncated")
        if (kind == b"IHDR") is not (number == 0):
            raise _ImageError("the PNG does not begin with its one header")
        if number == 0:
            if length != 13:
                raise _ImageError("the PNG's header is damaged")
            given_width, given_height, bits = struct.unpack_from(">IIB", image, position + 8)
            if (given_height, given_width) != (height, width):
                raise _wrong_size(given_height, given_width, height, width)
            if bits > 8:
                raise _ImageError(f"the PNG has {bits} bits for each channel, at most 8 are taken")
        if kind in _PNG_PIXEL_CHUNKS:
            kept.append(image[position:end])
        if kind == b"IEND":
            return b"".join(kept)
        position = end
    raise _ImageError(f"the PNG has more than {_MOST_PARTS} chunks")


def _pixels(opened: ImageFile, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """The pixels (C, H, W) of an opened file of which only the header has been read."""
    if (opened.height, opened.width) != (height, width):
        raise _wrong_size(opened.height, opened.width, height, width)
    if opened.mode not in _MODES:
        raise _ImageError(f"images of mode {opened.mode} are not taken")
    if channels == 1:
        return np.asarray(opened.convert("L"), np.uint8)[None]
    return np.asarray(opened.convert("RGB"), np.uint8).transpose(2, 0, 1)


def _with_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    given = len(pixels)
    if given == channels:
        return pixels if pixels.flags.carray else pixels.copy()
    if given == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=0)
    if given == 3 and channels == 1:
        # Pillow's own integer arithmetic for RGB to L.
        red, green, blue = pixels.astype(np.uint32)
        luma: NDArray[np.uint32] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
        return luma.astype(np.uint8)[None]
    raise _ImageError(f"the image has {given} channels, the network takes {channels}")


def _wrong_size(height: int, width: int, wanted_height: int, wanted_width: int) -> _ImageError:
    return _ImageError(
        f"the image is {height} × {width} (height × width), the network takes "
        f"{wanted_height} × {wanted_width}; nodes do not resize"
    )
