"""The closed list of roles: what a tensor is to its layer, and each role's neutral layouts.

A role has one neutral layout for each set of axes that it may have (1-D, 2-D, grouped, flattened, ...). Which of
them applies follows from the letters of the declared layout, never from a shape.
"""

from __future__ import annotations

from functools import cache, lru_cache

from wio.errors import LayoutError
from wio.layout import Layout

# One number for each channel. Formats that flatten maps otherwise keep these otherwise too, all of them alike.
PER_CHANNEL = (
    *(f"batch_norm.{part}" for part in ("gamma", "beta", "mean", "variance")),
    *(f"{kind}.{part}" for kind in ("layer_norm", "instance_norm") for part in ("gamma", "beta")),
)
# What comes in: features, or a flattened map (also at each step of a recurrent layer).
_ROWS = ("I", "(HWC)", "(WC)", "(DHWC)", "(?)")


def _recurrent(units: str, gates: str = "") -> dict[str, tuple[str, ...]]:
    """The weights of a recurrent layer, ``units`` being the axis of what it gives out."""

    def layouts(*axes: str) -> tuple[str, ...]:
        return tuple(f"{each}{units} {gates}".rstrip() for each in axes)

    return {
        "kernel": layouts(*_ROWS, *(f"F{row}" for row in _ROWS)),
        "recurrent_kernel": layouts("I", "FI"),
        "bias": layouts("", "B", "F", "FB"),
        "input_bias": layouts("", "F"),
        "recurrent_bias": layouts("", "F"),
    }


_NEUTRAL: dict[str, tuple[str, ...]] = {
    "conv.kernel": ("WIO", "HWIO", "DHWIO", "WI(GO)", "HWI(GO)", "DHWI(GO)"),
    "conv.bias": ("O",),
    "conv_transpose.kernel": ("WOI", "HWOI", "DHWOI", "WO(GI)", "HWO(GI)", "DHWO(GI)"),
    "conv_transpose.bias": ("O",),
    "depthwise.kernel": ("WCM", "HWCM"),
    "depthwise.bias": ("O",),
    "separable.depthwise_kernel": ("WCM", "HWCM"),
    "separable.pointwise_kernel": ("WIO", "HWIO"),
    "separable.bias": ("O",),
    "dense.kernel": tuple(f"{row}O" for row in _ROWS),
    "dense.bias": ("O",),
    "embedding.table": ("IO",),
    **dict.fromkeys((*PER_CHANNEL, "batch_norm.std"), ("C", "(HWC)", "(WC)", "(DHWC)", "(?)")),
    "prelu.alpha": ("C", "WC", "1C", "HWC", "11C", "1WC", "H1C", "DHWC", "111C", "(?)"),
    **{f"rnn.{role}": layouts for role, layouts in _recurrent("U").items()},
    **{f"lstm.{role}": layouts for role, layouts in _recurrent("(GU)", "G=ifco").items()},
    "lstm.peephole": ("(GU) G=ifo", "F(GU) G=ifo"),
    **{f"gru.{role}": layouts for role, layouts in _recurrent("(GU)", "G=zrh").items()},
    "conv_lstm.kernel": ("HWI(GO) G=ifco",),
    "conv_lstm.recurrent_kernel": ("HWI(GO) G=ifco",),
    "conv_lstm.bias": ("(GO) G=ifco",),
    "locally_connected.kernel": ("X(WI)O", "(YX)(HWI)O"),
    "locally_connected.bias": ("XO", "YXO"),
    "maxout.kernel": tuple(f"M{row}O" for row in _ROWS),
    "maxout.bias": ("MO",),
    "highway.kernel": ("IO",),
    "highway.carry_kernel": ("IO",),
    "highway.bias": ("O",),
    "highway.carry_bias": ("O",),
    # What training leaves beside the weights. These have no layout and stay out of an import unless asked for.
    "optimizer": (),
    "moving_average": (),
    "counter": (),
    # Known to be none of the above.
    "other": (),
}

ROLES = tuple(_NEUTRAL)
NOT_WEIGHTS = frozenset({"optimizer", "moving_average", "counter", "other"})
# What can be done about a role that hardly any format keeps.
WAYS_ON = {"batch_norm.std": "--apply 'square=LAYER' makes the variance of it that gives the same outputs, rounded"}


def check_role(role: str) -> str:
    """The role itself; LayoutError with the nearest names if there is none of that name."""
    if role in _NEUTRAL:
        return role
    import difflib

    near = difflib.get_close_matches(role, ROLES, 3)
    raise LayoutError(f"no role is named {role!r}", remedy=f"did you mean {' or '.join(near)}?" if near else None)


@cache
def neutral_layouts(role: str) -> tuple[Layout, ...]:
    """The neutral layouts of a role, one for each set of axes it may have; () for roles without a layout."""
    return tuple(Layout.parse(text) for text in _NEUTRAL[check_role(role)])


@lru_cache(maxsize=4096)
def same_axes(layout: Layout, candidates: tuple[Layout, ...]) -> Layout | None:
    """The candidate that holds the same letters as ``layout``, its sizes and gates being those of ``layout``.

    Unit axes do not count, except that a candidate with as many of them is preferred (``11C`` over ``C``).
    """
    wanted = sorted(layout.letters)
    matches = [candidate for candidate in candidates if sorted(candidate.letters) == wanted]
    matches.sort(key=lambda candidate: candidate.axes.count("1") != layout.axes.count("1"))
    return matches[0].with_sizes(dict(layout.sizes)) if matches else None


def contradiction(role: str, layout: Layout) -> str | None:
    """What is wrong about a tensor of that role having that layout, or None."""
    try:
        neutral(role, layout)
    except LayoutError as error:
        return error.message
    return None


@lru_cache(maxsize=4096)
def neutral(role: str, layout: Layout) -> Layout:
    """The neutral layout of a tensor of that role which now has ``layout``."""
    found = same_axes(layout, neutral_layouts(role))
    if found is None:
        known = ", ".join(map(str, neutral_layouts(role))) or "none"
        raise LayoutError(f"role {role} cannot have layout {layout}; its neutral layouts are {known}")
    if not set(layout.gates or "") <= set(found.gates or ""):
        raise LayoutError(f"role {role} cannot have the gates of {layout}; its neutral layout is {found}")
    if found.gates and layout.gates and sorted(found.gates) != sorted(layout.gates):
        order = "".join(gate for gate in found.gates if gate in layout.gates)
        found = Layout(found.axes, found.flipped, found.values, found.sizes, order)
    return found
