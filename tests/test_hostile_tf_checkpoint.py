"""Hostile TensorFlow checkpoints: what checksums confirm and what they do not, every field of every message odd."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import crc32c
import hostile
import pytest
from hostile import Case, Seed, cuts, odd
from hostile_messages import parsed, serialised, variants, varint
from tf_tables import MAGIC, block, footer, mask, sealed, table

from wio.adapters._tf_ordered_code import slice_key

GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"
FLOAT, STRING, INT8, VARIANT = 1, 7, 6, 21


def shape(*sizes: int) -> bytes:
    return serialised([(2, 2, serialised([(1, 0, size)])) for size in sizes])


def extents(*sides: tuple[int, int]) -> bytes:
    return serialised([(1, 2, serialised([(1, 0, start), (2, 0, length)])) for start, length in sides])


# --- V2


def strings(*values: bytes) -> tuple[bytes, int]:
    """A DT_STRING's bytes and CRC-32C (tensor_bundle.cc, WriteStringTensor)."""
    lengths = struct.pack(f"<{len(values)}I", *map(len, values))
    stored = mask(crc32c.crc32c(lengths)).to_bytes(4, "little")
    raw = b"".join(varint(len(value)) for value in values) + stored + b"".join(values)
    return raw, crc32c.crc32c(b"".join(values), crc32c.crc32c(stored, crc32c.crc32c(lengths)))


def variant(value: bytes) -> tuple[bytes, int]:
    crc = crc32c.crc32c(value, crc32c.crc32c(len(value).to_bytes(8, "little")))
    stored = mask(crc).to_bytes(4, "little")
    return varint(len(value)) + value + stored, crc32c.crc32c(stored, crc)


GRAPH_PROTO = serialised(
    [
        (1, 2, serialised([(2, 2, serialised([(1, 2, b"V"), (2, 2, b"w"), (3, 2, b"w")])), (3, 2, b"\x18\x01")])),
        (1, 2, serialised([(2, 2, serialised([(1, 2, b"V"), (2, 2, b"w/m"), (3, 2, b"m")]))])),
    ]
)
W, M, P0, P1 = (bytes(range(first, first + 24)) for first in (0, 50, 100, 150))
SHARDS = "m.data-00000-of-00002", "m.data-00001-of-00002"
V2_NESTED = {2: {2: {}}, 7: {1: {}}}


def bundle() -> tuple[dict[bytes, bytes], dict[str, bytes]]:
    """The entries of an index by key, and the data files: plain, strings, a variant, slices, an object graph."""
    data = [bytearray(), bytearray()]
    entries = {b"": serialised([(1, 0, 2), (2, 0, 0), (3, 2, serialised([(1, 0, 1)]))])}

    def put(key: bytes, dtype: int, dims: bytes, raw: bytes, crc: int, shard: int = 0, *slices: bytes) -> None:
        fields = [(1, 0, dtype), (2, 2, dims), (3, 0, shard), (4, 0, len(data[shard])), (5, 0, len(raw))]
        last = [(6, 5, mask(crc).to_bytes(4, "little"))] if raw else []
        entries[key] = serialised([*fields, *last, *((7, 2, each) for each in slices)])
        data[shard] += raw

    put(b"w", FLOAT, shape(2, 3), W, crc32c.crc32c(W))
    put(b"m", INT8, shape(4, 6), M, crc32c.crc32c(M), 1)
    put(b"s", STRING, shape(3), *strings(b"one", b"", b"four"))
    put(b"v", VARIANT, shape(1), *variant(b"\x0a\x01x"))
    put(GRAPH, STRING, b"", *strings(GRAPH_PROTO))
    halves = ((0, 2), (0, -1)), ((2, 2), (0, -1))
    entries[b"p"] = serialised(
        [(1, 0, FLOAT), (2, 2, shape(4, 3)), *((7, 2, extents(a, (0, 2**64 - 1))) for a, _ in halves)]
    )
    for sides, raw in zip(halves, (P0, P1), strict=True):
        put(slice_key(b"p", sides), FLOAT, shape(2, 3), raw, crc32c.crc32c(raw), 1)
    return entries, dict(zip(SHARDS, map(bytes, data), strict=True))


ENTRIES, DATA = bundle()


def index(entries: Mapping[bytes, bytes], **options: int) -> bytes:
    return table(sorted(entries.items()), **options)


INDEX = index(ENTRIES, per_block=3)
V2 = Seed("tf-checkpoint", {"m.index": INDEX, **DATA}, "m")


def test_v2_cut_off_anywhere(tmp_path: Path) -> None:
    cases = [*cuts("m.index", INDEX, range(len(INDEX)))]
    for name, raw in DATA.items():
        cases += cuts(name, raw, range(0, len(raw), 5))
        cases += [Case(f"without {name}", {name: None}, refused=(name, "missing"))]
    found = hostile.survives(tmp_path, V2, cases)
    assert found["read"] == 0


def test_v2_files_exchanged_or_longer(tmp_path: Path) -> None:
    first, second = SHARDS
    hostile.survives(
        tmp_path,
        V2,
        [
            Case("the data files exchanged", {first: DATA[second], second: DATA[first]}),
            Case("the index for a data file", {first: INDEX}),
            Case("a data file for the index", {"m.index": DATA[first]}),
            Case("bytes after the data", {first: DATA[first] + bytes(100)}),
            Case("bytes after the index", {"m.index": INDEX + b"\0"}),
            Case("bytes before the index", {"m.index": b"\0" + INDEX}),
            Case("two indexes in one file", {"m.index": INDEX * 2}),
        ],
    )


def bent_blocks(contents: bytes, entries: list[tuple[bytes, bytes]], interval: int) -> Iterator[tuple[str, bytes]]:
    """A block with each length of each entry, each restart, and their number odd; contents not yet sealed."""
    at, limit = 0, len(contents) - 4 - 4 * int.from_bytes(contents[-4:], "little")
    last = b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % interval:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        lengths = [shared, len(key) - shared, len(value)]
        head = b"".join(map(varint, lengths))
        assert contents[at : at + len(head)] == head
        for place, what in enumerate(("shared", "unshared", "value")):
            for other in odd(lengths[place], 64, len(contents)):
                changed = b"".join(map(varint, [*lengths[:place], other, *lengths[place + 1 :]]))
                yield (
                    f"entry {number}: {what} {lengths[place]} -> {other}",
                    contents[:at] + changed + contents[at + len(head) :],
                )
        at += len(head) + len(key) - shared + len(value)
        last = key
    assert at == limit
    for at in range(limit, len(contents), 4):
        value = int.from_bytes(contents[at : at + 4], "little")
        for other in odd(value, 32, len(contents)):
            yield f"restart at {at}: {value} -> {other}", contents[:at] + struct.pack("<I", other) + contents[at + 4 :]


def framed(contents: bytes, kind: int = 0, *, compressed: bool = False) -> bytes:
    """A table whose one block holds these contents, sealed."""
    stored = sealed(contents, kind, compressed=compressed)
    separators = sealed(block([(b"\xff", varint(0) + varint(len(stored) - 5))]))
    return stored + separators + footer((0, 0), (len(stored), len(separators) - 5))


def test_v2_lengths_and_restarts_that_the_checksums_confirm(tmp_path: Path) -> None:
    entries = sorted(ENTRIES.items())
    contents = block(entries, 3)
    cases = [Case(what, {"m.index": framed(bent)}, may_differ=True) for what, bent in bent_blocks(contents, entries, 3)]
    cases += [
        Case(f"Snappy: {what}", {"m.index": framed(bent, 1)}, may_differ=True)
        for what, bent in bent_blocks(contents, entries, 3)
    ]
    hostile.survives(tmp_path, V2, cases)


def test_v2_handles_and_trailers(tmp_path: Path) -> None:
    """The footer's handles, those of the index block, types of compression, checksums, and the magic number."""
    entries = sorted(ENTRIES.items())
    one, two = (sealed(block(part)) for part in (entries[:4], entries[4:]))
    handles = [(0, len(one) - 5), (len(one), len(two) - 5)]
    keys = [entries[3][0], entries[-1][0]]

    def whole(separators: list[bytes], handles: list[tuple[int, int]], meta: tuple[int, int] = (0, 0)) -> bytes:
        pairs = [(key, varint(a) + varint(b)) for key, (a, b) in zip(separators, handles, strict=True)]
        blocks = sealed(block(pairs, 1))
        return one + two + blocks + footer(meta, (len(one + two), len(blocks) - 5))

    good = whole(keys, handles)
    cases = []
    for k, handle in enumerate(handles):
        for place, what in enumerate(("offset", "size")):
            for other in odd(handle[place], 64, len(good)):
                bent = list(handles)
                bent[k] = (other, handle[1]) if place == 0 else (handle[0], other)
                cases.append(Case(f"block {k}: {what} {handle[place]} -> {other}", {"m.index": whole(keys, bent)}))
    start = len(one + two)
    size = len(good) - 48 - start - 5
    for place, value in enumerate((0, 0, start, size)):
        for other in odd(value, 64, len(good)):
            numbers = [0, 0, start, size]
            numbers[place] = other
            raw = b"".join(map(varint, numbers))
            if len(raw) <= 40:
                cases.append(
                    Case(f"footer: number {place} -> {other}", {"m.index": good[:-48] + raw.ljust(40, b"\0") + MAGIC})
                )
    cases += [
        Case("a block that is its own index", {"m.index": whole(keys, [(start, size), (start, size)])}),
        Case("the same block twice", {"m.index": whole(keys, [handles[0], handles[0]])}),
        Case("blocks in the other order", {"m.index": whole(keys, handles[::-1])}),
        Case("separators in the other order", {"m.index": whole(keys[::-1], handles)}),
        Case("the metaindex beyond the end", {"m.index": whole(keys, handles, (2**60, 2**60))}),
        Case("a magic number of another end", {"m.index": good[:-8] + MAGIC[::-1]}),
    ]
    trailers = {f"trailer {k}": (at + size, 1) for k, (at, size) in enumerate([*handles, (start, size)])}
    trailers |= {f"crc {k}": (at + size + 1, 4) for k, (at, size) in enumerate([*handles, (start, size)])}
    cases += hostile.numbers("m.index", good, trailers)
    cases += [Case(f"type {kind}", {"m.index": framed(block(entries), kind)}) for kind in range(2, 256, 23)]
    hostile.survives(tmp_path, V2, cases)


def test_v2_snappy(tmp_path: Path) -> None:
    """Lengths that are declared and not there, copies of what is not yet there, bombs."""
    import cramjam

    contents = block(sorted(ENTRIES.items()))
    packed = bytes(cramjam.snappy.compress_raw(contents))
    rest = packed[len(varint(len(contents))) :]
    cases = [
        Case(f"declared length {number}", {"m.index": framed(varint(number) + rest, 1, compressed=True)})
        for number in [*odd(len(contents), 64, len(packed)), *odd(len(contents), 32), 22 * len(packed)]
    ]
    cases += [
        Case(f"cut off at {at}", {"m.index": framed(packed[:at], 1, compressed=True)})
        for at in range(0, len(packed), 7)
    ]
    copies = {
        "a copy from before the beginning": b"\x08" + b"\x01\x20" * 4,
        "a copy of offset 0": b"\x10\x00a" + b"\x3e\x00\x00",
        "a literal of 4 GB": b"\x10\xfc\xff\xff\xff\xff" + b"a" * 20,
        "64 bytes from two, over and over": varint(200_000 * 64 + 1) + b"\x00a" + b"\xfe\x01\x00" * 200_000,
    }
    cases += [Case(what, {"m.index": framed(raw, 1, compressed=True)}) for what, raw in copies.items()]
    hostile.survives(tmp_path, V2, cases)


def test_v2_messages(tmp_path: Path) -> None:
    """Every field of the header and of each kind of entry, sealed again: nothing but the message can tell."""
    size = max(map(len, DATA.values()))
    cases = []
    for key, value in ENTRIES.items():
        for what, bent in variants(value, V2_NESTED if key else {3: {}}, size):
            cases.append(Case(f"{key!r}: {what}", {"m.index": index({**ENTRIES, key: bent})}, may_differ=True))
    hostile.survives(tmp_path, V2, cases)


def test_v2_object_graph(tmp_path: Path) -> None:
    cases = []
    for what, proto in variants(GRAPH_PROTO, {1: {2: {}, 3: {}}}):
        raw, crc = strings(proto)
        files = {SHARDS[0]: DATA[SHARDS[0]] + raw}
        fields = [(1, 0, STRING), (2, 2, b""), (4, 0, len(DATA[SHARDS[0]])), (5, 0, len(raw))]
        entry = serialised([*fields, (6, 5, mask(crc).to_bytes(4, "little"))])
        cases.append(Case(what, {**files, "m.index": index({**ENTRIES, GRAPH: entry})}, may_differ=True))
    hostile.survives(tmp_path, V2, cases)


def test_v2_strings_and_variants(tmp_path: Path) -> None:
    """The lengths and checksums inside a value whose own checksum holds."""
    cases = []
    for key, dtype in ((b"s", STRING), (b"v", VARIANT)):
        fields = parsed(ENTRIES[key])
        at, length = (next(value for number, _, value in fields if number == wanted) for wanted in (4, 5))
        raw = DATA[SHARDS[0]][at : at + length]
        heads = 3 if dtype == STRING else 1
        bent = [raw[:k] + varint(n) + raw[k + 1 :] for k in range(heads) for n in odd(raw[k], 64, length)]
        bent += [raw[:k] for k in range(length)] + [raw[:k] + bytes([raw[k] ^ 1]) + raw[k + 1 :] for k in range(length)]
        for k, each in enumerate(bent):
            crc = crc32c.crc32c(each)
            entry = serialised([f for f in fields if f[0] in (1, 2)] + [(4, 0, 0), (5, 0, len(each))])
            entry += serialised([(6, 5, mask(crc).to_bytes(4, "little"))])
            files = {"m.index": index({**ENTRIES, key: entry}), SHARDS[0]: each + DATA[SHARDS[0]]}
            # All others of that file stand where they stood, and it has grown in front: they do not match.
            cases.append(Case(f"{key!r} {k}", files, refused=()))
    hostile.survives(tmp_path, V2, cases)


def test_v2_names(tmp_path: Path) -> None:
    """Names are shown escaped, and are no paths; a key that is too long for a terminal is cut short."""
    cases = []
    for what, name in hostile.NAMES.items():
        key = name.encode("utf-8", "surrogatepass")
        if key:
            renamed = {k: v for k, v in ENTRIES.items() if k != b"w"} | {key: ENTRIES[b"w"]}
            cases.append(Case(what, {"m.index": index(renamed)}, may_differ=True))
            broken = serialised([f for f in parsed(ENTRIES[b"w"]) if f[0] != 5] + [(5, 0, 10**6)])
            cases.append(Case(f"{what}, broken", {"m.index": index({**ENTRIES, key: broken})}, refused=()))
    hostile.survives(tmp_path, V2, cases)


# --- V1

V1_NESTED = {1: {1: {2: {2: {}}, 4: {1: {}}}, 2: {}}, 2: {2: {1: {}}, 3: {2: {2: {}}}}}


def v1_parts() -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """The entries of two shards: ``w`` whole in the first, ``p`` in both, ``s`` strings in the second."""
    halves = ((0, 2), (0, -1)), ((2, 2), (0, -1))

    def meta(*tensors: bytes) -> bytes:
        version = serialised([(1, 0, 1)])
        return serialised([(1, 2, serialised([*((1, 2, each) for each in tensors), (2, 2, version)]))])

    def listed(name: bytes, dims: bytes, dtype: int, part: bytes) -> bytes:
        return serialised([(1, 2, name), (2, 2, dims), (3, 0, dtype), (4, 2, part)])

    def saved(name: bytes, part: bytes, dtype: int, dims: bytes, *values: tuple[int, int, bytes]) -> bytes:
        proto = serialised([(1, 0, dtype), (2, 2, dims), *values])
        return serialised([(2, 2, serialised([(1, 2, name), (2, 2, part), (3, 2, proto)]))])

    whole, line = serialised([(1, 2, b""), (1, 2, b"")]), serialised([(1, 2, b"")])
    parts = [serialised([(1, 2, serialised([(1, 0, a), (2, 0, b)])), (1, 2, b"")]) for (a, b), _ in halves]
    first = {
        b"": meta(listed(b"w", shape(2, 3), FLOAT, whole), listed(b"p", shape(4, 3), FLOAT, parts[0])),
        slice_key(b"w", ((0, -1), (0, -1))): saved(b"w", whole, FLOAT, shape(2, 3), (5, 2, W)),
        slice_key(b"p", halves[0]): saved(b"p", parts[0], FLOAT, shape(2, 3), (5, 2, P0)),
    }
    second = {
        b"": meta(
            listed(b"p", shape(4, 3), FLOAT, parts[1]),
            listed(b"s", shape(2), STRING, line),
            listed(b"i", shape(3), INT8, line),
        ),
        slice_key(b"p", halves[1]): saved(b"p", parts[1], FLOAT, shape(2, 3), (5, 2, P1)),
        slice_key(b"s", ((0, -1),)): saved(b"s", line, STRING, shape(2), (8, 2, b"one"), (8, 2, b"")),
        slice_key(b"i", ((0, -1),)): saved(b"i", line, INT8, shape(3), (7, 2, b"\1\2" + varint(2**64 - 3))),
    }
    return first, second


V1_PARTS = dict(zip(("m-00000-of-00002", "m-00001-of-00002"), v1_parts(), strict=True))
V1 = Seed("tf-checkpoint", {name: index(part, per_block=2) for name, part in V1_PARTS.items()}, "m-?????-of-00002")


def test_v1_cut_off_anywhere(tmp_path: Path) -> None:
    cases = []
    for name, raw in V1.files.items():
        cases += [*cuts(name, raw, range(0, len(raw), 2)), Case(f"without {name}", {name: None}, refused=(name,))]
    first, second = V1.files
    cases += [
        Case("the shards exchanged", {first: V1.files[second], second: V1.files[first]}),
        Case("the first shard twice", {second: V1.files[first]}, refused=("overlap",)),
        Case("a V2 index for a shard", {second: INDEX}, refused=()),
    ]
    hostile.survives(tmp_path, V1, cases)


def test_v1_messages(tmp_path: Path) -> None:
    cases = []
    for name, part in V1_PARTS.items():
        for key, value in part.items():
            for what, bent in variants(value, V1_NESTED, len(V1.files[name])):
                cases.append(Case(f"{key!r}: {what}", {name: index({**part, key: bent})}, may_differ=True))
    hostile.survives(tmp_path, V1, cases)


def test_v1_lengths_and_restarts_that_the_checksums_confirm(tmp_path: Path) -> None:
    cases = []
    for name, part in V1_PARTS.items():
        entries = sorted(part.items())
        cases += [Case(what, {name: framed(bent)}) for what, bent in bent_blocks(block(entries, 3), entries, 3)]
    hostile.survives(tmp_path, V1, cases)


def test_v1_names(tmp_path: Path) -> None:
    cases = []
    name, part = next(iter(V1_PARTS.items()))
    for what, text in hostile.NAMES.items():
        listed = parsed(parsed(part[b""])[0][2])
        tensor = [(1, 2, text.encode()), *parsed(listed[0][2])[1:]]
        meta = serialised([(1, 2, serialised([(1, 2, serialised(tensor)), *listed[1:]]))])
        cases.append(Case(what, {name: index({**part, b"": meta})}, refused=("listed, but not stored",)))
    hostile.survives(tmp_path, V1, cases)


# --- bombs: a few bytes of a file that take many in memory


def many(count: int, value: bytes) -> list[tuple[bytes, bytes]]:
    return [(k.to_bytes(4, "big").hex().encode(), value) for k in range(count)]


def listing(*fields: tuple[int, int, bytes]) -> bytes:
    """A V1 table that says no more than this of its tensors."""
    return framed(block([(b"", serialised([(1, 2, serialised(list(fields)))]))]))


SCALAR = serialised([(1, 0, FLOAT), (2, 2, b""), (6, 5, mask(0).to_bytes(4, "little"))])
ZEROS = varint(64 << 20) + b"\x00\x00" + b"\xfe\x01\x00" * (1 << 20)
V2_BOMBS = {
    "a million entries": lambda: index(dict([(b"", ENTRIES[b""]), *many(1_000_000, SCALAR)])),
    "a million empty entries": lambda: index(dict([(b"", ENTRIES[b""]), *many(1_000_000, b"")])),
    "two million keys packed": lambda: framed(block(many(2_000_000, b"")), 1),
    "zeros packed": lambda: framed(ZEROS, 1, compressed=True),
    "a million slices": lambda: index({**ENTRIES, b"p": ENTRIES[b"p"] + b"\x3a\x00" * 1_000_000}),
    "a shape of a million axes": lambda: index({**ENTRIES, b"w": SCALAR + serialised([(2, 2, b"\x12\x00" * 10**6)])}),
}


@pytest.mark.parametrize("what", V2_BOMBS)
def test_v2_indexes_that_ask_for_memory(tmp_path: Path, what: str) -> None:
    hostile.measured(tmp_path, V2, Case(what, {"m.index": V2_BOMBS[what]()}, refused=()))


V1_BOMBS = {
    "ten million tensors without a name": lambda: listing((1, 2, b"\x0a\x00" * 10_000_000)),
    "a million tensors": lambda: listing(*((1, 2, serialised([(1, 2, name)])) for name, _ in many(1_000_000, b""))),
}


@pytest.mark.parametrize("what", V1_BOMBS)
def test_v1_lists_that_ask_for_memory(tmp_path: Path, what: str) -> None:
    name = next(iter(V1_PARTS))
    hostile.measured(tmp_path, V1, Case(what, {name: V1_BOMBS[what]()}, refused=()))
