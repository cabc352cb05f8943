"""Does the network gain from the cells alone, without a label? On the folds of docs/explanation/model.md.

    python3.11 -m benchmarks.run model-adapted [-- --publish]

The blocks that a fine-tune would train are adapted to all cells, those of the test blocks among them; no
label is seen. Either BatchNorm takes the cells' statistics for ImageNet's; or Barlow Twins (Zbontar et al.
2021) asks for the same features of two views of a cell, and for features that say different things. The
recipe in bold is then fitted on what comes out, as on the network as it comes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from imagebatch_training.backbone.mobilenet import load_backbone
from imagebatch_training.backbone.weights import require_weights
from imagebatch_training.configuration import CONFIG_DIR
from imagebatch_training.fit.frozen import Frozen, load_frozen, start_worker
from imagebatch_training.fit.head import Head
from imagebatch_training.fit.views import AUGMENTATIONS, MIRRORED
from imagebatch_training.folds.deal import Fold, deal_folds
from imagebatch_training.folds.figures import Answers, gather, intervals, measure
from imagebatch_training.folds.plan import Plan, Recipe, read_plan
from imagebatch_training.folds.run import Outcome, fit_fold
from imagebatch_training.images.data import DataSet, require_data
from imagebatch_training.images.pixels import pixels_key
from torch import nn

from benchmarks.lib.published import show
from tools.paths import ROOT, say

PAGE = ROOT / "docs" / "explanation" / "model.md"
BATCH, EPOCHS = 64, 3
RATE, PROJECTOR_RATE = 1e-4, 1e-3
HIDDEN, PROJECTED = 512, 256
OFF_DIAGONAL = 5e-3  # weight of what two different features have in common
LEAST_DEVIATION = 1e-2


@dataclass(frozen=True)
class Ground:
    """What all ways have in common; `frozen` has every view."""

    recipe: Recipe
    plan: Plan
    data: DataSet
    folds: list[Fold]
    frozen: Frozen


def main() -> int:
    """Adapt, fit on every fold, publish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--publish", action="store_true", help="keep the table in docs/")
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="imagebatch-adapted-") as folder:
        ground = _ground(Path(folder))
        rows, first = [], None
        for name, adapt in WAYS.items():
            begun = time.process_time()
            head = adapt(ground.frozen, ground.recipe.settings.finetune.first_block)
            minutes = (time.process_time() - begun) / 60
            answers = _fitted(ground, head, Path(folder) / "features.npy")
            rows.append(_row(name, answers, first, minutes))
            first = first or answers
            say(rows[-1])
    if asked.publish:
        heads = [
            "the network",
            "accuracy",
            "against the network as it comes",
            "macro-F1",
            "recall",
            "precision",
        ]
        head = f"| {' | '.join([*heads, 'CPU-minutes'])} |\n|{'---|' * 7}"
        show("adapted", "\n".join([head, *rows]), PAGE)
    return 0


def _ground(folder: Path) -> Ground:
    plan = read_plan(CONFIG_DIR / "folds" / "solar-cells.yaml", CONFIG_DIR, [])
    (recipe,) = (one for one in plan.recipes if one.name == plan.champion)
    settings = replace(recipe.settings, augment=list(AUGMENTATIONS))
    weights, data = require_weights(settings), require_data(settings)
    return Ground(
        recipe=recipe,
        plan=plan,
        data=data,
        folds=deal_folds(data.labels, folds=plan.folds, deals=plan.deals, seed=plan.seed),
        frozen=load_frozen(
            settings, data, weights, pixels=pixels_key(data, settings.model), cache=folder / "cache"
        ),
    )


def _as_it_comes(frozen: Frozen, first: int) -> Head:
    head = Head(frozen.network, first, 0).eval()
    for module in _norms(head):
        module.requires_grad_(False)  # noqa: FBT003 - torch's signature is positional
    return head


def _statistics(frozen: Frozen, first: int) -> Head:
    head = _as_it_comes(frozen, first)
    for module in _norms(head):
        module.momentum = None  # the plain mean over all batches
        module.reset_running_stats()
        module.train()
    with torch.inference_mode():
        for batch in np.array_split(frozen.activations[0], len(frozen.activations[0]) // BATCH):
            head.features(torch.from_numpy(np.array(batch)))
    return head.eval()


def _barlow_twins(frozen: Frozen, first: int) -> Head:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    head = _as_it_comes(frozen, first)
    views, images = frozen.features.shape[:2]
    mean, deviation = (torch.from_numpy(found(frozen.features[0], 0)) for found in (np.mean, np.std))
    deviation = deviation.clamp(min=LEAST_DEVIATION)
    projector = nn.Sequential(
        nn.Linear(len(mean), HIDDEN, bias=False),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, PROJECTED),
    )
    blocks = [value for value in head.blocks.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW([{"params": blocks}, {"params": [*projector.parameters()]}], lr=RATE)
    steps = images // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=[RATE, PROJECTOR_RATE], total_steps=EPOCHS * steps + 1, pct_start=0.1
    )
    for epoch in range(EPOCHS):
        losses = []
        for chosen in random.permutation(images)[: steps * BATCH].reshape(steps, BATCH):
            pairs = np.stack([random.permutation(views)[:2] for _ in chosen])
            twins = []
            for side in pairs.T:
                seen = np.stack([frozen.activations[v, i] for v, i in zip(side, chosen, strict=True)])
                with torch.autocast("cpu", torch.bfloat16):
                    features = head.features(torch.from_numpy(seen))
                projected = projector((features.float() - mean) / deviation)
                twins.append((projected - projected.mean(0)) / (projected.std(0) + 1e-4))
            common = twins[0].T @ twins[1] / BATCH
            same = common.diagonal()
            other = common.square().sum() - same.square().sum()
            loss = (1 - same).square().sum() + OFF_DIAGONAL * other
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        say(f"Barlow Twins, epoch {epoch + 1} of {EPOCHS}: mean loss {np.mean(losses):.1f}")
    return head.eval()


WAYS: dict[str, Callable[[Frozen, int], Head]] = {
    "as it comes": _as_it_comes,
    "BatchNorm's statistics those of the cells, from block 11 on": _statistics,
    "blocks 11 to 14 by Barlow Twins, three epochs of all cells": _barlow_twins,
}


def _norms(head: Head) -> list[nn.BatchNorm2d]:
    return [module for module in head.modules() if isinstance(module, nn.BatchNorm2d)]


def _fitted(ground: Ground, head: Head, path: Path) -> Answers:
    """Fit the recipe on the features of an adapted network, on every fold."""
    with torch.inference_mode():
        features = [
            np.concatenate(
                [
                    head.features(torch.from_numpy(np.array(batch))).numpy()
                    for batch in np.array_split(view, len(view) // BATCH)
                ]
            )
            for view in ground.frozen.activations[:MIRRORED]
        ]
    np.save(path, np.stack(features))
    jobs = [(ground.recipe, fold, ground.data, path) for fold in ground.folds]
    with ProcessPoolExecutor(2, get_context("spawn"), initializer=start_worker) as pool:
        outcomes = [*pool.map(_outcome, jobs)]
    return gather(outcomes, ground.data.labels, ground.plan.positive)


def _outcome(job: tuple[Recipe, Fold, DataSet, Path]) -> Outcome:
    recipe, fold, data, path = job
    weights = require_weights(recipe.settings)
    network, convention = load_backbone(weights.path, len(data.labels.classes), recipe.settings.model.cut)
    features = np.load(path)
    frozen = Frozen(network=network, convention=convention, activations=features[:0], features=features)
    kept: dict[str, Any] = fit_fold(recipe, fold, data, frozen)
    del kept["first"]
    logits: npt.NDArray[np.float32] = kept.pop("final")[fold.test]
    return Outcome(fold=fold, path=path, logits=logits, cpu_seconds=0, **kept)


def _row(name: str, answers: Answers, first: Answers | None, minutes: float) -> str:
    figures = measure(answers)
    gain = "-"
    if first is not None:
        low, high = intervals(answers, first)["accuracy"]
        gain = f"{figures.accuracy - measure(first).accuracy:+.3f} ({low:+.3f} to {high:+.3f})"
    rates = [figures.macro_f1, figures.recall, figures.precision]
    cells = [name, f"{figures.accuracy:.3f}", gain, *(f"{rate:.3f}" for rate in rates), f"{minutes:.1f}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
