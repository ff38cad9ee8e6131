"""PoseNet as Caffe's files: the prototxt, and a V1 .caffemodel as Kendall's Caffe wrote it."""

from __future__ import annotations

import caffe_files as caffe
import numpy as np
import posenet

# In these layers Kendall's prototxt calls the output otherwise than the layer.
TOPS = {
    **{f"cls{n}_fc_pose_{part}": f"cls{n}_fc_{part}" for n in (1, 2, 3) for part in ("xyz", "wpqr")},
    **{f"cls{n}_reduction_pose": f"cls{n}_reduction" for n in (1, 2)},
    "cls1_fc1_pose": "cls1_fc1",
    "cls3_fc1_pose": "cls3_fc1",
}


class Caffe:
    """Runs the network over the names of tops; `prototxt` and `layers` are what the two files hold."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self._weights = weights
        self._shapes = posenet.Shapes()
        self.layers = [caffe.v1_layer("data", "Data", (), ("data", "label"))]
        sizes = " ".join(f"input_dim: {size}" for size in (1, 3, posenet.SIDE, posenet.SIDE))
        self.prototxt = [f'name: "GoogLeNet" input: "data" {sizes}']

    def conv(self, x, name, filters, size, stride=1, pad=0):
        top, shape = x
        kernel, bias = self._weights[f"{name}/weights"], self._weights[f"{name}/biases"]
        numbers = (1, filters), (3, pad), (4, size), (6, stride)
        text = f"num_output: {filters} pad: {pad} kernel_size: {size} stride: {stride}"
        blobs = [caffe.legacy(kernel.transpose(3, 2, 0, 1)), caffe.legacy(bias)]
        made = self._add(name, "Convolution", [top], text, (caffe.CONV, _fields(numbers)), blobs)
        self._in_place(name, made)
        return made, self._shapes.conv(shape, name, filters, size, stride, pad)

    def max_pool(self, x, name, stride, pad=0):
        return self._pool(x[0], name, 0, 3, stride, pad), self._shapes.max_pool(x[1], name, stride, pad)

    def average_pool(self, x, name, size, stride):
        return self._pool(x[0], name, 1, size, stride, 0), self._shapes.average_pool(x[1], name, size, stride)

    def _pool(self, bottom, name, kind, size, stride, pad):
        text = f"pool: {('MAX', 'AVE')[kind]} kernel_size: {size} stride: {stride} pad: {pad}"
        numbers = (1, kind), (2, size), (3, stride), (4, pad)
        return self._add(name, "Pooling", [bottom], text, (caffe.POOLING, _fields(numbers)))

    def norm(self, x, name):
        parameter = caffe.number(1, 5) + caffe.single(2, 1e-4) + caffe.single(3, 0.75)
        text = "local_size: 5 alpha: 0.0001 beta: 0.75"
        return self._add(name, "LRN", [x[0]], text, (caffe.LRN, parameter)), x[1]

    def concat(self, parts, name):
        made = self._add(name, "Concat", [top for top, _ in parts], "", None)
        return made, self._shapes.concat([shape for _, shape in parts], name)

    def flatten(self, x):
        return x

    def dense(self, x, name, units, relu=False):
        top, shape = x
        matrix, bias = self._weights[f"{name}/weights"], self._weights[f"{name}/biases"]
        if len(shape) == 3:
            # Rows run H W C in TensorFlow, columns C H W in Caffe.
            matrix = matrix.reshape(*shape, units).transpose(2, 0, 1, 3).reshape(-1, units)
        blobs = [caffe.legacy(matrix.T), caffe.legacy(bias)]
        made = self._add(name, "InnerProduct", [top], f"num_output: {units}", caffe.inner(units), blobs)
        if relu:
            self._in_place(name, made)
        return made, (units,)

    def _in_place(self, name, top):
        self._add(f"relu_{name}", "ReLU", [top], "", None, (), top)

    def _add(self, name, kind, bottoms, text, parameter, blobs=(), top=None):
        top = top or TOPS.get(name, name)
        self.layers.append(caffe.v1_layer(name, kind, bottoms, [top], blobs, parameter))
        called = {"Convolution": "convolution", "Pooling": "pooling", "LRN": "lrn", "InnerProduct": "inner_product"}
        inside = f"{called[kind]}_param {{ {text} }}" if text else ""
        taken = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self.prototxt.append(f'layer {{ name: "{name}" type: "{kind}" {taken} top: "{top}" {inside} }}')
        return top


def _fields(numbers) -> bytes:
    return b"".join(caffe.number(field, value) for field, value in numbers)


def make(weights: dict[str, np.ndarray]) -> tuple[str, bytes]:
    """The definition, new style without training's layers, and the weights file."""
    ops = Caffe(weights)
    posenet.network(ops, ("data", (posenet.SIDE, posenet.SIDE, 3)))
    return "\n".join(ops.prototxt), caffe.packet(1, "GoogLeNet") + b"".join(ops.layers)
