"""Test vectors for layouts alone: texts, what a shape refutes, and rearrangements value by value."""

from __future__ import annotations

import math
from typing import Any

from layout_reference import rearranged, shape_of
from vectors_valid import LAYOUT_FORMS, OTHER_TEXTS

REFUSED = (
    ("", "no axes"),
    ("HWI(O", "a parenthesis that does not close"),
    ("HWIO)", "a parenthesis that does not open"),
    ("HW()IO", "an empty group"),
    ("((HW)C)O", "a group inside a group"),
    ("hwio", "letters in lower case"),
    ("HWIZ", "a letter that is no axis"),
    ("HWHW", "a letter that stands twice"),
    ("(HW)H", "a letter that stands twice"),
    ("(?)(?)", "? stands twice"),
    ("?O", "? outside parentheses"),
    ("(?C)O", "? beside letters"),
    ("(?)O ?=4", "a size of what was not declared"),
    ("(1C)O", "a unit axis in a group"),
    ("0C", "0 is no axis"),
    ("HWIO FLIPPED", "a word that is none of the grammar"),
    ("HWIO,flipped", "a separator other than a space"),
    ("HWIO\tflipped", "a separator other than a space"),
    ("HWIO \t flipped", "a tab beside spaces"),
    ("HWIO\u00a0flipped", "a separator other than a space"),
    ("HWIO flipped flipped", "a word that stands twice"),
    ("IO flipped", "flipped without a spatial axis"),
    ("(HWC)O flipped", "flipped with spatial axes in a group"),
    ("H(WI)O flipped", "flipped with a spatial axis in a group"),
    ("HWIO C=3", "the size of a letter that is no axis"),
    ("HW1O 1=1", "the size of a unit axis"),
    ("HWIO I=2 I=2", "a size that is given twice"),
    ("HWIO I=", "a size without digits"),
    ("HWIO I=-2", "a size below zero"),
    ("HWIO I=2.0", "a size with a fraction"),
    ("HWIO I=1000000000000000000", "a size of 19 digits"),
    ("HWIO I =2", "a space inside a word"),
    ("HWIO IO=2", "a size of two letters"),
    ("I(GU) G=ifcx", "gates that there are none of"),
    ("I(GU) G=iz", "gates of two kinds of layer"),
    ("I(GU) G=ii", "a gate that stands twice"),
    ("I(GU) G=cj", "a gate that stands twice, once under another name"),
    ("I(GU) G=IFCO", "gates in upper case"),
    ("I(GU) G=ifco G=4", "gates and their number"),
    ("IU G=ifco", "gates without the axis G"),
    ("YXO values=OY", "values that lack an axis"),
    ("YXO values=OYC", "values of other axes"),
    ("YXO values=", "values of no axes"),
    ("(YX)O values=OYX", "values of a layout with a group"),
    ("(?)O values=?O", "values of what was not declared"),
    ("I(GU) values=UI", "values without G, and no gates"),
    ("(IH)(GU) values=UIH G=ifco", "values of a group without the gates"),
    ("(YX)G values=YX G=c", "values of a group without the gates, in their order"),
    ("I(GU) values=UGI G=ifco", "values with G, which shares an axis"),
)

# layout, shape, whether the shape refutes it
SHAPES = (
    ("HWIO", (3, 3, 8, 16), False),
    ("HWIO", (3, 3, 8), True),
    ("HWIO", (0, 3, 8, 16), False),
    ("HWIO H=3", (3, 5, 8, 16), False),
    ("HWIO H=3", (5, 3, 8, 16), True),
    ("(HWC)O H=4 W=4 C=128", (2048, 10), False),
    ("(HWC)O H=4 W=4 C=128", (2047, 10), True),
    ("(HWC)O H=4 W=4", (2048, 10), False),
    ("(HWC)O H=4 W=4", (2040, 10), True),
    ("(HWC)O", (7, 10), False),
    ("(HWC)O H=0", (0, 10), False),
    ("(HWC)O H=0", (7, 10), True),
    ("(HWC)O H=0 W=2 C=2", (0, 10), False),
    ("(?)O", (7, 10), False),
    ("W1IO", (3, 1, 8, 16), False),
    ("W1IO", (3, 2, 8, 16), True),
    ("(GO)IHW G=32", (64, 4, 3, 3), False),
    ("(GO)IHW G=32", (63, 4, 3, 3), True),
    ("I(GU) G=ifco", (5, 8), False),
    ("I(GU) G=ifco", (5, 9), True),
    ("I(GU) G=i", (5, 9), False),
    ("GU G=zrh", (3, 9), False),
    ("GU G=zrh", (4, 9), True),
    ("()", (), False),
    ("()", (1,), True),
)

# source, target, sizes of the letters; None for sizes where there is no way from one to the other
REARRANGEMENTS: tuple[tuple[str, str, dict[str, int]], ...] = (
    ("HWIO", "OIHW", {"H": 2, "W": 3, "I": 4, "O": 5}),
    ("HWIO", "OIHW", {"H": 3, "W": 3, "I": 3, "O": 3}),
    ("OIHW flipped", "HWIO", {"H": 2, "W": 3, "I": 2, "O": 3}),
    ("HWIO flipped", "HWIO", {"H": 3, "W": 3, "I": 1, "O": 2}),
    ("DHWIO flipped", "OIDHW", {"D": 2, "H": 2, "W": 2, "I": 2, "O": 2}),
    ("W1IO flipped", "OIW", {"W": 4, "I": 2, "O": 3}),
    ("OIW1", "WIO", {"W": 3, "I": 2, "O": 2}),
    ("HWOI", "IOHW", {"H": 2, "W": 3, "I": 2, "O": 3}),
    ("HWI(GO) flipped G=2", "(GO)IHW G=2", {"H": 1, "W": 2, "I": 2, "O": 3, "G": 2}),
    ("HWO(GI) G=2", "(GI)OHW G=2", {"H": 1, "W": 2, "I": 2, "O": 3, "G": 2}),
    ("HWCM", "(CM)1HW C=3 M=2", {"H": 2, "W": 1, "C": 3, "M": 2}),
    ("(MC)1HW C=3 M=2", "(CM)1HW", {"H": 2, "W": 1, "C": 3, "M": 2}),
    ("IO", "OI", {"I": 3, "O": 3}),
    ("(HWC)O H=2 W=3 C=4", "O(CHW)", {"H": 2, "W": 3, "C": 4, "O": 2}),
    ("(HWC)O H=2 W=2 C=2", "(CHW)O", {"H": 2, "W": 2, "C": 2, "O": 2}),
    ("(HWC)O H=1 W=1 C=4", "(CHW)O", {"H": 1, "W": 1, "C": 4, "O": 2}),
    ("(HWC) H=2 W=2 C=3", "(CWH)", {"H": 2, "W": 2, "C": 3}),
    ("I(GU) G=ifco", "(GU)I G=iofc", {"I": 3, "G": 4, "U": 2}),
    ("I(GU) G=icfo", "1(GU)I G=ifco", {"I": 2, "G": 4, "U": 3}),
    ("B(GU) G=zrh", "(GU)B G=rzh", {"B": 2, "G": 3, "U": 2}),
    ("I(GU) values=UI G=zrh", "I(GU) G=zrh", {"I": 3, "G": 3, "U": 2}),
    ("F(GU)I G=iofc", "FU(GI) G=ifco", {"F": 2, "G": 4, "U": 2, "I": 2}),
    ("GU G=fc", "UG G=cf", {"G": 2, "U": 2}),
    ("HWI(GO) flipped G=ifco", "(GO)IHW G=ifco", {"H": 2, "W": 2, "I": 1, "O": 2, "G": 4}),
    ("(YX)(IHW)O Y=2 X=2 H=2 W=2 I=2", "(YX)(HWI)O", {"Y": 2, "X": 2, "H": 2, "W": 2, "I": 2, "O": 2}),
    ("YXO values=OYX", "YXO", {"Y": 2, "X": 3, "O": 4}),
    ("YXO values=OYX", "OYX", {"Y": 2, "X": 3, "O": 4}),
    ("YXO", "YXO values=XOY", {"Y": 3, "X": 3, "O": 3}),
    ("1C1", "C", {"C": 3}),
    ("C", "11C", {"C": 3}),
    ("1H1C", "CH11", {"C": 3, "H": 2}),
    ("()", "11", {}),
    ("(?)O", "O(?)", {"?": 4, "O": 3}),
)

IMPOSSIBLE = (
    ("HWIO", "HWCM", "other axes"),
    ("IO", "(HWC)O H=1 W=1 C=2", "rows that are no flattened map and rows that are one"),
    ("(?)O", "IO", "rows that were not declared"),
    ("(?)O", "(HWC)O H=1 W=1 C=4", "rows that were not declared"),
    ("(HWC)O", "(CHW)O", "a group that must be taken apart and whose sizes were not declared"),
    ("(HWC)O H=2", "(CHW)O", "a group that must be taken apart and of which one size was declared"),
    ("(HWC)O H=2 W=2 C=2", "(CHW)O H=4 W=1 C=2", "sizes that disagree"),
    ("I(GU) G=ifco", "I(GU) G=zrh", "other gates"),
    ("I(GU) G=ifco", "I(GU) G=ifc", "fewer gates"),
    ("I(GU) G=ifco", "I(GU) G=4", "gates and groups"),
    ("GU G=i", "U", "an axis of one gate and no such axis"),
)


def layout_vectors() -> dict[str, Any]:
    texts = [{"text": text, "canonical": text} for text in dict.fromkeys(text for _, text, _ in LAYOUT_FORMS)]
    texts += [{"text": text, "canonical": canonical} for text, canonical, _ in OTHER_TEXTS]
    rearrangements = []
    for source, target, extents in REARRANGEMENTS:
        shape = shape_of(source, extents)
        elements = list(range(math.prod(shape)))
        rearrangements.append(
            {
                "source": source,
                "target": target,
                "shape": list(shape),
                "result_shape": list(shape_of(target, extents)),
                "result": rearranged(elements, source, target, extents),
            }
        )
    return {
        "texts": texts,
        "refused": [{"text": text, "why": why} for text, why in REFUSED],
        "shapes": [{"layout": text, "shape": list(shape), "refuted": refuted} for text, shape, refuted in SHAPES],
        "rearrangements": rearrangements,
        "impossible": [{"source": source, "target": target, "why": why} for source, target, why in IMPOSSIBLE],
    }
