"""Where the layers of a config.json stand in ``.weights.h5``, and what each variable there is.

Keras 3 walks containers in order and names each layer by its class in snake case and a counter, never by its own name
(keras 3.15 ``saving_lib.py``, ``_save_container_state``; ``utils/naming.py``). This walks the same way, and believes
what it finds only where classes, names and numbers of variables in the file all agree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from wio.adapters._keras3_tree import Tree
from wio.adapters._keras_calls import MAX_DEPTH, class_of
from wio.adapters._keras_config import DeclaredLayer, DeclaredWeight, KerasModel
from wio.adapters._keras_graph import batch_norms
from wio.adapters._keras_layers import are_directions, as_backward, recurrent_facts
from wio.errors import FormatError

CONTAINERS = ("Sequential", "Functional", "Model")
LAYERS, LAYERS_2_13 = "layers", "_layer_checkpoint_dependencies"
# These keep their variables in a cell (keras 3.15 layers/rnn/*.py).
_WITH_CELL = frozenset({"LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)
# Leaf names of Keras 3 variables where they are not the last part of the role.
_LEAVES = {"mean": "moving_mean", "variance": "moving_variance", "table": "embeddings"}


class Place(Struct, frozen=True):
    """A layer's place in the file: ``path`` is the group that has its variables.

    ``layer`` names it as Keras's other files do (``block/conv``, ``bi/forward_lstm``); ``weights`` are in saved order,
    None where the class is unknown or the file refutes the config. ``both`` are the layer whose direction it is, and
    ``forward`` or ``backward``.
    """

    path: str
    layer: str
    class_name: str
    weights: tuple[DeclaredWeight, ...] | None
    epsilon: float | None
    recurrent: Mapping[str, Any] = field(default_factory=dict)
    both: tuple[str, str] | None = None

    def name_of(self, index: str) -> str:
        """The name of one of its variables."""
        if self.weights is None:
            return f"{self.layer}/{index}"
        part = self.weights[int(index)].role.partition(".")[2]
        return f"{self.layer}/{_LEAVES.get(part, part)}"


def snake_case(class_name: str) -> str:
    """keras 3.15 ``utils/naming.py``, ``to_snake_case``."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


class Config:
    """A config.json read as data; nothing is deserialised. Raises FormatError for what is no config of a model."""

    def __init__(self, file: str, text: bytes, version: str | None) -> None:
        try:
            self._document = json.loads(text)
        except (ValueError, RecursionError):
            raise FormatError(f"{file}: its config.json is no JSON") from None
        if not isinstance(self._document, dict):
            raise FormatError(f"{file}: its config.json is no object")
        self._file = file
        # A subclassed model says nothing of its layers: only its own code knows them.
        self._known = class_of(self._document) in CONTAINERS
        self._model: _Recorded | None = None
        if self._known:
            try:
                self._model = _Recorded(self._document, version or "3", "tensorflow", None)
            except FormatError as error:
                raise FormatError(f"{file}: config.json: {error.message}") from None
            except _MALFORMED as error:
                raise FormatError(f"{file}: its config.json is malformed: {error!r}") from None

    @property
    def batch_norms(self) -> dict[str, str]:
        """For each batch norm that alone takes what a layer with a kernel gives out, that layer."""
        return batch_norms(self._document, self.data_format) if self._model is not None else {}

    @property
    def data_format(self) -> str | None:
        return self._model.data_format if self._model else None

    def top_layers(self) -> list[DeclaredLayer]:
        """The layers of the model, in order."""
        return self._model.layers if self._model else []

    @property
    def frozen(self) -> frozenset[str]:
        """The layers of the model that are frozen as a whole."""
        return self._model.frozen if self._model else frozenset()

    def places(self, tree: Tree) -> dict[str, Place]:
        """Every layer whose variables the config can place, by its path, in the order in which Keras walks them."""
        if self._model is None:
            return {}
        walk = _Walk(tree, self._model.declared)
        try:
            return {place.path: place for place in walk.container(self._document, "", "", 0)}
        except _MALFORMED as error:
            raise FormatError(f"{self._file}: its config.json is malformed: {error!r}") from None


class _Recorded(KerasModel):
    """A model whose every plain layer is remembered by its document, nested ones too."""

    def __init__(self, *arguments: Any) -> None:
        self.declared: dict[int, DeclaredLayer] = {}
        super().__init__(*arguments)

    def _layer(self, document: Mapping[str, Any], *rest: Any) -> Any:
        found = super()._layer(document, *rest)
        # Of several calls the last is told with what all of them agree on.
        self.declared[id(document)] = found[0]
        return found


class _Walk:
    def __init__(self, tree: Tree, declared: Mapping[int, DeclaredLayer]) -> None:
        self._tree, self._declared = tree, declared
        self._counts: dict[str, list[str]] = {}
        for variable in tree.variables:
            self._counts.setdefault(variable.group, []).append(variable.index)

    def container(self, document: Mapping[str, Any], path: str, prefix: str, depth: int) -> Iterator[Place]:
        if depth > MAX_DEPTH:
            raise FormatError(f"its config.json nests models deeper than {MAX_DEPTH}")
        children = []
        used: dict[str, int] = {}
        folder = self._folder(path)
        for child in document["config"]["layers"]:
            name = snake_case(str(child["class_name"]))
            k = used.get(name, -1) + 1
            used[name] = k
            children.append((f"{folder}/{name}_{k}" if k else f"{folder}/{name}", child))
        # A Sequential leaves its InputLayer out; before 3.6 a layer without variables had no group.
        paths = [at for at, _ in children]
        there = {group for group in self._tree.groups if group.rpartition("/")[0] == folder and group != folder}
        if len(set(paths)) < len(paths) or not there <= set(paths):
            return
        for at, child in children:
            yield from self._layer(child, at, prefix, str(child["config"]["name"]), depth)

    def _layer(self, document: Mapping[str, Any], path: str, prefix: str, name: str, depth: int) -> Iterator[Place]:
        class_name, config = class_of(document), document["config"]
        if path not in self._tree.groups:
            # Without variables, or shared and saved where Keras came by it first.
            return
        layer = f"{prefix}{name}"
        saved = self._tree.saved_name(path)
        agrees = saved is None or saved == name
        if class_name in CONTAINERS:
            if agrees:
                yield from self.container(document, path, f"{layer}/", depth + 1)
        elif class_name == "TimeDistributed":
            inner = config["layer"]
            yield from self._layer(inner, f"{path}/layer", f"{layer}/", str(inner["config"]["name"]), depth + 1)
        elif class_name == "Bidirectional":
            yield from self._both_ways(config, path, layer, depth)
        else:
            own = f"{path}/cell" if class_name in _WITH_CELL else path
            found = self._declared.get(id(document))
            weights = found.weights if found and agrees and not _quantized(config) and _as_known(config) else None
            count = len(weights or ())
            if weights is not None and self._counts.get(own, []) != [str(k) for k in range(count)]:
                weights = None
            epsilon = config.get("epsilon")
            facts = recurrent_facts(class_name, config) if weights is not None else {}
            yield Place(own, layer, class_name, weights, epsilon if isinstance(epsilon, float) else None, facts)

    def _both_ways(self, config: Mapping[str, Any], path: str, layer: str, depth: int) -> Iterator[Place]:
        """Keras 3 writes both layers, as they are called; tf.keras a backward layer only where one was given."""
        forward, given = config["layer"], config.get("backward_layer")
        backward = given or forward
        name = str(forward["config"]["name"]).removeprefix("forward_")
        paired = given is None or are_directions(forward, given)
        for place in self._layer(forward, f"{path}/forward_layer", f"{layer}/", f"forward_{name}", depth + 1):
            yield replace(place, both=(layer, "forward") if paired else None)
        back_path = f"{path}/backward_layer"
        back_name = self._tree.saved_name(back_path) or (given["config"]["name"] if given else f"backward_{name}")
        for place in self._layer(backward, back_path, f"{layer}/", str(back_name), depth + 1):
            facts = as_backward(place.recurrent) if paired and given is not None else place.recurrent
            yield replace(place, recurrent=facts, both=(layer, "backward") if paired else None)

    def _folder(self, path: str) -> str:
        """The group of a container's layers, which files of 2.13 call by another name (H5IOStore.get)."""
        usual, old = f"{path}/{LAYERS}".lstrip("/"), f"{path}/{LAYERS_2_13}".lstrip("/")
        return old if usual not in self._tree.groups and old in self._tree.groups else usual


def _quantized(config: Mapping[str, Any]) -> bool:
    """Whether the variables are not the layer's own but what a quantisation made of them (int8, int4, float8)."""
    policy = config.get("dtype")
    named = policy.get("class_name", "") if isinstance(policy, dict) else ""
    return "Quantized" in str(named) or bool(config.get("quantization_config"))


def _as_known(config: Mapping[str, Any]) -> bool:
    """LayerNormalization with ``rms_scaling`` is another layer than the one that is known."""
    return not config.get("rms_scaling")
