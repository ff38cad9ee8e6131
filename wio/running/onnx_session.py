"""onnxruntime as the judge of outputs: one model opened so that the same file gives the same bits every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wio.errors import WioError
from wio.lazy import Array, np

_TYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}
_FATAL_ONLY = 4


class OnnxSession:
    """A model of float32 or float64, opened. WioError where onnxruntime is missing or does not take the model.

    It runs on one thread, deterministic, and without onnxruntime's graph optimisations: they fold a batch norm into the
    convolution before it and join operators, which rounds otherwise, and otherwise again once the values between are
    outputs, so that a layer would not be what the network computed.
    """

    def __init__(self, path: Path) -> None:
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = _FATAL_ONLY
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no ancestor of their own
            raise WioError(f"onnxruntime does not take the network: {_told(error)}") from error
        self.shapes = {each.name: tuple(each.shape) for each in self._session.get_outputs()}
        self.dtypes = {each.name: _TYPES[each.type] for each in self._session.get_inputs()}

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs named, by name; inputs are cast to what the model takes."""
        given = {name: np.ascontiguousarray(array, dtype=self.dtypes[name]) for name, array in inputs.items()}
        try:
            return dict(zip(outputs, self._session.run(list(outputs), given), strict=True))
        except Exception as error:
            raise WioError(f"onnxruntime cannot run the network: {_told(error)}") from error


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise WioError(
            "onnxruntime, which runs the networks, is not installed", remedy="pip install 'wio[verify]'"
        ) from None
    return onnxruntime


def _told(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
