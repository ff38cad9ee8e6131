"""Draws the pictures of this folder: python docs/explanation/drawings.py"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
BLUE, RED, PALE, LINE, TEXT = "#2166ac", "#b2182b", "#f7f7f7", "#8c959f", "#24292f"
CELL = 34


class Picture:
    """An SVG on a white card, so that it is read on a light page and on a dark one."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"',
            ' font-family="sans-serif">',
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
        ]

    def cell(self, x: float, y: float, text: object, fill: str = PALE, side: int = CELL) -> None:
        ink = TEXT if fill == PALE else "#ffffff"
        self.parts.append(f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{fill}" stroke="{LINE}"/>')
        self.text(x + side / 2, y + side / 2 + 5, text, ink)

    def text(self, x: float, y: float, text: object, fill: str = TEXT, anchor: str = "middle", size: int = 14) -> None:
        self.parts.append(
            f'<text x="{x}" y="{y}" fill="{fill}" font-size="{size}" text-anchor="{anchor}">{text}</text>'
        )

    def arrow(self, x: float, y: float, to_x: float, to_y: float) -> None:
        self.parts.append(
            f'<path d="M{x} {y} L{to_x} {to_y}" stroke="{LINE}" stroke-width="2" fill="none"/>'
            f'<path d="M{to_x} {to_y} l-9 -5 v10 z" fill="{LINE}"/>'
        )

    def save(self, name: str) -> None:
        (HERE / name).write_text("\n".join([*self.parts, "</svg>", ""]), encoding="utf-8")


def flipped() -> None:
    """The same kernel as a cross-correlation applies it and as a convolution stores it."""
    picture = Picture(560, 210, "HWIO and HWIO flipped: the same kernel, turned through 180 degrees")
    for left, order, name in ((60, range(9), "HWIO"), (360, range(8, -1, -1), "HWIO flipped")):
        picture.text(left + 1.5 * CELL, 40, name, size=16)
        for place, number in enumerate(order):
            x, y = left + place % 3 * CELL, 60 + place // 3 * CELL
            picture.cell(x, y, number, {0: RED, 8: BLUE}.get(number, PALE))
    picture.arrow(200, 111, 320, 111)
    picture.text(260, 100, "flip H W")
    picture.text(60 + 1.5 * CELL, 188, "TensorFlow, ONNX, PyTorch")
    picture.text(360 + 1.5 * CELL, 188, "Theano")
    picture.save("flipped.svg")


def flattened() -> None:
    """A map of 2 x 2 with three channels, and the rows of the dense kernel that follow it."""
    picture = Picture(640, 250, "The rows of a dense kernel: a map flattened H W C, and C H W")
    colours = (BLUE, RED, "#4d4d4d")
    picture.text(90, 34, "a map, H=2 W=2 C=3", size=15)
    for c in range(2, -1, -1):
        for h in range(2):
            for w in range(2):
                picture.cell(40 + w * CELL + c * 18, 90 + h * CELL - c * 18, f"{h}{w}", colours[c])
    picture.text(90, 200, "each cell: h w")
    picture.text(90, 220, "each colour: a channel")
    hwc = [(h, w, c) for h in range(2) for w in range(2) for c in range(3)]
    chw = [(h, w, c) for c in range(3) for h in range(2) for w in range(2)]
    for y, name, order in ((60, "(HWC)O: TensorFlow, Keras", hwc), (160, "(CHW)O: PyTorch, Caffe, ONNX", chw)):
        picture.text(220, y, name, anchor="start", size=15)
        for place, (h, w, c) in enumerate(order):
            picture.cell(220 + place * 32, y + 12, f"{h}{w}", colours[c], side=32)
    picture.save("flattened.svg")


def axes() -> None:
    """Where the axes of a kernel sit in the formats."""
    picture = Picture(640, 220, "The axes of a convolution kernel: HWIO, OIHW, and a depthwise kernel")
    colours = {"O": RED, "I": BLUE, "H": "#4d4d4d", "W": "#4d4d4d", "C": BLUE, "M": RED, "1": LINE}
    rows = [
        ("HWIO", "TensorFlow, Keras: conv2d"),
        ("OIHW", "ONNX, PyTorch, Caffe: conv2d"),
        ("HWCM", "TensorFlow, Keras: depthwise"),
        ("CM1HW", "(CM)1HW: PyTorch, ONNX: depthwise, C and M on one axis"),
    ]
    for k, (letters, says) in enumerate(rows):
        for place, letter in enumerate(letters):
            picture.cell(30 + place * CELL, 20 + k * 48, letter, colours[letter])
        picture.text(230, 42 + k * 48, says, anchor="start")
    picture.save("axes.svg")


if __name__ == "__main__":
    flipped()
    flattened()
    axes()
