"""Where in a picture the model saw what it named.

Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391), but with the slope at every place instead of its mean over
the picture (HiResCAM, Draelos and Carin 2020, arXiv 2011.08891): the two are the same where features are the
means of channels; with their maximum and deviation this one alone finds the crack.
"""

import numpy as np
import numpy.typing as npt
import torch

from imagebatch_training.backbone.mobilenet import ServedModel, pool
from imagebatch_training.fit.activations import pooling_of
from imagebatch_training.images.pixels import Pixels

Heat = npt.NDArray[np.float32]

_BRIGHTEST = 0.98
"""Quantile of a picture's places that is drawn brightest: padding makes its corners stronger than that."""


def grad_cam(model: ServedModel, pixels: Pixels, classes: npt.NDArray[np.int64]) -> Heat:
    """Compute which places of the last used layer speak for a class.

    Args:
        model: In evaluation mode; its last layer may be any entry of MobileNetV2's `features`.
        pixels: uint8 (images, 1 or 3, side, side).
        classes: int64 (images,), the class asked about, per image.

    Returns:
        float32 (images, height, width) of that layer, 0..1: the sum of its channels, each weighted by the
        slope of the class's logit, where above 0; an image's strongest places are 1. All 0 where nothing
        speaks for the class.
    """
    heat = [_heat(model, image, int(wanted)) for image, wanted in zip(pixels, classes, strict=True)]
    return np.stack(heat)


def _heat(model: ServedModel, image: Pixels, wanted: int) -> Heat:
    side = image.shape[-1]
    own = np.array(np.broadcast_to(image, (3, side, side)))  # a copy: the cache is read-only
    tensor = torch.from_numpy(own)[None]
    with torch.no_grad():
        activations = model.network.features(model.normalise(tensor))
    activations.requires_grad_()
    logits = model.network.classifier(pool(activations, pooling_of(model.network)))
    (slope,) = torch.autograd.grad(logits[0, wanted], activations)
    heat = (slope * activations).sum(1)[0].detach().relu()
    brightest = float(torch.quantile(heat, _BRIGHTEST)) or float(heat.max()) or 1.0
    result: Heat = (heat / brightest).clamp(max=1).numpy()
    return result
