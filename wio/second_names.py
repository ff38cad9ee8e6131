"""Second names of one tensor, which a file may give it: tied weights, kept once under the first of their names.

An adapter that reads such files says so in ``metadata[ADAPTER]["shared"]``, a map from each second name to the first
(spec/wio-1.md, section 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wio.bundle import Bundle, Tensor


def second_names(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Each second name and the first, as the source spells both; empty where the file says nothing of the kind."""
    stated = metadata.get(str(metadata.get("adapter")))
    shared = stated.get("shared") if isinstance(stated, Mapping) else None
    pairs = shared.items() if isinstance(shared, Mapping) else ()
    return {name: first for name, first in pairs if isinstance(name, str) and isinstance(first, str)}


def left_out(bundle: Bundle) -> dict[str, Tensor]:
    """The second names that no tensor of a bundle has, and the tensor that each would name."""
    by_source = {tensor.origin or name: tensor for name, tensor in bundle.items()}
    return {
        name: by_source[first]
        for name, first in second_names(bundle.metadata).items()
        if first in by_source and name not in by_source and name not in bundle
    }
