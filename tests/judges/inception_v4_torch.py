"""Inception-V4 in PyTorch, its modules named as pretrainedmodels 0.7.4 and timm 1.0 name them.

Written from the names and shapes of those two networks' state_dicts, which are equal, and from TF-slim's graph.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

EPSILON = 1e-3


class Unit(nn.Module):
    """A convolution, its batch norm and a ReLU; padded to the same size unless it is `valid`."""

    def __init__(self, inputs: int, outputs: int, height: int, width: int, stride: int = 1, valid: bool = False):
        super().__init__()
        pads = (0, 0) if valid else (height // 2, width // 2)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, pads, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn(self.conv(x)))


class Side(nn.Module):
    """Children side by side, joined along the channels in the order in which they were given."""

    def __init__(self, **children: nn.Module):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([child(x) for child in self.children()], 1)


class InceptionC(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch0 = Unit(1536, 256, 1, 1)
        self.branch1_0 = Unit(1536, 384, 1, 1)
        self.branch1_1a = Unit(384, 256, 1, 3)
        self.branch1_1b = Unit(384, 256, 3, 1)
        self.branch2_0 = Unit(1536, 384, 1, 1)
        self.branch2_1 = Unit(384, 448, 3, 1)
        self.branch2_2 = Unit(448, 512, 1, 3)
        self.branch2_3a = Unit(512, 256, 1, 3)
        self.branch2_3b = Unit(512, 256, 3, 1)
        self.branch3 = nn.Sequential(_average(), Unit(1536, 256, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = self.branch1_0(x), self.branch2_2(self.branch2_1(self.branch2_0(x)))
        parts = [self.branch0(x), self.branch1_1a(one), self.branch1_1b(one)]
        return torch.cat([*parts, self.branch2_3a(two), self.branch2_3b(two), self.branch3(x)], 1)


class InceptionV4(nn.Module):
    """N x 3 x 299 x 299 to the logits, N x `classes`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            Unit(3, 32, 3, 3, 2, valid=True),
            Unit(32, 32, 3, 3, valid=True),
            Unit(32, 64, 3, 3),
            Side(maxpool=nn.MaxPool2d(3, 2), conv=Unit(64, 96, 3, 3, 2, valid=True)),
            Side(
                branch0=nn.Sequential(Unit(160, 64, 1, 1), Unit(64, 96, 3, 3, valid=True)),
                branch1=nn.Sequential(
                    Unit(160, 64, 1, 1), Unit(64, 64, 1, 7), Unit(64, 64, 7, 1), Unit(64, 96, 3, 3, valid=True)
                ),
            ),
            Side(conv=Unit(192, 192, 3, 3, 2, valid=True), maxpool=nn.MaxPool2d(3, 2)),
            *(_inception_a() for _ in range(4)),
            Side(
                branch0=Unit(384, 384, 3, 3, 2, valid=True),
                branch1=nn.Sequential(Unit(384, 192, 1, 1), Unit(192, 224, 3, 3), Unit(224, 256, 3, 3, 2, valid=True)),
                branch2=nn.MaxPool2d(3, 2),
            ),
            *(_inception_b() for _ in range(7)),
            Side(
                branch0=nn.Sequential(Unit(1024, 192, 1, 1), Unit(192, 192, 3, 3, 2, valid=True)),
                branch1=nn.Sequential(
                    Unit(1024, 256, 1, 1),
                    Unit(256, 256, 1, 7),
                    Unit(256, 320, 7, 1),
                    Unit(320, 320, 3, 3, 2, valid=True),
                ),
                branch2=nn.MaxPool2d(3, 2),
            ),
            *(InceptionC() for _ in range(3)),
        )
        self.last_linear = nn.Linear(1536, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last_linear(self.features(x).mean((2, 3)))


def _average() -> nn.Module:
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


def _inception_a() -> nn.Module:
    return Side(
        branch0=Unit(384, 96, 1, 1),
        branch1=nn.Sequential(Unit(384, 64, 1, 1), Unit(64, 96, 3, 3)),
        branch2=nn.Sequential(Unit(384, 64, 1, 1), Unit(64, 96, 3, 3), Unit(96, 96, 3, 3)),
        branch3=nn.Sequential(_average(), Unit(384, 96, 1, 1)),
    )


def _inception_b() -> nn.Module:
    return Side(
        branch0=Unit(1024, 384, 1, 1),
        branch1=nn.Sequential(Unit(1024, 192, 1, 1), Unit(192, 224, 1, 7), Unit(224, 256, 7, 1)),
        branch2=nn.Sequential(
            Unit(1024, 192, 1, 1),
            Unit(192, 192, 7, 1),
            Unit(192, 224, 1, 7),
            Unit(224, 224, 7, 1),
            Unit(224, 256, 1, 7),
        ),
        branch3=nn.Sequential(_average(), Unit(1024, 128, 1, 1)),
    )
