"""Second names of one tensor, which a file may give it: tied weights, kept once under the first of their names.

An adapter that reads such files says so in ``metadata[ADAPTER]["shared"]``, a map from each second name to the first,
and has an option ``shared=all`` that keeps each as a tensor of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wio.bundle import Bundle, Tensor, default_layer

_MOST_NAMED = 4


def second_names(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Each second name and the first, as the source spells both; empty where the file says nothing of the kind."""
    stated = metadata.get(str(metadata.get("adapter")))
    shared = stated.get("shared") if isinstance(stated, Mapping) else None
    pairs = shared.items() if isinstance(shared, Mapping) else ()
    return {name: first for name, first in pairs if isinstance(name, str) and isinstance(first, str)}


def left_out(bundle: Bundle) -> dict[str, Tensor]:
    """The second names that no tensor of a bundle has, each with the tensor under that name.

    Nobody has said what it is there: the table of an embedding may be the kernel of a dense layer.
    """
    names = second_names(bundle.metadata)
    if not names:
        return {}
    by_source = {tensor.origin or name: tensor for name, tensor in bundle.items()}
    return {
        name: _named(by_source[first], name)
        for name, first in names.items()
        if first in by_source and name not in by_source and name not in bundle
    }


def with_second_names(bundle: Bundle, asked: Iterable[str]) -> Bundle:
    """The bundle, with a tensor of its own for each second name that is asked for."""
    found = left_out(bundle)
    apart = [found[name] for name in asked if name in found]
    return Bundle([*bundle.values(), *apart], bundle.metadata, bundle.network) if apart else bundle


def without(bundle: Bundle, drop: Iterable[str]) -> tuple[Bundle, dict[str, str]]:
    """The bundle without what globs name, and the names that are gone, each with the reason.

    A tensor whose first name goes and whose second stays has that from then on. Raises WioError for a glob that
    matches no name of either kind.
    """
    globs = tuple(drop)
    names, firsts = left_out(bundle), second_names(bundle.metadata)
    every = with_second_names(bundle, names)
    kept = every.select((), globs)
    lost = {name: "--drop" for name in every if name not in kept}
    if not names or not lost:
        return (kept if lost else bundle), lost
    tensors: list[Tensor] = []
    shared = {name: first for name, first in firsts.items() if name not in names}
    heads: dict[str, str] = {}
    for tensor in kept.values():
        name = tensor.origin or tensor.name
        head = heads.setdefault(firsts[name] if tensor.name in names else name, name)
        if head == name:
            tensors.append(tensor)
        else:
            shared[name] = head
    adapter = str(bundle.metadata["adapter"])
    metadata = {**bundle.metadata, adapter: {**bundle.metadata[adapter], "shared": shared}}
    return Bundle(tensors, metadata, bundle.network), lost


def note_of(bundle: Bundle, kept: Mapping[str, str]) -> str | None:
    """What a plan says of the second names that it leaves out, all but those that its target keeps."""
    lost = {name: tensor for name, tensor in left_out(bundle).items() if name not in kept}
    if not lost:
        return None
    firsts = second_names(bundle.metadata)
    named = [f"{name} ({firsts[name]})" for name in list(lost)[:_MOST_NAMED]]
    adapter = bundle.metadata["adapter"]
    return (
        f"second names of one tensor are left out: {', '.join(named)}{', ...' if len(lost) > len(named) else ''}; "
        f"{adapter} files read with the option shared=all keep each"
    )


def _named(tensor: Tensor, name: str) -> Tensor:
    return tensor.changed(name=name, origin=None, layer=default_layer(name), role=None, layout=None)
