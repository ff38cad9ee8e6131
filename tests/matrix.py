"""Every format into every other: networks that real frameworks saved, converted, loaded and run by real frameworks.

A source is a network saved by its own framework, with what that computed; where a format does not say what its arrays
are, it is declared. A target is loaded strictly, into weights that were NaN or others before, and computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from keras3_judge import keras, save
from keras_judge import THEANO_1, THEANO_2, TOLERANCE, Court, Judge, Saved, Tag, model_config
from matrix_networks import (
    NETWORKS,
    Array,
    TorchNetwork,
    assign,
    caffe_network,
    caffe_output,
    empty_model,
    given,
    keras_model,
    keras_output,
    onnx_network,
    onnx_output,
    restore_checkpoint,
    save_checkpoint,
    torch_output,
    variables,
)

import wio
from wio.errors import WioError
from wio.port import Declarations, export, import_into

NONE = Declarations()


@dataclass(frozen=True)
class Source:
    """A network in a file, the words that open it, its input and what its framework computed."""

    path: Path
    x: Array
    y: Array
    told: Declarations = NONE
    adapter: str | None = None


# --- what is declared of files that do not say it

_TENSORFLOW = {
    "conv/kernel": "conv.kernel:HWIO",
    "conv/bias": "conv.bias:O",
    **{f"norm/{part}": f"batch_norm.{part}:C" for part in ("gamma", "beta")},
    **{f"norm/moving_{part}": f"batch_norm.{part}:C" for part in ("mean", "variance")},
    "up/kernel": "conv_transpose.kernel:HWOI",
    "up/bias": "conv_transpose.bias:O",
    "deep/depthwise_kernel": "depthwise.kernel:HWCM",
    "deep/bias": "depthwise.bias:O",
    "embed/embeddings": "embedding.table:IO",
    **{f"lstm/{part}": f"lstm.{part}:I(GU) G=ifco" for part in ("kernel", "recurrent_kernel")},
    "lstm/bias": "lstm.bias:(GU) G=ifco",
    **{f"gru/{part}": f"gru.{part}:I(GU) G=zrh" for part in ("kernel", "recurrent_kernel")},
    "dense/bias": "dense.bias:O",
}
_TORCH = {
    "conv.weight": "conv.kernel:OIHW",
    "conv.bias": "conv.bias:O",
    "norm.weight": "batch_norm.gamma:C",
    "norm.bias": "batch_norm.beta:C",
    "norm.running_mean": "batch_norm.mean:C",
    "norm.running_var": "batch_norm.variance:C",
    "norm.num_batches_tracked": "counter",
    "up.weight": "conv_transpose.kernel:IOHW",
    "up.bias": "conv_transpose.bias:O",
    "deep.weight": "depthwise.kernel:(CM)1HW C=3 M=2",
    "deep.bias": "depthwise.bias:O",
    "embed.weight": "embedding.table:IO",
    **{
        f"{kind}.{leaf}_l0": f"{kind}.{part}:{axes} G={gates}"
        for kind, gates in (("lstm", "ifco"), ("gru", "rzh"))
        for leaf, part, axes in (
            ("weight_ih", "kernel", "(GU)I"),
            ("weight_hh", "recurrent_kernel", "(GU)I"),
            ("bias_ih", "input_bias", "(GU)"),
            ("bias_hh", "recurrent_bias", "(GU)"),
        )
    },
    "dense.bias": "dense.bias:O",
}
_SIZES = {"maps": "H=7 W=6 C=4", "depthwise": "H=5 W=5 C=6"}


def declared(network: str, names: list[str], *, of_torch: bool) -> Declarations:
    """What the arrays of a network are: in the names and layouts of TensorFlow, or in those of PyTorch."""
    roles = dict(_TORCH if of_torch else _TENSORFLOW)
    sizes = _SIZES.get(network)
    rows = "(CHW)" if of_torch else "(HWC)"
    axes = (f"O{rows}" if of_torch else f"{rows}O") if sizes else "OI" if of_torch else "IO"
    roles["dense.weight" if of_torch else "dense/kernel"] = f"dense.kernel:{axes} {sizes or ''}".rstrip()
    if network == "gru_after":
        roles["gru/bias"] = "gru.bias:B(GU) G=zrh"
    else:
        roles["gru/bias"] = "gru.bias:(GU) G=zrh"
    facts = {"gru_before": ["gru[./]*=gru.reset_before"], "gru_after": ["gru[./]*=gru.reset_after"]}.get(network, [])
    return Declarations(declare=(*(f"{name}={roles[name]}" for name in names), *facts))


# --- sources


def _by_keras(network: str, path: Path) -> Source:
    model, x = keras_model(network), given(network)
    return Source(save(model, path), x, keras_output(model, x))


def _checkpoint(network: str, folder: Path) -> Source:
    model, x = keras_model(network), given(network)
    save_checkpoint(model, folder / "m.ckpt")
    told = declared(network, list(variables(model)), of_torch=False)
    return Source(folder / "m.ckpt", x, keras_output(model, x), told)


def _numpy(network: str, folder: Path) -> Source:
    model, x = keras_model(network), given(network)
    arrays = {name: np.asarray(variable) for name, variable in variables(model).items()}
    np.savez(folder / "m.npz", **arrays)
    return Source(folder / "m.npz", x, keras_output(model, x), declared(network, list(arrays), of_torch=False))


def _torch(network: str, folder: Path) -> Source:
    module, x = TorchNetwork(network, 1), given(network)
    torch.save(module.state_dict(), folder / "m.pt")
    told = declared(network, list(module.state_dict()), of_torch=True)
    return Source(folder / "m.pt", x, torch_output(module, x), told)


def _safetensors(network: str, folder: Path) -> Source:
    module, x = TorchNetwork(network, 1), given(network)
    safetensors.torch.save_file(module.state_dict(), folder / "m.safetensors")
    told = declared(network, list(module.state_dict()), of_torch=True)
    return Source(folder / "m.safetensors", x, torch_output(module, x), told)


def _depthwise(network: str) -> tuple[str, ...]:
    """ONNX and Caffe say that a convolution has as many groups as channels: that it is a depthwise one is declared."""
    told = ("deep?weight=depthwise.kernel:(CM)1HW C=3 M=2", "deep?bias=depthwise.bias:O")
    return told if network == "depthwise" else ()


def _onnx(network: str, folder: Path) -> Source:
    path, x = onnx_network(network, folder, "m.onnx", 1), given(network)
    # The axis that a Squeeze takes away is an array of the model, and no weight.
    drop = () if network in ("maps", "depthwise") else ("first",)
    return Source(path, x, onnx_output(path, x), Declarations(declare=_depthwise(network), drop=drop))


def _caffe(network: str, folder: Path) -> Source:
    path, x = caffe_network(network, folder / "m.caffemodel"), given(network)
    return Source(path, x, caffe_output(path, network, x), Declarations(declare=_depthwise(network)))


def _wio(network: str, folder: Path) -> Source:
    """What Keras 3 saved, every array in its neutral layout."""
    source = _by_keras(network, folder / "m.keras")
    export(source.path, folder / "m.wio", layout="neutral")
    return Source(folder / "m.wio", source.x, source.y)


Make = Callable[[str, Path], Source]
SOURCES: dict[str, Make] = {
    "tf-checkpoint": _checkpoint,
    "keras-tf": lambda network, folder: _by_keras(network, folder / "m.h5"),
    "keras3": lambda network, folder: _by_keras(network, folder / "m.keras"),
    "onnx": _onnx,
    "torch": _torch,
    "caffe": _caffe,
    "safetensors": _safetensors,
    "numpy": _numpy,
    "wio": _wio,
}
# Keras 2.2.4 and 1.2.2, which save in processes of their own.
MAKERS = {
    "k224_th_last": ("keras-theano 2.2", THEANO_2),
    "k224_th_first": ("keras-theano 2.2", THEANO_2),
    "k122_th_last": ("keras-theano 1.2", THEANO_1),
    "k122_th_first": ("keras-theano 1.2", THEANO_1),
}


def sources(folder: Path) -> dict[tuple[str, str, str], Source]:
    """Every network as every framework saved it, by format, variant and network."""
    found = {}
    for name, make in SOURCES.items():
        for network in NETWORKS:
            if network in held_by(name):
                place = folder / name / network
                place.mkdir(parents=True)
                found[name, "", network] = make(network, place)
    for tag, (name, judge) in MAKERS.items():
        judge.run(["--generate", str(folder / tag), "--matrix", "--data-format", Tag(tag).data_format], folder)
        for network in NETWORKS:
            if network in held_by(name):
                made = Saved(Tag(tag), network, folder / tag)
                found[name, tag, network] = Source(made.full, *made.recorded(), adapter="keras-theano")
    return found


# --- targets


def _into(source: Source, out: Path, adapter: str, **options: str) -> Path:
    import_into(source.path, out, adapter=adapter, options=options, source_adapter=source.adapter, told=source.told)
    return out


def _to_checkpoint(source: Source, network: str, folder: Path) -> Array:
    model = empty_model(network)
    restore_checkpoint(model, _into(source, folder / "o.ckpt", "tf-checkpoint"))
    return keras_output(model, source.x)


def _to_keras_tf(source: Source, network: str, folder: Path) -> Array:
    model = empty_model(network)
    model.load_weights(_into(source, folder / "o.h5", "keras-tf"), by_name=True)
    return keras_output(model, source.x)


def _to_keras3(source: Source, network: str, folder: Path) -> Array:
    template = save(empty_model(network), folder / "template.keras")
    out = _into(source, folder / "o.keras", "keras3", template=str(template))
    return keras_output(keras().saving.load_model(out), source.x)


def _to_onnx(source: Source, network: str, folder: Path) -> Array:
    template = onnx_network(network, folder, "template.onnx")
    return onnx_output(_into(source, folder / "o.onnx", "onnx", template=str(template)), source.x)


def _to_torch(source: Source, network: str, folder: Path) -> Array:
    state = torch.load(_into(source, folder / "o.pt", "torch"), weights_only=True)
    module = TorchNetwork(network)
    module.load_state_dict(state)
    return torch_output(module, source.x)


def _to_caffe(source: Source, network: str, folder: Path) -> Array:
    return caffe_output(_into(source, folder / "o.caffemodel", "caffe"), network, source.x)


def _to_safetensors(source: Source, network: str, folder: Path) -> Array:
    """The format keeps any names and layouts: here those of PyTorch, which loads it."""
    pt = _into(source, folder / "o.pt", "torch")
    import_into(pt, folder / "o.safetensors", adapter="safetensors")
    module = TorchNetwork(network)
    state = safetensors.torch.load_file(folder / "o.safetensors")
    # safetensors has no place for the version of a module, by which torch.load knows that nothing counted batches.
    counts = {name: value for name, value in module.state_dict().items() if name.endswith("num_batches_tracked")}
    module.load_state_dict({**counts, **state})
    return torch_output(module, source.x)


def _to_numpy(source: Source, network: str, folder: Path) -> Array:
    """The format keeps any names and layouts: here those of TensorFlow, whose variables are given the arrays."""
    prefix = _into(source, folder / "o.ckpt", "tf-checkpoint")
    import_into(prefix, folder / "o.npz", adapter="numpy")
    model = empty_model(network)
    with np.load(folder / "o.npz") as arrays:
        assign(model, dict(arrays))
    return keras_output(model, source.x)


def _to_wio(source: Source, network: str, folder: Path) -> Array:
    """Read by wio alone: into a live Keras 3 model."""
    export(source.path, folder / "o.wio", adapter=source.adapter, told=source.told, layout="neutral")
    model = empty_model(network)
    wio.load_into(model, folder / "o.wio")
    return keras_output(model, source.x)


TARGETS: dict[str, Callable[[Source, str, Path], Array]] = {
    "tf-checkpoint": _to_checkpoint,
    "keras-tf": _to_keras_tf,
    "keras3": _to_keras3,
    "onnx": _to_onnx,
    "torch": _to_torch,
    "caffe": _to_caffe,
    "safetensors": _to_safetensors,
    "numpy": _to_numpy,
    "wio": _to_wio,
}
# Judged together, each by one process. What is for Keras 2.2 on TensorFlow, channels first, Theano loads too: Keras
# 2.2.4 turns the kernels around itself. TensorFlow has no convolution of channels first on a CPU.
JUDGED: dict[str, tuple[str, Judge]] = {
    "k224_tf_first": ("keras-tf", THEANO_2),
    **MAKERS,
}
FORMATS = (
    "tf-checkpoint", "keras-tf", "keras-theano 2.2", "keras-theano 1.2", "keras3", "onnx", "torch", "caffe",
    "safetensors", "numpy", "wio",
)  # fmt: skip


# --- what cannot be


@dataclass(frozen=True)
class Reason:
    """Why a format cannot hold a network: ``why`` in a few words, and ``error``, what wio says of it."""

    why: str
    error: str


_NO_RECURRENT = {
    network: Reason("Caffe's layers here are not recurrent", f"the format has no {kind}.kernel in layout ")
    for network, kind in (("lstm", "lstm"), ("gru_before", "gru"), ("gru_after", "gru"))
}
_BEFORE = Reason(
    "PyTorch's GRU resets after the recurrent product",
    "GRU 'gru' resets before the recurrent product, the format only after",
)
CANNOT: dict[tuple[str, str], Reason] = {
    ("torch", "gru_before"): _BEFORE,
    ("safetensors", "gru_before"): _BEFORE,
    ("keras-theano 1.2", "gru_after"): Reason(
        "Keras 1's GRU resets before the recurrent product",
        "resets after the recurrent product, Keras 1.2 only before it",
    ),
    ("keras-theano 1.2", "depthwise"): Reason(
        "Keras 1 has no depthwise layer", "Keras 1.2 has no layer with a depthwise.kernel"
    ),
    **{("caffe", network): reason for network, reason in _NO_RECURRENT.items()},
}


def held_by(name: str) -> set[str]:
    """The networks that a format can hold."""
    return {network for network in NETWORKS if (name, network) not in CANNOT}


def reasons() -> dict[tuple[str, str], str]:
    """Why a format does not hold a network, in a few words."""
    return {place: reason.why for place, reason in CANNOT.items()}


# --- the matrix


@dataclass
class Cell:
    """What became of the networks of a source in a target: what wio said where it refused, what is wrong where not."""

    converted: set[str] = field(default_factory=set)
    refused: dict[str, list[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def matrix(folder: Path) -> Mapping[tuple[str, str], Cell]:
    """Every ordered pair of formats, by their names in ``FORMATS``. Takes about a minute."""
    cells = {(source, target): Cell() for source in FORMATS for target in FORMATS}
    courts = {judge.name: Court(judge, folder / f"court{place}") for place, judge in enumerate((THEANO_1, THEANO_2))}
    made = sources(folder / "sources")
    waiting: list[tuple[Cell, str, Court, str]] = []
    for (name, variant, network), source in made.items():
        for target, load in TARGETS.items():
            cell, case = cells[name, target], f"{network} of {name} {variant} in {target}"
            try:
                y = load(source, network, _new(folder / "out" / case))
            except WioError as error:
                cell.refused.setdefault(network, []).append(str(error))
                continue
            except Exception as error:  # the report carries whatever the framework raises
                cell.wrong.append(f"{case}: {type(error).__name__}: {error}")
                continue
            cell.converted.add(network)
            off = np.abs(y - source.y).max() if y.shape == source.y.shape else np.inf
            if not off <= TOLERANCE:
                cell.wrong.append(f"{case}: off by {off}")
        for tag, (target, judge) in JUDGED.items():
            cell, case = cells[name, target], f"{network} of {name} {variant} in {tag}"
            out = _new(folder / "out" / case) / "o.h5"
            try:
                _into(source, out, Tag(tag).adapter, **Tag(tag).options)
            except WioError as error:
                cell.refused.setdefault(network, []).append(str(error))
                continue
            own = tag.replace("_tf_", "_th_")
            config = model_config(folder / "sources" / own / f"{network}.full.h5")
            courts[judge.name].add(case, "by_name", out, config, _recorded(source, case, folder), Tag(tag).first)
            waiting.append((cell, network, courts[judge.name], case))
    for court in courts.values():
        court.sit()
    for cell, network, court, case in waiting:
        cell.converted.add(network)
        if text := court.verdict(case):
            cell.wrong.append(text)
    return cells


def refusals(cells: Mapping[tuple[str, str], Cell]) -> dict[tuple[str, str], tuple[str, ...]]:
    """The networks that wio refused to convert."""
    return {pair: tuple(network for network in NETWORKS if network in cell.refused) for pair, cell in cells.items()}


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _recorded(source: Source, case: str, folder: Path) -> Saved:
    """Input and output of a source where a court looks for them."""
    name = case.replace(" ", "_")
    np.savez(folder / f"{name}.npz", x=source.x, y=source.y)
    return Saved(Tag("any"), name, folder)
