"""Tensors that are read only when asked for, and bundles of them: what every adapter reads and writes."""

from __future__ import annotations

import math
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from wio.dtypes import DType
from wio.encodings import to_bytes
from wio.errors import LayoutError, WioError
from wio.layout import Layout
from wio.lazy import Array, np
from wio.network import Network
from wio.ops import Op, apply_all, rearrange
from wio.roles import check_role, neutral

MOST_SHOWN = 60
_HEADINGS = ("name", "dtype", "shape", "role", "layout", "bytes")

# Not a layer's name: asks for the default. "" says that a tensor belongs to no layer.
FROM_NAME = "\0"


def default_layer(name: str) -> str:
    """The part of a name that the weights of one layer share: before the last ``/``, or else ``.``, or else ``_``.

    This names layers and nothing more: it is what a target calls them, never what they are.
    """
    for separator in "/._":
        before, found, _ = name.rpartition(separator)
        if found:
            return before
    return name


class Synthesis(Struct, frozen=True):
    """Why a tensor is there that no source holds: one declared ``value`` throughout.

    ``exact`` is whether its layer does with it what it does without: a gamma of 1. What a layer holds that stands in
    for another kind of layer is not.
    """

    value: float
    reason: str
    exact: bool = True


class Tensor(Struct, frozen=True, eq=False):
    """A named array with a declared meaning, or none declared, whose bytes are read on demand.

    ``load``
        gives the stored values: a C-contiguous little-endian array of ``shape`` (an object array of bytes
        for strings and variants), often a read-only view of a mapped file. May raise FormatError. What it gave
        out stays as it is: other threads may still read it when the next tensor is loaded.
    ``origin``
        the tensor's name in its source where that differs from ``name``.
    ``layer``
        the layer it belongs to, "" for none; by default what :func:`default_layer` takes its name to say.
    ``digest``
        SHA-256 (hex) of the stored bytes where the source records it; not checked by ``load``.
    ``nbytes``
        the number of stored bytes; for strings and variants as the source states it.
    ``raw``
        gives the same values as bytes, C order and little-endian, where the source has them so: a copy needs
        no array.
    ``parallel``
        whether several threads may read tensors of its source at once, as those of a mapped file.
    ``synthesised``
        what was declared where no source holds it, None for a tensor that was read.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    load: Callable[[], Array]
    role: str | None = None
    layout: Layout | None = None
    origin: str | None = None
    layer: str = FROM_NAME
    digest: str | None = None
    stored_bytes: int | None = None
    raw: Callable[[], memoryview] | None = None
    parallel: bool = False
    synthesised: Synthesis | None = None

    def __post_init__(self) -> None:
        if self.layer == FROM_NAME:
            force_setattr(self, "layer", default_layer(self.name))

    def __repr__(self) -> str:
        layout = None if self.layout is None else str(self.layout)
        return f"Tensor({self.name!r}, {self.dtype.name}, {self.shape}, role={self.role!r}, layout={layout!r})"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize if self.stored_bytes is None else self.stored_bytes

    def numpy(self) -> Array:
        """The stored values as an array of ``shape``. Reads the file now; checksums of the format are verified."""
        array = self.load()
        if array.shape != self.shape:
            raise WioError(f"{self.name}: expected shape {self.shape}, the source gave {array.shape}")
        return array

    def stored(self) -> memoryview:
        """The stored bytes, C order and little-endian. Reads the file now; checksums of the format are verified."""
        return self.raw() if self.raw is not None else to_bytes(self.numpy(), self.dtype)

    def with_values(self, load: Callable[[], Array], shape: tuple[int, ...], layout: Layout | None) -> Tensor:
        """The same tensor holding other values: what is known of the old ones' bytes is forgotten."""
        return self.changed(load=load, shape=shape, layout=layout, digest=None, stored_bytes=None, raw=None)

    def changed(self, **fields: Any) -> Tensor:
        """The same tensor with some fields replaced."""
        return replace(self, **fields)

    def watched(self, watch: Callable[[memoryview], None]) -> Tensor:
        """The same tensor; ``watch`` is given its stored bytes whenever they are read, and may raise."""

        def load() -> Array:
            array = self.load()
            watch(to_bytes(array, self.dtype))
            return array

        def raw() -> memoryview:
            data = self.stored()
            watch(data)
            return data

        return self.changed(load=load, raw=raw if self.raw is not None else None)

    def _repr_html_(self) -> str:
        """For notebooks: what is declared of it. Its values are not read; ``wio.show`` draws them."""
        from wio.markup import plain_table

        return plain_table(_HEADINGS, [_row(self)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def declared(self, role: str | None, layout: Layout | None) -> Tensor:
        """The same tensor with another declaration; LayoutError if role, layout and shape refute one another."""
        if role is not None:
            check_role(role)
            if layout is not None:
                neutral(role, layout)
        if layout is not None:
            refuted = layout.check(self.shape)
            if refuted:
                raise LayoutError(f"{self.name}: {refuted}")
        return self.changed(role=role, layout=layout)

    def to(self, layout: Layout | str) -> Tensor:
        """The tensor rearranged to another layout, still lazy.

        Raises LayoutError if this tensor's layout is not declared or does not hold the same axes.
        """
        target, steps = self._steps_to(Layout.parse(layout) if isinstance(layout, str) else layout)
        if not steps or self.layout is None:
            return self.changed(layout=target)
        shape = _shape_of(target, self.layout.extents(self.shape), steps, self.shape)
        load = self.load
        return self.with_values(lambda: apply_all(steps, load()), shape, target)

    def seen_as(self, layout: Layout) -> Array:
        """The values in another layout, a strided view where NumPy can give one: to be looked at, not written."""
        array = self.numpy()
        for step in self._steps_to(layout)[1]:
            array = step.apply(array)
        return array

    def _steps_to(self, target: Layout) -> tuple[Layout, tuple[Op, ...]]:
        """The layout with its sizes settled, and the steps that lead to it."""
        if self.layout is None:
            raise LayoutError(f"{self.name}: its layout is not declared", remedy=declare_remedy(self.name, str(target)))
        extents = self.layout.extents(self.shape)
        target = target.with_sizes(dict(self.layout.sizes))
        target = target.with_sizes({letter: extents[letter] for letter in target.unsettled if letter in extents})
        return target, rearrange(self.layout.with_sizes(dict(target.sizes)), target)


def synthesised(
    name: str,
    role: str,
    layout: Layout | None,
    layer: str,
    shape: tuple[int, ...],
    dtype: DType,
    why: Synthesis,
) -> Tensor:
    """A tensor that no source holds."""

    def load() -> Array:

        return np.full(shape, why.value, dtype.numpy)

    return Tensor(name, dtype, shape, load, role, layout, layer=layer, synthesised=why)


def _shape_of(
    target: Layout, extents: Mapping[str, int], steps: Iterable[Any], shape: tuple[int, ...]
) -> tuple[int, ...]:
    if all(letter == "1" or letter in extents for axis in target.axes for letter in axis):
        return tuple(math.prod(extents.get(letter, 1) for letter in axis) for axis in target.axes)
    # Some group is moved whole, its make-up unknown: let the steps say what becomes of the shape, on no memory.
    view = np.broadcast_to(np.zeros((), np.uint8), shape)
    for step in steps:
        view = step.apply(view)
    return view.shape


def _row(tensor: Tensor) -> tuple[str, ...]:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    declared = (tensor.role or "undeclared", str(tensor.layout or ("undeclared" if tensor.role is None else "")))
    return (tensor.name, tensor.dtype.name, shape, *declared, f"{tensor.nbytes:,}")


def declare_remedy(name: str, layout: str = "LAYOUT") -> str:
    return f"declare it: --declare '{name}=ROLE:{layout}', or name an --arch or --dialect that knows it"


class Bundle(Mapping[str, Tensor]):
    """An ordered, read-only mapping from names to tensors, with what the file says beside its weights.

    ``metadata`` is JSON-able: what weights alone lose (batch-norm epsilon, data format, model_config, attributes).
    ``network`` is the one that the weights are of, where that is known and they are on their way to a format that can
    hold it; its layers are named as the tensors' are. It is no part of a .wio file, which names the architecture.
    """

    def __init__(
        self, tensors: Iterable[Tensor], metadata: Mapping[str, Any] | None = None, network: Network | None = None
    ) -> None:
        self._tensors: dict[str, Tensor] = {}
        for tensor in tensors:
            if tensor.name in self._tensors:
                raise WioError(f"two tensors are named {tensor.name!r}")
            self._tensors[tensor.name] = tensor
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.network = network

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self._tensors[name]
        except KeyError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    # Mapping's own views look every name up again: a tenth of the time to list 100,000 tensors.
    def values(self) -> ValuesView[Tensor]:
        return self._tensors.values()

    def items(self) -> ItemsView[str, Tensor]:
        return self._tensors.items()

    def __repr__(self) -> str:
        return f"<Bundle of {len(self)} tensors, {self.nbytes:,} bytes>"

    def _repr_html_(self) -> str:
        """For notebooks: the first tensors and how many more there are. No tensor is read."""
        from wio.markup import plain_table

        shown = plain_table(_HEADINGS, [_row(tensor) for tensor in islice(self.values(), MOST_SHOWN)])
        more = f"; the first {MOST_SHOWN} are shown" if len(self) > MOST_SHOWN else ""
        return f"{shown}<p>{len(self)} tensors, {self.nbytes:,} bytes{more}</p>"

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.values())

    def map(self, change: Callable[[Tensor], Tensor]) -> Bundle:
        return Bundle((change(tensor) for tensor in self.values()), self.metadata, self.network)

    def select(self, only: Iterable[str] = (), drop: Iterable[str] = ()) -> Bundle:
        """The bundle without what ``only`` leaves out and ``drop`` names: globs on names, or on names in the source.

        Raises WioError for a glob that matches nothing: a typing error must not pass for a dropped tensor.
        """
        only, drop = tuple(only), tuple(drop)
        if not only and not drop:
            return self
        idle = [glob for glob in (*only, *drop) if not any(_matches(tensor, (glob,)) for tensor in self.values())]
        if idle:
            raise WioError(f"no tensor matches {', '.join(map(repr, idle))}", remedy="wio inspect FILE lists the names")
        kept = (t for t in self.values() if (not only or _matches(t, only)) and not _matches(t, drop))
        return Bundle(kept, self.metadata, self.network)


def _matches(tensor: Tensor, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(tensor.name, glob) or fnmatchcase(tensor.origin or tensor.name, glob) for glob in globs)
