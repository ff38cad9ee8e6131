"""The adapter `caffe`: .caffemodel files of BVLC Caffe, read and written without Caffe.

A tensor's name is its layer's name and what the blob is to it: ``conv1/weight``, ``bn1/mean``. The file holds the
network's definition beside the weights, and that definition declares roles and layouts.
"""

from __future__ import annotations

from pathlib import Path

from wio.adapter import Adapter, Convention, Option, Target
from wio.bundle import Bundle
from wio.network import Network

# base_conv_layer.cpp (weight_shape), inner_product_layer.cpp (weight_shape), embed_layer.cpp: the axes of each blob.
# Feature maps are N, C, H, W, so that columns flatten C first. A depthwise kernel is a convolution of C groups.
_CONVENTION: dict[str, tuple[str, ...]] = {
    "conv.kernel": ("OIHW", "OIW", "OIDHW", "(GO)IHW", "(GO)IW", "(GO)IDHW"),
    "conv.bias": ("O",),
    "conv_transpose.kernel": ("IOHW", "IOW", "IODHW", "(GI)OHW", "(GI)OW", "(GI)ODHW"),
    "conv_transpose.bias": ("O",),
    "depthwise.kernel": ("(CM)1HW", "(CM)1W"),
    "depthwise.bias": ("O",),
    "dense.kernel": ("OI", "O(CHW)", "O(CW)", "O(CDHW)", "O(?)"),
    "dense.bias": ("O",),
    "embedding.table": ("IO",),
    "batch_norm.gamma": ("C",),
    "batch_norm.beta": ("C",),
    "batch_norm.mean": ("C",),
    "batch_norm.variance": ("C",),
    "prelu.alpha": ("C",),
}


class CaffeModel(Adapter):
    """``.caffemodel``: new and V1 layers, shapes new and legacy, float and double values."""

    name = "caffe"
    description = "Caffe .caffemodel, new and V1 layers"
    writes = True
    suffix = ".caffemodel"
    options = (
        Option(
            "prototxt",
            "the network's definition: the shape of its input, and layers that the weights' file does not define",
            reading=True,
        ),
    )

    def sniff(self, path: Path) -> int:
        if not path.is_file():
            return 0
        from wio.adapters._caffe_file import looks_like_caffemodel

        return 10 if looks_like_caffemodel(path) else 0

    def read(self, path: Path, **options: str) -> Bundle:
        """The bundle of a .caffemodel; values are read when asked for, but for the factor of each BatchNorm.

        Raises FormatError for what Caffe would not load, and LayoutError where a blob's shape refutes its layer.
        """
        from wio.adapters._caffe_reading import read_bundle

        given = self.checked(options, writing=False)
        prototxt = given.get("prototxt")
        return read_bundle(path, Path(prototxt) if prototxt else None)

    def convention(self, **options: str) -> Convention:  # noqa: ARG002
        return Convention.of(_CONVENTION)

    def network(self, bundle: Bundle, path: Path | None = None, **options: str) -> Network | None:  # noqa: ARG002
        from wio.adapters._caffe_network import caffe_network

        prototxt = options.get("prototxt")
        return None if path is None else caffe_network(path, Path(prototxt) if prototxt else None)

    def target(self, bundle: Bundle, **options: str) -> Target:
        from wio.adapters._caffe_target import caffe_target

        self.checked(options, writing=True)
        return caffe_target(bundle, self.convention())

    def write(self, path: Path, bundle: Bundle, **options: str) -> None:
        from wio.adapters._caffe_writer import write_caffemodel

        self.checked(options, writing=True)
        write_caffemodel(path, bundle)
