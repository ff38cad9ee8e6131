"""A bundle of an architecture as a model that runs: what a judge of its outputs, or of any layer's, needs."""

from __future__ import annotations

from pathlib import Path

from wio.architectures.architecture import Architecture
from wio.architectures.network_changes import changed
from wio.bundle import Bundle
from wio.plan import Plan, make_plan
from wio.plugins import adapter_named


def write_onnx(bundle: Bundle, architecture: Architecture, path: Path, *, every_layer: bool = False) -> Plan:
    """Writes an ONNX model of a bundle with the architecture's own names; gives the plan that was carried out.

    Inputs and outputs are called as the architecture's layers, and their maps are N C and space whatever the
    architecture's are. With ``every_layer`` the model gives out what every layer does but those that work in training
    only (Dropout), which give what they take. PlanError says what cannot be run.
    """
    adapter = adapter_named("onnx")
    options = adapter.checked({"outputs": "every-layer" if every_layer else "network"}, writing=True)
    whole = Bundle(bundle.values(), bundle.metadata, changed(architecture.network, bundle.metadata))
    plan = make_plan(whole, adapter.target(whole, **options), adapter.name, options)
    adapter.write(path, plan.apply(), **options)
    return plan
