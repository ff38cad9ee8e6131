"""The adapter `torch`: files of ``torch.save`` (zip and legacy), shards, and TorchScript archives, without PyTorch.

A tensor's name is its key in the state_dict, keys of nested dictionaries and indices of lists joined by ``.``. No file
of PyTorch says what a tensor is to its layer, so none has a role.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from wio.adapter import Adapter, Convention, Option, Slot, Target
from wio.bundle import Bundle, Tensor
from wio.errors import Problem
from wio.recurrent import RecurrentLayers, is_recurrent
from wio.roles import NOT_WEIGHTS, PER_CHANNEL, same_axes
from wio.target import plain_target

# torch.nn: the documented shapes of weight and bias of each module; Conv*d correlates. torch.flatten of N C H W gives
# C H W. A depthwise kernel is that of a grouped convolution with groups = in_channels, out_channels = M * in_channels.
_ROWS = ("I", "(CHW)", "(CW)", "(CDHW)", "(?)")
_UNITS = {"lstm": "(GU){} G=ifco", "gru": "(GU){} G=rzh", "rnn": "U{}"}
_BIASES = {"input_bias": "bias_ih", "recurrent_bias": "bias_hh"}
_CONVENTION: dict[str, tuple[str, ...]] = {
    "conv.kernel": ("OIHW", "OIW", "OIDHW", "(GO)IHW", "(GO)IW", "(GO)IDHW"),
    "conv.bias": ("O",),
    "conv_transpose.kernel": ("IOHW", "IOW", "IODHW", "(GI)OHW", "(GI)OW", "(GI)ODHW"),
    "conv_transpose.bias": ("O",),
    "depthwise.kernel": ("(CM)1HW", "(CM)1W"),
    "depthwise.bias": ("O",),
    "separable.depthwise_kernel": ("(CM)1HW", "(CM)1W"),
    "separable.pointwise_kernel": ("OIHW", "OIW"),
    "separable.bias": ("O",),
    "dense.kernel": ("OI", "O(CHW)", "O(CW)", "O(CDHW)", "O(?)"),
    "dense.bias": ("O",),
    "embedding.table": ("IO",),
    **dict.fromkeys(PER_CHANNEL, ("C", "(CHW)", "(CW)", "(CDHW)", "(?)")),
    "prelu.alpha": ("C", "(?)"),
    # torch.nn.LSTM, GRU, RNN: the shapes of weight_ih_l[k] and so on; gates i f g o and r z n; both biases are added.
    **{f"{kind}.kernel": tuple(units.format(row) for row in _ROWS) for kind, units in _UNITS.items()},
    **{f"{kind}.recurrent_kernel": (units.format("I"),) for kind, units in _UNITS.items()},
    **{f"{kind}.{part}": (units.format(""),) for kind, units in _UNITS.items() for part in _BIASES},
}
_LEAVES = {
    "bias": "bias",
    "beta": "bias",
    "mean": "running_mean",
    "variance": "running_var",
    # PyTorch has no separable layer: its ports are two convolutions in a row.
    "depthwise_kernel": "depthwise.weight",
    "pointwise_kernel": "pointwise.weight",
}
_RECURRENT_LEAVES = {"kernel": "weight_ih", "recurrent_kernel": "weight_hh", **_BIASES}
# torch.nn.GRU: n = tanh(W_in x + b_in + r * (W_hn h + b_hn)), the reset gate after the recurrent product.
_RESET_AFTER = {"none": True, "two": True}


class TorchFile(Adapter):
    """Files of ``torch.save``, zip and legacy, ``*.bin.index.json``, TorchScript; written as a zip state_dict."""

    name = "torch"
    description = "PyTorch state_dicts (zip, legacy, sharded) and TorchScript archives; writes zip state_dicts"
    writes = True
    suffix = ".pt"
    options = (
        Option(
            "checksums",
            "whether the CRC-32 of zip members is verified as they are read",
            ("verify", "ignore"),
            "verify",
            reading=True,
        ),
        Option(
            "shared",
            "whether a tensor of several names is kept once, under the first of them, or under each",
            ("once", "all"),
            "once",
            reading=True,
        ),
    )

    def sniff(self, path: Path) -> int:
        if not path.is_file():
            return 0
        from wio.adapters._torch_read import is_torch

        return 20 if is_torch(path) else 0

    def companions(self, path: Path) -> tuple[str, ...]:
        from wio.adapters._shards import names_beside

        return names_beside(path)

    def read(self, path: Path, **options: str) -> Bundle:
        from wio.adapters._torch_read import read

        told = self.checked(options, writing=False)
        return read(path, check=told["checksums"] == "verify", aliases=told["shared"] == "all")

    def convention(self, **options: str) -> Convention:
        self.checked(options, writing=True)
        return Convention.of(_CONVENTION, _RESET_AFTER)

    def target(self, bundle: Bundle, **options: str) -> Target:
        """A flat state_dict. What came from PyTorch keeps its names, and what was not declared passes as it is."""
        from wio.adapters._torch_pickle import WRITABLE

        convention = self.convention(**options)
        target = _kept(bundle, convention) if "torch" in bundle.metadata else _made(bundle, convention)
        taken = {name for name in bundle if name not in target.dropped}
        wrong = tuple(
            Problem("dtype", f"PyTorch has no dtype {tensor.dtype}", name, f"--drop '{name}'")
            for name, tensor in bundle.items()
            if name in taken and tensor.dtype.name not in WRITABLE
        )
        return replace(target, problems=(*target.problems, *wrong))

    def write(self, path: Path, bundle: Bundle, **options: str) -> None:
        from wio.adapters._torch_write import write_state_dict

        self.checked(options, writing=True)
        write_state_dict(path, bundle)


def _kept(bundle: Bundle, convention: Convention) -> Target:
    """The road back into the format: only what was rearranged on the way is taken back to PyTorch's layouts."""
    about = dict(bundle.metadata["torch"])
    names = bundle.metadata.get("names", {})
    moved = {t.name for t in bundle.values() if not _as_torch_has_it(t, convention)}
    rest = plain_target(bundle.select(tuple(map(_literal, moved))) if moved else Bundle(()), convention, _own_name, {})
    made = dict(zip([name for name in bundle if name in moved and name not in rest.dropped], rest.slots, strict=False))
    slots, problems = [], list(rest.problems)
    for tensor in bundle.values():
        if tensor.name not in moved:
            name = names.get(tensor.name) or _own_name(tensor)
            why = "the target keeps it as the source does"
            slots.append(
                Slot(name, tensor.role, tensor.layout, tensor.layer, tensor.layer, None, why, copy_of=tensor.name)
            )
        elif tensor.name in made:
            slots.append(made[tensor.name])
    made_names = [slot.name for slot in slots]
    twice = (
        sorted({name for name in made_names if made_names.count(name) > 1}) if len(set(made_names)) < len(slots) else []
    )
    problems += [Problem("twice", "two tensors would have this name", name) for name in twice]
    notes = [] if moved else ["source and target follow one convention: nothing is rearranged"]
    if about.get("other"):
        notes.append(f"{len(about['other'])} values that are no tensors are not written: a state_dict holds tensors")
    if bundle.metadata["torch"].get("kind") == "torchscript":
        notes.append("the code of the TorchScript archive is not written: a state_dict holds tensors")
    return Target(tuple(slots), dict(bundle.metadata), rest.dropped, tuple(problems), tuple(notes))


def _as_torch_has_it(tensor: Tensor, convention: Convention) -> bool:
    if tensor.layout is None or tensor.role is None or tensor.role in NOT_WEIGHTS:
        return True
    return same_axes(tensor.layout, convention.layouts.get(tensor.role, ())) == tensor.layout


def _own_name(tensor: Tensor) -> str:
    return tensor.origin or tensor.name


def _literal(name: str) -> str:
    """A glob that matches one name only."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _made(bundle: Bundle, convention: Convention) -> Target:
    notes = ["names are those of torch.nn modules; load_state_dict wants the path of each module before them"]
    if any(t.role in ("batch_norm.mean", "batch_norm.variance") for t in bundle.values()):
        held = any(name.endswith("num_batches_tracked") for name in bundle)
        why = "it counts steps and is no weight" if held else "no source has it"
        notes.append(
            f"num_batches_tracked of batch norms is left out: {why}, and without _metadata in the file "
            "load_state_dict(strict=True) does not ask for it (torch.nn.modules.batchnorm, version < 2)"
        )
    metadata: Mapping[str, Any] = {"torch": {"kind": "zip"}}
    layers = RecurrentLayers.of(bundle)
    return plain_target(bundle, convention, lambda tensor: _spelled(tensor, layers), metadata, tuple(notes))


def _spelled(tensor: Tensor, layers: RecurrentLayers) -> str:
    """``layer.weight`` and so on, the ``/`` of a layer's path turned into ``.``."""
    if is_recurrent(tensor.role):
        return _recurrent(tensor, layers)
    part = (tensor.role or "").partition(".")[2]
    leaf = _LEAVES.get(part, "weight")
    if tensor.role == "separable.bias":
        leaf = "pointwise.bias"
    return _under(tensor.layer, leaf)


def _under(layer: str, leaf: str) -> str:
    return f"{layer.replace('/', '.')}.{leaf}" if layer else leaf


def _recurrent(tensor: Tensor, layers: RecurrentLayers) -> str:
    """``lstm.weight_ih_l0``; ``lstm.weight_ih_l1_reverse`` for the backward direction of a second, stacked layer."""
    home = layers.home(tensor.layer)
    module, level = layers.stacked(layers.whole(tensor.layer))
    leaf = _RECURRENT_LEAVES[(tensor.role or "").partition(".")[2]]
    return _under(module, f"{leaf}_l{level}{'_reverse' if home is not None and home[1] else ''}")
