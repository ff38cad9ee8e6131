"""What an adapter is: one class for one file format, found through the entry point group ``wio.adapters``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from msgspec import Struct, field

from wio.bundle import Bundle, Tensor
from wio.errors import Problem, UsageError
from wio.layout import Layout
from wio.network import Network


class Option(Struct, frozen=True):
    """An explicit option of an adapter, for reading, writing or both; values are text on the command line."""

    name: str
    help: str
    choices: tuple[str, ...] = ()
    default: str | None = None
    reading: bool = False
    writing: bool = False


class Convention(Struct, frozen=True):
    """Which layouts a format keeps for each role: one for each set of axes that the role may have.

    ``layouts`` maps a role to its layouts in this format, the usual one first: it is what a declaration without a
    layout means. Elsewhere the one applies whose letters are those of the source.

    ``reset_after`` says which GRU the format computes, by how many biases its layer has (``none``, ``one``, ``two``):
    whether the reset gate is applied after the recurrent product. Empty where a file must say so.
    """

    layouts: Mapping[str, tuple[Layout, ...]]
    reset_after: Mapping[str, bool] = field(default_factory=dict)

    @staticmethod
    def of(table: Mapping[str, tuple[str, ...]], reset_after: Mapping[str, bool] | None = None) -> Convention:
        return Convention({role: tuple(map(Layout.parse, texts)) for role, texts in table.items()}, reset_after or {})


class Slot(Struct, frozen=True):
    """One tensor that a target holds, and what fills it: the source tensors of one layer and role.

    ``name``, ``origin`` and ``layer`` are as a bundle read back from the target would have them. Where ``layout`` has
    gates, the slot takes those gates only. ``copy_of`` names a source tensor that passes as it is, declared or not.
    ``made`` fills it in the stead of any source: a tensor that the target cannot do without, synthesised.
    """

    name: str
    role: str | None
    layout: Layout | None
    layer: str
    source_layer: str
    origin: str | None = None
    reason: str = ""
    copy_of: str | None = None
    made: Tensor | None = None


class Target(Struct, frozen=True):
    """What a file made of a bundle holds: slots in order, its metadata, and what stays behind, each with its reason."""

    slots: tuple[Slot, ...]
    metadata: Mapping[str, Any]
    dropped: Mapping[str, str]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


class Adapter:
    """Reads and writes one file format. Subclass it; leave out what the format cannot do.

    ``suffix`` is what a file is named with where wio names it; by default it is the adapter's name.

    Nothing of a framework may be imported at module level, and nothing heavy: adapters are loaded to list them.

    ``extras`` names the modules that reading or writing imports and a plain installation lacks, each with the extra of
    the adapter's package that brings it. Without one of them the adapter is listed, recognises its files, and says
    what to install.

    ``ranges`` says that of a file that lies elsewhere only what it asks for need be there: whatever it reads of files,
    but the first and last bytes and JSON, passes through ``wio.mapping`` (``read_at``, ``map_file``). Otherwise such
    files are fetched whole before it reads them.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    reads: ClassVar[bool] = True
    writes: ClassVar[bool] = False
    suffix: ClassVar[str] = ""
    options: ClassVar[tuple[Option, ...]] = ()
    extras: ClassVar[Mapping[str, str]] = {}
    ranges: ClassVar[bool] = False

    def sniff(self, path: Path) -> int:
        """How specific the match is: 0 for a file that is not of this format.

        10 for a container by its magic bytes, 20 for a dialect of a container, 30 for one that names itself.
        Reads as little of the file as it can; never raises for a file that is something else.
        """
        raise NotImplementedError

    def companions(self, path: Path) -> Iterable[str]:  # noqa: ARG002
        """The names of files beside this one that may belong to it, as far as the files that are there tell.

        Where folders cannot be listed these are asked for, then it is asked again. Below the folder names have a ``/``.
        """
        return ()

    def evidence(self, path: Path) -> str | None:  # noqa: ARG002
        """Where adapters tie over a file: what it offers as evidence. It is shown to the user and decides nothing."""
        return None

    def read(self, path: Path, **options: str) -> Bundle:
        """The bundle that a file holds, lazily. Raises FormatError for what the format forbids."""
        raise NotImplementedError

    def convention(self, **options: str) -> Convention:  # noqa: ARG002
        """The layouts of each role in files written with these options; none where the format has no habit."""
        return Convention({})

    def convention_of(self, bundle: Bundle) -> Convention:  # noqa: ARG002
        """The convention of a bundle that this adapter read; roles whose layout the file leaves open are not in it."""
        return self.convention()

    def network(self, bundle: Bundle, path: Path | None = None, **options: str) -> Network | None:  # noqa: ARG002
        """The graph that a file holds beside its weights, layers named as the bundle's tensors name them.

        ``options`` are those of ``read``. Without a path it is what the bundle's metadata tell: those of a .wio file
        remember what its source said. None where nothing tells it.
        """
        return None

    def target(self, bundle: Bundle, **options: str) -> Target:
        """What a file made of this bundle will hold: the names, order and layouts that a plan must fill.

        Everything that stands in the way is a problem of the target; it raises for nothing that a plan can report.
        """
        raise NotImplementedError

    def write(self, path: Path, bundle: Bundle, **options: str) -> None:
        """Writes a bundle that a plan has brought to this format; atomic, deterministic."""
        raise NotImplementedError

    def receipt(self, path: Path) -> dict[str, Any] | None:  # noqa: ARG002
        """How a file came to be, where wio wrote it and the format has a place to say so.

        A writer finds it under ``receipt`` in the metadata of what it is to write.
        """
        return None

    def checked(self, given: Mapping[str, str], *, writing: bool) -> dict[str, str]:
        """The options with their defaults; UsageError names the options that exist and the values they take."""
        known = {option.name: option for option in self.options if (option.writing if writing else option.reading)}
        doing = "writing" if writing else "reading"
        for key, value in given.items():
            if key not in known:
                listed = ", ".join(known) or "none"
                raise UsageError(f"{self.name} has no option {key!r} for {doing}; its options are: {listed}")
            choices = known[key].choices
            if choices and value not in choices:
                raise UsageError(f"{self.name}: option {key} takes {' or '.join(choices)}, not {value!r}")
        defaults = {key: option.default for key, option in known.items() if option.default is not None}
        return {**defaults, **given}
