"""What the probe tries: a recording of a layer, and one way to read its kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from wio.layout import Layout
from wio.lazy import Array

FITTED = "fitted, a constant for each channel"


class Recording(Struct, frozen=True):
    """What a layer was given and gave out, and what the user knows of it; None where it is to be found out.

    ``given``, ``recorded``: batch first, in double precision. ``formats``: the data formats to try. ``stride``: one
    number for every spatial axis, or one for each. ``padding``: ``same`` or ``valid``.
    """

    given: Array
    recorded: Array
    formats: tuple[str, ...]
    stride: tuple[int, ...] | None = None
    padding: str | None = None
    dilation: int = 1
    activation: str = "linear"


class Reading(Struct, frozen=True):
    """One way to read a kernel.

    ``wanted``     what was recorded, P O: a sample of places, and the output channels.
    ``predict``    what the layer would have given out there, P O; without bias and activation unless ``with_bias``.
    """

    kind: str
    layout: Layout
    says: Mapping[str, str]
    wanted: Array
    predict: Callable[[], Array]
    with_bias: bool = False
