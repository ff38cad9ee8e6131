"""Object-graph checkpoints (tf.train.Checkpoint, SavedModel): what their own graph says about each key.

Sources: tensorflow/core/protobuf/trackable_object_graph.proto; tensorflow/python/trackable/base.py
(OBJECT_GRAPH_PROTO_KEY, VARIABLE_VALUE_KEY) and python/checkpoint/util.py (_OPTIMIZER_SLOTS_NAME, _ATTRIBUTE escapes).
"""

from __future__ import annotations

from msgspec import Struct, field

from wio.adapters._tf_messages import Trackable

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
# tf.train.Checkpoint counts its saves in an attribute of the root.
SAVE_COUNTER = "save_counter/.ATTRIBUTES/VARIABLE_VALUE"
_ATTRIBUTES = "/.ATTRIBUTES/"
_SLOT = "/.OPTIMIZER_SLOT/"


class ObjectGraph(Struct, frozen=True):
    """``full_names``: key -> the variable's own name. ``slots``: keys of optimizer slot variables."""

    full_names: dict[str, str] = field(default_factory=dict)
    slots: frozenset[str] = frozenset()

    @staticmethod
    def of(nodes: list[Trackable]) -> ObjectGraph:
        names = {key: full_name for node in nodes for key, full_name in node.full_names if key and full_name}
        slots = {
            key for node in nodes for slot in node.slots if 0 <= slot < len(nodes) for key, _ in nodes[slot].full_names
        }
        return ObjectGraph(names, frozenset(slots))

    def role(self, key: str) -> str | None:
        if key == GRAPH_KEY:
            return "other"
        if key == SAVE_COUNTER:
            return "counter"
        return "optimizer" if key in self.slots else None


def layer_of(key: str) -> str:
    """The layer of a key: ``a/b`` of ``a/b/kernel/.ATTRIBUTES/VARIABLE_VALUE`` and of the slots of that variable."""
    variable = key.partition(_SLOT)[0].partition(_ATTRIBUTES)[0]
    return variable.rpartition("/")[0]
