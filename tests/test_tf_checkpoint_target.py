"""Weights of other formats in a checkpoint: what their variables are called, and that TensorFlow computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tf_judge import ADAPTER, read, same, tensorflow

from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES, dtype_of
from wio.errors import PlanError
from wio.layout import Layout
from wio.plan import Plan, make_plan
from wio.plugins import architecture_named

RNG = np.random.default_rng(11)


def declared(name: str, role: str | None, layout: str | None, values: Any, layer: str | None = None) -> Tensor:
    array = np.ascontiguousarray(values)
    made = Tensor(name, dtype_of(array), array.shape, lambda: array)
    if layer is not None:
        made = Tensor(name, dtype_of(array), array.shape, lambda: array, layer=layer)
    return made.declared(role, Layout.parse(layout) if layout else None)


def random(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def planned(bundle: Bundle) -> Plan:
    return make_plan(bundle, ADAPTER.target(bundle), "tf-checkpoint", {})


def written(bundle: Bundle, prefix: Path) -> Bundle:
    ADAPTER.write(prefix, planned(bundle).apply())
    return read(prefix)


def test_layers_of_pytorch_computed_by_tensorflow(tmp_path: Path) -> None:
    """Arrays as PyTorch lays them out; the network that a Saver restores gives what they mean, written out in NumPy."""
    tf = tensorflow()
    conv, depthwise, transposed = random(4, 3, 2, 3), random(4, 1, 3, 2), random(4, 5, 2, 2)
    dense, image = random(6, 5 * 8 * 6), random(1, 5, 4, 3)
    gamma, variance = random(4), np.abs(random(4)) + 1
    bundle = Bundle(
        [
            declared("net.conv.weight", "conv.kernel", "OIHW", conv),
            declared("net.depth.weight", "depthwise.kernel", "(CM)1HW C=4 M=1", depthwise),
            declared("net.norm.weight", "batch_norm.gamma", "C", gamma),
            declared("net.norm.running_var", "batch_norm.variance", "C", variance),
            declared("net.up.weight", "conv_transpose.kernel", "IOHW", transposed),
            declared("fc.weight", "dense.kernel", "O(CHW) C=5 H=8 W=6", dense),
            declared("steps", "counter", None, np.int64(3)),
        ],
        {"adapter": "torch"},
    )
    plan = planned(bundle)
    assert plan.dropped == {"steps": "its role is counter: no weight of the network"}
    ADAPTER.write(tmp_path / "m", plan.apply())
    shapes = {
        "net.conv/kernel": (2, 3, 3, 4),
        "net.depth/depthwise_kernel": (3, 2, 4, 1),
        "net.norm/gamma": (4,),
        "net.norm/moving_variance": (4,),
        "net.up/kernel": (2, 2, 5, 4),
        "fc/kernel": (240, 6),
    }
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        v = {name: tf.compat.v1.get_variable(name, shape) for name, shape in shapes.items()}
        x = tf.nn.conv2d(tf.constant(np.moveaxis(image, 1, 3)[..., :3]), v["net.conv/kernel"], 1, "SAME")
        x = tf.nn.depthwise_conv2d(x, v["net.depth/depthwise_kernel"], [1] * 4, "SAME")
        x = x * v["net.norm/gamma"] / tf.sqrt(v["net.norm/moving_variance"])
        out = tf.nn.conv2d_transpose(x, v["net.up/kernel"], (1, 8, 6, 5), 2, "SAME")
        answer = tf.reshape(out, (1, -1)) @ v["fc/kernel"]
        tf.compat.v1.train.Saver().restore(session, str(tmp_path / "m"))
        got = session.run(answer)

    # SAME pads kernels of 2 after, of 3 on both sides; the image has 4 rows and 3 columns, as it was cut to 3 channels.
    x = correlated(np.moveaxis(np.moveaxis(image, 1, 3)[..., :3], 3, 1)[0], conv, (0, 1))
    x = np.concatenate([correlated(x[c : c + 1], depthwise[c : c + 1], (1, 0)) for c in range(4)])
    x = x * (gamma / np.sqrt(variance))[:, None, None]
    up = np.zeros((5, 8, 6), np.float32)
    for h, w in np.ndindex(4, 3):
        up[:, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2] += np.einsum("i,iohw->ohw", x[:, h, w], transposed)
    np.testing.assert_allclose(got[0], dense @ up.reshape(-1), rtol=1e-4, atol=1e-4)


def correlated(image: Any, kernel: Any, before: tuple[int, int]) -> Any:
    """Cross-correlation of a C H W image with an O I H W kernel, padded to the same size."""
    _, height, width = image.shape
    kh, kw = kernel.shape[2:]
    padded = np.pad(image, ((0, 0), (before[0], kh - 1 - before[0]), (before[1], kw - 1 - before[1])))
    out = np.zeros((kernel.shape[0], height, width), np.float32)
    for h, w in np.ndindex(kh, kw):
        out += np.einsum("oi,ihw->ohw", kernel[:, :, h, w], padded[:, h : h + height, w : w + width])
    return out


def test_gates_that_a_source_keeps_apart_are_joined(tmp_path: Path) -> None:
    """Twelve arrays of a Keras 1 LSTM are the three of a Keras layer on TensorFlow."""
    kernel, recurrent, bias = (
        {g: random(3, 2) for g in "icfo"},
        {g: random(2, 2) for g in "icfo"},
        {g: random(2) for g in "icfo"},
    )
    tensors = []
    for gate in "icfo":
        tensors += [
            declared(f"lstm_1/W_{gate}", "lstm.kernel", f"I(GU) G={gate}", kernel[gate]),
            declared(f"lstm_1/U_{gate}", "lstm.recurrent_kernel", f"I(GU) G={gate}", recurrent[gate]),
            declared(f"lstm_1/b_{gate}", "lstm.bias", f"(GU) G={gate}", bias[gate]),
        ]
    bundle = written(Bundle(tensors, {"adapter": "keras-theano"}), tmp_path / "m")
    assert list(bundle) == ["lstm_1/bias", "lstm_1/kernel", "lstm_1/recurrent_kernel"]
    for name, parts in (("kernel", kernel), ("recurrent_kernel", recurrent), ("bias", bias)):
        assert same(bundle[f"lstm_1/{name}"].numpy(), np.concatenate([parts[g] for g in "ifco"], -1))


def test_two_biases_of_one_cell_are_not_one() -> None:
    """PyTorch and ONNX keep two that are added; nothing here adds them unasked."""
    both = [declared(f"rnn/{name}", "lstm.bias", "(GU) G=ifco", random(8)) for name in ("bias_ih", "bias_hh")]
    with pytest.raises(PlanError) as caught:
        planned(Bundle(both, {"adapter": "torch"}))
    assert "2 tensors of layer 'rnn' are its lstm.bias: rnn/bias_ih, rnn/bias_hh" in str(caught.value)


def test_recurrent_layers_computed_by_keras(tmp_path: Path) -> None:
    tensorflow()
    import keras

    sizes = {"kernel": (3, 8), "recurrent_kernel": (2, 8), "bias": (8,)}
    arrays = {part: random(*size) for part, size in sizes.items()}
    onnx = [0, 3, 1, 2]  # from i f c o to i o f c

    def reordered(values: Any) -> Any:
        return np.concatenate([np.split(values, 4, -1)[k] for k in onnx], -1)

    layer = [
        declared("rnn.W", "lstm.kernel", "(GU)I G=iofc", reordered(arrays["kernel"]).T),
        declared("rnn.R", "lstm.recurrent_kernel", "(GU)I G=iofc", reordered(arrays["recurrent_kernel"]).T),
        declared("rnn.B", "lstm.bias", "(GU) G=iofc", reordered(arrays["bias"])),
    ]
    bundle = written(Bundle(layer, {"adapter": "onnx"}), tmp_path / "m")
    read_back = [bundle[f"rnn/{part}"].numpy() for part in sizes]
    assert all(same(ours, arrays[part]) for ours, part in zip(read_back, sizes, strict=True))
    lstm = keras.layers.LSTM(2)
    steps = random(1, 4, 3)
    lstm.build(steps.shape)
    lstm.set_weights(read_back)
    h = c = np.zeros(2, np.float32)
    for x in steps[0]:
        i, f, g, o = np.split(x @ arrays["kernel"] + h @ arrays["recurrent_kernel"] + arrays["bias"], 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
    np.testing.assert_allclose(np.asarray(lstm(steps))[0], h, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("role", "layout", "shape", "leaf"),
    [
        ("embedding.table", "IO", (4, 2), "embeddings"),
        ("separable.depthwise_kernel", "HWCM", (2, 2, 3, 1), "depthwise_kernel"),
        ("separable.pointwise_kernel", "HWIO", (1, 1, 3, 4), "pointwise_kernel"),
        ("batch_norm.beta", "C", (3,), "beta"),
        ("batch_norm.mean", "C", (3,), "moving_mean"),
        ("layer_norm.gamma", "C", (3,), "gamma"),
        ("prelu.alpha", "11C", (1, 1, 3), "alpha"),
        ("dense.bias", "O", (3,), "bias"),
        ("gru.bias", "B(GU) G=zrh", (2, 6), "bias"),
    ],
)
def test_words_of_keras(role: str, layout: str, shape: tuple[int, ...], leaf: str) -> None:
    for layer, name in (("deep/er.1", f"deep/er.1/{leaf}"), ("", leaf)):
        metadata = {"adapter": "onnx", "recurrent": {layer: {"reset_after": True}}}
        bundle = Bundle([declared("x", role, layout, random(*shape), layer)], metadata)
        assert [slot.name for slot in ADAPTER.target(bundle).slots] == [name]


def test_what_is_undeclared_or_has_no_layout_here_is_refused() -> None:
    bundle = Bundle(
        [
            declared("a", None, None, random(2)),
            declared("b/w", "dense.kernel", "(?)O", random(4, 2)),
            declared("c/w", "highway.kernel", "IO", random(2, 2)),
            declared("d/w", "dense.bias", "O", random(2)),
            declared("d/v", "dense.bias", "O", random(2)),
            Tensor("e/w", DTYPES["float8_e8m0fnu"], (2,), lambda: np.zeros(2), "dense.bias", Layout.parse("O")),
        ],
        {"adapter": "onnx"},
    )
    with pytest.raises(PlanError) as caught:
        planned(bundle)
    assert {(p.kind, p.tensor) for p in caught.value.problems} >= {
        ("layout", "a"),
        ("layout", "b/w"),
        ("layout", "c/w"),
        ("twice", "d/bias"),
        ("dtype", "e/bias"),
    }


def test_two_tensors_of_one_name_in_the_source_are_refused() -> None:
    one = Tensor("a", DTYPES["float32"], (), lambda: np.float32(1), origin="x")
    two = Tensor("x", DTYPES["float32"], (), lambda: np.float32(2))
    bundle = Bundle([one, two], {"adapter": "tf-checkpoint"})
    assert [(p.kind, p.tensor) for p in ADAPTER.target(bundle).problems] == [("twice", "x")]


def test_layouts_that_an_export_may_have_changed_are_said() -> None:
    usual = declared("c/w", "conv.kernel", "HWIO", random(1, 2, 3, 4))
    cell = declared("cell/kernel", "lstm.kernel", "I(GU) G=icfo", random(3, 8))
    for tensors, said in (([usual], False), ([usual, cell], True)):
        notes = ADAPTER.target(Bundle(tensors, {"adapter": "tf-checkpoint"})).notes
        assert any("cell/kernel in I(GU) G=icfo first" in note for note in notes) is said


def test_an_architecture_has_the_names_of_its_dialect() -> None:
    """Inception-V4 from canonical names, no value read: the variables of the published checkpoint but its heads."""
    architecture = architecture_named("inception-v4")
    dialect = architecture.dialect_for("tf-checkpoint", None)
    assert dialect is not None
    names = architecture.names(dialect.name)

    def never() -> Any:
        raise AssertionError("no value may be read for a plan")

    tensors = []
    for parameter in names.values():
        layout = Layout.parse(
            {"Conv.kernel": "HWIO", "Gemm.kernel": "IO"}.get(parameter.key, "O" if "Gemm" in parameter.key else "C")
        )
        shape = (1,) * layout.rank
        tensors.append(
            Tensor(parameter.name, DTYPES["float32"], shape, never, parameter.role, layout, layer=parameter.layer.name)
        )
    canonical = Bundle(tensors, {"adapter": "tf-checkpoint", "architecture": architecture.id})
    plan = planned(architecture.spell(canonical, dialect))
    assert {slot.name for step in plan.steps for slot in step.slots} == set(names)
    assert "InceptionV4/Conv2d_1a_3x3/weights" in names
    assert any("what its dialect left out of its source" in note for note in plan.notes)
    assert any("dialect tf-slim" in note for note in plan.notes)
