"""A finding, and the closed list of codes that findings have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")

# Each code: what it means, and what to do about it. Codes are stable: machines read them.
CODES: dict[str, tuple[str, str]] = {
    "conv-without-norm": (
        "a convolution has no batch norm, where the architecture or nearly all others of the file have one",
        "put the batch norm back after the convolution, and fill it from the source of the weights",
    ),
    "activation-before-norm": (
        "an activation stands between a convolution and its batch norm",
        "move the activation behind the batch norm, unless the network was trained so",
    ),
    "bias-before-norm": (
        "a convolution has a bias in front of a batch norm, which subtracts it again or was never trained with it",
        "build the convolution without a bias (use_bias=False), or fold the bias into the batch norm",
    ),
    "replaced-layer": (
        "the file has a batch norm where the architecture has another layer",
        "the outputs differ from those of the architecture: put the original layer in, or train the port again",
    ),
    "graph-differs": (
        "the file's graph is not that of the architecture",
        "mend the model's definition; weights of another graph compute something else",
    ),
    "epsilon-mismatch": (
        "a batch norm adds another epsilon than the architecture does",
        "build the batch norm with the architecture's epsilon",
    ),
    "missing-statistics": (
        "a batch norm has no mean or no variance",
        "export the moving statistics too: without them the layer cannot run in inference",
    ),
    "untrained-statistics": (
        "a batch norm's mean is 0 and its variance 1 everywhere, as initialisers leave them",
        "fill the statistics from the source of the weights, or train; left so the layer only scales and shifts",
    ),
    "variance-not-positive": (
        "a variance is zero or negative",
        "negative: the values are damaged or of another kind; zero: the channel is dead and epsilon alone divides it",
    ),
    "std-as-variance": (
        "running_std is, or may be, the standard deviation, as Keras kept it up to 1.0.5 (on Theano 1.0.6)",
        "find out which Keras wrote the file; of 1.0.7 and later: --declare 'GLOB=batch_norm.variance'",
    ),
    "not-finite": (
        "a tensor holds NaN or infinity",
        "take the weights from an undamaged file or an earlier checkpoint; wio copies such values as they are",
    ),
    "constant": (
        "every value of a tensor is the same, though it is none that initialisers leave constant",
        "look whether the tensor was ever filled",
    ),
    "duplicated": (
        "two tensors of one role hold the same bytes",
        "look whether one was loaded into the place of the other; layers that share weights are no fault",
    ),
    "missing-tensor": (
        "the file lacks tensors of the architecture",
        "check that the file is of this architecture and dialect (wio registry show ID)",
    ),
    "unexpected-tensor": (
        "the file has tensors that the architecture does not know",
        "name what may be left out with --drop, or choose another --dialect",
    ),
    "refuted-shape": (
        "a tensor's shape contradicts the architecture",
        "check that the file is of this architecture and dialect (wio registry show ID)",
    ),
    "passed-over": (
        "the mapping leaves tensors of the file out",
        "nothing, if the reason holds; they are in no import",
    ),
    "undeclared": (
        "tensors have no declared role or layout: they cannot be converted",
        "name an --arch or --dialect that knows them, or --declare 'GLOB=ROLE:LAYOUT'",
    ),
    "loads-wrong": (
        "kernels of Keras on Theano run backwards; Keras 3 and tf.keras load them as they are, and say nothing",
        "wio convert FILE --into keras-tf -o OUT.h5",
    ),
}


class Finding(Struct, frozen=True):
    """One thing that the lint found.

    ``where``    the layer or tensor that it is about, as the file names it; "" for the whole file.
    ``tensors``  the names of all tensors or layers concerned, where there are several.
    """

    code: str
    severity: str
    where: str
    evidence: str
    tensors: tuple[str, ...] = ()

    @property
    def remedy(self) -> str:
        return CODES[self.code][1]

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "code": self.code,
            "severity": self.severity,
            "where": self.where,
            "evidence": self.evidence,
            "remedy": self.remedy,
        }
        return {**document, "tensors": list(self.tensors)} if self.tensors else document


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
