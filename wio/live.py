"""Weights into a model that is in memory: a Keras 3 model on any backend, or a torch module.

The model's own framework is of course there; nothing of it is imported before a model of it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from msgspec import Struct

from wio.bundle import Bundle, Tensor
from wio.errors import AdapterError, PlanError, Problem
from wio.lazy import np
from wio.plan import Plan
from wio.plugins import adapter_named
from wio.port import Declarations, Resolved, open_resolved, plan_into
from wio.second_names import with_second_names
from wio.values.arithmetic import FLOATS

# torch.nn.modules.module._EXTRA_STATE_KEY_SUFFIX: what get_extra_state gives and set_extra_state takes.
_EXTRA_STATE = "_extra_state"
_COUNTER = "num_batches_tracked"
_OWN_STATE = "extra-state"


class _Place(Struct, frozen=True):
    """What the model has under one name; ``put`` changes the model, and is given what ``made`` made of a tensor.

    ``one_with`` is the first name of the same weight, its own where it has no other; ``optional`` is whether a file
    may lack it.
    """

    one_with: str
    shape: tuple[int, ...]
    dtype: str
    made: Callable[[Tensor], Any]
    put: Callable[[Any], None]
    optional: bool = False


def load_into(
    model: Any,
    source: Path | str,
    *,
    adapter: str | None = None,
    arch: str | None = None,
    dialect: str | None = None,
    declare: Sequence[str] = (),
    drop: Sequence[str] = (),
    apply: Sequence[str] = (),
    strict: bool = True,
) -> Plan:
    """Fills a live model from a .wio file, or any readable one; gives the plan that was carried out.

    ``model`` is a Keras 3 model or a ``torch.nn.Module``; its layers are found by name. With ``strict`` every weight of
    the model is filled and every tensor of the file used, or PlanError lists all that are missing, unexpected, or of
    another shape or dtype; without, what fits is loaded. Nothing is cast but by ``apply=["cast=GLOB:DTYPE"]``, which
    takes what ``--apply`` does. All values are read and converted before the first weight of the model is changed.
    """
    told = Declarations(arch, dialect, tuple(declare), (), tuple(drop), tuple(apply))
    kinds = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    if "torch" in kinds and "keras" not in kinds:
        places, problems = _torch_places(model)
        plan = _planned(open_resolved(source, adapter, None, told), "torch", told, {})
        ready = with_second_names(plan.apply(), places)
    elif "keras" in kinds:
        options = {"keras": "2.2", "data_format": _keras_data_format(model)}
        plan = _planned(open_resolved(source, adapter, None, told), "keras-tf", told, options)
        ready = plan.apply()
        places, problems = _keras_places(model, ready), []
    else:
        raise AdapterError(f"a model of type {type(model).__name__} is neither a Keras 3 model nor a torch module")
    names = _fitting(plan, ready, places, problems, strict)
    values = {name: places[name].made(ready[name]) for name in names}
    for name, value in values.items():
        places[name].put(value)
    return plan


def _planned(resolved: Resolved, adapter: str, told: Declarations, options: Mapping[str, str]) -> Plan:
    chosen = adapter_named(adapter)
    return plan_into(resolved, chosen, chosen.checked(options, writing=True), told)


def _fitting(
    plan: Plan, ready: Bundle, places: Mapping[str, _Place], problems: Sequence[Problem], strict: bool
) -> list[str]:
    """The names that both have, in one shape and dtype.

    PlanError with everything else if ``strict``, and always for what cannot be filled at all (``problems``) and where
    one weight of the model would get two values. A state of the module's own may stay as it is.
    """
    known = {*places, *(problem.tensor for problem in problems)}
    filled = {places[name].one_with for name in ready if name in places}
    missing = [
        name for name, place in places.items() if name not in ready and place.one_with not in filled
        and not place.optional
    ]  # fmt: skip
    misfits = [Problem("missing", "the model has it, the file has not", name) for name in missing]
    misfits += [Problem("unexpected", "the model has no such weight", name) for name in ready if name not in known]
    misfits += [problem for problem in problems if problem.kind == _OWN_STATE]
    names = []
    for name, place in places.items():
        if name not in ready:
            continue
        held = ready[name]
        if held.shape != place.shape:
            misfits.append(Problem("shape", f"the file has {held.shape}, the model {place.shape}", name))
        elif held.dtype.name != place.dtype:
            what = f"the file has {held.dtype}, the model {place.dtype}"
            misfits.append(Problem("dtype", what, name, _cast(plan, name, held, place)))
        else:
            names.append(name)
    found = [problem for problem in problems if problem.kind != _OWN_STATE]
    found += [*_torn(ready, places, names), *(misfits if strict else ())]
    if found:
        count = f"{len(found)} problem{'s' if len(found) != 1 else ''}"
        raise PlanError(f"the file does not fit the model: {count}; nothing was changed", found)
    return names


def _cast(plan: Plan, name: str, held: Tensor, place: _Place) -> str:
    """How to have another dtype, where there is such a step. It is applied to what the plan's own step reads."""
    if held.dtype.name not in FLOATS or place.dtype not in FLOATS:
        return "only floating numbers are cast: give the model the file's dtype, or save the file in the model's"
    sources = [tensor.name for step in plan.steps if name in [slot.name for slot in step.slots] for tensor in step.read]
    return f"apply={[f'cast={source}:{place.dtype}' for source in sources or [name]]}"


def _torn(ready: Bundle, places: Mapping[str, _Place], names: Sequence[str]) -> list[Problem]:
    """Weights of the model that have several names, for which the file has several values."""
    problems = []
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(places[name].one_with, name)
        if other == name:
            continue
        one, two = (np.frombuffer(ready[each].stored(), np.uint8) for each in (other, name))
        if not np.array_equal(one, two):
            what = f"the model has one weight for it and {other}, the file two values"
            problems.append(Problem("tied", what, name, f"drop=['{name}'], or the other"))
    return problems


# --- torch


def _torch_places(model: Any) -> tuple[dict[str, _Place], list[Problem]]:
    """The model's state_dict, and what stands there that cannot be filled."""
    import torch

    places: dict[str, _Place] = {}
    problems: list[Problem] = []
    first: dict[object, str] = {}
    for name, value in model.state_dict().items():
        leaf = name.rpartition(".")[2]
        if leaf == _EXTRA_STATE or not isinstance(value, torch.Tensor):
            what = "is state of the module's own making (get_extra_state), which is set by its code, not by wio"
            problems.append(Problem(_OWN_STATE, what, name, "strict=False loads the rest and leaves it as it is"))
        elif torch.nn.parameter.is_lazy(value):
            what = "has no shape before the lazy module has seen an input"
            problems.append(Problem("lazy", what, name, "run the model once on an input, then load"))
        elif value.is_meta:
            what = "is on the meta device, which holds no values"
            problems.append(Problem("meta", what, name, "model.to_empty(device='cpu') first"))
        elif value.layout != torch.strided:
            problems.append(Problem("unsupported", f"is a tensor of layout {value.layout}", name))
        else:
            same = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
            one_with = first.setdefault(same if value.numel() else name, name)
            places[name] = _Place(
                one_with, tuple(value.shape), str(value.dtype).removeprefix("torch."), _torch_made(value),
                _torch_put(value), leaf == _COUNTER,
            )  # fmt: skip
    return places, problems


def _torch_made(value: Any) -> Callable[[Tensor], Any]:
    """Its dtype by its bits: PyTorch takes no array of a dtype that NumPy itself lacks (bfloat16, float8)."""

    def made(tensor: Tensor) -> Any:
        import torch

        if not tensor.size:
            return torch.empty(tensor.shape, dtype=value.dtype)
        return torch.frombuffer(bytearray(tensor.stored()), dtype=value.dtype).reshape(tensor.shape)

    return made


def _torch_put(value: Any) -> Callable[[Any], None]:
    def put(made: Any) -> None:
        import torch

        with torch.no_grad():
            value.copy_(made)

    return put


# --- Keras


def _keras_places(model: Any, ready: Bundle) -> dict[str, _Place]:
    keras: Any = import_module("keras")

    def place(name: str, variable: Any) -> _Place:
        dtype = keras.backend.standardize_dtype(variable.dtype)
        # What convert_to_tensor refuses must be refused before the first variable is assigned.
        return _Place(
            name, tuple(variable.shape), dtype,
            lambda tensor: keras.ops.convert_to_tensor(tensor.numpy(), dtype=dtype), variable.assign,
        )  # fmt: skip

    return {name: place(name, variable) for name, variable in _keras_variables(model, ready).items()}


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
