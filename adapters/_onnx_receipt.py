"""The receipt of a model that wio wrote, in ModelProto.metadata_props (14), under one key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wio.adapters._mapped_files import MappedFile
from wio.adapters._onnx_messages import Span, spans
from wio.adapters._protobuf import LENGTH, Buffer, WireError, text
from wio.adapters._protobuf_writer import text_field
from wio.errors import FormatError
from wio.safetensors_header import encode_json, parse_object

METADATA_PROPS = 14
KEY = "wio.receipt"


def entry(receipt: Mapping[str, Any]) -> bytes:
    """The StringStringEntryProto that holds a receipt."""
    return text_field(1, KEY) + text_field(2, encode_json(receipt).decode("utf-8"))


def place(data: Buffer, size: int) -> Span | None:
    """Where a model has its receipt."""
    for number, wire, span in spans(data, 0, size):
        if number == METADATA_PROPS and wire == LENGTH and _strings(data, span).get(1) == KEY:
            return span
    return None


def read_receipt(path: Path) -> dict[str, Any] | None:
    """The receipt of a model, or None. FormatError for what is no model, or no receipt."""
    file = MappedFile(path)
    try:
        span = place(file.view, file.size)
        held = None if span is None else _strings(file.view, span).get(2, "")
    except WireError as error:
        raise FormatError(f"{file}: {error.message}", remedy=error.remedy) from None
    return None if held is None else parse_object(held.encode("utf-8"), f"{file}: the receipt")


def _strings(data: Buffer, span: Span) -> dict[int, str]:
    return {
        number: text(data, part.start, part.stop)
        for number, wire, part in spans(data, span.start, span.stop)
        if wire == LENGTH
    }
