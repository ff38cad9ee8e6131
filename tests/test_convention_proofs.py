"""Every row of every convention, proved: random weights are rearranged to it and the real framework computes with them.

A row is a role and one of its layouts in an adapter's convention. Its proof takes weights in neutral layouts, brings
them to the row by :meth:`Tensor.to`, has the framework compute, and compares with one reference in plain NumPy that
knows neutral layouts only (layer_reference.py): once with axes of different lengths, once with equal ones, where no
shape could tell. A row without a proof is a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import layer_frameworks
import layer_reference
import numpy as np
import pytest
from keras_judge import FORMATS, SAVED, TOLERANCE, Saved, Tag
from layer_cases import SIZES, Array, Case, case_of

import wio
from wio.bundle import Bundle, Tensor
from wio.gates import join_gates
from wio.layout import Layout
from wio.plugins import adapter_named, found_adapters
from wio.roles import neutral

Proof = Callable[[Case, Path], Array]

LIVE: Mapping[str, Proof] = {
    "torch": layer_frameworks.torch,
    "onnx": layer_frameworks.onnx,
    "keras3": layer_frameworks.keras3,
    "tf-checkpoint": layer_frameworks.keras3,
    "caffe": layer_frameworks.caffe,
}
# What no framework at hand computes. OpenCV's importer is the only Caffe that still runs.
NO_JUDGE = {
    ("caffe", "conv_transpose.kernel", "IODHW"): "no 3-D Deconvolution in OpenCV; base_conv_layer.cpp, weight_shape",
    ("caffe", "conv_transpose.kernel", "(GI)ODHW"): "the same",
    ("caffe", "embedding.table", "IO"): "no Embed in OpenCV; embed_layer.cpp: N_ and K_ are input_dim and num_output",
}
ROWS = [
    (adapter, role, str(layout))
    for adapter in LIVE
    for role, layouts in adapter_named(adapter).convention().layouts.items()
    for layout in layouts
    if (adapter, role, str(layout)) not in NO_JUDGE
]


def test_every_adapter_with_a_convention_has_a_judge() -> None:
    own = [each.adapter for each in found_adapters() if each.adapter and each.package.name == "wio"]
    stating = {adapter.name for adapter in own if adapter.convention().layouts}
    # The layouts of a .wio file are the neutral ones.
    assert stating == {*LIVE, "keras-tf", "keras-theano", "wio"}
    assert all(Layout.parse(row) in adapter_named(name).convention().layouts[role] for name, role, row in NO_JUDGE)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("adapter", "role", "layout"), ROWS)
def test_the_framework_computes_what_the_layer_means(
    adapter: str, role: str, layout: str, sizes: str, tmp_path: Path
) -> None:
    table = adapter_named(adapter).convention().layouts
    case = case_of(role, Layout.parse(layout), table, SIZES[sizes])
    y = case.in_neutral_order(LIVE[adapter](case, tmp_path))
    np.testing.assert_allclose(y, case.y, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("adapter", "role", "wrong"),
    [
        ("torch", "conv.kernel", "OIWH"),
        ("torch", "conv.kernel", "IOHW"),
        ("torch", "conv.kernel", "OIHW flipped"),
        ("torch", "conv.kernel", "(OG)IHW"),
        ("torch", "conv_transpose.kernel", "OIHW"),
        ("torch", "depthwise.kernel", "(MC)1HW"),
        ("torch", "dense.kernel", "O(HWC)"),
        ("onnx", "dense.kernel", "(CWH)O"),
        ("onnx", "lstm.kernel", "1(GU)I G=ifco"),
        ("onnx", "gru.recurrent_kernel", "1(GI)U G=zrh"),
        ("onnx", "prelu.alpha", "CWH"),
        ("keras3", "lstm.kernel", "I(UG) G=ifco"),
        ("keras3", "embedding.table", "OI"),
        ("caffe", "dense.kernel", "IO"),
    ],
)
def test_a_wrong_row_of_the_same_shape_is_found_out(adapter: str, role: str, wrong: str, tmp_path: Path) -> None:
    table = adapter_named(adapter).convention().layouts
    case = case_of(role, Layout.parse(wrong), table, SIZES["equal"])
    y = case.in_neutral_order(LIVE[adapter](case, tmp_path))
    assert np.abs(y - case.y).max() > 1e-2


# --- Keras 1 and 2 in HDF5: what the real ones recorded, and for what follows from the order of a map alone Keras 3

# Strides and dilation say nothing about layouts, and neither does doing the same at every step or backwards.
RECORDED = {
    name: saved
    for name, saved in SAVED.items()
    if not saved.layer.startswith(("Atrous", "TimeDist", "Bidir"))
    and not saved.layer.endswith(("_dilated", "_s2"))
    and saved.layer != "ConvFlattenDense"
}


def opened(saved: Saved) -> Bundle:
    silent = saved.layer in ("PReLU", "Flatten_Dense")
    return wio.open(saved.full, adapter=saved.tag.adapter, **({"data_format": saved.tag.data_format} if silent else {}))


def layer_of(bundle: Bundle) -> dict[str, Tensor]:
    """The weights of the one layer by role; the arrays of Keras 1's gates joined."""
    found: dict[str, list[Tensor]] = {}
    for tensor in bundle.values():
        if tensor.role is not None and tensor.role != "optimizer":
            found.setdefault(tensor.role, []).append(tensor)
    return {role: each[0] if len(each) == 1 else join_gates(each) for role, each in found.items()}


@pytest.mark.parametrize("name", RECORDED)
def test_what_real_kerases_recorded_is_what_the_layer_means(name: str) -> None:
    """The other way around: from the row that the real file has to neutral, and what the reference then computes."""
    saved = RECORDED[name]
    weights, kind = {}, ""
    for role, tensor in layer_of(opened(saved)).items():
        assert tensor.layout is not None
        kind, _, part = role.partition(".")
        weights[part] = tensor.to(neutral(role, tensor.layout)).numpy()
    x, y = saved.recorded()
    if saved.layer == "Embedding":
        x = x.astype(int)
    told = {"gate": layer_reference.hard_sigmoid} if kind in ("rnn", "lstm", "gru", "conv_lstm") else {}
    if kind == "locally_connected":
        told = {"size": (3, 2) if weights["bias"].ndim == 3 else (3,)}
    computed = layer_reference.LAYERS[kind](weights, x, **told)
    np.testing.assert_allclose(computed, y, rtol=0, atol=TOLERANCE)


KERAS_TABLES = {
    (adapter, family, form): adapter_named(adapter).convention(keras=family, data_format=form).layouts
    for adapter in ("keras-tf", "keras-theano")
    for family in ("1.2", "2.0", "2.2")
    for form in FORMATS
}
# What these compute follows from the order of their maps, and not from the backend.
NO_BACKEND = (
    "dense", "embedding", "batch_norm", "layer_norm", "instance_norm", "prelu", "rnn", "lstm", "gru", "maxout"
)  # fmt: skip


@pytest.fixture(scope="module")
def recorded() -> dict[tuple[str, str, str], set[tuple[str, str]]]:
    """The rows that the recorded layers of each Keras prove."""
    found: dict[tuple[str, str, str], set[tuple[str, str]]] = {}
    for saved in RECORDED.values():
        rows = found.setdefault((saved.tag.adapter, saved.tag.family, saved.tag.data_format), set())
        for role, tensor in layer_of(opened(saved)).items():
            assert tensor.layout is not None
            # Of Keras 1's gates each is an array: joined, G still stands apart.
            letters = "".join(tensor.layout.axes)
            row = next(r for r in KERAS_TABLES[_key(saved.tag)][role] if "".join(r.axes) == letters)
            assert (row.flipped, row.values) == (tensor.layout.flipped, tensor.layout.values)
            rows.add((role, str(row)))
    return found


def _key(tag: Tag) -> tuple[str, str, str]:
    return tag.adapter, tag.family, tag.data_format


def kin(adapter: str, family: str, form: str, row: str) -> list[tuple[str, str, str]]:
    """Kerases whose layer is the same code: 2.1, which 2.0 stands for, is 2.2.4 there; what is not flipped does not
    depend on the backend; 1-D maps and what is local to them not on the data format."""
    backends = [adapter] if "flipped" in row else ["keras-tf", "keras-theano"]
    families = [family, "2.2"] if family == "2.0" else [family]
    forms = FORMATS if row in ("X(WI)O", "XO") else [form]
    return [(backend, each, other) for backend in backends for each in families for other in forms]


KERAS_ROWS = [
    (*key, role, str(layout)) for key, table in KERAS_TABLES.items() for role, rows in table.items() for layout in rows
]
# The backend does not matter for these: either table's row is proved once.
RUN_BY_KERAS_3 = sorted({row[1:] for row in KERAS_ROWS if row[3].startswith(NO_BACKEND)})
NEWER = {("conv.kernel", "HWI(GO)"), ("conv.kernel", "WI(GO)"), ("conv_transpose.kernel", "WOI"),
         ("conv_transpose.kernel", "DHWOI"), ("depthwise.kernel", "WCM")}  # fmt: skip
RUN_BY_THEANO = {("conv_transpose.kernel", "DHWOI flipped")}


def test_every_row_of_keras_is_proved(recorded: dict[tuple[str, str, str], set[tuple[str, str]]]) -> None:
    def proved(adapter: str, family: str, form: str, role: str, layout: str) -> bool:
        by_record = any((role, layout) in recorded.get(each, ()) for each in kin(adapter, family, form, layout))
        newer = adapter == "keras-tf" and (role, layout) in NEWER
        by_keras_3 = (family, form, role, layout) in RUN_BY_KERAS_3 or newer
        return by_record or by_keras_3 or (role, layout) in RUN_BY_THEANO

    assert [row for row in KERAS_ROWS if not proved(*row)] == []


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("family", "form", "role", "layout"), RUN_BY_KERAS_3)
def test_maps_are_flattened_as_the_row_says(
    family: str, form: str, role: str, layout: str, sizes: str, tmp_path: Path
) -> None:
    table = KERAS_TABLES["keras-tf", family, form]
    case = case_of(role, Layout.parse(layout), table, SIZES[sizes])
    y = case.in_neutral_order(layer_frameworks.keras_hdf5(family, form)(case, tmp_path))
    np.testing.assert_allclose(y, case.y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("role", "layout"), sorted(NEWER))
def test_what_only_later_kerases_have(role: str, layout: str, sizes: str, tmp_path: Path) -> None:
    for form in FORMATS:
        case = case_of(role, Layout.parse(layout), KERAS_TABLES["keras-tf", "2.2", form], SIZES[sizes])
        np.testing.assert_allclose(layer_frameworks.keras3(case, tmp_path), case.y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sizes", SIZES)
def test_a_transposed_convolution_over_three_axes_on_theano(sizes: str, tmp_path: Path) -> None:
    for role, layout in RUN_BY_THEANO:
        case = case_of(role, Layout.parse(layout), KERAS_TABLES["keras-theano", "2.2", FORMATS[0]], SIZES[sizes])
        np.testing.assert_allclose(layer_frameworks.keras_on_theano(case, tmp_path), case.y, rtol=0, atol=1e-5)
