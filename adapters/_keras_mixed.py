"""Models whose layers differ in their data format: each keeps its own in the target, which flattens maps as before.

Keras 1.2.2 and 2.2.4 on Theano run such models, and Keras 3 does; a model_config says the format layer by layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from wio.adapters._keras_conventions import CHANNELS_FIRST, CHANNELS_LAST, KerasConvention
from wio.bundle import Bundle, Tensor
from wio.errors import LayoutError
from wio.layout import Layout
from wio.metadata import layer_records

_SPACE = frozenset("DHW")


def convention_for(tensor: Tensor, convention: KerasConvention, own: Mapping[str, str]) -> KerasConvention:
    """The convention in the data format of a tensor's layer, or of the map that its rows, or its axes, run along."""
    told = own.get(tensor.layer)
    if told is None and tensor.layout is not None:
        letters = [letter for letter in tensor.layout.letters if letter == "C" or letter in _SPACE]
        told = CHANNELS_FIRST if letters[:1] == ["C"] and len(letters) > 1 else CHANNELS_LAST
    return replace(convention, data_format=told or CHANNELS_LAST)


def rows_in(target: Layout, source: Layout, family: str, convention: KerasConvention) -> Layout:
    """The layout of a target slot, its flattened map in the order in which the same model flattens it there.

    ``target`` is what the convention has for it, ``family`` the source's. Up to 2.1 Flatten is plain; in 2.2 a map of
    channels first is turned before, if Flatten says so, and then nothing tells what it was. Raises LayoutError where
    source and target differ in this, and the order with them.
    """
    group = next((axis for axis in source.axes if "C" in axis and _SPACE & set(axis)), None)
    if group is None or len(group) == 1:
        return target
    if (family == "2.2") == (convention.family == "2.2"):
        return replace(target, axes=source.axes)
    if all(source.size(letter) == 1 for letter in group if letter != "C"):
        return target
    if family == "2.2" or group in ("WC", "CW"):
        raise LayoutError(
            f"its model mixes data formats, and Keras {family} does not tell in which one the map was that its rows "
            f"{group} flatten; Keras {convention.family} flattens otherwise",
            remedy="--option data_format=channels_last (or channels_first), for a model with one data format",
        )
    return target


def flattens_of(tensors: Iterable[Tensor], convention: KerasConvention) -> dict[str, str]:
    """By layer, the order in which a map was flattened before it, where it is not the convention's.

    Since 2.2 a Flatten says its own data format, which need not be that of the layers before it
    (``Conv2D(data_format="channels_first")``, then ``Flatten()``).
    """
    orders = {}
    for tensor in tensors:
        axes = tensor.layout.axes if tensor.layout is not None else ()
        order = next((axis for axis in axes if len(axis) > 1 and "C" in axis and set(axis) <= {"C", *_SPACE}), None)
        if order is not None and order != convention.flat(order.replace("C", "")):
            orders[tensor.layer] = order
    return orders


def own_flattens(bundle: Bundle) -> dict[str, str]:
    """What :func:`flattens_of` found when the source was read, by layer."""
    records = [record.get("flattens") for record in layer_records(bundle.metadata)]
    return {str(layer): str(order) for each in records if isinstance(each, Mapping) for layer, order in each.items()}
