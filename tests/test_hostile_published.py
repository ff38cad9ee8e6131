"""Published attacks, rebuilt from their descriptions: wio runs, imports and opens nothing that they name."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import marshal
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile import bad_message, wio

PLANTED = "planted_by_a_stranger"
CODE = marshal.dumps(compile(f"import {PLANTED}", "lambda", "exec"))
CHANNELS = ("socket", "subprocess", "os.system", "os.exec", "os.posix_spawn", "os.fork", "urllib", "http", "ftplib")
SEEN: list[str] | None = None


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    if SEEN is not None and (
        event.startswith(CHANNELS)
        or (event in ("import", "open", "compile", "marshal.loads") and any(_planted(each) for each in arguments))
    ):
        SEEN.append(f"{event} {arguments!r:.200}")


def _planted(argument: Any) -> bool:
    text = argument if isinstance(argument, bytes) else str(argument).encode()
    return PLANTED.encode() in text


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """What happens meanwhile of all that reading must not do. Python does not let go of a hook: one is enough."""
    global SEEN
    if not hasattr(sys, "_wio_hooked"):
        sys.addaudithook(_look)
        sys._wio_hooked = True  # type: ignore[attr-defined]
    SEEN = []
    try:
        yield SEEN
    finally:
        SEEN = None


def test_the_hook_sees(tmp_path: Path) -> None:
    with watched() as seen:
        with contextlib.suppress(OSError):
            (tmp_path / PLANTED).read_bytes()
        with contextlib.suppress(ImportError):
            exec(marshal.loads(CODE))
        import socket

        socket.socket().close()
    kinds = {line.split()[0] for line in seen}
    assert kinds >= {"open", "import", "marshal.loads", "socket.__new__"}


def layer(class_name: str, config: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": "evil", **config}, **keys}


MARSHALLED = [base64.b64encode(CODE).decode(), None, None]
CONFIGS: dict[str, dict[str, Any]] = {
    # Keras 2: the code of a Lambda is kept as marshalled bytes.
    "CVE-2024-3660": layer("Lambda", {"function": MARSHALLED, "function_type": "lambda", "module": PLANTED}),
    # The same by way of HDF5, where Keras 3 did not ask for its safe mode.
    "CVE-2025-9905": layer(
        "Lambda",
        {
            "function": {
                "class_name": "__lambda__",
                "config": {"code": MARSHALLED[0], "defaults": None, "closure": None},
            }
        },
    ),
    # Any module and function, named where a class belongs.
    "CVE-2025-1550": layer("run", {"args": [PLANTED]}, module=PLANTED, registered_name=PLANTED),
    "CVE-2025-1550 of a function": layer(
        "Dense",
        {"units": 3, "activation": {"class_name": "function", "module": PLANTED, "config": "system"}},
    ),
    # A function of Keras itself that fetches a file.
    "CVE-2025-8747": layer(
        "Lambda",
        {
            "function": {"module": "keras.utils", "class_name": "function", "config": "get_file"},
            "arguments": {"fname": PLANTED, "origin": f"http://127.0.0.1:9/{PLANTED}", "extract": True},
        },
        module="keras.layers",
    ),
    # A call that switches the safe mode off, and what needs it off.
    "CVE-2025-9906": {
        "class_name": "function",
        "module": "keras.config",
        "config": "enable_unsafe_deserialization",
        "registered_name": "function",
    },
    # Vocabularies that are paths or addresses.
    "CVE-2025-12058": layer("StringLookup", {"vocabulary": f"/etc/{PLANTED}"}, module="keras.layers"),
    "CVE-2025-12058 over the network": layer(
        "TextVectorization", {"vocabulary": f"http://127.0.0.1:9/{PLANTED}"}, module="keras.layers"
    ),
    "CVE-2025-12058 of integers": layer("IntegerLookup", {"vocabulary": f"file:///{PLANTED}"}, module="keras.layers"),
}


def model(evil: dict[str, Any], module: str) -> dict[str, Any]:
    layers = [
        {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 4], "batch_input_shape": [None, 4]}},
        {"class_name": "Dense", "config": {"name": "d", "units": 3, "use_bias": True}},
        evil,
    ]
    return {"class_name": "Sequential", "config": {"name": "s", "layers": layers}, "module": module}


def keras(path: Path, evil: dict[str, Any], module: str) -> None:
    config = json.dumps(model(evil, module))
    kernel, bias = np.arange(12, dtype="<f4").reshape(4, 3), np.arange(3, dtype="<f4")
    if path.suffix == ".keras":
        held = io.BytesIO()
        with h5py.File(held, "w") as file:
            file["layers/dense/vars/0"], file["layers/dense/vars/1"] = kernel, bias
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("metadata.json", '{"keras_version": "3.8.0"}')
            made.writestr("config.json", config)
            made.writestr("model.weights.h5", held.getvalue())
            made.writestr(f"assets/{PLANTED}.txt", "word")
        return
    with h5py.File(path, "w") as file:
        file.attrs.update({"keras_version": b"2.12.0", "backend": b"tensorflow", "model_config": config.encode()})
        group = file.create_group("model_weights")
        group.attrs.update({"layer_names": [b"d"], "backend": b"tensorflow", "keras_version": b"2.12.0"})
        group["d/d/kernel:0"], group["d/d/bias:0"] = kernel, bias
        group["d"].attrs["weight_names"] = [b"d/kernel:0", b"d/bias:0"]


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@pytest.mark.parametrize("module", ["keras", PLANTED])
@pytest.mark.parametrize("attack", CONFIGS)
def test_keras(tmp_path: Path, attack: str, module: str, name: str) -> None:
    path, out = tmp_path / name, tmp_path / "out"
    into = "keras3" if name == "m.keras" else "keras-tf"
    out.mkdir()
    keras(path, CONFIGS[attack], module)
    with watched() as seen:
        runs = [
            wio("inspect", "--digests", path),
            wio("export", path, "-o", out / "m.wio"),
            wio("import", out / "m.wio", "--into", into, "-o", out / name),
            wio("check", path),
            wio("verify", path),
        ]
    assert not seen
    # A string where a layer's config belongs is refused; whatever is well formed and unknown is data. So is all that a
    # model of a strange module holds, whose class is then not Keras's.
    read = 2 if attack == "CVE-2025-9906" and (module == "keras" or name == "m.h5") else 0
    assert [run.code for run in runs[:2]] == [read, read], [run.err for run in runs]
    assert all(run.code in (0, 1, 2) for run in runs), [run.err for run in runs]
    assert not [line for run in runs if run.code == 2 for line in bad_message(run.err)]
    assert {each.name for each in out.iterdir()} <= {"m.wio", name}


@pytest.mark.parametrize(
    "location",
    [
        pytest.param(f"../{PLANTED}", id="CVE-2022-25882"),
        pytest.param(f"/etc/{PLANTED}", id="CVE-2022-25882 from the root"),
        pytest.param(f"sub/../../{PLANTED}", id="CVE-2024-27318"),
        pytest.param(f"./.././{PLANTED}", id="CVE-2024-27318 by a dot"),
        pytest.param(f"..\\{PLANTED}", id="CVE-2024-27318 by a backslash"),
    ],
)
def test_onnx_external_data(tmp_path: Path, location: str) -> None:
    import onnx

    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / PLANTED).write_bytes(bytes(24))
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2, 3], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    (folder / "m.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with watched() as seen:
        runs = [wio("inspect", "--digests", folder / "m.onnx"), wio("export", folder / "m.onnx", "-o", tmp_path / "o")]
    assert not seen
    for run in runs:
        assert run.code == 2
        assert "leads out of the model's folder" in run.err
        assert not list(bad_message(run.err))


def tarred(*members: tuple[str, bytes]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as file:
        for name, contents in members:
            told = tarfile.TarInfo(name)
            told.size = len(contents)
            file.addfile(told, io.BytesIO(contents))
    return held.getvalue()


RUN = b"\x80\x02c" + PLANTED.encode() + b"\nsystem\nX\x02\x00\x00\x00id\x85R."
TARS = {
    # An archive of test data that unpacks over files elsewhere.
    "CVE-2024-5187": ("onnx", tarred((f"../{PLANTED}", b"x"), ("model.onnx", b""))),
    # The oldest form of torch.save, a tar of pickles, which weights_only did not look into.
    "CVE-2025-32434": ("torch", tarred(("storages", RUN), ("tensors", RUN), ("pickle", RUN))),
    "CVE-2025-32434 as a bare pickle": ("torch", RUN),
}


@pytest.mark.parametrize("attack", TARS)
def test_archives(tmp_path: Path, attack: str) -> None:
    adapter, contents = TARS[attack]
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "m.bin"
    path.write_bytes(contents)
    with watched() as seen:
        runs = [
            wio("inspect", path),
            wio("inspect", f"{adapter}:{path}"),
            wio("export", "--from", adapter, path, "-o", tmp_path / "o"),
        ]
    assert not seen
    assert [run.code for run in runs] == [2, 2, 2]
    assert not [line for run in runs for line in bad_message(run.err)]
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["in", "m.bin"]
