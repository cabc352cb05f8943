"""TorchServe's own `image_classifier`, told this model's number of classes and normalisation."""

from __future__ import annotations

from torchvision import transforms
from ts.torch_handler.image_classifier import ImageClassifier


class Photographs(ImageClassifier):  # type: ignore[misc]  # untyped where this is linted
    """Four classes, and pixels from -1 to 1."""

    topk = 4
    image_processing = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]),
        ]
    )
