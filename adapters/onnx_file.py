"""The adapter `onnx`: the weights of ONNX models, read from the graph that uses them and put back into one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wio.adapter import Adapter, Convention, Option, Target
from wio.bundle import Bundle
from wio.errors import FormatError
from wio.network import Network


class OnnxFile(Adapter):
    """ONNX models. The node that takes a weight says what it is; nothing else does."""

    name = "onnx"
    description = "ONNX models: initializers, constants, external data; roles from the graph; writes networks that run"
    writes = True
    suffix = ".onnx"
    options = (
        Option("template", "the model whose weights are replaced; its graph stays as it is", writing=True),
        Option("keep", "weights of the template that stay as they are: GLOB,GLOB,...", writing=True),
        Option(
            "graph",
            "without a template: the network's graph where its architecture is known, or none, only weights",
            ("network", "none"),
            "network",
            writing=True,
        ),
        Option(
            "outputs",
            "what the graph gives out: the network's outputs, or every layer's, each called as the layer",
            ("network", "every-layer"),
            "network",
            writing=True,
        ),
    )

    def sniff(self, path: Path) -> int:
        if not path.is_file():
            return 0
        from wio.adapters._mapped_files import MappedFile
        from wio.adapters._onnx_messages import looks_like_model

        try:
            # Protobuf has no magic bytes: what tells a model is the wire type of each of its outermost fields.
            return 10 if looks_like_model(MappedFile(path).view) else 0
        except (OSError, FormatError):
            return 0

    def companions(self, path: Path) -> tuple[str, ...]:
        from wio.adapters._onnx_file import locations

        return locations(path)

    def read(self, path: Path, **options: str) -> Bundle:
        """The bundle of a model. FormatError names what cannot be read; external data are opened, not read."""
        from wio.adapters._onnx_file import open_model

        self.checked(options, writing=False)
        return open_model(path).bundle

    def convention(self, **options: str) -> Convention:
        from wio.adapters._onnx_convention import CONVENTION

        self.checked(options, writing=True)
        return Convention.of(CONVENTION)

    def network(self, bundle: Bundle, path: Path | None = None, **options: str) -> Network | None:  # noqa: ARG002
        from wio.adapters._onnx_file import open_model
        from wio.adapters._onnx_network import onnx_network

        if path is None:
            return None
        found = open_model(path)
        return onnx_network(found.model, list(found.weights.values()))

    def target(self, bundle: Bundle, **options: str) -> Target:
        from wio.adapters._onnx_network_target import network_target
        from wio.adapters._onnx_target import template_target, weights_target

        options = self.checked(options, writing=True)
        if "template" in options:
            return template_target(bundle, Path(options["template"]), options.get("keep", ""))
        if bundle.network is not None and options["graph"] == "network":
            return network_target(bundle, bundle.network, options["outputs"] == "every-layer")
        return weights_target(bundle)

    def write(self, path: Path, bundle: Bundle, **options: str) -> None:
        from wio.adapters._onnx_network_writer import around
        from wio.adapters._onnx_nodes import GRAPH
        from wio.adapters._onnx_receipt import METADATA_PROPS, entry
        from wio.adapters._onnx_template import write_into_template
        from wio.adapters._onnx_writer import write_weights
        from wio.adapters._protobuf_writer import bytes_field

        options = self.checked(options, writing=True)
        if "template" in options:
            write_into_template(path, bundle, Path(options["template"]))
        else:
            graph, receipt = bundle.metadata.get(GRAPH), bundle.metadata.get("receipt")
            name = str(bundle.metadata.get("architecture", "network"))
            tail = [] if receipt is None else [bytes_field(METADATA_PROPS, entry(receipt))]
            write_weights(path, bundle, None if graph is None else around(graph, name), tail)

    def receipt(self, path: Path) -> dict[str, Any] | None:
        from wio.adapters._onnx_receipt import read_receipt

        return read_receipt(path)
