"""Recurrent layers from every framework into every other: what the target computes is what the source computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recurrent_judges import SOURCES, TARGETS, TOLERANCE, Net

from wio.port import export

NETS = [
    *(Net(kind, inputs, units, both) for kind in ("lstm", "rnn") for both in (False, True)
      for inputs, units in ((3, 2), (3, 3))),
    *(Net("gru", inputs, units, both, reset_after=after) for after in (True, False) for both in (False, True)
      for inputs, units in ((3, 2), (3, 3))),
    *(Net(kind, both=both, bias=False) for kind in ("lstm", "rnn", "gru") for both in (False, True)),
]  # fmt: skip
PAIRS = [
    (source, target, net)
    for source in SOURCES
    for target in TARGETS
    for net in NETS
    if SOURCES[source].holds(net) and TARGETS[target][1](net)
]


@pytest.mark.parametrize(("source", "target", "net"), PAIRS, ids=lambda each: str(each))
def test_every_ordered_pair(source: str, target: str, net: Net, tmp_path: Path) -> None:
    path, expected = SOURCES[source].make(net, tmp_path)
    _, computed = TARGETS[target][0](path, net, tmp_path, SOURCES[source].told(net))
    np.testing.assert_allclose(computed, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("layout", ["keep", "neutral"])
def test_by_way_of_a_file(source: str, target: str, layout: str, tmp_path: Path) -> None:
    """A .wio file carries directions and resets with it, whichever layouts it keeps."""
    for net in (Net("lstm", both=True), Net("gru"), Net("rnn", 3, 3)):
        path, expected = SOURCES[source].make(net, tmp_path)
        export(path, tmp_path / "m.wio", told=SOURCES[source].told(net), layout=layout)
        _, computed = TARGETS[target][0](tmp_path / "m.wio", net, tmp_path, None)
        np.testing.assert_allclose(computed, expected, rtol=0, atol=TOLERANCE)
