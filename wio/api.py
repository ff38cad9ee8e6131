"""The Python side of the commands: plain functions over paths and bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wio import port, sharded_writer
from wio.bundle import Bundle, Tensor
from wio.picturing.grid import Grid
from wio.picturing.kernels import Chosen, kernel_grid
from wio.places import written_to
from wio.plan import Plan
from wio.port import Declarations


def open(
    path: Path | str,
    adapter: str | None = None,
    *,
    arch: str | None = None,
    dialect: str | None = None,
    declare: Sequence[str] = (),
    **options: str,
) -> Bundle:
    """Opens a weight file lazily: names, dtypes, shapes, roles and layouts; no tensor is read yet.

    ``adapter`` insists on a format that is otherwise told by content; ``options`` are that adapter's own. ``declare``
    takes ``GLOB=ROLE[:LAYOUT]``. Raises AdapterError, FormatError, or what the declarations contradict.
    """
    return port.open_resolved(path, adapter, options, Declarations(arch, dialect, tuple(declare))).bundle


def save(bundle: Bundle, path: Path | str, *, shard_size: int | str | None = None) -> dict[str, str]:
    """Writes a bundle as a .wio file; gives the SHA-256 (hex) of each tensor's stored bytes.

    ``shard_size`` is that of ``--shard-size``, bytes or a text such as ``2GB``: what is larger becomes several files.
    """
    with written_to(path) as here:
        return sharded_writer.save_as(bundle, here, shard_size)


def show(tensor: Tensor, inputs: Sequence[int] = (), outputs: Sequence[int] = (), most: int | None = None) -> Grid:
    """A tensor's kernels as they are laid over the input, which a notebook displays; ``wio show`` without a file.

    ``inputs`` and ``outputs`` choose channels, else the first ``most``. Reads the tensor. Raises LayoutError unless its
    role and layout are declared.
    """
    return kernel_grid(tensor, Chosen(tuple(inputs), tuple(outputs), most))


def export(
    source: Path | str,
    out: Path | str,
    *,
    adapter: str | None = None,
    arch: str | None = None,
    dialect: str | None = None,
    declare: Sequence[str] = (),
    only: Sequence[str] = (),
    drop: Sequence[str] = (),
    apply: Sequence[str] = (),
    layout: str = "keep",
    shard_size: int | str | None = None,
    **options: str,
) -> Plan:
    """``wio export``: any readable file to .wio. Gives the plan that was carried out.

    ``shard_size`` is that of ``--shard-size``: what is larger becomes ``NAME-00001-of-0000N.wio`` and
    ``NAME.wio.index.json``. ``apply`` takes ``STEP=LAYER[:ARGUMENT...]``: values that change, as ``--apply`` has them.
    """
    told = Declarations(arch, dialect, tuple(declare), tuple(only), tuple(drop), tuple(apply))
    return port.export(source, out, adapter=adapter, options=options, told=told, layout=layout, shard_size=shard_size)


def import_into(
    source: Path | str,
    out: Path | str | None,
    *,
    adapter: str,
    arch: str | None = None,
    dialect: str | None = None,
    declare: Sequence[str] = (),
    only: Sequence[str] = (),
    drop: Sequence[str] = (),
    apply: Sequence[str] = (),
    template: Path | str | None = None,
    dry_run: bool = False,
    **options: str,
) -> Plan:
    """``wio import``: a .wio file, or any readable one, into another format; ``options`` are the target adapter's.

    ``template`` is an existing file of that format whose weights are replaced; UsageError if the adapter takes none.
    """
    told = Declarations(arch, dialect, tuple(declare), tuple(only), tuple(drop), tuple(apply))
    return port.import_into(
        source, out, adapter=adapter, options=options, template=template, told=told, dry_run=dry_run
    )
