"""The layers of Keras that a network is put together from, and the config.json that Keras 3 builds them from.

Three things that a network may say have no layer in Keras: a pad with another number than zero, a power and a quotient.
For them ``keras.ops`` stand in the config as Keras itself saves them, which needs no custom objects (run: keras 3.15, a
functional model made with keras.ops).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from wio.architectures.parameters import PARTS
from wio.errors import FormatError
from wio.execution import Execution, Run, sizes
from wio.network import FeatureMap, NetLayer, Network

_OPERATIONS = "keras.src.ops.numpy"


class InexpressibleError(Exception):
    """Keras has nothing that does what a layer says; the message says what."""


class Piece(Struct, frozen=True):
    """A layer of Keras's, or an operation of ``keras.ops``: its class, config, inputs and the shape it gives out.

    ``layer`` is the layer of the network whose weights it has. ``arguments`` stand behind the inputs of an operation,
    ``keywords`` by name.
    """

    name: str
    class_name: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    layer: str | None = None
    operation: bool = False
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)


class Pieces:
    """Pieces by name, in the order in which they were put; ``ordered`` has them as Keras's ``model.layers`` does.

    ``names`` has Keras's name of each layer of the network; the pieces that help one have a word behind it.
    """

    def __init__(self, names: Mapping[str, str], slopes: Mapping[str, str], data_format: str, dtype: str) -> None:
        self.slopes, self.dtype = slopes, dtype
        self._first = data_format == "channels_first"
        self._names = names
        self._made: dict[str, Piece] = {}
        self._gives: dict[str, str] = {}
        self._inputs: list[str] = []
        self._outputs: list[str] = []
        self.ordered: list[Piece] = []

    def finish(self, execution: Execution) -> None:
        self._inputs = [self._gives[run.layer.name] for run in execution.runs if run.layer.op == "Input"]
        self._outputs = [self._gives[name] for name in execution.outputs if name in self._gives]
        layers = tuple(NetLayer(piece.name, piece.class_name, {}, piece.inputs) for piece in self._made.values())
        self.ordered = [self._made[name] for name in Network(layers).keras_order(self._outputs)]

    # --- what flows

    def axes(self, run: Run) -> list[str]:
        """The letters of the map that a layer takes, in Keras's order."""
        space = [axis for axis in _map(run).axes or () if axis != "C"]
        return ["C", *space] if self.data_format(run) == "channels_first" else [*space, "C"]

    def data_format(self, run: Run) -> str:
        """1-D maps stay channels last, whatever the others are."""
        return "channels_first" if self._first and len(self.space(run)) > 1 else "channels_last"

    def space(self, run: Run) -> list[int]:
        fmap = _map(run)
        return [] if fmap.flat else [fmap.size(axis) or 0 for axis in fmap.axes or () if axis != "C"]

    def shape(self, run: Run, of: FeatureMap, space: Sequence[int]) -> tuple[int, ...]:
        """The shape of a map with the channels of another and these places."""
        channels = of.size("C") or 0
        return (channels, *space) if self.data_format(run) == "channels_first" else (*space, channels)

    def gives(self, run: Run) -> tuple[int, ...]:
        """The shape of what a layer gives out."""
        return tuple(sizes(run.outgoing, first=self._first and len(run.outgoing.sizes) > 2))

    def given(self, run: Run) -> str:
        """The piece that gives a layer what it takes first."""
        return self._gives[run.inputs[0]]

    def shape_of(self, piece: str) -> tuple[int, ...]:
        return self._made[piece].shape

    # --- pieces

    def put(
        self,
        run: Run,
        class_name: str,
        config: Mapping[str, Any],
        inputs: Sequence[str] | None = None,
        part: str = "",
        *,
        operation: bool = False,
    ) -> None:
        """The piece that gives out what the layer does; by default it takes what the layer takes."""
        taken = tuple(self._gives[name] for name in run.inputs) if inputs is None else tuple(inputs)
        name = self.piece(run, part, class_name, config, taken, self.gives(run), operation=operation)
        self._gives[run.layer.name] = name

    def piece(
        self,
        run: Run,
        part: str,
        class_name: str,
        config: Mapping[str, Any],
        inputs: Sequence[str],
        shape: tuple[int, ...],
        **more: Any,
    ) -> str:
        """A piece of a layer; gives its name. The one without a word behind the layer's name has its weights."""
        name = self._names[run.layer.name] + (f"_{part}" if part else "")
        if name in self._made:
            raise FormatError(f"two layers of Keras would be named {name!r}")
        layer = None if part or run.layer.op not in PARTS else run.layer.name
        self._made[name] = Piece(name, class_name, {"name": name, **config}, tuple(inputs), shape, layer, **more)
        return name

    def operation(self, run: Run, part: str, op: str, source: str, **more: Any) -> str:
        shape = more.pop("shape", self._made[source].shape)
        return self.piece(run, part, op, more.pop("config", {}), (source,), shape, operation=True, **more)

    def padded(self, run: Run, source: str, pads: Sequence[tuple[int, int]], part: str = "pad") -> str:
        """Zeros around what a piece gives out: a map of the layer's incoming channels."""
        if not any(begin or end for begin, end in pads):
            return source
        data_format, before = self.data_format(run), self._made[source].shape
        space = before[1:] if data_format == "channels_first" else before[:-1]
        grown = [size + begin + end for size, (begin, end) in zip(space, pads, strict=True)]
        config: dict[str, Any] = {"padding": [list(pad) for pad in pads], "data_format": data_format}
        if len(pads) == 1:
            config = {"padding": list(pads[0])}
        shape = self.shape(run, run.incoming[0], grown)
        return self.piece(run, part, f"ZeroPadding{len(pads)}D", config, (source,), shape)

    # --- config.json

    def config(self, name: str) -> dict[str, Any]:
        return {
            "module": "keras.src.models.functional",
            "class_name": "Functional",
            "config": {
                "name": name,
                "trainable": True,
                "layers": [self._document(piece) for piece in self.ordered],
                "input_layers": _references(self._inputs),
                "output_layers": _references(self._outputs),
            },
            "registered_name": "Functional",
            "build_config": {"input_shape": None},
        }

    def _document(self, piece: Piece) -> dict[str, Any]:
        nodes = []
        if piece.inputs:
            tensors: list[Any] = [self._tensor(name) for name in piece.inputs]
            merges = len(tensors) > 1 and not piece.operation
            arguments = [tensors] if merges else [*tensors, *piece.arguments]
            nodes.append({"args": arguments, "kwargs": dict(piece.keywords)})
        return {
            "module": _OPERATIONS if piece.operation else "keras.layers",
            "class_name": piece.class_name,
            "config": dict(piece.config) if piece.operation else {**piece.config, "dtype": self.dtype},
            "registered_name": piece.class_name if piece.operation else None,
            "name": piece.name,
            "inbound_nodes": nodes,
        }

    def _tensor(self, name: str) -> dict[str, Any]:
        shape = [None, *self._made[name].shape]
        config = {"shape": shape, "dtype": self.dtype, "keras_history": [name, 0, 0]}
        return {"class_name": "__keras_tensor__", "config": config}


def _map(run: Run) -> FeatureMap:
    return run.incoming[0] if run.incoming else run.outgoing


def _references(names: Sequence[str]) -> list[Any]:
    """One tensor stands alone, several in a list: so they come out when the model is called."""
    found: list[Any] = [[name, 0, 0] for name in names]
    return found[0] if len(found) == 1 else found
