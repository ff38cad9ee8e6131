"""Weights put into an existing model: every byte of it stays but those of the arrays replaced and of a receipt.

A replaced array keeps its fields in their order and gets its values where the old ones began; only the lengths of the
messages around it are written anew where they change. External data stay external, in one file beside the new model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from wio.adapters import _onnx_writer as writer
from wio.adapters._onnx_file import OpenModel, open_model
from wio.adapters._onnx_messages import Attribute, Span, TensorRecord, spans
from wio.adapters._onnx_receipt import METADATA_PROPS, entry, place
from wio.adapters._onnx_values import as_stored, stored_size
from wio.adapters._onnx_weights import NUMBERS, Weight
from wio.adapters._onnx_writer import DataFile, Part, length_of, payload
from wio.adapters._protobuf import varint as read_varint
from wio.adapters._protobuf_writer import bytes_field, number_field, varint
from wio.bundle import Bundle, Tensor
from wio.errors import Problem, WioError

# TensorProto: the fields that hold values, and those that say where they stand.
_PAYLOAD = frozenset({4, 5, 6, 7, 9, 10, 11})
_WHERE = frozenset({13, 14})
# Smaller arrays stay in the model, as onnx's own writer leaves them there.
_WORTH_MOVING = 1024


class Edit(Struct, frozen=True):
    """One field of the model, found by the spans of the messages around it, and what its payload becomes."""

    within: tuple[Span, ...]
    parts: Sequence[Part]


def write_into_template(path: Path, bundle: Bundle, template: Path) -> None:
    """Writes ``template`` with the tensors of ``bundle`` in it. WioError lists all that do not fit."""
    opened = open_model(template)
    _check(bundle, opened)
    for outside in (False, True):
        data = DataFile(path)
        edits = [
            Edit(weight.source.within, _edited(opened, weight, bundle.get(name), data, outside))
            for name, weight in opened.weights.items()
            if name in bundle or _external(weight)
        ]
        added: list[Part] = []
        if (receipt := bundle.metadata.get("receipt")) is not None:
            held = place(opened.file.view, opened.file.size)
            if held is not None:
                edits.append(Edit((held,), [entry(receipt)]))
            else:
                added = [bytes_field(METADATA_PROPS, entry(receipt))]
        edits.sort(key=lambda edit: edit.within[-1])
        parts = [*spliced(opened.file.view, 0, opened.file.size, edits, 0), *added]
        if length_of(parts) <= writer.LARGEST_MESSAGE:
            break
    else:
        raise WioError(f"{path}: the model would be larger than the 2 GB that one file can have")
    writer.write_model(path, parts, data)


def _external(weight: Weight) -> bool:
    return isinstance(weight.source, TensorRecord) and weight.source.is_external


def _check(bundle: Bundle, opened: OpenModel) -> None:
    problems = []
    for tensor in bundle.values():
        weight = opened.weights.get(tensor.name)
        if weight is None:
            problems.append(Problem("unexpected", "the template has no weight of this name", tensor.name))
        elif (tensor.dtype, tensor.shape) != (weight.tensor.dtype, weight.tensor.shape):
            wanted = f"{weight.tensor.dtype} {list(weight.tensor.shape)}"
            found = f"{tensor.dtype} {list(tensor.shape)}"
            problems.append(Problem("shape", f"the template has {wanted} here, not {found}", tensor.name))
    if problems:
        raise WioError(f"{opened.file}: {len(problems)} tensors do not fit into the template", problems)


def spliced(data: memoryview, start: int, stop: int, edits: Sequence[Edit], depth: int) -> list[Part]:
    """The bytes from ``start`` to ``stop`` with the edits made; all of these are in fields there, in their order."""
    parts: list[Part] = []
    at = start
    groups: dict[Span, list[Edit]] = {}
    for edit in edits:
        groups.setdefault(edit.within[depth], []).append(edit)
    for span, inside in groups.items():
        parts.append(data[at : span.begin])
        last = len(inside[0].within) == depth + 1
        inner = list(inside[0].parts) if last else spliced(data, span.start, span.stop, inside, depth + 1)
        _, after_tag = read_varint(data, span.begin, span.start)
        length = length_of(inner)
        # The same length keeps the way it was written, which need not be the shortest.
        same = length == span.stop - span.start
        parts += [data[span.begin : after_tag], data[after_tag : span.start] if same else varint(length), *inner]
        at = span.stop
    parts.append(data[at:stop])
    return parts


def _edited(opened: OpenModel, weight: Weight, tensor: Tensor | None, data: DataFile, outside: bool) -> list[Part]:
    source = weight.source
    whole = source.within[-1]
    view = opened.file.view
    if isinstance(source, Attribute):
        number = NUMBERS[source.name][0]
        return _replaced(view, whole, frozenset({number}), _numbers(number, tensor or weight.tensor))
    values = tensor or weight.tensor
    size = stored_size(values.dtype, values.size)
    numeric = values.dtype.name != "string"
    if source.is_external or (outside and numeric and size >= _WORTH_MOVING):
        return _replaced(view, whole, _PAYLOAD | _WHERE, [data.add(size, lambda: as_stored(values))])
    return _replaced(view, whole, _PAYLOAD, payload(values))


def _replaced(data: memoryview, whole: Span, numbers: frozenset[int], values: Sequence[Part]) -> list[Part]:
    """A message with the fields ``numbers`` taken out, and ``values`` where the first of them stood."""
    parts: list[Part] = []
    placed = False
    for number, _, span in spans(data, whole.start, whole.stop):
        if number not in numbers:
            parts.append(data[span.begin : span.stop])
        elif not placed:
            parts += values
            placed = True
    return parts if placed else [*parts, *values]


def _numbers(number: int, tensor: Tensor) -> list[Part]:
    """Attributes of Constant (AttributeProto): f 2, i 3, s 4, floats 7, ints 8, strings 9, none of them packed."""
    if number in (4, 9):
        return [bytes_field(number, bytes(each)) for each in tensor.numpy().reshape(-1).tolist()]
    raw = bytes(tensor.stored())
    if number in (3, 8):
        values = [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8)]
        return [number_field(number, value) for value in values]
    return [bytes([number << 3 | 5]) + raw[at : at + 4] for at in range(0, len(raw), 4)]
