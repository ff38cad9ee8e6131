"""What every adapter must hold to, as a class to subclass. Needs the extra ``wio[testing]``.

    class TestMine(AdapterContract):
        adapter = Mine()

        def sample(self, folder):
            ...  # write a small valid file with the format's own library
            return path

pytest runs the contract's tests on the adapter. An adapter that writes is also held to reading back what it wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from wio.adapter import Adapter
from wio.bundle import Bundle
from wio.encodings import to_bytes
from wio.errors import UsageError, WioError
from wio.ops import apply_all, inverse_of, rearrange
from wio.plan import make_plan
from wio.roles import ROLES, neutral

FOREIGN = {
    "empty": b"",
    "text": b"not a weight file\n",
    "html": b"<!DOCTYPE html><html></html>",
    "zeros": bytes(4096),
    "lfs": b"version https://git-lfs.github.com/spec/v1\n",
}


class AdapterContract:
    """Subclass it, set ``adapter``, and write ``sample``. ``read_options`` are given to every read."""

    adapter: ClassVar[Adapter]
    read_options: ClassVar[Mapping[str, str]] = {}
    write_options: ClassVar[Mapping[str, str]] = {}

    def sample(self, folder: Path) -> Path:
        """A small valid file of the format, written into ``folder``; gives its path."""
        raise NotImplementedError

    def bundle(self, folder: Path) -> Bundle:
        return self.adapter.read(self.sample(folder), **self.read_options)

    def test_it_says_what_it_is(self) -> None:
        assert self.adapter.name and self.adapter.name == self.adapter.name.lower()
        assert self.adapter.description
        names = [option.name for option in self.adapter.options]
        assert len(names) == len(set(names))
        assert all(option.help and (option.reading or option.writing) for option in self.adapter.options)

    def test_it_knows_its_own(self, tmp_path: Path) -> None:
        assert self.adapter.sniff(self.sample(tmp_path)) > 0

    @pytest.mark.parametrize("kind", FOREIGN)
    def test_it_claims_nothing_foreign(self, kind: str, tmp_path: Path) -> None:
        file = tmp_path / "foreign"
        file.write_bytes(FOREIGN[kind])
        assert self.adapter.sniff(file) == 0

    def test_sniffing_never_raises(self, tmp_path: Path) -> None:
        assert self.adapter.sniff(tmp_path / "missing") == 0
        assert self.adapter.sniff(tmp_path) == 0

    def test_an_unknown_option_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError):
            self.adapter.checked({"no_such_option": "1"}, writing=False)
        with pytest.raises(UsageError):
            self.adapter.checked({"no_such_option": "1"}, writing=True)
        assert tmp_path.exists()

    def test_tensors_are_what_they_say(self, tmp_path: Path) -> None:
        bundle = self.bundle(tmp_path)
        assert len(bundle), "the sample should hold tensors"
        for name, tensor in bundle.items():
            array = tensor.numpy()
            assert tensor.name == name
            assert array.shape == tensor.shape
            assert array.flags.c_contiguous or array.size == 0
            assert array.dtype == tensor.dtype.numpy, f"{name}: {array.dtype} is not {tensor.dtype}"
            assert bytes(tensor.stored()) == bytes(to_bytes(array, tensor.dtype))
            assert tensor.role is None or tensor.role in ROLES
            if tensor.layout is not None:
                assert tensor.layout.check(tensor.shape) is None
                assert tensor.role is not None and neutral(tensor.role, tensor.layout)

    def test_reading_twice_gives_the_same(self, tmp_path: Path) -> None:
        path = self.sample(tmp_path)
        first, second = (self.adapter.read(path, **self.read_options) for _ in range(2))
        assert list(first) == list(second)
        assert all(bytes(first[name].stored()) == bytes(second[name].stored()) for name in first)

    def test_what_it_gave_out_stays(self, tmp_path: Path) -> None:
        """Writers hash and write a tensor while the next one is read, so a buffer must not be used again."""
        bundle = self.bundle(tmp_path)
        held = {name: (tensor.stored(), bytes(tensor.stored())) for name, tensor in bundle.items()}
        assert all(bytes(view) == copy for view, copy in held.values())

    def test_metadata_is_json(self, tmp_path: Path) -> None:
        metadata = self.bundle(tmp_path).metadata
        text = json.dumps(metadata, allow_nan=False)
        assert json.loads(text) == metadata
        assert str(tmp_path) not in text, "a bundle must not remember where its file lay"

    def test_a_damaged_file_is_refused_or_read_right(self, tmp_path: Path) -> None:
        path = self.sample(tmp_path)
        if path.is_dir():
            path = max((each for each in path.rglob("*") if each.is_file()), key=lambda each: each.stat().st_size)
        whole = path.read_bytes()
        for length in sorted({0, 1, 7, len(whole) // 4, len(whole) // 2, len(whole) - 1}):
            path.write_bytes(whole[:length])
            try:
                for tensor in self.adapter.read(path, **self.read_options).values():
                    tensor.numpy()
            except WioError as error:
                assert str(error)

    def test_the_convention_is_consistent(self) -> None:
        """Every layout is one of its role, and can be left and come back to."""
        for role, layouts in self.adapter.convention(**self.write_options).layouts.items():
            for layout in layouts:
                home = neutral(role, layout)
                sized = layout.with_sizes({letter: 2 + k for k, letter in enumerate(layout.letters) if letter != "?"})
                shape = [
                    int(np.prod([1 if x == "1" else sized.size(x) or 2 + layout.letters.index(x) for x in axis]))
                    for axis in sized.axes
                ]
                array = np.arange(int(np.prod(shape))).reshape(shape)
                steps = rearrange(sized, home.with_sizes(dict(sized.sizes)))
                np.testing.assert_array_equal(apply_all(inverse_of(steps), apply_all(steps, array)), array)

    def _written(self, bundle: Bundle, path: Path) -> Path:
        options = self.adapter.checked(self.write_options, writing=True)
        plan = make_plan(bundle, self.adapter.target(bundle, **options), self.adapter.name, options)
        self.adapter.write(path, plan.apply(), **options)
        return path

    def test_what_it_writes_it_reads(self, tmp_path: Path) -> None:
        if not self.adapter.writes:
            assert type(self.adapter).write is Adapter.write
            return
        bundle = self.bundle(tmp_path)
        bundle.metadata.setdefault("adapter", self.adapter.name)
        path = self._written(bundle, tmp_path / "written")
        again = self.adapter.read(path, **self.read_options)
        assert [t.origin or t.name for t in again.values()] == [t.origin or t.name for t in bundle.values()]
        for name, tensor in bundle.items():
            assert (again[name].dtype, again[name].shape) == (tensor.dtype, tensor.shape)
            assert bytes(again[name].stored()) == bytes(tensor.stored())

    def test_the_same_bundle_gives_the_same_bytes(self, tmp_path: Path) -> None:
        if not self.adapter.writes:
            return
        bundle = self.bundle(tmp_path)
        bundle.metadata.setdefault("adapter", self.adapter.name)
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            self._written(bundle, tmp_path / name / "written")
        contents = [
            {each.name: each.read_bytes() for each in sorted((tmp_path / name).rglob("*")) if each.is_file()}
            for name in ("one", "two")
        ]
        assert contents[0] == contents[1]

    def test_an_error_while_writing_leaves_nothing(self, tmp_path: Path) -> None:
        if not self.adapter.writes:
            return
        bundle = self.bundle(tmp_path)
        bundle.metadata.setdefault("adapter", self.adapter.name)
        last = list(bundle)[-1]

        def fail(_: memoryview) -> None:
            raise WioError("the source went away")

        broken = bundle.map(lambda tensor: tensor.watched(fail) if tensor.name == last else tensor)
        (tmp_path / "out").mkdir()
        with pytest.raises(WioError, match="went away"):
            self._written(broken, tmp_path / "out" / "written")
        assert list((tmp_path / "out").iterdir()) == []
