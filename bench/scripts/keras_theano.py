"""KERAS_TF.h5 OUT.h5: what ``convert_kernel`` and ``transpose`` of the original way do, with NumPy and h5py alone."""

import sys

import h5py
import numpy as np


def converted(kernel):
    """Keras 2.2 ``utils/conv_utils.py``, ``convert_kernel``: every spatial axis runs the other way."""
    flipped = [slice(None, None, -1)] * (kernel.ndim - 2) + [slice(None), slice(None)]
    return np.copy(kernel[tuple(flipped)])


with h5py.File(sys.argv[1], "r") as source, h5py.File(sys.argv[2], "w") as target:

    def put(name, item):
        if isinstance(item, h5py.Dataset):
            array = item[()]
            if array.ndim == 4:
                array = np.transpose(converted(array), (3, 2, 0, 1))
            target.create_dataset(name, data=array)
        else:
            target.require_group(name).attrs.update(item.attrs)

    source.visititems(put)
