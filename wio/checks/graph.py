"""Rules over the graph that a file holds: each convolution held against what nearly all others of the file do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from msgspec import Struct

from wio.checks.finding import NOTE, WARNING, Finding, listed
from wio.network import ACTIVATIONS, GLOBAL_POOLS, POOLS, NetLayer, Network

NORM = "BatchNormalization"
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "DepthwiseConv"})
KERNELS = CONVOLUTIONS | {"Gemm", "LocallyConnected"}
_LINEAR = frozenset({"Identity", "Dropout", "Pad", "Crop", "Reshape", "Flatten", "Resize"})
_MERGES = frozenset({"Add", "Concat"})
_IN_A_CHAIN = ACTIVATIONS | _LINEAR | POOLS | {NORM, "LRN"}


class Graph(Struct, frozen=True, dict=True):
    """A network with the question answered that rules ask: what follows a layer."""

    network: Network

    @cached_property
    def layers(self) -> dict[str, NetLayer]:
        return {layer.name: layer for layer in self.network.layers}

    @cached_property
    def consumers(self) -> dict[str, list[NetLayer]]:
        consumers: dict[str, list[NetLayer]] = {layer.name: [] for layer in self.network.layers}
        for layer in self.network.layers:
            for name in dict.fromkeys(layer.inputs):
                consumers[name].append(layer)
        return consumers

    def chain(self, name: str) -> list[NetLayer]:
        """The layers after one, as long as each is the only one to take what the last gives out."""
        found: list[NetLayer] = []
        while len(self.consumers[name]) == 1:
            following = self.consumers[name][0]
            if following.op not in _IN_A_CHAIN or len(following.inputs) != 1:
                break
            found.append(following)
            name = following.name
        return found

    def reaches(self, name: str, wanted: frozenset[str], through: frozenset[str] | None = None) -> bool:
        """Whether a layer of the ``wanted`` operators comes after, with only ``through`` between (None: anything)."""
        waiting, seen = [name], {name}
        while waiting:
            for layer in self.consumers[waiting.pop()]:
                if layer.op in wanted:
                    return True
                if layer.name not in seen and (through is None or layer.op in through):
                    seen.add(layer.name)
                    waiting.append(layer.name)
        return False

    def pooled_whole(self, name: str) -> bool:
        """Whether a layer works on what a global pool left: one value for each channel."""
        layer = self.layers[name]
        while len(layer.inputs) == 1:
            layer = self.layers[layer.inputs[0]]
            if layer.op in GLOBAL_POOLS:
                return True
            if layer.op not in KERNELS | ACTIVATIONS | _LINEAR | {NORM}:
                return False
        return False


def first_of(chain: list[NetLayer], ops: frozenset[str]) -> int | None:
    return next((k for k, layer in enumerate(chain) if layer.op in ops), None)


def norm_in(chain: list[NetLayer]) -> tuple[NetLayer | None, bool]:
    """The batch norm of a chain, and whether an activation stands before it."""
    norm, active = first_of(chain, frozenset({NORM})), first_of(chain, ACTIVATIONS)
    return (None if norm is None else chain[norm]), norm is not None and active is not None and active < norm


def check_graph(network: Network) -> list[Finding]:
    """What stands out in a file's own graph. A network without batch norms has nothing to stand out from."""
    graph = Graph(network)
    convolutions = [layer for layer in network.layers if layer.op in CONVOLUTIONS]
    return [
        *_without_norm(graph, convolutions),
        *_activation_first(graph, convolutions),
        *_biased(graph, convolutions),
    ]


def _without_norm(graph: Graph, convolutions: list[NetLayer]) -> Iterator[Finding]:
    """Convolutions without a batch norm where most have one.

    Not those that end the network (nothing with a kernel comes after them) nor those behind a global pool (squeeze and
    excitation): networks leave the norm out there. A sum or concatenation may come before the norm, as in networks
    that activate before they convolve.
    """
    between = _LINEAR | POOLS | _MERGES
    normed, without = [], []
    for layer in convolutions:
        if norm_in(graph.chain(layer.name))[0] is not None or graph.reaches(layer.name, frozenset({NORM}), between):
            normed.append(layer)
        elif graph.reaches(layer.name, KERNELS) and not graph.pooled_whole(layer.name):
            without.append(layer)
    if len(normed) < 2 or len(normed) <= len(without):
        return
    biased = sum(bool(layer.attributes.get("bias")) for layer in normed)
    told = f"{len(normed)} of {len(convolutions)} convolutions are followed by a batch norm"
    if len(without) > max(1, len(convolutions) // 10) and biased * 2 < len(normed):
        # A bias where the others have none: many of them are a design (Inception-ResNet), a few are a slip.
        designed = [layer.name for layer in without if layer.attributes.get("bias")]
        without = [layer for layer in without if not layer.attributes.get("bias")]
        if designed:
            evidence = f"{told}; {len(designed)} have a bias instead: {listed(designed)}"
            yield Finding("conv-without-norm", NOTE, "", evidence, tuple(designed))
    for layer in without:
        bare = "" if layer.attributes.get("bias") else ", and it has no bias either"
        yield Finding("conv-without-norm", WARNING, layer.name, f"{told}; this one is not{bare}")


def _activation_first(graph: Graph, convolutions: list[NetLayer]) -> Iterator[Finding]:
    wrong: list[tuple[str, str]] = []
    right = 0
    for layer in convolutions:
        chain = graph.chain(layer.name)
        norm, late = norm_in(chain)
        if late and norm is not None:
            steps = [layer.name, *(each.name for each in chain[: chain.index(norm) + 1])]
            wrong.append((layer.name, " -> ".join(steps)))
        elif norm is not None:
            right += 1
    if not right and len(wrong) > 3:
        evidence = f"so do all {len(wrong)} convolutions that have a batch norm, as in {wrong[0][1]}"
        yield Finding("activation-before-norm", WARNING, "", evidence, tuple(name for name, _ in wrong))
        return
    for name, path in wrong:
        yield Finding("activation-before-norm", WARNING, name, f"{path}; {right} others have the norm first")


def _biased(graph: Graph, convolutions: list[NetLayer]) -> Iterator[Finding]:
    """Biases right in front of a batch norm; with padding or a pool between, they are not without effect."""
    biased: list[tuple[str, str]] = []
    plain = 0
    for layer in convolutions:
        chain = [each for each in graph.chain(layer.name) if each.op not in ("Identity", "Dropout")]
        if not chain or chain[0].op != NORM:
            continue
        norm = chain[0]
        if layer.attributes.get("bias"):
            biased.append((layer.name, norm.name))
        else:
            plain += 1
    if len(biased) > plain:
        names = [name for name, _ in biased]
        told = f"{len(biased)} of {len(biased) + plain} convolutions that have a batch norm: {listed(names)}"
        yield Finding("bias-before-norm", NOTE, "", told, tuple(names))
        return
    for name, follower in biased:
        evidence = f"{follower} follows; {plain} others in front of a batch norm have no bias"
        yield Finding("bias-before-norm", WARNING, name, evidence)
