"""A step that changes values: what it reads, what it makes of it, why, and whether every bit survives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from wio.bundle import Bundle, Tensor, default_layer
from wio.dtypes import DType
from wio.errors import LayoutError, WioError
from wio.layout import Layout
from wio.lazy import Array
from wio.metadata import epsilon_of, is_number, layer_records
from wio.values.arithmetic import rounded

KERNELS = ("conv.kernel", "conv_transpose.kernel", "depthwise.kernel", "dense.kernel", "separable.pointwise_kernel")
BIASES = ("conv.bias", "conv_transpose.bias", "depthwise.bias", "dense.bias", "separable.bias")


class Request(Struct, frozen=True):
    """What was declared: a kind of step, the layers (for a cast the tensors) that a glob matches, and its arguments.

    ``reason`` is that of whoever declared it, where it is not the user but a dialect.
    """

    kind: str
    glob: str
    arguments: tuple[str, ...] = ()
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}={':'.join((self.glob, *self.arguments))}"

    @property
    def literal(self) -> bool:
        """Whether one layer is named, so that passing it over would be an error."""
        return not set(self.glob) & set("*?[")


class ValueStep(Struct, frozen=True, eq=False):
    """Some tensors of a bundle and the tensors that take their place, computed when they are asked for.

    ``sources`` are read; those whose name no result has are gone afterwards. ``parameters`` are the numbers and names
    that the step was made with, JSON-able. ``exact`` is whether every bit of every value that stays survives.
    ``keeps_source`` is whether the source's own description (its configuration, its network) still fits the tensors.
    """

    kind: str
    layer: str
    sources: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    reason: str
    exact: bool
    parameters: Mapping[str, Any] = field(default_factory=dict)
    keeps_source: bool = False

    @property
    def gone(self) -> tuple[str, ...]:
        made = {tensor.name for tensor in self.results}
        return tuple(tensor.name for tensor in self.sources if tensor.name not in made)

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "from": [tensor.name for tensor in self.sources],
            "to": [tensor.name for tensor in self.results],
            "parameters": dict(self.parameters),
            "reason": self.reason,
            "exact": self.exact,
        }


class Scaled(Struct, frozen=True):
    """Statistics that a file stores times a factor: the factor, the tensor that holds it, what it scales by role."""

    factor: float
    holder: Tensor
    tensors: Mapping[str, Tensor]


class Layers:
    """The layers of a bundle, and which batch norm takes what which layer gives out.

    ``batch_norms`` maps a batch norm to the layer whose output it alone takes, as a graph says.
    """

    def __init__(self, bundle: Bundle, batch_norms: Mapping[str, str]) -> None:
        self.bundle = bundle
        self._members: dict[str, dict[str | None, list[Tensor]]] = {}
        for tensor in bundle.values():
            self._members.setdefault(tensor.layer, {}).setdefault(tensor.role, []).append(tensor)
        self._after: dict[str, list[str]] = {}
        for norm, layer in batch_norms.items():
            if norm in self._members and layer in self._members:
                self._after.setdefault(layer, []).append(norm)

    def matching(self, glob: str) -> list[str]:
        """The layers that a glob matches, in order. WioError if there are none."""
        found = [name for name in self._members if name == glob or fnmatchcase(name, glob)]
        if not found:
            known = ", ".join([name for name in self._members if name][:5])
            raise WioError(f"no layer matches {glob!r}", remedy=f"layers are named like {known}")
        return found

    def part(self, layer: str, *roles: str) -> Tensor | None:
        """The tensor of a layer that has one of some roles. LayoutError if there are two."""
        found = [tensor for role in roles for tensor in self._members.get(layer, {}).get(role, [])]
        if len(found) > 1:
            raise LayoutError(f"{len(found)} tensors of layer {layer!r} are its {roles[0]}")
        return found[0] if found else None

    def vector(self, layer: str, *roles: str) -> Tensor | None:
        """The same for one that holds one number for each channel. LayoutError for any other."""
        tensor = self.part(layer, *roles)
        if tensor is not None and (tensor.layout is None or tensor.layout.axes not in (("C",), ("O",))):
            raise LayoutError(f"{tensor.name}: its layout is {tensor.layout}, not one number for each channel")
        return tensor

    def norm_after(self, layer: str) -> str | None:
        """The batch norm that a graph says follows a layer. LayoutError if there is more than one."""
        found = self._after.get(layer, [])
        if len(found) > 1:
            raise LayoutError(f"layer {layer!r} is followed by {', '.join(found)}")
        return found[0] if found else None

    def scaled(self, layer: str) -> Scaled | None:
        """What the file says is stored times a factor in a layer; None where it says nothing, or no number."""
        for record in layer_records(self.bundle.metadata):
            told = record.get("scaled")
            if record.get("name") == layer and isinstance(told, Mapping) and is_number(told.get("factor")):
                holder, names = self.bundle.get(str(told.get("held_by"))), told.get("tensors")
                found = {role: self.bundle.get(str(name)) for role, name in dict(names or {}).items()}
                tensors = {role: tensor for role, tensor in found.items() if tensor is not None}
                if holder is not None and tensors and len(tensors) == len(found):
                    return Scaled(float(told["factor"]), holder, tensors)
        return None

    def epsilon(self, layer: str) -> float | None:
        return epsilon_of(self.bundle.metadata, layer)


def computed(tensor: Tensor, compute: Callable[[], Array], dtype: DType | None = None) -> Tensor:
    """The same tensor with values that are computed in float64 when asked for, and rounded once."""
    kept = dtype or tensor.dtype
    name = tensor.name
    made = tensor.with_values(lambda: rounded(compute(), kept, name), tensor.shape, tensor.layout)
    return replace(made, dtype=kept)


def beside(sibling: Tensor, role: str, layout: str, shape: tuple[int, ...], compute: Callable[[], Array]) -> Tensor:
    """A new tensor of a layer, of the dtype of one that is there, named as that is but for the last part."""
    prefix = default_layer(sibling.name)
    separator = sibling.name[len(prefix)] if prefix != sibling.name else "/"
    name = f"{prefix}{separator}{role.partition('.')[2]}"
    dtype = sibling.dtype
    return Tensor(
        name,
        dtype,
        shape,
        lambda: rounded(compute(), dtype, name),
        role,
        Layout.parse(layout),
        None,
        sibling.layer,
    )
