"""Writes ``.weights.h5``, whole or in shards, and ``.keras`` as a tree recorded from a real one, values filled in."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wio.adapters._hdf5 import write_attribute
from wio.adapters._hdf5_output import created
from wio.adapters._hdf5_places import new_dataset, write_values
from wio.adapters._keras3_archive import WEIGHTS
from wio.adapters._keras3_shards import MAP, first_name, map_of, shard_name, shard_names, shards_of
from wio.adapters._keras3_target import FACTS, NEEDS_TEMPLATE, TEMPLATE_REMEDY
from wio.adapters._keras3_tree import VARS
from wio.atomic import atomic_output, atomic_set, staging
from wio.bundle import Bundle, Tensor
from wio.errors import Problem, UsageError, WioError
from wio.lazy import np
from wio.placed_writer import Placed
from wio.roles import NOT_WEIGHTS

_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20


def write_keras3(path: Path, bundle: Bundle, template: Bundle | None, shard_size: int) -> None:
    """Writes a bundle that a target of this format described; what it lacks, optimizer and seeds, is the template's.

    A path that ends in ``.h5`` gets the weights alone, one that ends in ``.weights.json`` the map of shards of at most
    ``shard_size`` bytes beside it. The same bundle gives the same bytes: no times, fixed versions.
    """
    facts = bundle.metadata.get(FACTS)
    if facts is None:
        raise UsageError(NEEDS_TEMPLATE, remedy=TEMPLATE_REMEDY)
    if path.suffix == ".json" and not path.name.endswith(MAP):
        raise UsageError(f"{path.name}: Keras loads sharded weights by a file that ends in {MAP}")
    if path.suffix == ".h5" and not path.name.endswith(".weights.h5"):
        raise UsageError(
            f"{path.name}: Keras 3 loads weights alone by a name that ends in .weights.h5",
            remedy=f"-o {path.stem}.weights.h5, or --into keras-tf for the HDF5 of Keras 2",
        )
    members = facts.get("members") if path.suffix not in (".h5", ".json") else None
    if not members and path.suffix == ".keras":
        raise UsageError(
            f"{path.name}: a .keras file holds the model's config, and this tree comes from weights alone",
            remedy="write a .weights.h5, or give --template MODEL.keras",
        )
    tensors = _checked(facts, bundle, template)
    if path.suffix == ".json":
        _write_shards(path, facts, tensors, shard_size)
        return
    with atomic_output(path) as temporary:
        if not members:
            _write_tree(temporary, facts, tensors)
            return
        with staging(temporary.parent) as folder:
            weights = folder / WEIGHTS
            _write_tree(weights, facts, tensors)
            _write_archive(temporary, members, weights)


def _checked(facts: Mapping[str, Any], bundle: Bundle, template: Bundle | None) -> dict[str, Tensor]:
    """The tensor of every variable by its path; WioError lists all that do not fit."""
    given = {tensor.origin or name: tensor for name, tensor in bundle.items()}
    spare = {tensor.origin or name: tensor for name, tensor in template.items()} if template else {}
    found: dict[str, Tensor] = {}
    problems = []
    for path, variable in facts["variables"].items():
        beside = variable.get("role") in NOT_WEIGHTS
        tensor = given.get(path) or (spare.get(path) if beside else None)
        if tensor is None:
            if not beside:
                problems.append(Problem("missing", f"nothing fills it at {path}", variable["name"]))
            continue
        has, wants = (tensor.dtype.name, list(tensor.shape)), (variable["dtype"], list(variable["shape"]))
        if has != wants:
            problems.append(Problem("shape", f"is {has[0]} {has[1]}, the tree has {wants[0]} {wants[1]}", tensor.name))
        found[path] = tensor
    problems += [
        Problem("unexpected", "the tree has no place for it", t.name) for p, t in given.items() if p not in found
    ]
    if problems:
        raise WioError(f"the bundle does not fit the tree: {len(problems)} problems", problems)
    return found


def _write_shards(path: Path, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], shard_size: int) -> None:
    """The shards, each with the groups of its variables, then the map, which is what a reader opens.

    A shard is named for what is in it, so that a map finds its own shards or none. But whatever the map says, Keras
    opens NAME_00000 first: that is an empty file here, the same for every set. Where it takes the place of another,
    which the old map may need, it does so after the new map is there.
    """
    parts = shards_of({name: tensor.nbytes for name, tensor in tensors.items()}, shard_size)
    first = first_name(path)
    with atomic_set(path, shard_names(path)) as files:
        last = [path.name, first] if path.with_name(first).exists() else [first, path.name]
        temporary = {name: files.file(name) for name in last}
        _write_tree(temporary[first], {"groups": {}}, {})
        shards = {}
        for number, held in enumerate(parts, 1):
            folders = {"/".join(variable.split("/")[:k]) for variable in held for k in range(variable.count("/") + 1)}
            # The name of a layer stands on its group of variables, and there it is wanted where only inner ones have
            # any.
            wanted = folders | {f"{folder}/{VARS}".lstrip("/") for folder in folders}
            groups = {group: attributes for group, attributes in facts["groups"].items() if group in wanted}
            shard = files.file(shard_name(path, number))
            _write_tree(shard, {**facts, "groups": groups}, {variable: tensors[variable] for variable in held})
            with shard.open("rb") as file:
                name = shard_name(path, number, hashlib.file_digest(file, "sha256").hexdigest())
            files.name(shard, name)
            shards[name] = held
        text = map_of(shards, sum(tensor.nbytes for tensor in tensors.values()))
        temporary[path.name].write_text(text, "utf-8")


def _write_tree(path: Path, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    placed: list[Placed] = []
    with created(path) as file:
        for name, attributes in facts["groups"].items():
            group = file.require_group(name) if name else file
            for attribute, document in attributes.items():
                write_attribute(group, attribute, document)
        for name, tensor in tensors.items():
            dtype = tensor.dtype.numpy
            if dtype.kind not in "biufc":
                # HDF5 has no type for these; Keras keeps their bytes, and the dtype in an attribute.
                dtype = np.dtype(f"V{dtype.itemsize}")
            dataset = new_dataset(file, name, tensor, dtype, placed)
            for attribute, document in facts["variables"][name].get("attributes", {}).items():
                write_attribute(dataset, attribute, document)
    write_values(path, placed)


def _write_archive(path: Path, members: list[Mapping[str, str]], weights: Path) -> None:
    """Members in their old order, stored as Keras stores them, all of one date."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for member in members:
            entry = zipfile.ZipInfo(member["name"], _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            large = member["name"] == WEIGHTS and weights.stat().st_size >= zipfile.ZIP64_LIMIT
            with archive.open(entry, "w", force_zip64=large) as out:
                for chunk in _contents(member, weights):
                    out.write(chunk)


def _contents(member: Mapping[str, str], weights: Path) -> Iterator[bytes]:
    if member["name"] == WEIGHTS:
        with weights.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    elif "text" in member:
        yield member["text"].encode("utf-8")
    elif "base64" not in member:
        raise WioError(f"the member {member['name']!r} of the source is not carried along: write a .weights.h5 instead")
    else:
        try:
            yield base64.b64decode(member["base64"], validate=True)
        except binascii.Error:
            raise WioError(f"the metadata of member {member['name']!r} are damaged") from None
