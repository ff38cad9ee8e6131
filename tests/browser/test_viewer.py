"""viewer/viewer.html, opened from the disk as its reader does, with files that are built byte by byte."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opened_page import Page
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from vector_files import File, Vector, compact, floats, framed, strings, table_digest

ROOT = Path(__file__).resolve().parent.parent.parent
VIEWER = ROOT / "viewer" / "viewer.html"
VECTORS = ROOT / "spec" / "vectors"
# O I H W: no two values and no two axes alike, so that whatever is turned or exchanged is seen.
KERNEL = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5) - 40


class Viewer:
    def __init__(self, page: Page) -> None:
        self.page = page
        self.driver = page.open(VIEWER)

    def open(self, path: Path, *beside: Path) -> None:
        self.driver.find_element("id", "file").send_keys("\n".join(map(str, (path, *beside))))
        # What is hidden has no text.
        self.wait(lambda: self.text("problem") or path.name == self.text("file-name"))

    def wait(self, condition: Any) -> None:
        WebDriverWait(self.driver, 20, poll_frequency=0.02).until(lambda _: condition())

    def text(self, identifier: str) -> str:
        return str(self.driver.find_element("id", identifier).text)

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def choose(self, name: str) -> None:
        for button in self.driver.find_elements("css selector", "#tensors button"):
            if button.text == name:
                button.click()
        self.wait(lambda: self.text("tensor-name") == name and self.text("note") != "reading ...")

    def names(self) -> list[str]:
        return [button.text for button in self.driver.find_elements("css selector", "#tensors button")]

    def tile(self) -> list[list[float]]:
        cells = "[...document.getElementById('tile').rows].map(r => [...r.cells].map(c => c.textContent))"
        rows = self.script(f"return {cells}")
        return [[float(cell) for cell in row] for row in rows]

    def pixels(self) -> Any:
        """The canvas as height x width x 4."""
        width, height, flat = self.script(
            "const c = document.getElementById('canvas');"
            "const copy = new OffscreenCanvas(c.width, c.height).getContext('2d', {willReadFrequently: true});"
            "copy.drawImage(c, 0, 0);"
            "return [c.width, c.height, [...copy.getImageData(0, 0, c.width, c.height).data]]"
        )
        return np.array(flat, dtype=np.uint8).reshape(height, width, 4)


@pytest.fixture
def viewer(page: Page) -> Viewer:
    return Viewer(page)


def write(path: Path, *tensors: Vector, **parts: Any) -> Path:
    path.write_bytes(File(list(tensors), **parts).bytes())
    return path


def kernel(name: str, array: Any, layout: str, role: str = "conv.kernel") -> Vector:
    data = np.ascontiguousarray(array)
    return Vector(name, "float32", data.shape, data.tobytes(), data.ravel().tolist(), role, layout)


def test_a_kernel_is_drawn_the_same_whatever_its_layout(viewer: Viewer, tmp_path: Path) -> None:
    """A cross-correlation's kernel, stored in four ways; one that is declared wrongly is drawn otherwise."""
    stored = {
        "OIHW": KERNEL,
        "HWIO": KERNEL.transpose(2, 3, 1, 0),
        "OIHW flipped": KERNEL[:, :, ::-1, ::-1],
        "HWIO flipped": KERNEL[:, :, ::-1, ::-1].transpose(2, 3, 1, 0),
    }
    tensors = [kernel(layout, array, layout) for layout, array in stored.items()]
    tensors.append(kernel("wrong", stored["OIHW flipped"], "OIHW"))
    viewer.open(write(tmp_path / "kernels.wio", *tensors))
    drawn = {}
    for tensor in tensors:
        viewer.choose(tensor.name)
        viewer.script(
            "for (const [id, value] of [['row', 1], ['column', 2]]) {"
            "const input = document.getElementById(id); input.value = value;"
            "input.dispatchEvent(new Event('input')); }"
        )
        drawn[tensor.name] = (viewer.tile(), viewer.pixels())
    assert viewer.driver.find_element("css selector", "#tile caption").text == "O 1, I 2"
    for layout in stored:
        tile, pixels = drawn[layout]
        assert tile == KERNEL[1, 2].tolist(), layout
        assert np.array_equal(pixels, drawn["OIHW"][1]), layout
    assert drawn["wrong"][0] == KERNEL[1, 2, ::-1, ::-1].tolist()
    assert not np.array_equal(drawn["wrong"][1], drawn["OIHW"][1])


def test_the_colours_are_those_of_the_values(viewer: Viewer, tmp_path: Path) -> None:
    values = np.array([[[[-2.0, 0.0, 1.0], [2.0, np.nan, -1.0]]]], dtype=np.float32)
    viewer.open(write(tmp_path / "colours.wio", kernel("k", values, "OIHW")))
    viewer.choose("k")
    seen = viewer.pixels()[4::8, 4::8, :3][:2, :3].tolist()
    white, red, blue = np.array([247, 247, 247]), np.array([178, 24, 43]), np.array([33, 102, 172])
    half_red, half_blue = np.floor((white + red) / 2 + 0.5), np.floor((white + blue) / 2 + 0.5)
    assert seen == [
        [blue.tolist(), white.tolist(), half_red.tolist()],
        [red.tolist(), [255, 200, 0], half_blue.tolist()],
    ]


def test_rows_of_a_dense_kernel_are_drawn_as_the_map_that_they_flatten(viewer: Viewer, tmp_path: Path) -> None:
    maps = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)  # H W C O
    rows = kernel("fc", maps.reshape(24, 5), "(HWC)O H=2 W=3 C=4", "dense.kernel")
    viewer.open(write(tmp_path / "dense.wio", rows, floats("bare", (24, 5))))
    viewer.choose("fc")
    assert viewer.tile() == maps[:, :, 0, 0].tolist()
    assert "O from top to bottom, C from left to right" in viewer.text("orientation")
    viewer.choose("bare")
    assert "not declared" in viewer.text("note")
    assert not viewer.driver.find_element("id", "drawing").is_displayed()


def test_gates_are_named(viewer: Viewer, tmp_path: Path) -> None:
    gates = np.arange(3 * 8, dtype=np.float32).reshape(3, 8)
    viewer.open(write(tmp_path / "lstm.wio", kernel("k", gates, "I(GU) G=icfo", "lstm.kernel")))
    viewer.choose("k")
    viewer.script(
        "document.getElementById('row').value = 2;document.getElementById('row').dispatchEvent(new Event('input'))"
    )
    # The third row is the first unit of f, whose gate is stored third.
    assert viewer.driver.find_element("css selector", "#tile caption").text == "G f, U 0, I 0"
    assert viewer.tile() == [[4.0]]


HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def test_hostile_text_is_text(viewer: Viewer, tmp_path: Path) -> None:
    step = {"from": [HOSTILE], "to": ["b"], "reason": HOSTILE}
    receipt = json.dumps({"wio": 1, "source": {"file": HOSTILE}, "steps": [step]}).encode()
    tensors = (
        floats(HOSTILE, (2,)),
        floats("turned \u202e round \x1b[2J", (1,)),
        strings("s", (1,), [HOSTILE.encode()]),
    )
    metadata = {HOSTILE: HOSTILE, "adapter": HOSTILE, "__proto__": 1}
    viewer.open(write(tmp_path / "hostile.wio", *tensors, metadata=metadata, receipt=receipt))
    assert viewer.names() == [HOSTILE, r"turned \u{202e} round \u{1b}[2J", "s"]
    viewer.choose("s")
    assert HOSTILE.replace('"', '\\"') in viewer.text("elements")
    assert viewer.driver.find_element("css selector", "#steps tbody td").text == HOSTILE
    assert viewer.driver.title == "wio viewer"
    assert viewer.driver.find_elements("css selector", "img, main script") == []


def test_digests_are_checked_when_asked_for(viewer: Viewer, tmp_path: Path) -> None:
    good = write(tmp_path / "good.wio", floats("a", (3, 2)), floats("b", (5,)), receipt=b'{"wio":1}')
    viewer.open(good)
    viewer.driver.find_element("id", "check").click()
    viewer.wait(lambda: viewer.text("verdict") == "all 2 digests match")
    damaged = bytearray(good.read_bytes())
    damaged[-5] ^= 1  # in the receipt
    damaged[-20] ^= 1  # in b
    (tmp_path / "bad.wio").write_bytes(damaged)
    viewer.open(tmp_path / "bad.wio")
    assert viewer.text("verdict") == ""
    assert "damaged" in viewer.text("receipt-note")
    viewer.driver.find_element("id", "check").click()
    viewer.wait(lambda: viewer.text("verdict"))
    assert viewer.text("verdict").startswith('2 wrong: "b"')


@pytest.mark.parametrize("name", ["stale_renamed", "header_over_limit", "version_2", "file_empty"])
def test_a_bad_file_is_refused_in_words(viewer: Viewer, name: str) -> None:
    viewer.open(VECTORS / "valid" / "plain.wio")
    viewer.open(VECTORS / "invalid" / f"{name}.wio")
    words = json.loads((VECTORS / "invalid" / f"{name}.json").read_text(encoding="utf-8"))["words"]
    problem = viewer.text("problem")
    assert problem.startswith(f"{name}.wio: ")
    assert [word for word in words if word not in problem] == []
    assert not viewer.driver.find_element("id", "opened").is_displayed()


CLICK_ALL = """
const done = arguments[0];
(async () => {
  for (const button of document.querySelectorAll("#tensors button")) {
    button.click();
    while (document.getElementById("note").textContent === "reading ...") await new Promise(r => setTimeout(r, 1));
  }
  done();
})();
"""


def test_every_valid_vector_is_shown(viewer: Viewer) -> None:
    for path in sorted((VECTORS / "valid").glob("*.wio")):
        viewer.open(path)
        assert viewer.text("problem") == ""
        stated = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["tensors"]
        assert len(viewer.names()) == len(stated)
        viewer.driver.execute_async_script(CLICK_ALL)
        assert viewer.text("problem") == "", path.name


def test_a_network_in_several_files_is_one(viewer: Viewer) -> None:
    index, *shards = sorted((VECTORS / "sharded" / "valid" / "two_shards").iterdir(), reverse=True)
    viewer.open(index)
    assert f"{shards[-1].name}: it is not there" in viewer.text("problem")
    viewer.open(index, *shards)
    stated = json.loads((VECTORS / "sharded" / "valid" / "two_shards.json").read_text(encoding="utf-8"))["tensors"]
    assert viewer.names() == [tensor["name"] for tensor in stated]
    for tensor in stated:
        viewer.choose(tensor["name"])
        assert tensor["shard"] in viewer.text("facts")
    viewer.driver.find_element("id", "check").click()
    viewer.wait(lambda: viewer.text("verdict") == f"all {len(stated)} digests match")


def test_nothing_leaves_the_page(viewer: Viewer, tmp_path: Path) -> None:
    viewer.open(write(tmp_path / "a.wio", kernel("k", KERNEL, "OIHW")))
    viewer.choose("k")
    viewer.driver.find_element("id", "check").click()
    assert viewer.page.requests() == [VIEWER.as_uri()]
    # Should a script get in all the same, the policy keeps it from speaking.
    tried = "fetch('http://127.0.0.1:9/').then(() => arguments[0]('sent'), error => arguments[0](error.name))"
    assert viewer.driver.execute_async_script(tried) == "TypeError"
    assert (
        viewer.script(
            "const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.body.append(s);"
            "return document.title"
        )
        == "wio viewer"
    )
    refusals = viewer.page.console()
    assert any("Content Security Policy" in line and "127.0.0.1" in line for line in refusals)
    assert all("Content Security Policy" in line or "fetch" in line.lower() for line in refusals)


def test_a_large_file_is_not_read_whole(viewer: Viewer, tmp_path: Path) -> None:
    """A file of 6 GB, all of it hole: opened by its header, its tensor listed and not drawn."""
    length = 6 * 1024**3
    path = tmp_path / "large.wio"
    path.write_bytes(header_alone("large", length))
    os.truncate(path, path.stat().st_size + length)
    viewer.open(path)
    assert viewer.text("problem") == ""
    viewer.choose("large")
    assert "not drawn" in viewer.text("note")
    assert viewer.text("elements").startswith("0  0  0")
    assert "6.44 GB" in viewer.text("facts")


def header_alone(name: str, length: int) -> bytes:
    """The header of a file of one U8 tensor, without its data."""
    entry = {name: {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}}
    declaration = {
        "wio": 1,
        "table": table_digest(entry),
        "layouts": [],
        "tensors": [{"name": name, "sha256": "0" * 64}],
    }
    return framed({"__metadata__": {"wio": compact(declaration)}, **entry})


def test_the_list_is_walked_searched_and_sorted_by_keyboard(viewer: Viewer, tmp_path: Path) -> None:
    tensors = [floats("b/kernel", (2, 2)), floats("a/kernel", (5,)), floats("c/bias", (1, 3))]
    viewer.open(write(tmp_path / "list.wio", *tensors))
    assert viewer.names() == ["b/kernel", "a/kernel", "c/bias"]
    viewer.driver.find_element("css selector", "#tensors button").send_keys(Keys.ARROW_DOWN)
    viewer.wait(lambda: viewer.text("tensor-name") == "a/kernel")
    assert viewer.driver.switch_to.active_element.text == "a/kernel"
    viewer.driver.switch_to.active_element.send_keys(Keys.END)
    viewer.wait(lambda: viewer.text("tensor-name") == "c/bias")
    tabbable = viewer.driver.find_elements("css selector", "#tensors button[tabindex='0']")
    assert [button.text for button in tabbable] == ["c/bias"]
    name, _, shape, *_ = viewer.driver.find_elements("css selector", "#headings button")
    name.send_keys(Keys.ENTER)
    assert viewer.names() == ["a/kernel", "b/kernel", "c/bias"]
    shape.send_keys(Keys.SPACE)
    assert viewer.names() == ["c/bias", "b/kernel", "a/kernel"]
    shape.send_keys(Keys.SPACE)
    assert viewer.names() == ["a/kernel", "b/kernel", "c/bias"]
    viewer.driver.find_element("id", "search").send_keys("KERN")
    assert viewer.names() == ["a/kernel", "b/kernel"]
    assert viewer.text("found") == "2 of 3"


def test_a_file_is_dropped(viewer: Viewer) -> None:
    raw = list((VECTORS / "valid" / "plain.wio").read_bytes())
    viewer.script(
        "const data = new DataTransfer();"
        "data.items.add(new File([new Uint8Array(arguments[0])], 'dropped.wio'));"
        "document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}))",
        raw,
    )
    viewer.wait(lambda: viewer.text("file-name") == "dropped.wio")
    assert viewer.names() == ["conv1/kernel", "conv1/bias"]


def test_it_is_light_and_dark(viewer: Viewer) -> None:
    def brightness(of: str) -> float:
        colour = viewer.script(f"return getComputedStyle(document.body).{of}")
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) / 3

    viewer.page.scheme("light")
    assert brightness("backgroundColor") > 200 > 60 > brightness("color")
    viewer.page.scheme("dark")
    assert brightness("backgroundColor") < 60 < 200 < brightness("color")


def test_two_thousand_tensors_are_listed_at_once(viewer: Viewer, tmp_path: Path) -> None:
    viewer.open(write(tmp_path / "many.wio", *(floats(f"layer{n}/kernel", (2,)) for n in range(2000))))
    assert viewer.text("found") == "2000 of 2000"
    assert len(viewer.driver.find_elements("css selector", "#tensors tr")) == 2000
