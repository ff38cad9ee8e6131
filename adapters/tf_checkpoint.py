"""The adapter `tf-checkpoint`: TensorFlow checkpoints, V1 and V2 read, V2 written, without TensorFlow.

A tensor's name is the variable's name, or the key of an object graph as TensorFlow spells it. Neither format records
roles; of an object graph, only slot variables and the save counter are known for what they are.
"""

from __future__ import annotations

from pathlib import Path

from wio.adapter import Adapter, Convention, Option, Target
from wio.adapters._tf_paths import INDEX, locate, looks_like_checkpoint
from wio.bundle import Bundle
from wio.errors import DigestError, FormatError
from wio.roles import PER_CHANNEL

_ROWS = ("I", "(HWC)", "(WC)", "(DHWC)", "(?)")
# tf.nn: convolution, conv2d_transpose, depthwise_conv2d, separable_conv2d state these orders of axes for filters,
# tf.linalg.matmul and tf.nn.embedding_lookup those of matrices. Groups are blocks of consecutive output channels.
_CONVENTION: dict[str, tuple[str, ...]] = {
    "conv.kernel": ("HWIO", "WIO", "DHWIO", "HWI(GO)", "WI(GO)", "DHWI(GO)"),
    "conv.bias": ("O",),
    "conv_transpose.kernel": ("HWOI", "WOI", "DHWOI"),
    "conv_transpose.bias": ("O",),
    "depthwise.kernel": ("HWCM", "WCM"),
    "depthwise.bias": ("O",),
    "separable.depthwise_kernel": ("HWCM", "WCM"),
    "separable.pointwise_kernel": ("HWIO", "WIO"),
    "separable.bias": ("O",),
    "dense.kernel": ("IO", "(HWC)O", "(WC)O", "(DHWC)O", "(?)O"),
    "dense.bias": ("O",),
    "embedding.table": ("IO",),
    **dict.fromkeys(PER_CHANNEL, ("C", "(HWC)", "(WC)", "(DHWC)", "(?)")),
    "prelu.alpha": ("C", "WC", "1C", "HWC", "11C", "1WC", "H1C", "DHWC", "111C", "(?)"),
    # Recurrent layers as Keras's layers keep them on TensorFlow (keras 2.2.4 and later, layers/recurrent.py). The one
    # kernel of a tf.nn.rnn_cell is neither of these: it joins both, and its gates run i c f o.
    "rnn.kernel": tuple(f"{row}U" for row in _ROWS),
    "rnn.recurrent_kernel": ("IU",),
    "rnn.bias": ("U",),
    "lstm.kernel": tuple(f"{row}(GU) G=ifco" for row in _ROWS),
    "lstm.recurrent_kernel": ("I(GU) G=ifco",),
    "lstm.bias": ("(GU) G=ifco",),
    "gru.kernel": tuple(f"{row}(GU) G=zrh" for row in _ROWS),
    "gru.recurrent_kernel": ("I(GU) G=zrh",),
    "gru.bias": ("(GU) G=zrh", "B(GU) G=zrh"),
    "conv_lstm.kernel": ("HWI(GO) G=ifco",),
    "conv_lstm.recurrent_kernel": ("HWI(GO) G=ifco",),
    "conv_lstm.bias": ("(GO) G=ifco",),
}
_RESET_AFTER = {"one": False, "two": True}


class TFCheckpoint(Adapter):
    """TensorFlow checkpoints: ``PREFIX.index`` with its data files (V2), or single and sharded files (V1)."""

    name = "tf-checkpoint"
    description = "TensorFlow checkpoints V1 and V2, and the variables of a SavedModel"
    writes = True
    suffix = ".ckpt"
    ranges = True
    options = (
        Option("shards", "the number of data files to write", (), "1", writing=True),
        Option(
            "state",
            "write the folder's `checkpoint` file too, naming this one alone",
            ("no", "yes"),
            "no",
            writing=True,
        ),
    )

    def sniff(self, path: Path) -> int:
        return 10 if looks_like_checkpoint(path) else 0

    def companions(self, path: Path) -> tuple[str, ...]:
        from wio.adapters._tf_beside import companions

        return companions(path)

    def read(self, path: Path, **options: str) -> Bundle:
        """The bundle of a checkpoint named by prefix, index, data file, shard or directory.

        Checksums of the index are verified now, those of values when they are loaded.
        """
        from wio.adapters._mapped_files import MappedFile
        from wio.adapters._tf_table import Table
        from wio.adapters._tf_v1 import damaged, is_v1, read_v1
        from wio.adapters._tf_v2 import read_v2

        self.checked(options, writing=False)
        found = locate(path)
        tables = [Table(MappedFile(file, ranges=True)) for file in found.tables]
        for table in tables:
            try:
                first = is_v1(table)
            except DigestError as error:
                raise damaged(table, b"", None, error.remedy) from None
            if not first and len(tables) > 1:
                raise FormatError(f"{table.file}: an index of a V2 checkpoint, not a shard of a V1 one")
        if is_v1(tables[0]):
            # checkpoint_reader.cc: a prefix beside which there is PREFIX.index is V2, whatever that holds.
            if found.tables[0].name == path.name + INDEX:
                raise FormatError(
                    f"{tables[0].file}: a V1 checkpoint under the name of the index of a V2 one",
                    remedy="name the file itself, or rename it",
                )
            return read_v1(tables)
        if not found.tables[0].name.endswith(INDEX):
            raise FormatError(
                f"{tables[0].file}: the index of a V2 checkpoint under a name that does not end in .index",
                remedy="name it as TensorFlow does, PREFIX.index, beside PREFIX.data-*",
            )
        return read_v2(found, Table(tables[0].file, copy=True))

    def convention(self, **options: str) -> Convention:
        self.checked(options, writing=True)
        return Convention.of(_CONVENTION, _RESET_AFTER)

    def target(self, bundle: Bundle, **options: str) -> Target:
        """A checkpoint passes unchanged; other weights are named LAYER/WEIGHT, or by their architecture's dialect."""
        from wio.adapters._tf_target import checkpoint_target
        from wio.adapters._tf_writer import shard_count

        shard_count(self.checked(options, writing=True)["shards"])
        return checkpoint_target(bundle, self.convention())

    def write(self, path: Path, bundle: Bundle, **options: str) -> None:
        """Writes a V2 checkpoint of that prefix: data files first, the index last."""
        from wio.adapters._tf_writer import shard_count, write_v2

        settled = self.checked(options, writing=True)
        write_v2(path, bundle, shard_count(settled["shards"]), state=settled["state"] == "yes")
