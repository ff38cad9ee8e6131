"""What a checkpoint made of a bundle holds: the source's own names where it was one, else those of Keras's layers."""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from wio.adapter import Convention, Target
from wio.adapters._tf_graph import GRAPH_KEY
from wio.adapters._tf_writer import dtype_refusal, name_refusal
from wio.bundle import Bundle, Tensor
from wio.errors import Problem
from wio.recurrent import KEY as RECURRENT
from wio.roles import same_axes
from wio.target import plain_target, unchanged_target

# What Keras's layers call a weight, where it is not the role's own word.
_LEAVES = {
    "depthwise.kernel": "depthwise_kernel",
    "batch_norm.mean": "moving_mean",
    "batch_norm.variance": "moving_variance",
    "embedding.table": "embeddings",
}


def checkpoint_target(bundle: Bundle, convention: Convention) -> Target:
    """The target for a bundle: the checkpoint that it was, or the variables of Keras's layers."""
    if bundle.metadata.get("adapter") == "tf-checkpoint" and bundle.metadata.get("architecture") is None:
        target = unchanged_target(bundle)
        notes = (*target.notes, *_what_changes(bundle, convention))
    else:
        names = bundle.metadata.get("names")
        metadata = {
            key: value
            for key, value in bundle.metadata.items()
            if key in ("architecture", "dialect", "epsilon", RECURRENT)
        }
        target = plain_target(bundle, convention, _spelled, metadata)
        notes = (*target.notes, *_how_it_is_named(bundle, bool(names)))
    return replace(target, problems=(*target.problems, *_problems(target, bundle)), notes=notes)


def _spelled(tensor: Tensor) -> str:
    role = str(tensor.role)
    leaf = _LEAVES.get(role) or role.partition(".")[2] or tensor.name.rpartition("/")[2]
    return f"{tensor.layer}/{leaf}" if tensor.layer else leaf


def _problems(target: Target, bundle: Bundle) -> list[Problem]:
    """What no checkpoint holds: names, dtypes, and one name twice."""
    dtypes = {(tensor.layer, tensor.role): tensor.dtype for tensor in bundle.values()}
    found = []
    for slot in target.slots:
        refused = name_refusal(slot.name)
        if refused:
            found.append(Problem("name", refused, slot.name, "rename it, or leave it out with --drop"))
        dtype = bundle[slot.copy_of].dtype if slot.copy_of else dtypes.get((slot.source_layer, slot.role))
        refused = dtype_refusal(dtype) if dtype else None
        if refused:
            found.append(Problem("dtype", refused, slot.name, f"leave it out: --drop '{slot.copy_of or slot.name}'"))
    told = {problem.tensor for problem in target.problems if problem.kind == "twice"}
    counts = Counter(slot.name for slot in target.slots)
    twice = [name for name, count in counts.items() if count > 1 and name not in told]
    return found + [Problem("twice", "two tensors would have this name", name) for name in twice]


def _what_changes(bundle: Bundle, convention: Convention) -> list[str]:
    """What a checkpoint that wio writes again does not keep of the one that was read."""
    stated = bundle.metadata.get("tf_checkpoint") or {}
    notes = []
    if stated.get("format") == "V1":
        notes.append("the source is a V1 checkpoint, what is written a V2 one, which every TensorFlow since 0.12 reads")
    if stated.get("endianness") == "big":
        notes.append("the source is big-endian, what is written little-endian")
    if count := len(stated.get("partitioned") or {}):
        notes.append(f"{count} partitioned variables are written whole: TensorFlow cuts any slice out of them")
    strange = [
        tensor
        for tensor in bundle.values()
        if tensor.layout is not None
        and tensor.layout != same_axes(tensor.layout, convention.layouts.get(str(tensor.role), ()))
    ]
    if strange:
        # Nothing in the bundle tells whether an export with --layout neutral has rearranged them.
        notes.append(
            f"{len(strange)} tensors stay in layouts that are not this format's, {strange[0].name} in "
            f"{strange[0].layout} first: as the variable had it, unless it was exported with --layout neutral"
        )
    held = {tensor.origin or tensor.name for tensor in bundle.values()}
    gone = [key for key in stated.get("full_names") or {} if key not in held]
    if GRAPH_KEY in held and gone:
        notes.append(
            f"the object graph still names {len(gone)} tensors that are not written, {gone[0]} first: "
            "tf.train.Checkpoint.restore fails where an object asks for one"
        )
    return notes


def _how_it_is_named(bundle: Bundle, by_dialect: bool) -> list[str]:
    architecture = bundle.metadata.get("architecture")
    notes = [
        "a checkpoint has no place for roles, layouts and what weights alone lose (epsilon, data format): "
        "on reading it, declare them again"
    ]
    if by_dialect:
        notes.append(f"variables have the names of {architecture}'s dialect {bundle.metadata.get('dialect')}")
    else:
        notes.append("variables are named LAYER/WEIGHT with the words of Keras: kernel, bias, gamma, moving_mean, ...")
    if architecture is not None:
        notes.append(
            f"only the weights of {architecture} are written: what its dialect left out of its source (training heads, "
            "slots, counters) is not there for a Saver that asks for it"
        )
    return notes
