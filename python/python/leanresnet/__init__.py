"""Lean convolutional residual networks that are fast on ordinary CPUs, to run and to train.

>>> import leanresnet, numpy
>>> model = leanresnet.Model.random("small", seed=1)
>>> model.predict(numpy.zeros((2, 3, 32, 32), numpy.float32)).shape
(2, 10)
"""

from leanresnet._native import DataError, Dataset, DivergedError, Model, ModelError, __version__
from leanresnet._training import Epoch, Fitted, fit, resume

__all__ = ["DataError", "Dataset", "DivergedError", "Epoch", "Fitted", "Model", "ModelError", "__version__", "fit", "load", "resume"]

load = Model.load
