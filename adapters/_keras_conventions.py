"""How Keras 1 and 2 keep each kind of weight: by version, data format and backend.

Two independent axes: the data format decides the storage order (Keras 1 only), the backend decides the flip (Theano
convolves, TensorFlow correlates). Sources: keras 1.2.2, 2.0.5 and 2.2.4 run on both backends, layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from wio.adapter import Convention
from wio.roles import PER_CHANNEL

CHANNELS_LAST, CHANNELS_FIRST = "channels_last", "channels_first"
DATA_FORMATS = (CHANNELS_LAST, CHANNELS_FIRST)
VERSIONS = ("0.3", "1.2", "2.0", "2.2")
# Layers that came with Keras 1.
_NOT_IN_0_3 = (
    "conv_transpose",
    "depthwise",
    "separable",
    "conv_lstm",
    "locally_connected",
    "layer_norm",
    "instance_norm",
)


def version_family(version: str | None) -> str:
    """Which of VERSIONS a ``keras_version`` follows. A file without that attribute is Keras 1 (keras 2.2.4 saving.py).

    0.3 stands for what came before 1.0; 2.0 for 2.0 and 2.1, where Flatten is plain; 2.2 for everything later, Keras
    3's legacy files included.
    """
    if version is None or version.startswith("1."):
        return "1.2"
    if version.startswith("0."):
        return "0.3"
    return "2.0" if version.startswith(("2.0.", "2.1.")) else "2.2"


def agreed(tables: Sequence[Convention]) -> Convention:
    """What conventions that differ in their data format have in common.

    A role whose usual layout hangs on a data format that nobody has told is left out: the user must state it.
    """
    first, *others = [table.layouts for table in tables]
    return Convention(
        {
            role: tuple(layout for layout in layouts if all(layout in other[role] for other in others))
            for role, layouts in first.items()
            if all(layouts[:1] == other[role][:1] for other in others)
        },
        tables[0].reset_after,
    )


class KerasConvention(Struct, frozen=True):
    """The convention of one Keras: ``family`` of VERSIONS, backend ``tensorflow`` or ``theano``, and data format."""

    family: str
    backend: str
    data_format: str

    @property
    def keras1(self) -> bool:
        return self.family in ("0.3", "1.2")

    @property
    def spread(self) -> str:
        """What running_std or moving_variance is: the standard deviation up to 1.0.5, the variance later."""
        return "batch_norm.std" if self.family == "0.3" else "batch_norm.variance"

    @property
    def first(self) -> bool:
        return self.data_format == CHANNELS_FIRST

    @property
    def flatten_order(self) -> str:
        """Whether the rows of a dense kernel after Flatten run C H W or H W C.

        Plain C order up to 2.1; from 2.2.0 Flatten itself moves the channels last (keras_layers core.py, Flatten).
        """
        return "CHW" if self.first and self.family != "2.2" else "HWC"

    def conv(self, letters: str) -> str:
        """The kernel of a convolution over the given spatial letters."""
        if self.keras1 and letters == "W":
            # keras 0.3.3 convolutional.py: W_shape = (nb_filter, input_dim, filter_length, 1), as in 1.0
            return self._flip("OIW1" if self.family == "0.3" else "W1IO")
        if self.keras1 and self.first:
            return self._flip(f"OI{letters}")
        return self._flip(f"{letters}IO")

    def conv_transpose(self, letters: str) -> str:
        """Keras 1 stores filters where Conv2D does; Keras 2 puts output before input."""
        if self.keras1:
            return self._flip(f"OI{letters}" if self.first else f"{letters}IO")
        return self._flip(f"{letters}OI")

    def depthwise(self, letters: str) -> str:
        """Never flipped: the Theano backend turns these itself (keras 2.2.4 theano_backend.py, separable_conv2d)."""
        return f"MC{letters}" if self.keras1 and self.first else f"{letters}CM"

    def pointwise(self, letters: str) -> str:
        return f"OI{letters}" if self.keras1 and self.first else f"{letters}IO"

    def conv_lstm(self, gates: str) -> str:
        return self._flip(f"(GO)IHW G={gates}" if self.keras1 and self.first else f"HWI(GO) G={gates}")

    def locally_connected(self, letters: str) -> str:
        if letters == "W":
            return "X(WI)O"
        return "(YX)(IHW)O" if self.first else "(YX)(HWI)O"

    def locally_connected_bias(self, letters: str) -> str:
        """Under channels_first the values run O Y X in an array shaped Y, X, O (keras <= 2.2.4, bias_add)."""
        if letters == "W":
            return "XO"
        return "YXO values=OYX" if self.first else "YXO"

    def map(self, letters: str) -> str:
        """A feature map, spatial letters ``letters``, as PReLU keeps it. 1-D maps are W C under either format."""
        return f"C{letters}" if self.first and letters != "W" else f"{letters}C"

    def flat(self, letters: str) -> str:
        """The order of a flattened map.

        Conv1D keeps its maps W C under either format, and the Flatten of 2.2 moves whatever comes first to the end.
        """
        if letters == "W":
            return "CW" if self.first and self.family == "2.2" else "WC"
        return f"C{letters}" if self.flatten_order == "CHW" else f"{letters}C"

    def separate_gates(self, role: str) -> str | None:
        """The order of the arrays of one role where each gate is an array of its own (Keras 1)."""
        kind = role.partition(".")[0]
        if not self.keras1 or kind not in ("lstm", "gru", "conv_lstm"):
            return None
        return "zrh" if kind == "gru" else "icfo"

    def table(self) -> Convention:
        """The layouts of every role. For separate gates, that of all gates joined."""
        flats = [self.flat(letters) for letters in ("HW", "W", "DHW")]
        rows = ("I", *(f"({flat})" for flat in flats), "(?)")
        vectors = ("C", *(f"({flat})" for flat in flats), "(?)")
        maps = [self.map(letters) for letters in ("HW", "W", "DHW")]
        separable = ("HW",) if self.keras1 else ("HW", "W")
        table: dict[str, tuple[str, ...]] = {
            "conv.kernel": (
                *(self.conv(letters) for letters in ("HW", "W", "DHW")),
                *(("HWI(GO)", "WI(GO)") if self._recent else ()),
            ),
            "conv_transpose.kernel": tuple(
                self.conv_transpose(letters)
                for letters in (("HW",) if self.keras1 else ("HW", "W", "DHW") if self._recent else ("HW", "DHW"))
            ),
            "depthwise.kernel": tuple(map(self.depthwise, ("HW", "W") if self._recent else ("HW",))),
            "separable.depthwise_kernel": tuple(map(self.depthwise, separable)),
            "separable.pointwise_kernel": tuple(map(self.pointwise, separable)),
            "dense.kernel": tuple(f"{row}O" for row in rows),
            "embedding.table": ("IO",),
            "prelu.alpha": (
                *maps,
                "C11" if self.first else "11C",
                "C",
                "(?)",
                *(("C1W", "CH1") if self.first else ("1WC", "H1C")),
            ),
            "rnn.kernel": tuple(f"{row}U" for row in rows),
            "rnn.recurrent_kernel": ("IU",),
            "rnn.bias": ("U",),
            "locally_connected.kernel": (self.locally_connected("HW"), self.locally_connected("W")),
            "locally_connected.bias": (self.locally_connected_bias("HW"), self.locally_connected_bias("W")),
            "maxout.kernel": tuple(f"M{row}O" for row in rows),
            "maxout.bias": ("MO",),
            "highway.kernel": ("IO",),
            "highway.carry_kernel": ("IO",),
            "highway.bias": ("O",),
            "highway.carry_bias": ("O",),
        }
        for kind in ("conv", "conv_transpose", "depthwise", "separable", "dense"):
            table[f"{kind}.bias"] = ("O",)
        table |= {role: vectors for role in PER_CHANNEL if role != "batch_norm.variance"} | {self.spread: vectors}
        for kind, gates in (("lstm", "ifco"), ("gru", "zrh")):
            table[f"{kind}.kernel"] = tuple(f"{row}(GU) G={gates}" for row in rows)
            table[f"{kind}.recurrent_kernel"] = (f"I(GU) G={gates}",)
            table[f"{kind}.bias"] = (
                (f"(GU) G={gates}", f"B(GU) G={gates}")
                if kind == "gru" and self.family == "2.2"
                else (f"(GU) G={gates}",)
            )
        table |= {f"conv_lstm.{part}": (self.conv_lstm("ifco"),) for part in ("kernel", "recurrent_kernel")}
        table["conv_lstm.bias"] = ("(GO) G=ifco",)
        table = {role: layouts for role, layouts in table.items() if not role.startswith(self._lacking)}
        return Convention.of(table, self.reset_after)

    @property
    def reset_after(self) -> dict[str, bool]:
        """Which GRU it has: with one bias that of before 2.1.3, which resets before; with two, that of cuDNN."""
        return {"one": False, "two": True} if self.family == "2.2" else {"none": False, "one": False}

    @property
    def _recent(self) -> bool:
        """Whether groups and the 1-D kinds of 2-D layers exist: from TensorFlow's own Keras 2 on, never on Theano."""
        return self.family == "2.2" and self.backend == "tensorflow"

    @property
    def _lacking(self) -> tuple[str, ...]:
        """The kinds of layers that this Keras does not have."""
        if self.family == "0.3":
            return _NOT_IN_0_3
        return ("depthwise",) if self.keras1 else ("maxout", "highway")

    def _flip(self, layout: str) -> str:
        if self.backend != "theano":
            return layout
        axes, _, rest = layout.partition(" ")
        return f"{axes} flipped {rest}".rstrip()
