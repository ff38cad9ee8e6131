"""``wio probe`` against what PyTorch and Keras really compute: it finds the reading, or says that it cannot."""

import json

import numpy as np
import pytest
import torch

from wio.bundle import Bundle, Tensor
from wio.cli.main import main
from wio.dtypes import DTYPES
from wio.errors import UsageError
from wio.layout import Layout
from wio.probing.probe import probe

FLOAT = DTYPES["float32"]


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def bundle_of(**arrays):
    return Bundle([Tensor(name, FLOAT, array.shape, lambda array=array: array) for name, array in arrays.items()])


def torch_of(operation, x, kernel, **options):
    return operation(torch.tensor(x), torch.tensor(kernel), **options).numpy()


@pytest.mark.parametrize(
    ("channels", "filters", "size", "options"),
    [
        (3, 5, (3, 3), {}),
        (3, 5, (3, 2), {"stride": 2}),
        (4, 4, (3, 3), {"padding": 1}),
        (4, 4, (5, 3), {"padding": "same"}),
        (4, 6, (3, 3), {"groups": 2, "padding": 1}),
        (4, 4, (2, 2), {"groups": 4, "stride": 2}),
        (3, 3, (3, 3), {"dilation": 2}),
    ],
)
@pytest.mark.parametrize("stored", ["OIHW", "HWIO", "IWHO"])
@pytest.mark.parametrize("flipped", [False, True])
def test_convolutions_of_pytorch(channels, filters, size, options, stored, flipped):
    groups = options.get("groups", 1)
    kernel = numbers(filters, channels // groups, *size)
    x = numbers(2, channels, 11, 12, seed=1)
    y = torch_of(torch.nn.functional.conv2d, x, kernel, **options) + numbers(filters, 1, 1, seed=2)
    layout = Layout.parse("(GO)IHW" if groups > 1 else "OIHW").with_sizes({"G": groups})
    source = Tensor("k", FLOAT, kernel.shape, lambda: kernel, "conv.kernel", layout)
    axes = tuple("GO" if letter == "O" and groups > 1 else letter for letter in stored)
    told = source.to(Layout(axes, flipped, None, (("G", groups),) if groups > 1 else ()))

    verdict = probe(bundle_of(k=told.numpy()), "k", x, y, kinds=["conv"], dilation=options.get("dilation", 1))

    assert verdict.decided is not None, verdict.reason
    # Axes of length 1 stand where they do no harm.
    assert str(verdict.decided.layout) == str(told.layout) or 1 in kernel.shape
    assert verdict.decided.says["operation"] == ("convolution" if flipped else "cross-correlation")
    assert verdict.decided.says["stride"] == "x".join([str(options.get("stride", 1))] * 2)
    assert verdict.decided.says["data_format"] == "channels_first"
    assert verdict.decided.residual < 1e-5
    assert all(each.residual > 1e-2 for each in verdict.hypotheses[1:])


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"stride": 2, "padding": 1}, {"groups": 2}])
@pytest.mark.parametrize("flipped", [False, True])
def test_transposed_convolutions_of_pytorch(options, flipped):
    groups = options.get("groups", 1)
    kernel = numbers(4, 6 // groups, 3, 4)
    x = numbers(2, 4, 7, 6, seed=1)
    y = torch_of(torch.nn.functional.conv_transpose2d, x, kernel, **options)
    stored = kernel[:, :, ::-1, ::-1] if flipped else kernel

    verdict = probe(bundle_of(k=stored), "k", x, y, kinds=["conv_transpose"])

    found = "(GI)OHW" if groups > 1 else "IOHW"
    assert verdict.decided is not None, verdict.reason
    assert (verdict.decided.layout.axes, verdict.decided.layout.flipped) == (Layout.parse(found).axes, flipped)
    assert verdict.decided.says["stride"] == "x".join([str(options.get("stride", 1))] * 2)


def test_one_and_three_dimensions():
    for size, operation, text in [
        ((4,), torch.nn.functional.conv1d, "OIW"),
        ((2, 3, 4), torch.nn.functional.conv3d, "OIDHW"),
    ]:
        kernel, x = numbers(5, 3, *size), numbers(2, 3, *(9 for _ in size), seed=1)
        verdict = probe(bundle_of(k=kernel), "k", x, torch_of(operation, x, kernel), kinds=["conv"])
        assert verdict.decided is not None, verdict.reason
        assert str(verdict.decided.layout) == text


def test_a_depthwise_kernel_of_keras():
    import keras

    layer = keras.layers.DepthwiseConv2D((3, 2), strides=2, padding="same", depth_multiplier=3, use_bias=True)
    x = numbers(2, 9, 8, 4)
    layer.build(x.shape)
    layer.set_weights([numbers(3, 2, 4, 3, seed=1), numbers(12, seed=2)])

    verdict = probe(bundle_of(k=layer.get_weights()[0]), "k", x, np.array(layer(x)))

    assert verdict.decided is not None, verdict.reason
    assert (verdict.decided.kind, str(verdict.decided.layout)) == ("depthwise", "HWCM")
    assert verdict.decided.says["padding"].startswith("same")


@pytest.mark.parametrize("activation", ["relu", "softmax"])
def test_what_was_recorded_after_an_activation(activation):
    import keras

    layer = keras.layers.Conv2D(4, 3, activation=activation)
    x = numbers(2, 9, 9, 4)
    layer.build(x.shape)
    layer.set_weights([numbers(3, 3, 4, 4, seed=1), numbers(4, seed=2)])
    kernel, bias = layer.get_weights()
    bundle, y = bundle_of(k=kernel, b=bias), np.array(layer(x))

    told = probe(bundle, "k", x, y, kinds=["conv"], activation=activation, bias="b")
    untold = probe(bundle, "k", x, y, kinds=["conv"], activation=activation)

    assert told.decided is not None
    assert str(told.decided.layout) == "HWIO"
    assert untold.decided is None


@pytest.mark.parametrize(("data_format", "order"), [("channels_last", "HWC"), ("channels_first", "CHW")])
@pytest.mark.parametrize("turned", [False, True])
def test_the_order_in_which_a_dense_layer_flattens(data_format, order, turned):
    x = numbers(10, 4, 4, 4)
    kernel = numbers(64, 64, seed=1)
    y = np.ascontiguousarray(x).reshape(10, 64) @ kernel
    stored = kernel.T if turned else kernel

    verdict = probe(bundle_of(k=stored), "k", x, y, kinds=["dense"], data_format=data_format)

    group = f"({order})"
    assert verdict.decided is not None, verdict.reason
    assert str(verdict.decided.layout) == (f"O{group}" if turned else f"{group}O") + "".join(f" {c}=4" for c in order)
    with pytest.raises(UsageError, match="which of its axes are channels"):
        probe(bundle_of(k=stored), "k", x, y, kinds=["dense"])


@pytest.mark.parametrize("units", [4, 5])
@pytest.mark.parametrize("sequences", [True, False])
def test_the_gates_of_keras_lstm(units, sequences):
    import keras

    layer = keras.layers.LSTM(units, return_sequences=sequences)
    x = numbers(3, 6, 4)
    layer.build(x.shape)
    layer.set_weights([numbers(*w.shape, seed=k + 1) for k, w in enumerate(layer.get_weights())])
    kernel, again, bias = layer.get_weights()
    bundle = bundle_of(k=kernel, r=again, b=bias)

    verdict = probe(bundle, "k", x, np.array(layer(x)), kinds=["lstm"], recurrent="r", bias="b")

    assert verdict.decided is not None, verdict.reason
    assert str(verdict.decided.layout) == "I(GU) G=ifco"
    assert verdict.decided.says["recurrent activation"] == "sigmoid"
    assert verdict.decided.says["recurrent kernel"] == "I(GU)"


@pytest.mark.parametrize("after", [True, False])
def test_the_gates_and_the_variant_of_keras_gru(after):
    import keras

    layer = keras.layers.GRU(5, reset_after=after, return_sequences=True)
    x = numbers(3, 6, 4)
    layer.build(x.shape)
    layer.set_weights([numbers(*w.shape, seed=k + 1) for k, w in enumerate(layer.get_weights())])
    kernel, again, bias = layer.get_weights()

    verdict = probe(
        bundle_of(k=kernel, r=again, b=bias), "k", x, np.array(layer(x)), kinds=["gru"], recurrent="r", bias="b"
    )

    assert verdict.decided is not None, verdict.reason
    assert str(verdict.decided.layout) == "I(GU) G=zrh"
    assert verdict.decided.says["variant"] == f"reset {'after' if after else 'before'} the product"


def test_the_gates_of_pytorch_lstm():
    layer = torch.nn.LSTM(4, 5, batch_first=True)
    x = numbers(3, 6, 4)
    with torch.no_grad():
        for k, weight in enumerate(layer.parameters()):
            weight.copy_(torch.tensor(numbers(*weight.shape, seed=k + 1)))
        y = layer(torch.tensor(x))[0].numpy()
    kernel, again, first, second = (weight.detach().numpy() for weight in layer.parameters())

    verdict = probe(
        bundle_of(k=kernel, r=again, b=np.stack([first, second])), "k", x, y, kinds=["lstm"], recurrent="r", bias="b"
    )

    assert verdict.decided is not None, verdict.reason
    assert str(verdict.decided.layout) == "(GU)I G=ifco"


def test_two_readings_that_fit_are_not_decided():
    kernel = numbers(3, 3, 2, 2)
    kernel = kernel + kernel[::-1, ::-1]
    x = numbers(1, 2, 8, 8, seed=1)
    y = torch_of(torch.nn.functional.conv2d, x, kernel.transpose(3, 2, 0, 1).copy())

    verdict = probe(bundle_of(k=kernel), "k", x, y, kinds=["conv"])

    assert verdict.decided is None
    assert {each.layout.flipped for each in verdict.fitting} == {False, True}
    assert "cannot tell them apart" in verdict.reason


def test_what_no_reading_explains_is_not_decided():
    kernel, x = numbers(3, 3, 3, 3), numbers(1, 3, 8, 8, seed=1)
    verdict = probe(bundle_of(k=kernel), "k", x, numbers(1, 3, 6, 6, seed=5), kinds=["conv"])
    assert verdict.hypotheses
    assert verdict.decided is None
    assert verdict.hypotheses[0].residual > 0.1


def command(folder, **arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    kernel, given, recorded = (str(folder / f"{name}.npy") for name in "kxy")
    return ["probe", kernel, "k", "--input", given, "--output", recorded]


def test_a_declaration_that_is_wrong_is_told(tmp_path, capsys):
    kernel, x = numbers(3, 3, 3, 3), numbers(1, 3, 8, 8, seed=1)
    y = torch_of(torch.nn.functional.conv2d, x, kernel)
    line = command(tmp_path, k=kernel, x=x, y=y)

    assert main([*line, "--declare", "k=conv.kernel:OIHW"]) == 0
    assert "cross-correlation, stored as OIHW" in capsys.readouterr().out
    assert main([*line, "--declare", "k=conv.kernel:OIHW flipped", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["decided"], told["agrees"], told["layout"]) == (True, False, "OIHW")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "pooling"], "no kind of layer"),
        (["--stride", "0"], "expected a number"),
        (["--data-format", "NHWC"], "channels_last or channels_first"),
        (["--bias", "nothing"], "no tensor 'nothing'"),
        (["--kind", "lstm"], "two kernels"),
        (["--activation", "swish"], "no activation"),
    ],
)
def test_what_cannot_be_asked(tmp_path, capsys, options, message):
    line = command(tmp_path, k=numbers(3, 3, 3, 3), x=numbers(1, 3, 8, 8), y=numbers(1, 3, 6, 6))
    assert main([*line, *options]) == 2
    assert message in capsys.readouterr().err
