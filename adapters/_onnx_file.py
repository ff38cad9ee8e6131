"""An open model: the file, its messages, its weights and the bundle that they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wio.adapters._mapped_files import MappedFile
from wio.adapters._onnx_bundle import bundle_of
from wio.adapters._onnx_messages import Model, looks_like_model, model
from wio.adapters._onnx_values import Values
from wio.adapters._onnx_weights import Weight, weights_of
from wio.adapters._protobuf import WireError
from wio.bundle import Bundle
from wio.errors import FormatError


@dataclass(frozen=True)
class OpenModel:
    file: MappedFile
    model: Model
    weights: dict[str, Weight]
    bundle: Bundle


def open_model(path: Path) -> OpenModel:
    """Reads everything but values. FormatError for what is no model, or a broken one."""
    file = MappedFile(path)
    try:
        found = model(file.view)
        if found.graph is None:
            kind = "has no graph" if looks_like_model(file.view) or found.ir_version else "is no ONNX model"
            raise FormatError(f"{file}: {kind}")
        weights = weights_of(found, Values(file), str(file))
        bundle = bundle_of(found, weights, str(file))
    except WireError as error:
        raise FormatError(f"{file}: {error.message}", remedy="the file is damaged, cut off, or no ONNX model") from None
    return OpenModel(file, found, {weight.tensor.name: weight for weight in weights}, bundle)
