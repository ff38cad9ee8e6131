"""``wio convert``: export and import in one pass."""

from __future__ import annotations

from wio.cli.arguments import Commands, add_command
from wio.cli.import_ import add_port_arguments

_EXAMPLE = """\
  wio convert inception_v4.ckpt --arch inception-v4 --into keras-tf -o inception_v4.h5"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands, "convert", "Write the weights of any readable file in another format, in one pass.", _EXAMPLE
    )
    add_port_arguments(parser, "SRC")
