"""A page in the browser, and what it did besides being shown."""

from __future__ import annotations

import json
from pathlib import Path

from selenium import webdriver


class Page:
    """The one page that is open."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, path: Path) -> webdriver.Chrome:
        self.driver.get(path.resolve().as_uri())
        return self.driver

    def console(self) -> list[str]:
        """What went to the console since this was last asked, errors of scripts and of policies included."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that the page asked for since this was last asked, its own among them."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        here = self.driver.current_url
        return [each["request"]["url"] for each in asked if each["documentURL"] == here]

    def scheme(self, name: str) -> None:
        """`light` or `dark`, as the reader's system would ask for it."""
        feature = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
