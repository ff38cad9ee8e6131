"""Keras 3 files: ``.keras`` archives, ``.weights.h5``, and weights in shards behind a ``.weights.json``.

Roles and layouts come from the archive's config.json, by walking it as Keras does; ``.weights.h5`` alone has no config,
so what its variables are is for the user to declare. Sources: keras 3.15 ``src/saving/saving_lib.py``, run.
"""

from __future__ import annotations

import math
from pathlib import Path

from wio.adapter import Adapter, Convention, Option, Target
from wio.adapters._keras_conventions import CHANNELS_LAST, DATA_FORMATS, KerasConvention, agreed
from wio.bundle import Bundle
from wio.errors import UsageError
from wio.layout import Layout
from wio.network import Network

# A layer that Keras 2 has and Keras 3 has not.
_GONE = "locally_connected"


class Keras3(Adapter):
    name = "keras3"
    description = "Keras 3: .keras, .weights.h5 and sharded .weights.json (writes networks, or a template's weights)"
    writes = True
    suffix = ".keras"
    options = (
        Option(
            "template", "an existing .keras or weights file of the same network, whose tree is filled", writing=True
        ),
        Option("max_shard_size", "gigabytes in one shard of a .weights.json", (), "5", writing=True),
        Option(
            "data_format",
            "without a template: what the maps of the registry's network are",
            DATA_FORMATS,
            CHANNELS_LAST,
            writing=True,
        ),
    )

    def sniff(self, path: Path) -> int:
        try:
            if not path.is_file():
                return 0
        except (OSError, ValueError):
            return 0
        from wio.adapters._keras3_reading import score

        return score(path)

    def companions(self, path: Path) -> tuple[str, ...]:
        from wio.adapters._shards import names_beside

        return names_beside(path)

    def read(self, path: Path, **options: str) -> Bundle:
        from wio.adapters._keras3_reading import read_keras3

        self.checked(options, writing=False)
        return read_keras3(path)

    def convention(self, **options: str) -> Convention:  # noqa: ARG002
        return _convention(CHANNELS_LAST)

    def convention_of(self, bundle: Bundle) -> Convention:
        told = bundle.metadata.get("data_format")
        return agreed([_convention(each) for each in ([told] if told in DATA_FORMATS else DATA_FORMATS)])

    def network(self, bundle: Bundle, path: Path | None = None, **options: str) -> Network | None:  # noqa: ARG002
        """The network of config.json; None for weights alone, and for a model whose layers only its own code knows."""
        from wio.adapters._keras3_reading import config_of
        from wio.adapters._keras_network import keras_network

        config = config_of(bundle)
        return None if config is None else keras_network(config)

    def target(self, bundle: Bundle, **options: str) -> Target:
        from wio.adapters import _keras3_target as targets

        settled = self.checked(options, writing=True)
        if "template" in settled:
            template = self.read(Path(settled["template"]))
            return targets.template_target(bundle, template, self.convention_of(template))
        if targets.FACTS in bundle.metadata:
            return targets.same_format_target(bundle, self.convention_of(bundle))
        if bundle.network is not None:
            from wio.adapters._keras3_network_target import network_target

            data_format = settled["data_format"]
            return network_target(bundle, bundle.network, _convention(data_format), data_format)
        return Target((), bundle.metadata, dict.fromkeys(bundle, ""), (targets.no_template(),))

    def write(self, path: Path, bundle: Bundle, **options: str) -> None:
        from wio.adapters._keras3_writer import write_keras3

        settled = self.checked(options, writing=True)
        template = self.read(Path(settled["template"])) if "template" in settled else None
        write_keras3(path, bundle, template, _bytes(settled["max_shard_size"]))


def _bytes(gigabytes: str) -> int:
    """Gigabytes as Keras counts them (keras 3.15 saving_lib.py, ShardedH5IOStore)."""
    try:
        found = float(gigabytes) * 1024**3
        if found > 0 and math.isfinite(found):
            return int(found)
    except ValueError:
        pass
    raise UsageError(f"keras3: option max_shard_size takes a number of gigabytes, not {gigabytes!r}")


def _convention(data_format: str) -> Convention:
    legacy = KerasConvention("2.2", "tensorflow", data_format).table()
    table = dict(legacy.layouts)
    table["conv.kernel"] += (Layout.parse("DHWI(GO)"),)
    return Convention({role: each for role, each in table.items() if not role.startswith(_GONE)}, legacy.reset_after)
