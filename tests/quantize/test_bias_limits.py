"""Biases keep their value in int8 files, whatever the weights beside them are."""

import numpy as np
import pytest

from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.bias_limits import raise_weights
from edgepack.quantize.ptq.layers import constant_values, find_layers, set_constants, unshare_biases
from edgepack.quantize.quantizer import quantize
from edgepack.runtime.runner import Runner
from tests.quantize.ptq.conftest import *  # noqa: F403
