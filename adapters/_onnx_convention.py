"""How ONNX keeps each role, and what wio calls its weights in a model that it makes.

Source: Operators.md of ONNX 1.23. Layouts are those of Conv, ConvTranspose, MatMul and Gemm with transB=0,
BatchNormalization, PRelu on N x C x space, LSTM, GRU and RNN; Flatten is plain C order of C x space.
"""

from __future__ import annotations

from wio.bundle import Tensor
from wio.roles import PER_CHANNEL

_ROWS = ("I", "(CHW)", "(CW)", "(CDHW)", "(?)")
_WEIGHTS = {"rnn": "U{}", "lstm": "(GU){} G=iofc", "gru": "(GU){} G=zrh"}
_BIASES = {"rnn": "(BU) B=2", "lstm": "(BGU) B=2 G=iofc", "gru": "(BGU) B=2 G=zrh"}


def _each_way(axes: str, *rows: str) -> tuple[str, ...]:
    return tuple(f"{directions}{axes.format(row)}" for directions in "1F" for row in rows or ("",))


# Of equal letters the first is what wio writes; the others are what a graph may declare just as well.
CONVENTION: dict[str, tuple[str, ...]] = {
    "conv.kernel": ("OIHW", "OIW", "OIDHW", "(GO)IHW", "(GO)IW", "(GO)IDHW"),
    "conv.bias": ("O",),
    "conv_transpose.kernel": ("IOHW", "IOW", "IODHW", "(GI)OHW", "(GI)OW", "(GI)ODHW"),
    "conv_transpose.bias": ("O",),
    "depthwise.kernel": ("(CM)1HW", "(CM)1W"),
    "depthwise.bias": ("O",),
    "separable.depthwise_kernel": ("(CM)1HW", "(CM)1W"),
    "separable.pointwise_kernel": ("OIHW", "OIW"),
    "separable.bias": ("O",),
    "dense.kernel": ("IO", "(CHW)O", "(CW)O", "(CDHW)O", "(?)O", "OI", "O(CHW)", "O(CW)", "O(CDHW)", "O(?)"),
    "dense.bias": ("O",),
    "embedding.table": ("IO",),
    **dict.fromkeys(PER_CHANNEL, ("C", "(CHW)", "(CW)", "(CDHW)", "(?)")),
    "prelu.alpha": ("CHW", "CW", "CDHW", "C11", "C1", "C1W", "CH1", "C111", "C", "(?)"),
    # One direction, or both (F); of the biases, those of the input come before the recurrent ones.
    **{f"{kind}.kernel": _each_way(axes, *_ROWS) for kind, axes in _WEIGHTS.items()},
    **{f"{kind}.recurrent_kernel": _each_way(axes, "I") for kind, axes in _WEIGHTS.items()},
    **{f"{kind}.bias": _each_way(axes) for kind, axes in _BIASES.items()},
    "lstm.peephole": _each_way("(GU) G=iof"),
}

# As torch.onnx names parameters, after the state_dict; recurrent ones are called what the operators call them.
_LEAVES = {
    "kernel": "weight",
    "table": "weight",
    "gamma": "weight",
    "alpha": "weight",
    "bias": "bias",
    "beta": "bias",
    "mean": "running_mean",
    "variance": "running_var",
    "depthwise_kernel": "depthwise.weight",
    "pointwise_kernel": "pointwise.weight",
}
_RECURRENT = {"kernel": "W", "recurrent_kernel": "R", "bias": "B", "peephole": "P"}


def spelled(tensor: Tensor) -> str:
    """The name of an initializer: ``conv1.weight``, ``bn.running_mean``, ``lstm.W``."""
    kind, _, part = str(tensor.role).partition(".")
    leaf = _RECURRENT[part] if kind in ("lstm", "gru", "rnn") else _LEAVES.get(part, part)
    return f"{tensor.layer}.{leaf}" if tensor.layer else leaf
