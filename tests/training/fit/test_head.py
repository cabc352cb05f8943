"""The head against plain numpy, and what training changes of it and what it does not."""

import copy

import numpy as np
import numpy.typing as npt
import pytest
import torch
from imagebatch_training.backbone.mobilenet import MobileNetV2, build
from imagebatch_training.fit.head import Head
from imagebatch_training.fit.probe import ProbeFit
from imagebatch_training.fit.trial import start_head
from imagebatch_training.settings import FineTune
from torch import nn

CLASSES = 3
FIRST = 18  # one convolution of 320 to 1,280 channels: small enough to write down


@pytest.fixture(scope="module")
def network() -> MobileNetV2:
    """Seeded, and with BatchNorm statistics that are not the ones of a fresh network."""
    torch.manual_seed(0)
    made = build("torch", CLASSES)
    norm = made.features[FIRST][1]
    norm.running_mean.normal_(0, 0.1)
    norm.running_var.uniform_(0.5, 1.5)
    return made


@pytest.fixture(scope="module")
def activations() -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(130, 320, 2, 2)).astype(np.float32)


def plain(network: MobileNetV2, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Pooled features by numpy: convolution of one pixel, BatchNorm with kept statistics, ReLU6, mean."""
    convolution, norm, _ = network.features[FIRST]
    kernel = convolution.weight.detach().numpy()[:, :, 0, 0].astype(np.float64)
    mixed = np.einsum("oc,bchw->bohw", kernel, x.astype(np.float64))
    scale = norm.weight.detach().numpy() / np.sqrt(norm.running_var.numpy() + norm.eps)
    moved = mixed - norm.running_mean.numpy()[:, None, None]
    normed = moved * scale[:, None, None] + norm.bias.detach().numpy()[:, None, None]
    result: npt.NDArray[np.float64] = np.clip(normed, 0, 6).mean((2, 3))
    return result


def test_logits_are_those_of_plain_numpy(network: MobileNetV2, activations: npt.NDArray[np.float32]) -> None:
    """Convolution, BatchNorm, ReLU6, mean and classifier, over more images than one batch holds."""
    head = Head(network, FIRST, dropout=0.5)
    weight, bias = (value.detach().numpy().astype(np.float64) for value in head.classifier.parameters())
    expected = plain(network, activations) @ weight.T + bias
    logits = head.compute_logits(activations)
    assert (logits.shape, logits.dtype) == ((130, CLASSES), np.float32)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_the_classifiers_gradient_is_the_closed_form(
    network: MobileNetV2, activations: npt.NDArray[np.float32]
) -> None:
    """Of the mean cross-entropy: (softmax - one-hot)' features / images, by numpy."""
    head = Head(network, FIRST, dropout=0.0).eval()
    targets = np.arange(16) % CLASSES
    logits = head(torch.from_numpy(activations[:16]))
    nn.functional.cross_entropy(logits, torch.from_numpy(targets)).backward()
    exponents = np.exp(logits.detach().numpy().astype(np.float64))
    error = exponents / exponents.sum(1, keepdims=True) - np.eye(CLASSES)[targets]
    expected = error.T @ plain(network, activations[:16]) / 16
    gradient = head.classifier.weight.grad
    assert gradient is not None
    np.testing.assert_allclose(gradient.numpy(), expected, atol=1e-6)
    assert all(value.grad is not None for value in head.blocks.parameters())
    assert all(value.grad is None for value in network.parameters())


def test_dropout_is_for_training_only(network: MobileNetV2, activations: npt.NDArray[np.float32]) -> None:
    """The figures never depend on a draw: a head that trains is switched over before it computes them."""
    head = Head(network, FIRST, dropout=0.9).train()
    x = torch.from_numpy(activations[:8])
    torch.manual_seed(1)
    assert not torch.equal(head(x), head(x))
    head.train()
    np.testing.assert_array_equal(head.compute_logits(activations[:8]), head.compute_logits(activations[:8]))


def test_installing_divides_the_logits_by_the_temperature(
    network: MobileNetV2, activations: npt.NDArray[np.float32]
) -> None:
    """The network that is served gives the head's logits, calibrated, and has the head's blocks."""
    target = copy.deepcopy(network)
    head = Head(network, FIRST, dropout=0.2).eval()
    with torch.no_grad():
        for value in head.parameters():
            value.mul_(1.5)
    head.install(target, temperature=2.5)
    with torch.inference_mode():
        pooled = target.features[FIRST:](torch.from_numpy(activations[:8])).mean((2, 3))
        served = target.classifier.eval()(pooled).numpy()
    np.testing.assert_allclose(served, head.compute_logits(activations[:8]) / 2.5, atol=1e-5)
    below = zip(target.features[:FIRST].parameters(), network.features[:FIRST].parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in below)


def test_the_fine_tune_starts_at_the_probe(
    network: MobileNetV2, activations: npt.NDArray[np.float32]
) -> None:
    """Before the first step the head names what the probe names; no BatchNorm is among what is trained."""
    random = np.random.default_rng(2)
    weight = random.normal(0, 0.1, size=(CLASSES, 1280)).astype(np.float32)
    bias = random.normal(size=CLASSES).astype(np.float32)
    probe = ProbeFit(
        weight=torch.from_numpy(weight), bias=torch.from_numpy(bias), penalty=0.1, validation_loss={}
    )
    head = start_head(network, probe, FineTune(first_block=FIRST))
    expected = plain(network, activations[:8]) @ weight.T + bias
    np.testing.assert_allclose(head.compute_logits(activations[:8]), expected, atol=1e-4)
    trained = {name for name, value in head.named_parameters() if value.requires_grad}
    assert trained == {"blocks.18.0.weight", "classifier.weight", "classifier.bias"}
