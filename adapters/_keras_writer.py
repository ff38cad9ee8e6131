"""Writes Keras HDF5 as Keras itself does: layer order, attribute types, chunked name lists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wio.adapters import _keras_early as early
from wio.adapters._hdf5 import write_attribute
from wio.adapters._hdf5_output import created
from wio.adapters._hdf5_places import new_dataset, write_values
from wio.atomic import atomic_output
from wio.bundle import Bundle, Tensor
from wio.errors import WioError
from wio.placed_writer import Placed
from wio.recurrent import KEY

# keras 2.1.5 engine/topology.py: HDF5_OBJECT_HEADER_LIMIT; larger attributes are split into name0, name1, ...
HEADER_LIMIT = 64512
# A weights file has no place for roles, layouts and receipts. wio leaves them in this dataset, where no Keras looks; in
# the second where a layer is called as the first.
DECLARATIONS = ("wio", "wio.declarations")


def write_keras(path: Path, bundle: Bundle) -> None:
    """Writes a bundle that :func:`keras_target` described. The same bundle gives the same bytes.

    HDF5 would note the time in each object; h5py leaves that off, and the library version bounds fix the rest.
    """
    placed: list[Placed] = []
    with atomic_output(path) as temporary:
        with created(temporary) as file:
            _write_tree(file, bundle, placed)
        write_values(temporary, placed)


def _write_tree(file: Any, bundle: Bundle, placed: list[Placed]) -> None:
    """Groups, attributes and empty datasets; where the values of these go is added to ``placed``."""
    facts = bundle.metadata["keras"]
    optimizer = {name: [t for t in bundle.values() if t.layer == name] for name in facts["optimizer"]}
    root = file.create_group("model_weights") if facts["full_model"] else file
    for layer in bundle.metadata["layers"]:
        group = root.require_group(layer["name"])
        _new_datasets(group, [bundle[name] for name in layer["tensors"]], layer["stored_as"], placed)
        if facts["family"] == "0.3":
            group.attrs[early.PARAMS] = len(layer["tensors"])
        else:
            _write_names(group, "weight_names", layer["stored_as"], facts)
    listed = [layer["name"] for layer in bundle.metadata["layers"] if not layer.get("unlisted")]
    if facts["family"] != "0.3":
        _write_names(root, "layer_names", listed, facts)
    elif listed != [early.GRAPH]:
        root.attrs[early.LAYERS] = len(listed)
    for name, tensors in optimizer.items():
        stored = [(t.origin or t.name).removeprefix(f"{name}/") for t in tensors]
        group = file.require_group(name)
        _new_datasets(group, tensors, stored, placed)
        _write_names(group, "weight_names", stored, facts)
    for name, attributes in facts["attributes"].items():
        for attribute, document in attributes.items():
            write_attribute(file[name], attribute, document)
    if not facts["full_model"]:
        _write_declarations(file, bundle)


def _new_datasets(group: Any, tensors: Iterable[Tensor], stored_as: Sequence[str], placed: list[Placed]) -> None:
    for tensor, stored in zip(tensors, stored_as, strict=True):
        dtype = tensor.dtype.numpy
        if dtype.kind not in "biufc":
            raise WioError(
                f"{tensor.name}: Keras HDF5 files hold no {tensor.dtype}",
                remedy=f"leave it out with --drop '{tensor.name}'",
            )
        new_dataset(group, stored, tensor, dtype, placed)


def _write_names(group: Any, attribute: str, names: Sequence[str], facts: Mapping[str, Any]) -> None:
    """A list of names as NumPy makes one of bytes: fixed-length, unless the source's were of variable length.

    An empty list is float64, and a list in parts has fixed length, as in real files of either kind.
    """
    import h5py
    import numpy as np

    encoded = np.asarray([name.encode("utf-8") for name in names])
    if encoded.nbytes <= HEADER_LIMIT:
        kind = facts.get("names", "fixed")
        if kind == "fixed" or not names:
            group.attrs[attribute] = encoded
        else:
            text = h5py.string_dtype(kind.removesuffix("-variable"))
            group.attrs.create(attribute, encoded.astype(object), dtype=text)
        return
    if facts["family"] != "2.2":
        raise WioError(
            f"{len(names)} names do not fit into one HDF5 attribute, "
            f"and Keras {facts['family']} cannot read it in parts",
            remedy="write for keras=2.2",
        )
    chunks = 1
    while any(chunk.nbytes > HEADER_LIMIT for chunk in np.array_split(encoded, chunks)):
        chunks += 1
    for k, chunk in enumerate(np.array_split(encoded, chunks)):
        group.attrs[f"{attribute}{k}"] = chunk


def _write_declarations(file: Any, bundle: Bundle) -> None:
    import numpy as np

    tensors = {
        tensor.origin or tensor.name: {
            "role": tensor.role,
            "layout": None if tensor.layout is None else str(tensor.layout),
            "layer": tensor.layer,
        }
        for tensor in bundle.values()
        if tensor.role is not None
    }
    facts = bundle.metadata["keras"]
    receipt = bundle.metadata.get("receipt") or facts.get("receipt")
    if not tensors and receipt is None:
        # Nothing is declared of weights alone: they go back as they came.
        return
    document = {"wio": 1, "backend": facts["backend"], "tensors": tensors}
    if KEY in bundle.metadata:
        document[KEY] = bundle.metadata[KEY]
    if receipt is not None:
        document["receipt"] = receipt
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    place = next((name for name in DECLARATIONS if name not in file), None)
    if place is None:
        raise WioError(f"layers are called {' and '.join(DECLARATIONS)}: no name is left for what wio declares")
    file.create_dataset(place, data=np.frombuffer(text, np.uint8), track_times=False)
