"""Uploads that a service must survive: made by hand, or by changing good photos at random."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def photo(size=(120, 160), seed=0):
    """A small photo with some content."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (size[0] // 8, size[1] // 8, 3), np.uint8)
    return Image.fromarray(small).resize(size[::-1], Image.Resampling.BILINEAR)


def encode(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, data, crc=None):
    right = zlib.crc32(kind + data)
    return (
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", right if crc is None else crc)
    )


def png(width, height, *chunks, depth=8, colour=2, lace=0, idat=None, end=True):
    """A PNG whose header says what one likes; all black unless `idat` is given."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, lace))
    if idat is None:
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        row = 1 + (width * channels * depth + 7) // 8
        idat = _zeros(row * height)
    return (
        PNG_HEAD
        + head
        + b"".join(chunks)
        + chunk(b"IDAT", idat)
        + (chunk(b"IEND", b"") if end else b"")
    )


def _zeros(num):
    """Compress so many zeros without holding them: the same mebibyte again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(b"\0" * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    rest = packer.compress(b"\0" * (num % (1 << 20))) + packer.flush()
    checksum = struct.pack(">HH", num % 65521, 1)  # Adler-32 of zeros
    return b"\x78\xda" + block * (num >> 20) + rest + checksum


def tiff(*tags, data=b"\0" * 64, next_ifd=0, order="<"):
    """A little-endian TIFF with one directory of (tag, type, count, value)."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    body = struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        body += struct.pack(f"{order}HHII", tag, kind, count, value)
    return head + body + struct.pack(f"{order}I", next_ifd) + data


def _grey_tags(width, height, *, compression=1, offset=200, num_bytes=64, bits=8):
    return [
        *[(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, compression)],
        *[(262, 3, 1, 1), (273, 4, 1, offset), (277, 3, 1, 1), (278, 4, 1, height)],
        (279, 4, 1, num_bytes),
    ]


def _many_pages(num):
    """A TIFF of so many directories in a chain."""
    parts, place = [b"II" + struct.pack("<HI", 42, 8)], 8
    for number in range(num):
        tags = _grey_tags(8, 8, offset=8, num_bytes=64)
        size = 2 + 12 * len(tags) + 4
        following = place + size if number + 1 < num else 0
        body = struct.pack("<H", len(tags))
        body += b"".join(struct.pack("<HHII", *tag) for tag in tags)
        parts.append(body + struct.pack("<I", following))
        place += size
    return b"".join(parts)


def _sof(data, width, height):
    """Let a JPEG say another size."""
    place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: place + 5] + struct.pack(">HH", height, width) + data[place + 9 :]


def _exif(payload):
    body = b"Exif\0\0" + payload
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def _scans(data, times):
    """Repeat the last scan of a progressive JPEG."""
    place = data.rfind(b"\xff\xda")
    return data[:place] + data[place:-2] * times + b"\xff\xd9"


def _webp(kind, payload, size=None):
    body = b"WEBP" + kind + struct.pack("<I", len(payload)) + payload
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def _frames(kind, num, **options):
    pictures = [photo((32, 32), seed) for seed in range(num)]
    return encode(pictures[0], kind, save_all=True, append_images=pictures[1:], **options)


def made() -> dict[str, bytes]:
    """Uploads made by hand, by name."""
    return {**_foreign(), **_pngs(), **_jpegs(), **_tiffs(), **_webps()}


def _foreign():
    good = photo()
    return {
        "empty": b"",
        "one byte": b"\xff",
        "text": b"hello, service",
        "html": b"<!doctype html><script>alert(1)</script>",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
        "xml bomb": b"<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;&a;'>]><x>&b;</x>",
        "zip": b"PK\x03\x04" + b"\0" * 60,
        "pdf": b"%PDF-1.7\n1 0 obj<<>>endobj",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "gif": encode(good, "GIF"),
        "bmp": encode(good, "BMP"),
        "ppm": encode(good, "PPM"),
        "ico": encode(good, "ICO"),
        "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 40,
        "heic of nothing": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "heic that lies": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + b"\xff" * 4000,
        "film": b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + b"\0" * 100,
        "program": b"\x7fELF\x02\x01\x01" + b"\0" * 60,
        "pickle": b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "numpy": b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    }


def _pngs():
    good = encode(photo(), "PNG")
    text = _zeros(200 << 20)
    actl = chunk(b"acTL", struct.pack(">II", 100_000, 0))
    return {
        "png head": good[:8],
        "png IHDR only": good[:33],
        "png half": good[: len(good) // 2],
        "png without end": good[:-12],
        "png with more behind": good + b"\0" * 100_000,
        "png wrong crc": good[:29] + b"\0\0\0\0" + good[33:],
        "png of width 0": png(0, 10, idat=b""),
        "png of height 0": png(10, 0, idat=b""),
        "png of 2**31": png(2**31 - 1, 2**31 - 1, idat=b""),
        "png bomb of 169 MP": png(13000, 13000, colour=0),
        "png bomb of 169 MP, 1 bit": png(13000, 13000, colour=0, depth=1),
        "png bomb of 81 MP RGBA": png(9000, 9000, colour=6),
        "png bomb of 99 MP, 16 bit": png(9950, 9950, colour=2, depth=16),
        "png bomb laced": png(7000, 7000, colour=0, lace=1),
        "png of 15 MP, empty": png(3900, 3900, colour=2),
        "png long": png(1, 100_000, colour=0),
        "png wide": png(65_501, 1, colour=0),
        "png of 1 px": png(1, 1),
        "png without zlib": png(10, 10, idat=b"not zlib"),
        "png with too few rows": png(100, 100, idat=zlib.compress(b"\0" * 301)),
        "png with too many rows": png(10, 10, idat=zlib.compress(b"\0" * 10_000_000)),
        "png bad filter": png(10, 10, idat=zlib.compress(b"\x09" * 310)),
        "png length lie": PNG_HEAD + struct.pack(">I", 2**31 - 1) + b"IHDR" + b"\0" * 30,
        "png zTXt bomb": png(10, 10, chunk(b"zTXt", b"a\0\0" + text)),
        "png iTXt bomb": png(10, 10, chunk(b"iTXt", b"a\0\1\0\0\0" + text)),
        "png iCCP bomb": png(10, 10, chunk(b"iCCP", b"a\0\0" + text)),
        "png many texts": png(10, 10, *[chunk(b"tEXt", b"k\0v")] * 50_000),
        "png palette missing": png(10, 10, colour=3),
        "png palette too short": png(10, 10, chunk(b"PLTE", b"abc"), colour=3, depth=8),
        "png odd depth": png(10, 10, depth=7),
        "png odd colour": good[:25] + b"\x05" + good[26:],
        "png two heads": good[:33] + good[8:],
        "png of 100,000 frames": png(10, 10, actl),
        "png frames that lie": png(10, 10, chunk(b"acTL", b"\0")),
        "png late exif": good[:-12] + chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff") + good[-12:],
    }


def _jpegs():
    good = encode(photo(), "JPEG", quality=90)
    progressive = encode(photo(), "JPEG", progressive=True)
    ring = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 0x8769, 4, 1, 8)
    turned = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x112, 3, 1, 9, 0)
    return {
        "jpeg SOI": b"\xff\xd8",
        "jpeg SOI EOI": b"\xff\xd8\xff\xd9",
        "jpeg half": good[: len(good) // 2],
        "jpeg without end": good[:-2],
        "jpeg of 65500x65500": _sof(good, 65500, 65500),
        "jpeg of 9900x9900": _sof(good, 9900, 9900),
        "jpeg of 5000x5000": _sof(good, 5000, 5000),
        "jpeg of height 0": _sof(good, 160, 0),
        "jpeg of width 0": _sof(good, 0, 120),
        "jpeg of 3000 scans": _scans(progressive, 3000),
        "jpeg of scans, large": _scans(_sof(progressive, 4000, 4000), 300),
        "jpeg without tables": good.replace(b"\xff\xdb", b"\xff\xfe"),
        "jpeg without huffman": good.replace(b"\xff\xc4", b"\xff\xfe"),
        "jpeg markers": b"\xff\xd8" + b"\xff\xd0" * 100_000,
        "jpeg comments": b"\xff\xd8" + (b"\xff\xfe\xff\xff" + b"c" * 65533) * 20 + good[2:],
        "jpeg length 0": b"\xff\xd8\xff\xe0\0\0" + good[20:],
        "jpeg exif ring": _exif(ring + struct.pack("<I", 8)) + good[2:],
        "jpeg exif orientation 9": _exif(turned) + good[2:],
        "jpeg exif cut": _exif(b"MM\0*\0\0") + good[2:],
        "jpeg exif offset lie": _exif(b"MM\0*\x7f\xff\xff\xff") + good[2:],
        "jpeg bad profile": encode(photo(), "JPEG", icc_profile=b"x" * 3000),
        "jpeg CMYK": encode(photo().convert("CMYK"), "JPEG"),
        "jpeg noise behind the head": good[:400] + b"\x5a" * 5000,
        "jpeg then png": good + encode(photo(), "PNG"),
        "mpo of 40": _frames("MPO", 40),
    }


def _tiffs():
    good = encode(photo(), "TIFF")
    deflated = _zeros(9000 * 9000)
    bomb = tiff(
        *_grey_tags(9000, 9000, compression=8, offset=200, num_bytes=len(deflated)),
        data=b"\0" * 78 + deflated,
    )
    ring = tiff(*_grey_tags(8, 8), next_ifd=8)
    return {
        "tiff head": b"II*\0",
        "tiff big-endian head": b"MM\0*\0\0\0\x08",
        "tiff half": good[: len(good) // 2],
        "tiff directory beyond": b"II*\0\xff\xff\xff\x7f",
        "tiff directory in itself": ring,
        "tiff of 20,000 pages": _many_pages(20_000),
        "tiff of 17 pages": _frames("TIFF", 18),
        "tiff of 3 pages": _frames("TIFF", 3),
        "tiff bomb": bomb,
        "tiff of 2**32": tiff(*_grey_tags(2**32 - 1, 2**32 - 1)),
        "tiff strips beyond": tiff(*_grey_tags(100, 100, offset=2**31, num_bytes=2**31)),
        "tiff no tags": tiff(),
        "tiff 65535 tags": b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 300,
        "tiff count lie": tiff(*_grey_tags(8, 8), (700, 1, 2**32 - 1, 8)),
        "tiff bits 0": tiff(*_grey_tags(8, 8, bits=0)),
        "tiff odd compression": tiff(*_grey_tags(8, 8, compression=9999)),
        "tiff broken lzw": tiff(
            *_grey_tags(800, 800, compression=5, num_bytes=2000), data=b"\xff" * 4000
        ),
        "tiff broken jpeg": tiff(
            *_grey_tags(800, 800, compression=7, num_bytes=2000), data=b"\xd8" * 4000
        ),
        "tiff of floats": encode(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"),
        "tiff 16 bit": encode(Image.fromarray(np.zeros((8, 8), np.uint16)), "TIFF"),
        "big tiff": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**63),
    }


def _webps():
    lossy, lossless = encode(photo(), "WEBP"), encode(photo(), "WEBP", lossless=True)
    canvas = b"\x10\0\0\0" + b"\xff\xff\xff" * 2
    return {
        "webp head": lossy[:12],
        "webp half": lossy[: len(lossy) // 2],
        "webp lossless half": lossless[: len(lossless) // 2],
        "webp size lie": lossy[:4] + b"\xff\xff\xff\x7f" + lossy[8:],
        "webp canvas of 2**24": _webp(b"VP8X", canvas),
        "webp bad frame": _webp(
            b"VP8 ", b"\x30\x01\0\x9d\x01*" + b"\xff\x3f\xff\x3f" + b"\0" * 200
        ),
        "webp bad lossless": _webp(b"VP8L", b"\x2f" + b"\xff" * 300),
        "webp of 16 MP, empty": encode(Image.new("RGB", (4100, 4100)), "WEBP", method=0),
        "webp of 40 frames": _frames("WEBP", 40),
        "webp of 3 frames": _frames("WEBP", 3),
    }


def seeds() -> list[bytes]:
    """Good photos that mutation starts from."""
    picture = photo((72, 96))
    exif = Image.Exif()
    exif[0x112] = 6
    return [
        encode(picture, "JPEG", quality=85, exif=exif),
        encode(picture, "JPEG", progressive=True),
        encode(picture, "PNG"),
        encode(picture.convert("P"), "PNG"),
        encode(picture.convert("RGBA"), "PNG"),
        encode(picture, "TIFF"),
        encode(picture, "TIFF", compression="tiff_lzw"),
        encode(picture, "TIFF", compression="jpeg"),
        encode(picture, "TIFF", compression="tiff_adobe_deflate"),
        encode(picture, "WEBP", lossless=True),
        encode(picture, "WEBP"),
    ]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a file a little, as damage or an attacker would."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        if not changed:
            break
        # Heads decide more than pixels: half of the changes go there.
        reach = min(len(changed), 256) if rng.random() < 0.5 else len(changed)
        place = int(rng.integers(0, reach))
        kind = int(rng.integers(0, 6))
        if kind == 0:
            changed[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            changed[place] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))
        elif kind == 2:
            value = int(rng.choice([0, 1, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 65500, 10_000]))
            form = str(rng.choice(["<I", ">I", "<H", ">H"]))
            changed[place : place + struct.calcsize(form)] = struct.pack(
                form, value & (2 ** (8 * struct.calcsize(form)) - 1)
            )
        elif kind == 3:
            del changed[place : place + int(rng.integers(1, 64))]
        elif kind == 4:
            changed[place:place] = rng.bytes(int(rng.integers(1, 64)))
        else:
            end = len(changed) if rng.random() < 0.2 else place + 1
            del changed[place:end]
    return bytes(changed)
