"""Rules over what is declared: tensors that no mapping knows, batch norms that lack a part, backward kernels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from wio.bundle import Bundle, Tensor
from wio.checks.finding import ERROR, NOTE, WARNING, Finding, listed
from wio.errors import NameMapError
from wio.network import Network
from wio.roles import NOT_WEIGHTS, neutral_layouts

# The reasons of what the user left out (port.resolve).
BY_THE_USER = ("--drop", "not in --only")
_PLAIN = frozenset({"int32", "int64", "bool", "string"})
_PROBLEMS = {
    "missing": "missing-tensor",
    **dict.fromkeys(("unexpected", "twice", "value"), "unexpected-tensor"),
    "shape": "refuted-shape",
}


def check_names(error: NameMapError) -> list[Finding]:
    """Why a file is not of the architecture: one finding for each kind of problem."""
    kinds: dict[str, list[str]] = {}
    for problem in error.problems:
        kinds.setdefault(_PROBLEMS.get(problem.kind, "refuted-shape"), []).append(problem.tensor or "")
    return [
        Finding(code, ERROR, names[0] if len(names) == 1 else "", f"{error.message}: {listed(names)}", tuple(names))
        for code, names in kinds.items()
    ]


def check_dropped(dropped: Mapping[str, str], bundle: Bundle, filled: Collection[str] = ()) -> list[Finding]:
    """What the mapping leaves out, by its reason. A weight by its own file's word is a warning, unless it was told.

    ``filled`` are those that only the port has and of which its dialect says what they hold.
    """
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, reason in dropped.items():
        tensor = bundle.get(name)
        told = reason in BY_THE_USER or name in filled
        weight = tensor is not None and tensor.role is not None and tensor.role not in NOT_WEIGHTS
        reasons.setdefault((reason, WARNING if weight and not told else NOTE), []).append(name)
    return [
        Finding("passed-over", severity, "", f"{listed(names)}: {reason}", tuple(names))
        for (reason, severity), names in reasons.items()
    ]


def check_declared(tensors: Iterable[Tensor], network: Network | None) -> list[Finding]:
    """Tensors without role or layout, batch norms without statistics."""
    held = list(tensors)
    return [*_undeclared(held), *_statistics(held, network)]


def _undeclared(held: list[Tensor]) -> Iterator[Finding]:
    """Integers, strings and truth values are a note: axes and shapes of ONNX, step counters. Nobody converts them."""
    lacking = [t for t in held if t.role is None or (t.layout is None and neutral_layouts(t.role))]
    if lacking:
        names = tuple(t.name for t in lacking)
        severity = NOTE if all(t.dtype.name in _PLAIN for t in lacking) else WARNING
        evidence = f"{len(names)} of {len(held)} tensors: {listed(names)}"
        yield Finding("undeclared", severity, names[0] if len(names) == 1 else "", evidence, names)


def _statistics(held: list[Tensor], network: Network | None) -> Iterator[Finding]:
    layers: dict[str, set[str]] = {}
    unknown = {t.layer for t in held if t.role is None}
    for tensor in held:
        kind, _, part = (tensor.role or "").partition(".")
        if kind == "batch_norm":
            layers.setdefault(tensor.layer, set()).add(part)
    for layer, parts in layers.items():
        spread = "std" if "std" in parts else "variance"
        lacking = [part for part in ("mean", spread) if part not in parts]
        if lacking and layer not in unknown:
            evidence = f"it has {', '.join(sorted(parts))}, and no {' and no '.join(lacking)}"
            yield Finding("missing-statistics", ERROR, layer, evidence)
    # Where tensors are undeclared, one of them may be what seems to be missing.
    if network is None or not layers or unknown:
        return
    for each in network.layers:
        if each.op == "BatchNormalization" and each.name.partition(" (")[0] not in layers:
            yield Finding("missing-statistics", ERROR, each.name, "the graph has it; the file has no tensor of it")


def check_direction(tensors: Iterable[Tensor]) -> list[Finding]:
    """Kernels of Keras on Theano, which run backwards.

    tf.keras, tf-keras and Keras 3 have dropped what turned them when a file named that backend (keras 3.15
    ``legacy_h5_format.py`` reads ``original_backend`` and does nothing with it); a kernel of extent 1 is the same.
    """
    turned = []
    for tensor in tensors:
        if tensor.layout is not None and tensor.layout.flipped:
            extents = tensor.layout.extents(tensor.shape)
            if any(extents.get(letter, 1) > 1 for letter in "DHW"):
                turned.append(tensor.name)
    if not turned:
        return []
    return [Finding("loads-wrong", WARNING, "", f"{len(turned)} kernels: {listed(turned)}", tuple(turned))]


def check_spread(bundle: Bundle) -> list[Finding]:
    """``running_std`` that is the standard deviation by its version, or may be, because the file names none."""
    keras = bundle.metadata.get("keras")
    version = keras.get("version") if isinstance(keras, dict) else None
    sure = tuple(t.name for t in bundle.values() if t.role == "batch_norm.std")
    found = []
    if sure:
        found.append(Finding("std-as-variance", WARNING, "", f"written by Keras {version}: {listed(sure)}", sure))
    if isinstance(keras, dict) and version is None:
        unsure = tuple(t.name for t in bundle.values() if t.role is None and t.name.endswith("running_std"))
        if unsure:
            evidence = f"the file does not name its version of Keras: {listed(unsure)}"
            found.append(Finding("std-as-variance", WARNING, "", evidence, unsure))
    return found
