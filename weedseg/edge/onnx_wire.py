"""Look into an ONNX file without the onnx package: enough to refuse what must not be run.

An ONNX file is one protobuf message. This walk visits every nested message that can name another
file or an operator: graphs at any depth (branches of If, bodies of Loop), functions, dense and
sparse tensors, attributes. Tensor data are skipped, so a large model costs no more than a small
one with as many nodes. Memory grows with the depth only.

Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (a test compares them with
the onnx package).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from weedseg.errors import ModelFileError

MESSAGES: dict[str, dict[int, str]] = {
    "ModelProto": {
        7: "GraphProto",
        8: "OperatorSetIdProto",
        14: "StringStringEntryProto",
        20: "TrainingInfoProto",
        25: "FunctionProto",
    },
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 9: "OperatorSetIdProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
    "OperatorSetIdProto": {},
    "StringStringEntryProto": {},
}
"""Message -> field number -> message that it holds and that is walked too."""
DOMAIN_FIELDS = {"NodeProto": 7, "OperatorSetIdProto": 1, "FunctionProto": 10}
"""Message -> field number of the operator domain."""
EXTERNAL_DATA_FIELD, DATA_LOCATION_FIELD = 13, 14
"""Fields of TensorProto that say where its data lie when they are not in this file."""
KNOWN_DOMAINS = frozenset({"", "ai.onnx"})

CHECKSUM_KEY = "weedseg_sha256"
"""Metadata entry, a JSON text: what `Findings.content_sha256` was at the export."""

MAX_FIELDS = 500_000
"""More fields than this (a large segmenter has about 50,000) are refused, to bound the time."""
MAX_DEPTH = 60
MAX_DOMAINS = 100
MAX_METADATA_BYTES = 8 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass
class Findings:
    """What the walk has seen."""

    metadata: dict[str, str] = field(default_factory=dict)
    """Entries of ``metadata_props``."""
    domains: set[str] = field(default_factory=set)
    """Every operator domain that is named anywhere."""
    num_graphs: int = 0
    content_sha256: str = ""
    """Checksum of everything in the file but the metadata entry `CHECKSUM_KEY`."""


def inspect_onnx(data: bytes, name: str) -> Findings:
    """Walk through an ONNX file.

    Args:
        data: The whole file.
        name: What messages call it.

    Returns:
        Metadata and operator domains.

    Raises:
        ModelFileError: The data are no ONNX file, cut short, or a tensor lies in another file.
    """
    walk = _Walk(name)
    walk.message("ModelProto", memoryview(data), 0)
    walk.findings.content_sha256 = _content_sha256(walk, memoryview(data))
    if not walk.findings.num_graphs:
        raise ModelFileError(f"{name}: no network in it", "an ONNX model", "export it again")
    return walk.findings


def _content_sha256(walk: _Walk, data: memoryview) -> str:
    """Digest fields and metadata, whatever the order of the metadata."""
    digest = hashlib.sha256()
    for number, wire, value, content in walk.fields(data):
        if MESSAGES["ModelProto"].get(number) != "StringStringEntryProto":
            size = 0 if content is None else len(content)
            digest.update(f"{number} {wire} {value} {size};".encode())
            digest.update(content or b"")
    for key, text in sorted(walk.findings.metadata.items()):
        if key != CHECKSUM_KEY:
            digest.update(f"{len(key)} {len(text)};{key}{text}".encode())
    return digest.hexdigest()


class _Walk:
    """One walk through one file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.findings = Findings()
        self.num_fields = 0
        self.num_metadata_bytes = 0

    def message(self, kind: str, data: memoryview, depth: int) -> None:
        """Visit a message and what it holds.

        Raises:
            ModelFileError: The message is damaged or names another file.
        """
        if depth > MAX_DEPTH:
            raise self.damaged(f"more than {MAX_DEPTH} messages inside each other")
        self.findings.num_graphs += kind == "GraphProto"
        children, domain_field = MESSAGES[kind], DOMAIN_FIELDS.get(kind)
        for number, wire, value, content in self.fields(data):
            child = children.get(number)
            if child == "StringStringEntryProto":
                self.entry(self.nested(wire, content))
            elif child is not None:
                self.message(child, self.nested(wire, content), depth + 1)
            elif number == domain_field:
                self.domain(self.nested(wire, content))
            elif kind == "TensorProto" and (
                number == EXTERNAL_DATA_FIELD
                or (number == DATA_LOCATION_FIELD and (wire != _VARINT or value))
            ):
                raise ModelFileError(
                    f"{self.name}: external data, a tensor that lies in another file",
                    "all data in the one file",
                    "export it again with weedseg export",
                )

    def domain(self, content: memoryview) -> None:
        """Keep an operator domain.

        Raises:
            ModelFileError: It is no text, or there are too many.
        """
        self.findings.domains.add(self.text(content, 1000))
        if len(self.findings.domains) > MAX_DOMAINS:
            raise self.damaged(f"more than {MAX_DOMAINS} operator domains")

    def entry(self, data: memoryview) -> None:
        """Keep one key and value of the metadata.

        Raises:
            ModelFileError: They are no text, too long, or the key is there already.
        """
        self.num_metadata_bytes += len(data)
        if self.num_metadata_bytes > MAX_METADATA_BYTES:
            raise self.damaged(f"metadata of more than {MAX_METADATA_BYTES >> 20} MiB")
        key = value = ""
        for number, wire, _, content in self.fields(data):
            if number == 1:
                key = self.text(self.nested(wire, content), 1000)
            elif number == 2:
                value = self.text(self.nested(wire, content), MAX_METADATA_BYTES)
        if key in self.findings.metadata:
            raise self.damaged(f"metadata '{key}' twice")
        self.findings.metadata[key] = value

    def fields(self, data: memoryview) -> Iterator[tuple[int, int, int, memoryview | None]]:
        """Yield (field number, wire type, varint value, content) of one message.

        Raises:
            ModelFileError: The bytes are no protobuf, or there are too many fields.
        """
        at, end = 0, len(data)
        while at < end:
            self.num_fields += 1
            if self.num_fields > MAX_FIELDS:
                raise self.damaged(f"more than {MAX_FIELDS} fields")
            tag, at = self.varint(data, at)
            number, wire, value = tag >> 3, tag & 7, 0
            if not 0 < number < 1 << 29:
                raise self.damaged(f"field number {number}")
            content: memoryview | None = None
            if wire == _VARINT:
                value, at = self.varint(data, at)
            elif wire == _BYTES:
                length, at = self.varint(data, at)
                content = data[at : at + length]
                at += length
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
            else:
                raise self.damaged(f"wire type {wire}")
            if at > end:
                raise self.damaged("cut short")
            yield number, wire, value, content

    def varint(self, data: memoryview, at: int) -> tuple[int, int]:
        """Read a variable-length integer; return it and where it ends.

        Raises:
            ModelFileError: It is cut short or longer than 64 bits.
        """
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                raise self.damaged("cut short")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise self.damaged("a number of more than 64 bits")

    def nested(self, wire: int, content: memoryview | None) -> memoryview:
        """Return the bytes of a field that must hold bytes.

        Raises:
            ModelFileError: It holds a number.
        """
        if content is None:
            raise self.damaged(f"wire type {wire} where a message belongs")
        return content

    def text(self, content: memoryview, max_bytes: int) -> str:
        """Decode a text.

        Raises:
            ModelFileError: It is too long or no UTF-8.
        """
        if len(content) > max_bytes:
            raise self.damaged(f"a text of {len(content)} bytes")
        try:
            return bytes(content).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.damaged("a text that is no UTF-8") from error

    def damaged(self, found: str) -> ModelFileError:
        """Word the error for bytes that are not what they should be."""
        return ModelFileError(
            f"{self.name}: not an ONNX file or damaged ({found})",
            "a whole ONNX model",
            "copy or export it again",
        )
