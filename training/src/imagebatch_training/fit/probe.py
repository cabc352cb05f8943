"""The linear probe: multinomial logistic regression on frozen features."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from imagebatch_training.fit.targets import Integers, Targets, class_weights
from imagebatch_training.settings import Probe


@dataclass(frozen=True, kw_only=True)
class ProbeFit:
    """A fitted probe.

    Attributes:
        weight: float32 (classes, features), to be used on features as they are.
        bias: float32 (classes,).
        penalty: The L2 penalty that was chosen.
        validation_loss: Mean negative log likelihood per penalty tried.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    penalty: float
    validation_loss: dict[float, float]


def fit_probe(
    features: torch.Tensor,
    targets: Targets,
    train: Integers,
    validation: Integers,
    *,
    classes: int,
    probe: Probe,
) -> ProbeFit:
    """Fit one probe per penalty and keep the one with the smallest validation loss.

    Args:
        features: float32 (views, images, length).
        targets: int64 class index per image, or float32 probabilities (images, classes).
        train: Positions of the training images; all their views are used.
        validation: Positions of the validation images; view 0 is used.
        classes: Number of classes.
        probe: Penalties, iterations, class weights.

    Returns:
        The chosen fit.
    """
    known = features[:, torch.from_numpy(train)].flatten(0, 1)
    answers = torch.from_numpy(np.concatenate([targets[train]] * len(features)))
    balance = class_weights(targets[train], classes, probe.class_weights)
    mean, deviation = known.mean(0), known.std(0)
    std = deviation.clamp(min=float(probe.floor * deviation.mean())) + 1e-6
    scaled = (known - mean) / std
    losses: dict[float, float] = {}
    fits: dict[float, tuple[torch.Tensor, torch.Tensor]] = {}
    for penalty in probe.penalties:
        weight, bias = _fit(
            scaled, answers, balance, classes=classes, penalty=penalty, iterations=probe.iterations
        )
        unscaled = (weight / std, bias - weight @ (mean / std))
        logits = functional.linear(features[0, torch.from_numpy(validation)], *unscaled)
        losses[penalty] = float(functional.cross_entropy(logits, torch.from_numpy(targets[validation])))
        fits[penalty] = unscaled
    best = min(losses, key=lambda penalty: losses[penalty])
    return ProbeFit(weight=fits[best][0], bias=fits[best][1], penalty=best, validation_loss=losses)


def _fit(
    features: torch.Tensor,
    targets: torch.Tensor,
    balance: torch.Tensor | None,
    *,
    classes: int,
    penalty: float,
    iterations: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimise mean cross-entropy + penalty x sum of squared weights, L-BFGS from zero: no randomness."""
    weight = torch.zeros((classes, features.shape[1]), requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = functional.cross_entropy(functional.linear(features, weight, bias), targets, balance)
        value = value + penalty * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call,unused-ignore]  # typed in some releases of torch only
    return weight.detach(), bias.detach()
