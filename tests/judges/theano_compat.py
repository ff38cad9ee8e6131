"""Let Keras 1.2.2 and 2.2.4 on Theano 1.0.5 import and run under Python 3.11.

Both libraries were written for Python 2.7 to 3.7, NumPy 1.1x and h5py 2. Nothing they compute is changed
here; only names that Python, NumPy and h5py have since removed are put back. The environment that this was
checked in:

    numpy==1.23.5 scipy==1.10.1 h5py==3.8.0 pyyaml six wheel==0.42.0 "setuptools<66"
    pip install --no-deps --no-build-isolation theano==1.0.5 keras==2.2.4 \\
        Keras-Applications==1.0.8 Keras-Preprocessing==1.1.2          (or keras==1.2.2 alone)

`install` must run before the first `import keras` or `import theano` of the process.
"""

from __future__ import annotations

import collections
import collections.abc
import inspect
import os
import sys
import types
import warnings

THEANO_FLAGS = {"device": "cpu", "floatX": "float32"}


def install(compiledir: str | None = None) -> None:
    """Prepare this process for Theano and import Keras; a second call does nothing more.

    `compiledir` is where Theano keeps compiled C++ between runs (default: Theano's own, below the home
    folder). Flags that the THEANO_FLAGS variable already sets are kept.
    """
    if "theano.ifelse" in sys.modules:
        return
    if "keras" in sys.modules:
        raise RuntimeError("theano_compat.install() must run before keras is imported")
    os.environ["KERAS_BACKEND"] = "theano"
    _set_theano_flags(compiledir)
    _restore_removed_names()
    _restore_blas_info()
    _read_string_attributes_as_bytes()
    # Theano's own `np.bool` and `np.int` are deprecated, not removed, in NumPy 1.23.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(theano|keras)\.")
    # Keras reaches for `theano.ifelse` without importing it, which worked only while Theano did so itself.
    import theano.ifelse  # noqa: F401

    _let_keras_flip_kernels()


def _set_theano_flags(compiledir: str | None) -> None:
    flags = dict(THEANO_FLAGS)
    if compiledir is not None:
        flags["base_compiledir"] = compiledir
    given = os.environ.get("THEANO_FLAGS", "")
    named = {flag.partition("=")[0] for flag in given.split(",")}
    added = [f"{name}={value}" for name, value in flags.items() if name not in named]
    os.environ["THEANO_FLAGS"] = ",".join(added + ([given] if given else []))


def _restore_removed_names() -> None:
    """Python 3.10 removed the ABCs from `collections`, Python 3.11 `inspect.getargspec`."""
    for name in collections.abc.__all__:
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))
    if not hasattr(inspect, "getargspec"):
        # Four fields, not the seven of getfullargspec: callers unpack the tuple.
        fields = collections.namedtuple("ArgSpec", "args varargs keywords defaults")

        def getargspec(function):
            full = inspect.getfullargspec(function)
            return fields(full.args, full.varargs, full.varkw, full.defaults)

        inspect.getargspec = getargspec


def _restore_blas_info() -> None:
    """Theano reads `blas_opt_info`, which NumPy wheels built with 64-bit OpenBLAS lack.

    Empty means: no BLAS to link with. Theano then calls NumPy's own BLAS, as fast and one library fewer to
    find.
    """
    import numpy.distutils.__config__ as config

    if not hasattr(config, "blas_opt_info"):
        config.blas_opt_info = {}


def _read_string_attributes_as_bytes() -> None:
    """Keras calls `.decode()` on every string attribute: h5py 2 gave bytes, h5py 3 gives str."""
    import h5py
    import numpy

    original = h5py.AttributeManager.__getitem__
    if getattr(original, "gives_bytes", False):
        return

    def getitem(self, name):
        value = original(self, name)
        if isinstance(value, str):
            return value.encode("utf-8")
        if isinstance(value, numpy.ndarray) and value.dtype == object:
            encoded = [item.encode("utf-8") if isinstance(item, str) else item for item in value.flat]
            result = numpy.empty(value.shape, dtype=object)
            result.flat[:] = encoded
            return result
        return value

    getitem.gives_bytes = True
    h5py.AttributeManager.__getitem__ = getitem


def _let_keras_flip_kernels() -> None:
    """Keras 2's `convert_kernel` indexes with a list of slices, which NumPy 1.23 refuses.

    Its module is shown a NumPy whose `asarray` returns arrays that accept such a list, so that the flip
    that a judge sees stays Keras's own code. Keras 1 loads weights without ever calling its like.
    """
    import keras

    if keras.__version__.startswith("1."):
        return
    import keras.utils.conv_utils
    import numpy

    class IndexedByLists(numpy.ndarray):
        def __getitem__(self, key):
            return super().__getitem__(tuple(key) if isinstance(key, list) else key)

    lenient = types.ModuleType("numpy")
    lenient.__dict__.update(vars(numpy))
    lenient.asarray = lambda *args, **kwargs: numpy.asarray(*args, **kwargs).view(IndexedByLists)
    keras.utils.conv_utils.np = lenient
