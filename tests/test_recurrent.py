"""Recurrent layers from every framework into every other: what the target computes is what the source computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from keras3_judge import keras, randomize, save
from onnx import numpy_helper
from onnx_judge import same, saved
from recurrent_judges import (
    SOURCES,
    TARGETS,
    TOLERANCE,
    Net,
    TorchNet,
    keras_model,
    keras_output,
    numbers,
    onnx_net,
    onnx_output,
    torch_declarations,
    torch_output,
)

import wio
from wio.errors import PlanError
from wio.plan import Plan
from wio.port import Declarations, export, import_into

NETS = [
    *(Net("lstm", 3, units, both) for both in (False, True) for units in (2, 3)),
    *(Net("gru", 3, units, both) for both in (False, True) for units in (2, 3)),
    *(Net("gru", 3, 2, both, reset_after=False) for both in (False, True)),
    *(Net("rnn", 3, units, both) for units, both in ((2, True), (3, False))),
    *(Net(kind, both=both, bias=False) for kind, both in (("lstm", False), ("rnn", True), ("gru", True))),
]  # fmt: skip
PAIRS = [
    (source, target, net)
    for source in SOURCES
    for target in TARGETS
    for net in NETS
    if SOURCES[source].holds(net) and TARGETS[target][1](net)
]


@pytest.mark.parametrize(("source", "target", "net"), PAIRS, ids=lambda each: str(each))
def test_every_ordered_pair(source: str, target: str, net: Net, tmp_path: Path) -> None:
    path, expected = SOURCES[source].make(net, tmp_path)
    _, computed = TARGETS[target][0](path, net, tmp_path, SOURCES[source].told(net))
    np.testing.assert_allclose(computed, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("layout", ["keep", "neutral"])
def test_by_way_of_a_file(source: str, target: str, layout: str, tmp_path: Path) -> None:
    """A .wio file carries directions and resets with it, whichever layouts it keeps."""
    for net in (Net("lstm", both=True), Net("gru"), Net("rnn", 3, 3)):
        path, expected = SOURCES[source].make(net, tmp_path)
        export(path, tmp_path / "m.wio", told=SOURCES[source].told(net), layout=layout)
        _, computed = TARGETS[target][0](tmp_path / "m.wio", net, tmp_path, None)
        np.testing.assert_allclose(computed, expected, rtol=0, atol=TOLERANCE)


# From PyTorch to PyTorch nothing is converted, whatever is declared.
@pytest.mark.parametrize("target", [target for target in TARGETS if target != "torch"])
@pytest.mark.parametrize("wrong", ["it.weight_ih_l0=lstm.kernel:(GU)I G=icfo", "it.bias_hh_l0=lstm.input_bias"])
def test_the_judges_see_a_wrong_declaration(wrong: str, target: str, tmp_path: Path) -> None:
    """Gates in another order, or two input biases: shapes are right, what is computed is not, or nothing is written."""
    net = Net("lstm", 2, 2)
    path, expected = SOURCES["torch"].make(net, tmp_path)
    told = Declarations(declare=(*torch_declarations(net), wrong))
    try:
        _, computed = TARGETS[target][0](path, net, tmp_path, told)
    except PlanError as error:
        assert "input_bias" in str(error) and "bias_hh" in wrong
    else:
        assert np.abs(computed - expected).max() > 0.01


def test_the_judges_see_directions_exchanged(tmp_path: Path) -> None:
    net = Net("gru", 3, 3, both=True)
    path, expected = SOURCES["torch"].make(net, tmp_path)
    state = torch.load(path, weights_only=True)
    swapped = {
        name.removesuffix("_reverse") if name.endswith("_reverse") else f"{name}_reverse": value
        for name, value in state.items()
    }
    torch.save(swapped, path)
    _, computed = TARGETS["onnx weights"][0](path, net, tmp_path, Declarations(declare=torch_declarations(net)))
    assert np.abs(computed - expected).max() > 0.01


# --- what the plan says


def kinds_of(plan: Plan) -> dict[str, tuple[str, bool]]:
    return {slot.name: (step.kind, step.exact) for step in plan.steps for slot in step.slots}


@pytest.mark.parametrize(
    ("source", "target", "net", "expected"),
    [
        ("torch", "keras-tf", Net("lstm"), {"it/bias": ("sum", False)}),
        ("torch", "keras3", Net("rnn"), {"it/bias": ("sum", False)}),
        ("torch", "keras-tf", Net("gru"), {"it/bias": ("join", True)}),
        ("torch", "onnx weights", Net("lstm"), {"it.B": ("join", True), "it.W": ("rearrange", True)}),
        ("torch", "onnx weights", Net("lstm", both=True), {"it.B": ("join", True), "it.W": ("join", True)}),
        ("onnx", "torch", Net("rnn"), {"it.bias_ih_l0": ("split", True), "it.bias_hh_l0": ("split", True)}),
        ("onnx", "keras-tf", Net("gru", reset_after=False), {"it/bias": ("sum", False)}),
        ("onnx", "keras-tf", Net("gru"), {"it/bias": ("rearrange", True)}),
        ("keras3", "onnx weights", Net("gru", reset_after=False), {"it.B": ("synthesise", True)}),
        ("keras3", "torch", Net("lstm"), {"it.bias_hh_l0": ("synthesise", True)}),
        ("keras-tf", "torch", Net("gru"), {"it.bias_hh_l0": ("split", True), "it.weight_hh_l0": ("rearrange", True)}),
        ("onnx", "torch", Net("lstm", both=True), {"it.weight_ih_l0_reverse": ("split", True)}),
    ],
    ids=str,
)  # fmt: skip
def test_steps_say_what_they_do(
    source: str, target: str, net: Net, expected: dict[str, tuple[str, bool]], tmp_path: Path
) -> None:
    path, _ = SOURCES[source].make(net, tmp_path)
    plan, _ = TARGETS[target][0](path, net, tmp_path, SOURCES[source].told(net))
    found = kinds_of(plan)
    assert {name: found[name] for name in expected} == expected
    shown = plan.as_json()
    assert shown["exact"] is all(exact for _, exact in found.values())
    for name, (kind, exact) in expected.items():
        [step] = [each for each in shown["steps"] if name in [target["name"] for target in each["targets"]]]
        assert (step["kind"], step["exact"]) == (kind, exact)
        assert ("keeps both" in step["reason"]) is (kind in ("join", "split"))
        assert ("rounds" in step["reason"]) is (kind == "sum")
        assert ("all zeros" in step["reason"]) is (kind == "synthesise")


def test_what_is_made_is_zero_and_what_is_added_is_the_sum(tmp_path: Path) -> None:
    net = Net("lstm")
    path, _ = SOURCES["keras3"].make(net, tmp_path)
    import_into(path, tmp_path / "m.pt", adapter="torch")
    state = torch.load(tmp_path / "m.pt", weights_only=True)
    bias = wio.open(path)["it/bias"].numpy()
    np.testing.assert_array_equal(state["it.bias_ih_l0"].numpy(), bias)
    np.testing.assert_array_equal(state["it.bias_hh_l0"].numpy(), np.zeros(8, np.float32))
    path, _ = SOURCES["torch"].make(net, tmp_path)
    import_into(path, tmp_path / "m.h5", adapter="keras-tf", told=SOURCES["torch"].told(net))
    state = torch.load(path, weights_only=True)
    added = state["it.bias_ih_l0"] + state["it.bias_hh_l0"]
    assert same(wio.open(tmp_path / "m.h5")["it/bias"].numpy(), added.numpy())


def test_the_receipt_keeps_what_was_added(tmp_path: Path) -> None:
    """ONNX to the neutral layout and back to ONNX: nothing is added on the way, both biases stay."""
    net = Net("lstm", both=True)
    path, _ = SOURCES["onnx"].make(net, tmp_path)
    export(path, tmp_path / "m.wio", layout="neutral")
    bundle = wio.open(tmp_path / "m.wio")
    assert {name: str(tensor.layout) for name, tensor in bundle.items()} == {
        "it.W": "FI(GU) G=ifco",
        "it.R": "FI(GU) G=ifco",
        "it.B": "FB(GU) G=ifco",
    }
    import_into(tmp_path / "m.wio", tmp_path / "back.onnx", adapter="onnx")
    for name, tensor in wio.open(path).items():
        assert same(wio.open(tmp_path / "back.onnx")[name].numpy(), tensor.numpy())


# --- layers upon layers


def test_stacked_layers_of_one_module_are_layers_of_their_own(tmp_path: Path) -> None:
    """Two bidirectional layers of one torch.nn.LSTM are two layers of Keras, and come back into the one module."""
    stacked = torch.nn.LSTM(3, 2, num_layers=2, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for place, weight in enumerate(stacked.parameters()):
            weight.copy_(torch.from_numpy(numbers(*weight.shape, seed=place)))
    torch.save({f"it.{name}": value for name, value in stacked.state_dict().items()}, tmp_path / "m.pt")
    told = Declarations(declare=torch_declarations(Net("lstm")))
    import_into(tmp_path / "m.pt", tmp_path / "m.h5", adapter="keras-tf", told=told)
    k = keras()
    layers = [k.layers.Bidirectional(k.layers.LSTM(2, return_sequences=True), name=n) for n in ("it", "it_l1")]
    model = randomize(k.Sequential([k.Input((5, 3)), *layers]))
    model.load_weights(tmp_path / "m.h5")
    x = Net("lstm").x
    with torch.no_grad():
        expected = stacked(torch.from_numpy(x))[0].numpy()
    np.testing.assert_allclose(np.asarray(model(x)), expected, rtol=0, atol=TOLERANCE)
    for layout in ("keep", "neutral"):
        export(tmp_path / "m.pt", tmp_path / "m.wio", told=told, layout=layout)
        import_into(tmp_path / "m.wio", tmp_path / "back.pt", adapter="torch")
        back = torch.load(tmp_path / "back.pt", weights_only=True)
        assert back.keys() == {f"it.{name}" for name in stacked.state_dict()}
        assert all(same(back[f"it.{name}"].numpy(), v.numpy()) for name, v in stacked.state_dict().items())


def test_a_live_torch_module_is_filled(tmp_path: Path) -> None:
    net = Net("gru", both=True)
    path, expected = SOURCES["keras3"].make(net, tmp_path)
    model = TorchNet(net, 9)
    wio.load_into(model, path)
    np.testing.assert_allclose(torch_output(model, net), expected, rtol=0, atol=TOLERANCE)


def test_a_live_keras_model_is_filled(tmp_path: Path) -> None:
    net = Net("gru", both=True)
    path, expected = SOURCES["torch"].make(net, tmp_path)
    model = keras_model(net, 9)
    wio.load_into(model, path, declare=torch_declarations(net))
    np.testing.assert_allclose(keras_output(model, net), expected, rtol=0, atol=TOLERANCE)


def test_a_checkpoint_holds_keras_layers(tmp_path: Path) -> None:
    """Through a TensorFlow checkpoint, whose variables are declared again with the layouts of the format."""
    net = Net("lstm")
    path, expected = SOURCES["torch"].make(net, tmp_path)
    import_into(path, tmp_path / "ckpt", adapter="tf-checkpoint", told=SOURCES["torch"].told(net))
    told = Declarations(declare=tuple(f"it/{part}=lstm.{part}" for part in ("kernel", "recurrent_kernel", "bias")))
    _, computed = TARGETS["keras-tf"][0](tmp_path / "ckpt", net, tmp_path, told)
    np.testing.assert_allclose(computed, expected, rtol=0, atol=TOLERANCE)


# --- peepholes


def with_peepholes(folder: Path, values: np.ndarray) -> Path:
    net = Net("lstm")
    made = onnx_net(net, 1)
    made.graph.initializer.append(numpy_helper.from_array(values, "it.P"))
    made.graph.node[0].input.extend(["", "", "", "it.P"])
    return saved(made, folder, "peepholes.onnx")


@pytest.mark.parametrize("target", ["keras-tf", "keras3", "torch"])
def test_peepholes_are_refused_unless_they_are_zero(target: str, tmp_path: Path) -> None:
    net = Net("lstm")
    path = with_peepholes(tmp_path, numbers(1, 6, seed=4))
    with pytest.raises(PlanError, match=r"it\.P"):
        TARGETS[target][0](path, net, tmp_path, Declarations())
    path = with_peepholes(tmp_path, np.zeros((1, 6), np.float32))
    plan, computed = TARGETS[target][0](path, net, tmp_path, Declarations())
    np.testing.assert_allclose(computed, onnx_output(path, net), rtol=0, atol=TOLERANCE)
    assert plan.dropped == {"it.P": "peepholes of zero: the layer computes the same without"}


def test_peepholes_stay_in_onnx(tmp_path: Path) -> None:
    net = Net("lstm")
    path = with_peepholes(tmp_path, numbers(1, 6, seed=4))
    source = path.rename(tmp_path / "source.onnx")
    expected = onnx_output(source, net)
    template = with_peepholes(tmp_path, numbers(1, 6, seed=5))
    assert np.abs(onnx_output(template, net) - expected).max() > 0.01
    for layout in ("keep", "neutral"):
        export(source, tmp_path / "m.wio", layout=layout)
        import_into(tmp_path / "m.wio", tmp_path / "o.onnx", adapter="onnx", options={"template": str(template)})
        np.testing.assert_allclose(onnx_output(tmp_path / "o.onnx", net), expected, rtol=0, atol=TOLERANCE)


# --- refusals


def refused(source: str, net: Net, folder: Path, adapter: str, declare: tuple[str, ...] = (), **options: str) -> str:
    path, _ = SOURCES[source].make(net, folder)
    told = Declarations(declare=(*SOURCES[source].declare(net), *declare))
    with pytest.raises(PlanError) as error:
        import_into(path, folder / "refused", adapter=adapter, options=options, told=told)
    assert not (folder / "refused").exists()
    return str(error.value)


def test_a_gru_that_resets_before_is_none_of_pytorch(tmp_path: Path) -> None:
    for source in ("keras3", "onnx", "keras-tf"):
        for bias in (True, False):
            # Of its own: what was refused may still hold the file before open.
            folder = tmp_path / f"{source}-{bias}"
            folder.mkdir()
            text = refused(source, Net("gru", reset_after=False, bias=bias), folder, "torch")
            assert "GRU 'it' resets before the recurrent product, the format only after it" in text


def test_a_gru_of_a_template_must_reset_as_the_source_does(tmp_path: Path) -> None:
    """Shapes and biases of an ONNX GRU are the same for both."""
    template = saved(onnx_net(Net("gru", reset_after=False), 9), tmp_path, "t.onnx")
    text = refused("torch", Net("gru"), tmp_path, "onnx", template=str(template))
    assert "GRU 'it' of the template resets before the recurrent product, that of the source after it" in text


def test_a_gru_of_which_that_is_not_known_is_refused_until_it_is_declared(tmp_path: Path) -> None:
    """A weights-only file of Keras 3 without biases says nothing of it, and neither do its shapes."""
    net = Net("gru", bias=False)
    model = keras_model(net, 1)
    path = save(model, tmp_path / "m.weights.h5")
    names = list(wio.open(path))
    assert len(names) == 2
    declare = tuple(f"{n}=gru.{part}" for n, part in zip(names, ("kernel", "recurrent_kernel"), strict=True))
    with pytest.raises(PlanError) as error:
        import_into(path, tmp_path / "o.pt", adapter="torch", told=Declarations(declare=declare))
    assert "before or after the recurrent product is not declared" in str(error.value)
    assert "gru.reset_after" in str(error.value)
    told = Declarations(declare=(*declare, "*=gru.reset_after"))
    import_into(path, tmp_path / "o.pt", adapter="torch", told=told)
    written = torch.load(tmp_path / "o.pt", weights_only=True)
    module = TorchNet(net, 9)
    module.load_state_dict({f"it.{name.rpartition('.')[2]}": value for name, value in written.items()})
    np.testing.assert_allclose(torch_output(module, net), keras_output(model, net), rtol=0, atol=TOLERANCE)
    told = Declarations(declare=(*declare, "*=gru.reset_before"))
    with pytest.raises(PlanError, match="resets before"):
        import_into(path, tmp_path / "o.pt", adapter="torch", told=told)


def test_two_biases_alone_do_not_say_which_gru_it_is(tmp_path: Path) -> None:
    """Arrays without a convention: Keras would take two biases for a GRU that resets after, ONNX has them for both."""
    arrays = {"g/kernel": numbers(3, 6, seed=1), "g/recurrent_kernel": numbers(2, 6, seed=2)}
    arrays["g/bias"] = numbers(2, 6, seed=3)
    np.savez(tmp_path / "m.npz", **arrays)
    layouts = {"kernel": "I(GU)", "recurrent_kernel": "I(GU)", "bias": "B(GU)"}
    declare = tuple(f"g/{part}=gru.{part}:{layout} G=zrh" for part, layout in layouts.items())
    template = saved(renamed(onnx_net(Net("gru", reset_after=False), 9), "g"), tmp_path, "t.onnx")
    for adapter, options in (("keras-tf", {}), ("onnx", {"template": str(template)}), ("torch", {})):
        with pytest.raises(PlanError, match="before or after the recurrent product is not declared"):
            told = Declarations(declare=declare)
            import_into(tmp_path / "m.npz", tmp_path / "o", adapter=adapter, options=options, told=told)
    told = Declarations(declare=(*declare, "g/*=gru.reset_before"))
    plan = import_into(tmp_path / "m.npz", tmp_path / "o.h5", adapter="keras-tf", told=told)
    assert kinds_of(plan)["g/bias"] == ("sum", False)
    options = {"template": str(template)}
    import_into(tmp_path / "m.npz", tmp_path / "o.onnx", adapter="onnx", options=options, told=told)
    net = Net("gru", reset_after=False)
    model = keras_model(net, 9)
    model.load_weights(tmp_path / "o.h5")
    np.testing.assert_allclose(keras_output(model, net), onnx_output(tmp_path / "o.onnx", net), rtol=0, atol=TOLERANCE)


def renamed(made: onnx.ModelProto, layer: str) -> onnx.ModelProto:
    """The weights of layer ``it`` under the name of another."""
    for each in made.graph.initializer:
        each.name = each.name.replace("it.", f"{layer}.")
    for node in made.graph.node:
        node.input[:] = [name.replace("it.", f"{layer}.") for name in node.input]
    return made


def test_half_of_a_layer_is_refused(tmp_path: Path) -> None:
    net = Net("lstm", both=True)
    path, _ = SOURCES["torch"].make(net, tmp_path)
    for drop, said in (("it.bias_hh_l0", "no recurrent_bias"), ("*_reverse", "backward_it")):
        told = Declarations(declare=torch_declarations(net), drop=(drop,))
        with pytest.raises(PlanError) as error:
            import_into(path, tmp_path / "o.onnx", adapter="onnx", told=told)
        assert said in str(error.value)


def test_two_biases_are_not_declared_alike(tmp_path: Path) -> None:
    text = refused("torch", Net("lstm"), tmp_path, "keras-tf", declare=("it.bias_*=lstm.input_bias",))
    assert "2 tensors of layer 'it' are its lstm.input_bias: it.bias_ih_l0, it.bias_hh_l0" in text


def test_a_template_of_one_direction_takes_no_two(tmp_path: Path) -> None:
    template = saved(onnx_net(Net("rnn"), 9), tmp_path, "t.onnx")
    text = refused("torch", Net("rnn", both=True), tmp_path, "onnx", template=str(template))
    assert "layer 'it' has two directions, the target keeps one" in text
    template = saved(onnx_net(Net("rnn", both=True), 9), tmp_path, "t.onnx")
    text = refused("torch", Net("rnn"), tmp_path, "onnx", template=str(template))
    assert "UI and FUI do not hold the same axes" in text


def test_a_node_that_runs_backwards_is_pointed_out(tmp_path: Path) -> None:
    source = saved(onnx_net(Net("gru"), 1, "reverse"), tmp_path, "source.onnx")
    plan = import_into(source, tmp_path / "o.h5", adapter="keras-tf")
    assert any(note.startswith("CHECK it: the source computes with go_backwards=True") for note in plan.notes)
    k = keras()
    layer = k.layers.GRU(2, return_sequences=True, go_backwards=True, name="it")
    model = randomize(k.Sequential([k.Input((5, 3)), layer]))
    model.load_weights(tmp_path / "o.h5")
    computed = np.asarray(model(Net("gru").x))[:, ::-1]
    np.testing.assert_allclose(computed, onnx_output(source, Net("gru")), rtol=0, atol=TOLERANCE)
