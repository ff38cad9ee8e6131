"""Recurrent layers: what a bundle says of them beside their weights.

Which two layers are the directions of one, and which GRU a GRU is, follow from no shape: files, formats and users say
so, and ``metadata["recurrent"]`` keeps it (spec/wio-1.md, section 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from msgspec import Struct

from wio.adapter import Convention
from wio.bundle import Bundle, Tensor
from wio.errors import Problem
from wio.layout import Layout

KEY = "recurrent"
_KINDS = ("lstm", "gru", "rnn")
APART = ("input_bias", "recurrent_bias")
# By the number of biases of a layer, what Convention.reset_after calls it.
NONE, ONE, TWO = "none", "one", "two"
# What makes a layer compute something else than its weights say, by the words of Keras.
_BEHAVIOUR = ("activation", "recurrent_activation", "go_backwards", "clip", "input_forget")


def is_recurrent(role: str | None) -> bool:
    """Whether a role is a weight of an LSTM, a GRU or a plain recurrent layer."""
    return (role or "").partition(".")[0] in _KINDS


def family(role: str | None) -> str | None:
    """The role that a weight belongs to: ``lstm.bias`` for each of the biases of an LSTM, else the role itself."""
    kind, _, part = (role or "").partition(".")
    return f"{kind}.bias" if kind in _KINDS and part in APART else role


def direction_layers(layer: str) -> tuple[str, str]:
    """What the layers of the two directions are called, as Keras's Bidirectional does; this names and nothing more."""
    leaf = layer.rpartition("/")[2]
    return f"{layer}/forward_{leaf}", f"{layer}/backward_{leaf}"


class RecurrentLayers(Struct, frozen=True, dict=True):
    """The facts of ``metadata["recurrent"]``, by layer (spec/wio-1.md, section 7)."""

    facts: Mapping[str, Mapping[str, Any]]

    @cached_property
    def _homes(self) -> dict[str, tuple[str, int]]:
        return {layer: (name, place) for name in self.facts for place, layer in enumerate(self.directions(name) or ())}

    @staticmethod
    def of(bundle: Bundle) -> RecurrentLayers:
        """The facts of a bundle. A layer whose weights hold both directions has two, whether its file names them or
        not."""
        stated = bundle.metadata.get(KEY)
        facts = {
            layer: dict(each)
            for layer, each in (stated.items() if isinstance(stated, Mapping) else ())
            if isinstance(each, Mapping)
        }
        for tensor in bundle.values():
            if is_recurrent(tensor.role) and tensor.layout is not None and "F" in tensor.layout.letters:
                facts.setdefault(tensor.layer, {}).setdefault("directions", list(direction_layers(tensor.layer)))
        return RecurrentLayers(facts)

    def directions(self, layer: str) -> tuple[str, str] | None:
        """The layers of the forward and the backward direction of a bidirectional one; None for any other."""
        stated = self.facts.get(layer, {}).get("directions")
        if isinstance(stated, Sequence) and len(stated) == 2 and all(isinstance(each, str) for each in stated):
            return stated[0], stated[1]
        return None

    def home(self, layer: str) -> tuple[str, int] | None:
        """The bidirectional layer that a layer is one direction of, and which: 0 forward, 1 backward."""
        return self._homes.get(layer)

    def whole(self, layer: str) -> str:
        """The bidirectional layer that a layer is part of, or the layer itself."""
        home = self.home(layer)
        return layer if home is None else home[0]

    def _said(self, layer: str) -> dict[str, Any]:
        """What is said of a layer, of the bidirectional layer that it is part of, and of its parts."""
        names = (*(self.directions(layer) or ()), self.whole(layer), layer)
        return {key: value for name in names for key, value in self.facts.get(name, {}).items()}

    def reset_after(self, layer: str) -> bool | None:
        """Whether a GRU applies its reset gate after the recurrent product; None where nobody said so."""
        stated = self._said(layer).get("reset_after")
        return stated if isinstance(stated, bool) else None

    def behaviour(self, layer: str) -> dict[str, Any]:
        """What a layer computes otherwise than every format's layers do unless told: tanh, sigmoid for the gates,
        forwards."""
        said = self._said(layer)
        return {key: said[key] for key in _BEHAVIOUR if isinstance(said.get(key), str | int | float)}

    def stacked(self, layer: str) -> tuple[str, int]:
        """The module of several layers, one on the other, that a layer is in, and its number; else itself and 0."""
        facts = self.facts.get(layer, {})
        module, level = facts.get("module"), facts.get("level")
        return (module, level) if isinstance(module, str) and type(level) is int else (layer, 0)

    def counterpart(self, layer: str, theirs: RecurrentLayers) -> str:
        """The layer of these that a layer of ``theirs`` is: the same direction of the layer of the same name."""
        home = theirs.home(layer)
        directions = self.directions(home[0]) if home is not None else None
        return layer if home is None or directions is None else directions[home[1]]


def behaviour_notes(
    pairs: Iterable[tuple[str, str]], ours: RecurrentLayers, theirs: RecurrentLayers | None = None
) -> Iterator[str]:
    """What to check of recurrent layers, source and target: the weights are right, and the layers compute otherwise."""
    for source, target in dict.fromkeys(pairs):
        told, wanted = ours.behaviour(source), theirs.behaviour(target) if theirs else {}
        if told != wanted:
            here, there = (", ".join(f"{k}={v}" for k, v in each.items()) or "what is usual" for each in (told, wanted))
            yield f"CHECK {target}: the source computes with {here}, the target with {there}; weights do not carry that"


def with_facts(bundle: Bundle, told: Mapping[str, Mapping[str, Any]]) -> Bundle:
    """The bundle with more facts, by layer."""
    if not told:
        return bundle
    facts = {**RecurrentLayers.of(bundle).facts}
    for layer, each in told.items():
        facts[layer] = {**facts.get(layer, {}), **each}
    return Bundle(bundle.values(), {**bundle.metadata, KEY: facts})


def settled(bundle: Bundle, convention: Convention) -> Bundle:
    """The bundle with what its format says of every GRU, where the file does not: PyTorch's always reset after."""
    layers = RecurrentLayers.of(bundle)
    grus: dict[str, list[Tensor]] = {}
    for tensor in bundle.values():
        if (tensor.role or "").startswith("gru."):
            grus.setdefault(tensor.layer, []).append(tensor)
    resets = {layer: convention.reset_after.get(bias_form(tensors)) for layer, tensors in grus.items()}
    unknown = {k: reset for k, reset in resets.items() if reset is not None and layers.reset_after(k) is None}
    return with_facts(bundle, {layer: {"reset_after": reset} for layer, reset in unknown.items()})


def bias_form(tensors: Sequence[Tensor]) -> str:
    """How many biases the tensors of one layer are, as Convention.reset_after calls it."""
    biases = [t for t in tensors if (family(t.role) or "").endswith(".bias")]
    if not biases:
        return NONE
    return TWO if any(holds_two(t.role, t.layout) for t in biases) else ONE


def holds_two(role: str | None, layout: Layout | None) -> bool:
    """Whether a tensor is, or has, one of the two biases of a layer."""
    return (role or "").partition(".")[2] in APART or (layout is not None and "B" in layout.letters)


def is_bias(role: str | None) -> bool:
    """Whether a role is a bias of a recurrent layer, or one of its two."""
    return is_recurrent(role) and (family(role) or "").endswith(".bias")


def reset_problem(tensor: Tensor, convention: Convention, layers: RecurrentLayers, target: str) -> Problem | None:
    """Why a weight of a GRU cannot be taken to a format that has no such GRU, or None."""
    possible, reset = set(convention.reset_after.values()), layers.reset_after(tensor.layer)
    if not possible or not (tensor.role or "").startswith("gru.") or reset in possible:
        return None
    if reset is None:
        if len(possible) > 1 and not is_bias(tensor.role):
            # Only the form of its bias says there which GRU it is.
            return None
        message, remedy = unknown_reset(tensor.layer)
        return Problem("undeclared", message, tensor.name, remedy)
    words = ("after", "before") if reset else ("before", "after")
    message = f"GRU {tensor.layer!r} resets {words[0]} the recurrent product, {target} only {words[1]} it"
    return Problem("unsupported", message, tensor.name, "no weights make the two compute the same")


def unknown_reset(layer: str) -> tuple[str, str]:
    message = f"whether GRU {layer!r} applies its reset gate before or after the recurrent product is not declared"
    return message, "--declare 'GLOB=gru.reset_after' or 'GLOB=gru.reset_before' for its weights"


def template_reset_problem(tensor: Tensor, layer: str, ours: bool | None, theirs: bool | None) -> Problem | None:
    """Why the GRU ``layer`` of a template cannot take a weight of the source: it is another GRU, or may be one."""
    if theirs is None or ours == theirs:
        return None
    if ours is None:
        message, remedy = unknown_reset(tensor.layer)
        return Problem("undeclared", message, tensor.name, remedy)
    words = ("after", "before") if theirs else ("before", "after")
    message = f"GRU {layer!r} of the template resets {words[0]} the recurrent product, that of the source {words[1]} it"
    return Problem("unsupported", message, tensor.name, "take a template with that GRU")
