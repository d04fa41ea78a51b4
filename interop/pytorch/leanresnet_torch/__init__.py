"""The networks of leanresnet as PyTorch modules, under the same names, and its model files.

    network = LeanResNet("small")                      # a preset, or Network.from_file("mine.toml")
    to_leanresnet(network, "small.safetensors")        # a model file that the command-line tool takes
    network = from_leanresnet("small.safetensors")
"""

from .files import from_leanresnet, to_leanresnet
from .layers import DenseConv2d, LeanConv2d, SeparableConv2d, ShiftConv2d
from .model import LeanResNet
from .network import Block, Connection, Network, Stage, Stem
from .preprocess import Preprocess
from .presets import PRESETS
from .stencils import STENCILS

__all__ = [
    "PRESETS",
    "STENCILS",
    "Block",
    "Connection",
    "DenseConv2d",
    "LeanConv2d",
    "LeanResNet",
    "Network",
    "Preprocess",
    "SeparableConv2d",
    "ShiftConv2d",
    "Stage",
    "Stem",
    "from_leanresnet",
    "to_leanresnet",
]
