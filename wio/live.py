"""Weights into a model that is in memory: a Keras 3 model on any backend, or a torch module.

The model's own framework is of course there; nothing of it is imported before a model of it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wio.bundle import Bundle
from wio.errors import AdapterError, PlanError, Problem
from wio.lazy import Array
from wio.plan import Plan
from wio.plugins import adapter_named
from wio.port import Declarations, Resolved, open_resolved, plan_into


def load_into(
    model: Any,
    source: Path | str,
    *,
    adapter: str | None = None,
    arch: str | None = None,
    dialect: str | None = None,
    declare: Sequence[str] = (),
    drop: Sequence[str] = (),
    strict: bool = True,
) -> Plan:
    """Fills a live model from a .wio file, or any readable one; gives the plan that was carried out.

    ``model`` is a Keras 3 model or a ``torch.nn.Module``; its layers are found by name. With ``strict`` every weight of
    the model is filled and every tensor of the file used, or PlanError lists all that are missing, unexpected or of
    another shape and nothing is changed; without, what fits is loaded.
    """
    told = Declarations(arch, dialect, tuple(declare), (), tuple(drop))
    resolved = open_resolved(source, adapter, None, told)
    kinds = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    if "torch" in kinds and "keras" not in kinds:
        plan, ready = _planned(resolved, "torch", told, {})
        wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        fitting = _checked(ready, wanted, strict, optional=("num_batches_tracked",))
        _fill_torch(model, {name: ready[name].numpy() for name in fitting})
        return plan
    if "keras" in kinds:
        plan, ready = _planned(resolved, "keras-tf", told, {"keras": "2.2", "data_format": _keras_data_format(model)})
        variables = _keras_variables(model, ready)
        fitting = _checked(ready, {name: tuple(v.shape) for name, v in variables.items()}, strict)
        values = {name: ready[name].numpy() for name in fitting}
        for name, value in values.items():
            variables[name].assign(value)
        return plan
    raise AdapterError(f"a model of type {type(model).__name__} is neither a Keras 3 model nor a torch module")


def _planned(resolved: Resolved, adapter: str, told: Declarations, options: Mapping[str, str]) -> tuple[Plan, Bundle]:
    chosen = adapter_named(adapter)
    plan = plan_into(resolved, chosen, chosen.checked(options, writing=True), told)
    return plan, plan.apply()


def _checked(
    ready: Bundle, wanted: Mapping[str, tuple[int, ...]], strict: bool, optional: tuple[str, ...] = ()
) -> list[str]:
    """The names that both have, in one shape. PlanError with everything else, if ``strict``."""
    missing = [name for name in wanted if name not in ready and not name.endswith(optional or ("\0",))]
    problems = [Problem("missing", "the model has it, the file has not", name) for name in missing]
    problems += [Problem("unexpected", "the model has no such weight", name) for name in ready if name not in wanted]
    misfits = [name for name in wanted if name in ready and ready[name].shape != wanted[name]]
    problems += [
        Problem("shape", f"the file has {ready[name].shape}, the model {wanted[name]}", name) for name in misfits
    ]
    if problems and strict:
        raise PlanError(f"the file does not fit the model: {len(problems)} problems; nothing was changed", problems)
    return [name for name in wanted if name in ready and name not in misfits]


def _fill_torch(model: Any, values: Mapping[str, Array]) -> None:
    import torch

    state = model.state_dict()
    with torch.no_grad():
        for name, array in values.items():
            state[name].copy_(torch.from_numpy(array.copy()))


def _keras_data_format(model: Any) -> str:
    """The data format of the model's layers, which decides what Flatten gives to a dense layer."""
    formats = {getattr(layer, "data_format", None) for layer in model.layers} - {None}
    if len(formats) > 1:
        raise AdapterError("the model mixes channels_first and channels_last layers; load its parts one by one")
    return str(formats.pop()) if formats else "channels_last"


def _keras_variables(model: Any, ready: Bundle) -> dict[str, Any]:
    """The model's variables by the names that the plan gives them.

    Within a layer a variable's own name (kernel, bias, gamma, ...) says which it is, and where the layer holds several
    (Bidirectional, nested models) the one inside that has it. Where all of those are called otherwise in the file,
    order decides, which is Keras's in the plan too: trained ones first. If their numbers differ, none of that name is
    matched.
    """
    planned = {layer["name"]: layer["tensors"] for layer in ready.metadata["layers"]}
    found: dict[str, Any] = {}
    for layer in model.layers:
        names: dict[tuple[str, str], list[str]] = {}
        for name in planned.get(layer.name, []):
            names.setdefault(_place(ready, name, layer.name), []).append(name)
        owners = {id(variable): owner for owner, variable in _owned(layer, layer.name)}
        variables: dict[tuple[str, str], list[Any]] = {}
        for variable in [*layer.trainable_weights, *layer.non_trainable_weights]:
            variables.setdefault((owners.get(id(variable), layer.name), variable.name), []).append(variable)
        if not {owner for owner, _ in names} & {owner for owner, _ in variables}:
            names, variables = _by_leaf(names), _by_leaf(variables)
        for place, members in variables.items():
            matched = names.get(place, [])
            if len(matched) != len(members):
                missing = f"{place[0] or layer.name}/{place[1]}"
                matched = [missing + (f" ({k})" if k else "") for k in range(len(members))]
            found.update(zip(matched, members, strict=True))
    return found


def _place(ready: Bundle, name: str, group: str) -> tuple[str, str]:
    """The layer that has a planned tensor, and the name that Keras 3 gives it there."""
    tensor = ready.get(name)
    owner, _, leaf = name.rpartition("/")
    if tensor is None:
        return owner, leaf
    # Keras 2 says depthwise_kernel, Keras 3 kernel. Weights without a config are the group's: their names tell more.
    return owner if tensor.layer == group else tensor.layer, "kernel" if tensor.role == "depthwise.kernel" else leaf


def _owned(layer: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every variable of a layer with the path of the layer that has it: ``block/conv``, ``bi/forward_lstm``."""
    held = getattr(layer, "layers", None)
    if held is None:
        held = [getattr(layer, key) for key in ("layer", "forward_layer", "backward_layer") if hasattr(layer, key)]
    for each in held:
        yield from _owned(each, f"{path}/{each.name}")
    if not held:
        yield from ((path, variable) for variable in layer.weights)


def _by_leaf(places: Mapping[tuple[str, str], list[Any]]) -> dict[tuple[str, str], list[Any]]:
    found: dict[tuple[str, str], list[Any]] = {}
    for (_, leaf), members in places.items():
        found.setdefault(("", leaf), []).extend(members)
    return found
