"""What each blob of a layer is, by the layer's type, its parameters and the blob's place, as Caffe's source has it.

Source: BVLC/caffe, src/caffe/layers: base_conv_layer.cpp, inner_product_layer.cpp, batch_norm_layer.cpp,
scale_layer.cpp, bias_layer.cpp, prelu_layer.cpp, embed_layer.cpp (LayerSetUp of each).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from wio.adapters._caffe_graph import Axis, Node, Shape, first_axis, flat
from wio.adapters._caffe_schema import one

_SPACE = {1: "W", 2: "HW", 3: "DHW"}
# The groups that a dense layer's columns may flatten, by the letters of the map: roles.py has no others.
_MAPS = ("CHW", "CW", "CDHW")


class Meaning(Struct, frozen=True):
    """What a blob is. ``rank`` is the number of its axes by its layer's definition, None where that leaves it open."""

    short: str
    role: str | None = None
    layout: str | None = None
    rank: int | None = None
    layer: str | None = None
    note: str | None = None


def meanings(node: Node, count: int, entering: Shape | None, paired: Mapping[str, str]) -> list[Meaning]:
    """One meaning for each of ``count`` blobs. ``paired`` names the BatchNorm that a Scale or Bias layer follows."""
    if node.type in ("Convolution", "Deconvolution"):
        found = _convolution(node)
    elif node.type == "InnerProduct":
        found = _inner_product(node, entering)
    elif node.type == "BatchNorm" and count == 3:
        found = [
            Meaning("mean", "batch_norm.mean", "C", 1),
            Meaning("variance", "batch_norm.variance", "C", 1),
            Meaning("scale_factor", "other", None, 1),
        ]
    elif node.type in ("Scale", "Bias"):
        found = _scale(node, paired.get(node.name))
    elif node.type == "PReLU":
        found = _prelu(node)
    elif node.type == "Embed":
        found = [Meaning("weight", "embedding.table", "IO", 2), Meaning("bias", None, None, 1)]
    else:
        found = []
    if count > len(found):
        # More blobs than the type has: it is not the type that its name says, and nothing of it is known.
        note = f"{node.type} has {len(found)} blobs in Caffe, this one {count}" if found else None
        return [Meaning(f"blob{k}", note=note) for k in range(count)]
    return found[:count]


def _convolution(node: Node) -> list[Meaning]:
    parameter = node.parameter("convolution_param")
    role = "conv" if node.type == "Convolution" else "conv_transpose"
    rank = node.kernel_axes
    listed = parameter.get("kernel_size", [])
    # base_conv_layer.cpp: two axes of channels, then one for each axis of space.
    axes = 2 if {"kernel_h", "kernel_w"} & parameter.keys() else len(listed) if len(listed) > 1 else None
    bias = Meaning("bias", f"{role}.bias", "O", 1)
    if "num_output" not in parameter:
        note = "the file does not define the layer (no num_output): its groups are not known"
        return [Meaning("weight", note=f"{note}; --option prototxt=FILE"), replace(bias, role=None, layout=None)]
    if rank is None or rank - 2 not in _SPACE or axes not in (None, rank - 2):
        return [Meaning("weight", note="its blob does not have the axes of a kernel in 1, 2 or 3 dimensions"), bias]
    group = one(parameter, "group", 1)
    front = "OI" if role == "conv" else "IO"
    text = front + _SPACE[rank - 2]
    if group != 1:
        text = f"(G{front[0]}){text[1:]} G={group}"
    return [Meaning("weight", f"{role}.kernel", text, rank), bias]


def _inner_product(node: Node, entering: Shape | None) -> list[Meaning]:
    parameter = node.parameter("inner_product_param")
    bias = Meaning("bias", "dense.bias", "O", 1)
    if "num_output" not in parameter:
        note = "the file does not define the layer (no num_output): whether it is transposed is not known"
        return [Meaning("weight", None, None, 2, note=f"{note}; --option prototxt=FILE"), replace(bias, role=None)]
    columns = rows_of(node, entering)
    letters = "".join(letter for letter, _ in columns)
    if len(columns) == 1 and letters != "?":
        axis, sizes = "I", {}
    elif letters in _MAPS:
        axis, sizes = f"({letters})", {letter: size for letter, size in columns if size is not None}
    else:
        axis, sizes = "(?)", {}
    transposed = one(parameter, "transpose", False)
    text = " ".join([f"{axis}O" if transposed else f"O{axis}", *(f"{k}={v}" for k, v in sizes.items())])
    return [Meaning("weight", "dense.kernel", text, 2), bias]


def rows_of(node: Node, entering: Shape | None) -> Axis:
    """What the inputs of an InnerProduct layer are made of: the axes from its ``axis`` on, flattened in C order."""
    unknown: Axis = (("?", None),)
    if entering is None:
        return unknown
    axis = first_axis(node, "inner_product_param", len(entering))
    if axis is None or axis == 0:
        return unknown
    columns = flat(entering[axis:])
    if len(columns) > 1 and columns[0][0] != "C":
        return unknown
    return columns if "?" not in {letter for letter, _ in columns} else unknown


def _scale(node: Node, batch_norm: str | None) -> list[Meaning]:
    parameter = node.parameter("scale_param" if node.type == "Scale" else "bias_param")
    axes = one(parameter, "num_axes", 1)
    rank = axes if axes >= 0 else None
    names = ("gamma", "beta") if node.type == "Scale" else ("beta",)
    if batch_norm is None or axes != 1:
        return [Meaning(name, None, None, rank) for name in names]
    return [Meaning(name, f"batch_norm.{name}", "C", 1, batch_norm) for name in names]


def _prelu(node: Node) -> list[Meaning]:
    if one(node.parameter("prelu_param"), "channel_shared", False):
        return [Meaning("alpha", None, None, 0, note="one slope for all channels (channel_shared): no role has that")]
    return [Meaning("alpha", "prelu.alpha", "C", 1)]


def pairs(nodes: Iterable[Node]) -> dict[str, str]:
    """The BatchNorm whose gamma and beta a Scale or Bias layer holds, by that layer's name.

    It is the only layer to take what the BatchNorm gives out, along the axis of the channels; a Bias may follow the
    Scale. Nothing else may stand between: what follows a nonlinearity is another thing.
    """
    ordered = list(nodes)
    takers = _takers(ordered)
    found: dict[str, str] = {}
    for k, node in enumerate(ordered):
        if node.type != "BatchNorm":
            continue
        taken = {"gamma": False, "beta": False}
        at = k
        while len(takers.get(at, [])) == 1:
            at = takers[at][0]
            follower = ordered[at]
            gives = _gives(follower)
            if not gives or any(taken[name] for name in gives) or len(follower.bottoms) != 1:
                break
            taken |= dict.fromkeys(gives, True)
            found[follower.name] = node.name
            if "beta" in gives:
                break
    return found


def batch_norms(nodes: Iterable[Node]) -> dict[str, str]:
    """For each BatchNorm that alone takes what a layer with a kernel gives out, that layer."""
    ordered = list(nodes)
    found: dict[str, str] = {}
    for k, taking in _takers(ordered).items():
        taker = ordered[taking[0]]
        if (
            ordered[k].type in ("Convolution", "Deconvolution", "InnerProduct")
            and len(taking) == len(ordered[k].tops) == len(taker.bottoms) == 1
            and taker.type == "BatchNorm"
        ):
            found[taker.name] = ordered[k].name
    return found


def _takers(ordered: Sequence[Node]) -> dict[int, list[int]]:
    """For each layer whose output others take, which: by place, a blob being what was last written under its name."""
    writer: dict[str, int] = {}
    takers: dict[int, list[int]] = {}
    for k, node in enumerate(ordered):
        for bottom in node.bottoms:
            if bottom in writer:
                takers.setdefault(writer[bottom], []).append(k)
        for top in node.tops:
            writer[top] = k
    return takers


def _gives(node: Node) -> tuple[str, ...]:
    if node.type not in ("Scale", "Bias"):
        return ()
    parameter = node.parameter("scale_param" if node.type == "Scale" else "bias_param")
    if one(parameter, "axis", 1) not in (1, -3) or one(parameter, "num_axes", 1) != 1:
        return ()
    if node.type == "Bias":
        return ("beta",)
    return ("gamma", "beta") if one(parameter, "bias_term", False) else ("gamma",)
