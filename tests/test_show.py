"""Pictures of kernels: the same weights give the same picture, whatever their layout, and nothing is guessed."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_wio
from test_cli import arrays, make

import wio
from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES, dtype_of
from wio.errors import LayoutError, UsageError, WioError
from wio.layout import Layout
from wio.picturing import plot
from wio.picturing.colours import GAP, NOT_FINITE, SHADES, indices, palette
from wio.picturing.distribution import BINS, batch_norms, distribution
from wio.picturing.feature_maps import feature_map_grid
from wio.picturing.grid import Grid
from wio.picturing.kernels import Chosen, kernel_grid
from wio.picturing.png import png
from wio.picturing.terminal import coloured_console, grid_lines, histogram_lines

# H W I O: every axis another length, then all alike.
KERNELS = (arrays(3, 2, 4, 5), arrays(3, 3, 3, 3, seed=1))
LAID = {
    "HWIO": lambda k: k,
    "OIHW": lambda k: k.transpose(3, 2, 0, 1),
    "HWIO flipped": lambda k: k[::-1, ::-1],
    "OIHW flipped": lambda k: k[::-1, ::-1].transpose(3, 2, 0, 1),
    "IOWH": lambda k: k.transpose(2, 3, 1, 0),
}


def tensor(array: np.ndarray, role: str | None, layout: str | None, name: str = "conv/kernel") -> Tensor:
    stored = np.ascontiguousarray(array)
    declared = None if layout is None else Layout.parse(layout)
    return Tensor(name, dtype_of(stored), stored.shape, lambda: stored, role, declared)


def pixels(grid: Grid) -> np.ndarray:
    return decoded(png(grid.composed(len(grid.columns)), signed=grid.signed))


def decoded(data: bytes) -> np.ndarray:
    """By a reader that wio has no part in."""
    from PIL import Image

    return np.asarray(Image.open(BytesIO(data)).convert("RGBA"))


# --- orientation


@pytest.mark.parametrize("kernel", KERNELS, ids=["distinct", "equal"])
@pytest.mark.parametrize("layout", LAID)
def test_one_picture_whatever_the_layout(kernel: np.ndarray, layout: str, tmp_path: Path) -> None:
    expected, drawn = (kernel_grid(tensor(LAID[each](kernel), "conv.kernel", each)) for each in ("HWIO", layout))
    for i, o in np.ndindex(kernel.shape[2:]):
        assert np.array_equal(drawn.tiles[i, o], kernel[:, :, i, o])
    assert np.array_equal(pixels(drawn), pixels(expected))
    assert list(grid_lines(drawn, None)) == list(grid_lines(expected, None))
    for suffix in plot.FORMATS:
        files = [tmp_path / f"{k}{suffix}" for k in range(2)]
        for grid, file in zip((expected, drawn), files, strict=True):
            plot.save_grid(grid, file)
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_wrong_declaration_would_be_seen() -> None:
    square = KERNELS[1]
    right = pixels(kernel_grid(tensor(square, "conv.kernel", "HWIO")))
    for wrong in ("HWIO flipped", "WHIO", "HWOI", "OIHW"):
        assert not np.array_equal(right, pixels(kernel_grid(tensor(square, "conv.kernel", wrong))))


@pytest.mark.parametrize(
    ("role", "layouts"),
    [
        ("dense.kernel", ("(HWC)O H=2 W=3 C=4", "O(CHW) C=4 H=2 W=3")),
        ("dense.kernel", ("IO", "OI")),
        ("lstm.kernel", ("I(GU) G=ifco", "(GU)I G=iofc")),
        ("depthwise.kernel", ("HWCM", "(CM)1HW C=4")),
        ("conv.kernel", ("HWI(GO) G=2", "(GO)IHW G=2")),
        ("conv_transpose.kernel", ("HWOI", "IOHW")),
        ("conv.kernel", ("DHWIO", "OIDHW flipped")),
        ("conv.kernel", ("WIO", "OIW flipped")),
    ],
)
def test_other_roles_too(role: str, layouts: tuple[str, str]) -> None:
    shapes = {"dense.kernel": (24, 5), "lstm.kernel": (3, 20), "depthwise.kernel": (3, 2, 4, 2), "WIO": (3, 2, 5)}
    shapes |= {"DHWIO": (2, 3, 4, 2, 3), "HWI(GO) G=2": (3, 2, 3, 8), "HWOI": (3, 2, 5, 4)}
    shape = shapes.get(layouts[0]) or shapes[role]
    given = tensor(arrays(*shape), role, layouts[0])
    other = given.to(layouts[1])
    assert not np.array_equal(given.numpy().ravel(), other.numpy().ravel())
    first, second = kernel_grid(given), kernel_grid(other)
    assert np.array_equal(first.tiles, second.tiles)
    assert (first.rows, first.columns, first.told) == (second.rows, second.columns, second.told)


def test_what_a_tile_is() -> None:
    """Of a flattened map each unit's weights as kernels; of an LSTM a matrix for each gate."""
    rows = arrays(24, 5)
    dense = kernel_grid(tensor(rows, "dense.kernel", "(HWC)O H=2 W=3 C=4"))
    assert dense.tiles.shape == (4, 5, 2, 3)
    assert np.array_equal(dense.tiles[3, 4], rows.reshape(2, 3, 4, 5)[:, :, 3, 4])
    gates = arrays(3, 20)
    lstm = kernel_grid(tensor(gates, "lstm.kernel", "I(GU) G=ifco"))
    assert lstm.columns == ("i", "f", "c", "o")
    assert np.array_equal(lstm.tiles[0, 2], gates[:, 10:15])


def test_nothing_is_drawn_that_is_not_declared(tmp_path: Path) -> None:
    for role, layout in ((None, None), ("conv.kernel", None), (None, "HWIO")):
        with pytest.raises(LayoutError, match=r"conv/kernel: its (role|layout) is not declared") as raised:
            kernel_grid(tensor(KERNELS[1], role, layout))
        assert raised.value.remedy is not None and "--declare 'conv/kernel=ROLE:LAYOUT'" in raised.value.remedy
    path = make(tmp_path / "a.wio", {"k": (KERNELS[0], None, None)})
    assert "--declare 'k=ROLE:LAYOUT'" in run_wio("show", path, "k", code=2).stderr
    declared = run_wio("show", path, "k", "--declare", "k=conv.kernel:HWIO").stdout
    assert declared.startswith("k: 3x2 kernels, 4 inputs, 5 outputs\n")
    # How values are spread has no order.
    assert run_wio("show", path, "k", "--histogram").stdout.startswith("k: 120 values, from ")


# --- choosing channels


def test_channels() -> None:
    kernel = arrays(2, 2, 20, 30)
    given = tensor(kernel, "conv.kernel", "HWIO")
    first = kernel_grid(given)
    assert first.tiles.shape == (16, 16, 2, 2) and first.told == "2x2 kernels, 16 of 20 inputs, 16 of 30 outputs"
    few = kernel_grid(given, Chosen(inputs=(7, 3, 7), outputs=(29,)))
    assert (few.rows, few.columns) == (("7", "3"), ("29",))
    assert np.array_equal(few.tiles[1, 0], kernel[:, :, 3, 29])
    assert kernel_grid(given, Chosen(most=25)).tiles.shape[:2] == (20, 25)
    with pytest.raises(UsageError, match="--output 30, -1: there are 30"):
        kernel_grid(given, Chosen(outputs=(30, 2, -1)))
    with pytest.raises(UsageError, match="has no inputs"):
        kernel_grid(tensor(arrays(3, 4, 5), "locally_connected.bias", "YXO"), Chosen(inputs=(0,)))


# --- colours


def test_zero_is_the_middle_and_signs_have_colours() -> None:
    shades = indices(np.array([-2.0, -1.0, 0.0, 1.0, 2.0, np.nan, np.inf]), (-2.0, 2.0))
    assert shades.tolist() == [
        0,
        SHADES // 4,
        SHADES // 2,
        SHADES - 1 - SHADES // 4,
        SHADES - 1,
        NOT_FINITE,
        NOT_FINITE,
    ]
    colours = palette(True)
    assert colours[SHADES // 2] == (247, 247, 247) and len(set(colours)) == len(colours) == GAP
    for low, high in zip(colours[: SHADES // 2 - 8], colours[SHADES - 1 : SHADES // 2 + 8 : -1], strict=False):
        assert low[2] > low[0] and high[0] > high[2]


def luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance (WCAG 2.2)."""
    red, green, blue = ((c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_brightness_alone_tells_how_large_a_value_is() -> None:
    """Whoever sees no hues sees how far a value is from zero, and of plain numbers how large they are."""
    signed, plain = ([luminance(colour) for colour in palette(each)[:SHADES]] for each in (True, False))
    middle = SHADES // 2
    assert np.all(np.diff(signed[: middle + 1]) > 0) and np.all(np.diff(signed[middle:]) < 0)
    # Rounded to 8 bits neighbours may be a hair out of order.
    assert np.all(np.diff(plain[::4]) > 0)


def test_values_beyond_doubles_have_colours_too() -> None:
    huge = np.array([[1e308, -1e308], [np.inf, 5e-324]])
    grid = kernel_grid(tensor(huge, "dense.kernel", "IO"))
    assert grid.scale == (-1e308, 1e308) and not grid.finite
    assert indices(grid.tiles[0, 0], grid.scale).tolist() == [[SHADES - 1, 0], [NOT_FINITE, SHADES // 2]]
    nothing = kernel_grid(tensor(np.full((2, 2), np.nan), "dense.kernel", "IO"))
    assert nothing.scale == (-1, 1)
    zeros = kernel_grid(tensor(np.zeros((2, 2)), "dense.kernel", "IO"))
    assert (indices(zeros.tiles, zeros.scale) == SHADES // 2).all()


def test_png_is_what_another_reader_sees() -> None:
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)[:, :15]
    seen = decoded(png(picture, signed=True))
    colours = palette(True)
    for (y, x), index in np.ndenumerate(picture):
        expected = (*colours[index], 255) if index < GAP else (255, 255, 255, 0)
        assert tuple(seen[y, x]) == expected or index > GAP


# --- in the terminal


SMALL = np.array([[[[1.0, -0.5]], [[0.0, 0.04]]], [[[-1.0, 0.25]], [[0.5, np.nan]]]], np.float32)


def test_as_text(tmp_path: Path) -> None:
    """H W I O = 2 2 1 2, by hand: sign and ninths of the largest."""
    path = make(tmp_path / "a.wio", {"k": (SMALL, "conv.kernel", "HWIO")})
    assert run_wio("show", path, "k").stdout == (
        "k: 2x2 kernels, 1 input, 2 outputs\n"
        "outputs across\n"
        "  0     1\n"
        "0 +9 0  -5 0\n"
        "  -9+5  +2 x\n"
        "\n"
        "9 stands for 1\n"
        "x: not finite\n"
    )


def test_half_blocks_have_the_colours_of_the_values() -> None:
    from rich.console import Console

    console = Console(force_terminal=True, color_system="truecolor", width=80)
    grid = kernel_grid(tensor(SMALL, "conv.kernel", "HWIO"))
    line: Any = next(each for each in grid_lines(grid, console) if "▀" in str(each))
    colours = palette(True)
    shades = indices(grid.tiles, grid.scale)
    styles = {span.start: str(span.style) for span in line.spans}
    assert line.plain == "0 ▀▀ ▀▀ "
    for column, (o, x) in {2: (0, 0), 3: (0, 1), 5: (1, 0), 6: (1, 1)}.items():
        over, under = (colours[shades[0, o, y, x]] for y in range(2))
        assert styles[column] == f"rgb{over} on rgb{under}".replace(" ", "").replace("on", " on ")


def test_a_narrow_terminal_is_not_written_over_its_edge() -> None:
    from rich.console import Console

    console = Console(force_terminal=True, color_system="truecolor", width=40)
    wide = kernel_grid(tensor(arrays(5, 64), "dense.kernel", "IO"))
    lines = [str(line) for line in grid_lines(wide, console)]
    assert "the mean of 2x2" in lines[0] and max(len(line) for line in lines if "▀" in line) <= 40


def in_a_terminal(*words: object, **variables: str) -> str:
    """What the command prints on a terminal of its own."""
    ours, theirs = pty.openpty()
    told = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    told |= {"TERM": "xterm-256color", "COLUMNS": "90", "PYTHONIOENCODING": "utf-8", **variables}
    done = subprocess.Popen([sys.executable, "-m", "wio", *map(str, words)], stdout=theirs, env=told)
    os.close(theirs)
    printed = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        printed += part
    os.close(ours)
    assert done.wait() == 0
    return printed.decode()


def test_colour_where_there_is_a_terminal_that_has_it(tmp_path: Path) -> None:
    path = make(tmp_path / "a.wio", {"k": (KERNELS[0], "conv.kernel", "HWIO")})
    coloured = in_a_terminal("show", path, "k")
    assert "\x1b[38;5;" in coloured and "▀" in coloured
    plain = run_wio("show", path, "k").stdout
    assert "\x1b" not in plain and "▀" not in plain
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert in_a_terminal("show", path, "k", **variables).replace("\r\n", "\n") == plain
    assert coloured_console() is None


def test_large_tiles_are_made_smaller() -> None:
    maps = np.zeros((1, 1, 130, 130), np.float32)
    maps[0, 0, :3, :3] = 9
    lines = [str(line) for line in grid_lines(feature_map_grid("conv", maps), None)]
    assert "the mean of 3x3" in lines[0]
    rows = [line for line in lines if line.strip() == "@@"]
    assert rows == [" @@"]


# --- values


def test_a_histogram_counts_as_numpy_does(tmp_path: Path) -> None:
    values = np.concatenate([arrays(1000).ravel(), [np.nan, np.inf, 0, 0]]).astype(np.float32)
    found = distribution(tensor(values, None, None))
    finite = values[np.isfinite(values)].astype(np.float64)
    assert list(found.counts) == np.histogram(finite, BINS)[0].tolist()
    assert (found.size, found.zeros, found.not_finite) == (1004, 2, 2)
    assert (found.least, found.greatest) == (finite.min(), finite.max())
    assert found.mean == pytest.approx(finite.mean()) and found.std == pytest.approx(finite.std())
    assert found.quartiles == tuple(np.sort(finite)[[250, 500, 751]])
    bars = list(histogram_lines(found))
    tallest = int(np.argmax(found.counts))
    assert bars[1][2 + tallest] == "█" and len(bars) == 7
    plot.save_histogram(found, tmp_path / "h.png")
    assert decoded((tmp_path / "h.png").read_bytes()).shape[0] > 300
    same = distribution(tensor(np.full(7, 0.5), None, None))
    assert sum(same.counts) == max(same.counts) == 7


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float8_e4m3fn", "int4", "int64", "uint8", "bool"])
def test_numbers_of_every_kind(kind: str) -> None:
    numbers = np.array([[0, 1], [1, 0]]).astype(DTYPES[kind].numpy)
    grid = kernel_grid(tensor(numbers, "dense.kernel", "IO"))
    assert np.array_equal(grid.tiles[0, 0], [[0, 1], [1, 0]])
    found = distribution(tensor(numbers, None, None))
    assert (found.least, found.greatest, found.mean, found.std, found.zeros) == (0, 1, 0.5, 0.5, 2)


@pytest.mark.parametrize("numbers", [np.ones((3, 2), np.complex64), np.array([[b"1.5", b"2"]], object)])
def test_what_is_no_real_number(numbers: np.ndarray) -> None:
    with pytest.raises(UsageError, match="no values"):
        kernel_grid(tensor(numbers[:, :0], "dense.kernel", "IO"))
    for drawing in (distribution, kernel_grid):
        with pytest.raises(UsageError, match="are no real numbers"):
            drawing(tensor(numbers, "dense.kernel", "IO"))


def test_statistics_at_the_ends_of_doubles() -> None:
    largest = np.finfo(np.float64).max
    found = distribution(tensor(np.array([-largest, largest, largest, largest]), None, None))
    assert found.mean == largest / 2 and found.std == pytest.approx(largest * 0.75**0.5)
    assert (found.counts[0], found.counts[-1]) == (1, 3)
    least = kernel_grid(tensor(np.array([[5e-324, 0.0]]), "dense.kernel", "IO"))
    assert (indices(least.tiles, least.scale) == SHADES // 2).all()
    flat = feature_map_grid("flat", np.full((1, 3), 1e300))
    assert not flat.signed and (indices(flat.tiles, flat.scale) == 0).all()


def test_batch_norm_statistics(tmp_path: Path) -> None:
    gamma, variance = np.array([1, 2, 3], np.float32), np.array([4, 9, 16], np.float32)
    parts = {
        "bn/gamma": (gamma, "batch_norm.gamma", "C"),
        "bn/moving_mean": (-gamma, "batch_norm.mean", "C"),
        "bn/moving_variance": (variance, "batch_norm.variance", "C"),
        "other/moving_variance": (variance * 4, "batch_norm.variance", "C"),
        "fc/bias": (gamma, "dense.bias", "O"),
    }
    path = make(tmp_path / "a.wio", parts)
    first, second = batch_norms(wio.open(path))
    assert [part.name for part in first.parts] == ["gamma", "mean", "std"]
    assert (first.parts[2].least, first.parts[2].greatest) == (2, 4) and second.parts[0].quartiles == (4, 6, 8)
    told = run_wio("show", path, "--batch-norms").stdout
    assert re.search(r"^bn +3 +1 / 2 / 3 +- +-3 / -2 / -1 +2 / 3 / 4$", told, re.M)
    one = run_wio("show", path, "bn").stdout
    assert one.startswith("bn: a batch norm of 3 channels\ngamma: 3 values, from 1 to 3")
    assert run_wio("show", path, "bn/moving_mean").stdout == one
    assert "no tensor of 'fc'" in run_wio("show", path, "fc", code=2).stderr
    for name in ("bn", "--batch-norms"):
        run_wio("show", path, name, "-o", tmp_path / "bn.svg")
        texts = [each.text for each in ElementTree.parse(tmp_path / "bn.svg").iter("{http://www.w3.org/2000/svg}text")]
        assert {"gamma", "mean", "std"} <= set(texts)


# --- files


HOSTILE = "<script>alert(1)</script>$x^2$\x1b[31m\u202e&"


def test_names_are_text_in_a_picture(tmp_path: Path) -> None:
    for file in ("a.svg", "b.svg"):
        plot.save_grid(kernel_grid(tensor(KERNELS[0], "conv.kernel", "HWIO", HOSTILE)), tmp_path / file)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    drawn = ElementTree.parse(tmp_path / "a.svg")
    assert not [each for each in drawn.iter() if each.tag.endswith("script")]
    texts = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "<script>alert(1)</script>$x^2$\\x1b[31m\\u202e&" in texts
    long = kernel_grid(tensor(KERNELS[0], "conv.kernel", "HWIO", "x" * 5000))
    plot.save_grid(long, tmp_path / "long.png")
    assert decoded((tmp_path / "long.png").read_bytes()).shape[1] < 2000


def test_what_cannot_be_written_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.wio", {"k": (KERNELS[0], "conv.kernel", "HWIO"), "b": (arrays(3), None, None)})
    assert "PNG or SVG" in run_wio("show", path, "k", "-o", tmp_path / "k.jpg", code=2).stderr
    assert "did you mean k?" in run_wio("show", path, "kk", code=2).stderr
    assert "which tensor" in run_wio("show", path, code=2).stderr
    assert "are of --activations" in run_wio("show", path, "k", "--layer", "k", code=2).stderr
    assert "--max takes" in run_wio("show", path, "k", "--max", 0, code=2).stderr
    assert run_wio("show", path, "b").stdout.startswith("b: 3 values")
    run_wio("show", path, "k", "-o", tmp_path / "k.PNG")
    assert decoded((tmp_path / "k.PNG").read_bytes()).size
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(WioError) as raised:
        plot.save_grid(kernel_grid(wio.open(path)["k"]), tmp_path / "no.png")
    assert raised.value.remedy == "pip install 'wio[plot]'" and not (tmp_path / "no.png").exists()


# --- notebooks


def test_a_bundle_in_a_notebook_is_escaped_and_bounded() -> None:
    def unread() -> np.ndarray:
        raise AssertionError("showing it reads nothing")

    layout = Layout.parse("HWIO")
    names = [f"{HOSTILE}{k}" for k in range(500)]
    bundle = Bundle(Tensor(name, dtype_of(KERNELS[0]), (3, 2, 4, 5), unread, "conv.kernel", layout) for name in names)
    shown = bundle._repr_html_()
    assert "<script" not in shown and "\x1b" not in shown and "\u202e" not in shown
    assert shown.count("<tr>") == 61 and "500 tensors" in shown and "the first 60" in shown
    assert "<td>3x2x4x5</td><td>conv.kernel</td><td>HWIO</td><td>480</td>" in shown
    assert bundle[names[3]]._repr_html_().count("<tr>") == 2
    long = Bundle([Tensor("x" * 100_000, dtype_of(KERNELS[0]), (), unread)])
    assert len(long._repr_html_()) < 4000


def test_a_picture_in_a_notebook() -> None:
    grid = wio.show(tensor(KERNELS[0], "conv.kernel", "HWIO"), outputs=[4, 1])
    seen = decoded(grid._repr_png_())
    times = seen.shape[1] // (2 * 2 + 1)
    assert times > 1 and np.array_equal(seen[::times, ::times], pixels(grid)[: seen.shape[0] // times])
