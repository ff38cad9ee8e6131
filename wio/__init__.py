"""wio moves trained weights between frameworks without either installed, and says, tensor by tensor, what it did.

>>> import wio
>>> bundle = wio.open("model.ckpt")            # doctest: +SKIP
>>> bundle["conv1/weights"].to("OIHW").numpy() # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wio.api import export as export
    from wio.api import import_into as import_into
    from wio.api import open as open
    from wio.api import save as save
    from wio.api import show as show
    from wio.bundle import Bundle as Bundle
    from wio.bundle import Tensor as Tensor
    from wio.comparing.diff import diff as diff
    from wio.errors import WioError as WioError
    from wio.layout import Layout as Layout
    from wio.live import load_into as load_into

# Loaded on first use, so that `import wio` and `wio --help` stay quick.
_HOMES = {
    "open": "wio.api",
    "save": "wio.api",
    "show": "wio.api",
    "export": "wio.api",
    "import_into": "wio.api",
    "diff": "wio.comparing.diff",
    "load_into": "wio.live",
    "Bundle": "wio.bundle",
    "Tensor": "wio.bundle",
    "Layout": "wio.layout",
    "WioError": "wio.errors",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'wio' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
