"""The probe and the fine-tune on data whose answer is known: separable classes, and an optimum to check."""

import copy
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from imagebatch_training.backbone.mobilenet import MobileNetV2
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.fit.finetune import Epoch, FineTuneFit, fine_tune
from imagebatch_training.fit.probe import fit_probe
from imagebatch_training.fit.trial import Trial, batch_size, choose_device
from imagebatch_training.settings import FineTune, Probe

from tests.training.fit.patterns import (
    CLASSES,
    FIRST,
    NOTHING,
    SETTINGS,
    TARGETS,
    TRAIN,
    VALIDATION,
    make_activations,
    make_network,
)


@pytest.fixture(scope="module")
def network() -> MobileNetV2:
    return make_network()


@pytest.fixture(scope="module")
def activations() -> npt.NDArray[np.float32]:
    return make_activations()


def tuned(
    network: MobileNetV2, activations: npt.NDArray[np.float32], seed: int = 0, settings: FineTune = SETTINGS
) -> FineTuneFit:
    return fine_tune(
        network,
        activations,
        TARGETS,
        TRAIN,
        VALIDATION,
        start=NOTHING,
        settings=settings,
        seed=seed,
        name="patterns",
    )


@pytest.fixture(scope="module")
def fit(network: MobileNetV2, activations: npt.NDArray[np.float32]) -> FineTuneFit:
    return tuned(network, activations)


def test_it_learns_what_can_be_learned(fit: FineTuneFit, activations: npt.NDArray[np.float32]) -> None:
    """From a classifier of zeros to every validation image, and the loss well below guessing."""
    assert fit.best.validation_accuracy == 1.0
    assert fit.best.validation_loss < np.log(CLASSES) / 2
    predicted = fit.head.compute_logits(activations[0][VALIDATION]).argmax(1)
    assert (predicted == TARGETS[VALIDATION]).all()


def test_the_best_epoch_of_all_rates_is_kept(fit: FineTuneFit, activations: npt.NDArray[np.float32]) -> None:
    """A row for every epoch of every rate; the head that comes back is the one that the best row measured."""
    assert [(row.learning_rate, row.epoch) for row in fit.history] == [
        (rate, epoch) for rate in (1e-3, 3e-3) for epoch in (1, 2)
    ]
    assert fit.best == max(fit.history, key=lambda row: (row.validation_accuracy, -row.validation_loss))
    logits = fit.head.compute_logits(activations[0][VALIDATION]).astype(np.float64)
    norm = np.log(np.exp(logits).sum(1))
    loss = (norm - logits[np.arange(len(VALIDATION)), TARGETS[VALIDATION]]).mean()
    assert fit.best.validation_loss == pytest.approx(loss, abs=1e-5)


def test_epochs_are_ranked_by_accuracy_then_by_loss() -> None:
    """More images right beats a smaller loss, which calibration mends; on a tie the smaller loss wins."""
    row = Epoch(learning_rate=1e-4, epoch=1, train_loss=1.0, validation_loss=0.5, validation_accuracy=0.8)
    better = replace(row, validation_accuracy=0.9, validation_loss=0.9)
    calmer = replace(row, validation_loss=0.4)
    assert sorted([better, row, calmer], key=Epoch.rank) == [row, calmer, better]


def test_the_seed_decides_everything(network: MobileNetV2, activations: npt.NDArray[np.float32]) -> None:
    """Order, views and dropout: the same seed gives the same weights, another seed others."""
    short = replace(SETTINGS, learning_rates=[1e-3], epochs=1)
    one, same, other = (tuned(network, activations, seed, short) for seed in (5, 5, 6))
    assert one.history == same.history
    assert torch.equal(one.head.classifier.weight, same.head.classifier.weight)
    assert not torch.equal(one.head.classifier.weight, other.head.classifier.weight)


def test_the_network_it_starts_from_stays_as_it_is(
    network: MobileNetV2, activations: npt.NDArray[np.float32]
) -> None:
    """Both splits start from one network; and BatchNorm keeps ImageNet's statistics in what was trained."""
    before = copy.deepcopy(network.state_dict())
    fit = tuned(network, activations, settings=replace(SETTINGS, learning_rates=[1e-3], epochs=1))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    norm, kept = fit.head.blocks[0][1], network.features[FIRST][1]
    for name in ("running_mean", "running_var", "weight", "bias"):
        assert torch.equal(getattr(norm, name), getattr(kept, name))
    assert not torch.equal(fit.head.blocks[0][0].weight, network.features[FIRST][0].weight)


def test_nothing_to_choose_from_is_refused(
    network: MobileNetV2, activations: npt.NDArray[np.float32]
) -> None:
    """Settings refuse an empty list of rates; a caller that passes one gets no untrained head."""
    with pytest.raises(ValueError, match="no learning rate"):
        tuned(network, activations, settings=replace(SETTINGS, learning_rates=[]))


def overlapping() -> torch.Tensor:
    """Features (views, images, 10) of classes that overlap, on scales that differ by a factor of 1,000."""
    random = np.random.default_rng(3)
    centres = random.normal(size=(CLASSES, 10))
    features = centres[TARGETS] + random.normal(size=(2, len(TARGETS), 10))
    return torch.from_numpy((features * np.logspace(-1, 2, 10) + 5).astype(np.float32))


def test_the_probe_is_at_the_optimum_of_its_penalised_loss() -> None:
    """By numpy, the gradient of cross-entropy + penalty x squares, on standardised features, vanishes."""
    features, penalty = overlapping(), 0.05
    fit = fit_probe(
        features,
        TARGETS,
        TRAIN,
        VALIDATION,
        classes=CLASSES,
        probe=Probe(penalties=[penalty], iterations=500),
    )
    known = features[:, TRAIN].flatten(0, 1).numpy().astype(np.float64)
    answers = np.eye(CLASSES)[np.tile(TARGETS[TRAIN], 2)]
    std = known.std(0, ddof=1) + 1e-6
    weight = fit.weight.numpy().astype(np.float64)
    logits = known @ weight.T + fit.bias.numpy()
    chances = np.exp(logits - logits.max(1, keepdims=True))
    error = chances / chances.sum(1, keepdims=True) - answers
    slope = error.T @ ((known - known.mean(0)) / std) / len(known) + 2 * penalty * weight * std
    np.testing.assert_allclose(slope, 0, atol=1e-4)
    np.testing.assert_allclose(error.mean(0), 0, atol=1e-4)


def test_the_probe_learns_from_training_images_only() -> None:
    """Other labels on validation images change which penalty is chosen at most, never a fit."""
    features, probe = overlapping(), Probe(penalties=[0.05], iterations=100)
    other = TARGETS.copy()
    other[VALIDATION] = (other[VALIDATION] + 1) % CLASSES
    one, two = (
        fit_probe(features, targets, TRAIN, VALIDATION, classes=CLASSES, probe=probe)
        for targets in (TARGETS, other)
    )
    assert torch.equal(one.weight, two.weight)
    assert one.validation_loss != two.validation_loss


def test_the_penalty_with_the_smallest_validation_loss_is_kept() -> None:
    """A row per penalty tried, and a penalty that allows nothing gives the loss of guessing."""
    probe = Probe(penalties=[1e4, 0.05], iterations=200)
    fit = fit_probe(overlapping(), TARGETS, TRAIN, VALIDATION, classes=CLASSES, probe=probe)
    assert list(fit.validation_loss) == [1e4, 0.05]
    assert fit.validation_loss[1e4] == pytest.approx(np.log(CLASSES), abs=1e-2)
    assert fit.penalty == 0.05


def test_soft_targets_of_certain_images_are_their_classes() -> None:
    """Probabilities of 0 and 1 give the probe that the class indices give, but for the last digits."""
    features, probe = overlapping(), Probe(penalties=[0.05], iterations=200)
    hard, soft = (
        fit_probe(features, targets, TRAIN, VALIDATION, classes=CLASSES, probe=probe)
        for targets in (TARGETS, np.eye(CLASSES, dtype=np.float32)[TARGETS])
    )
    torch.testing.assert_close(hard.weight, soft.weight, atol=1e-3, rtol=1e-2)


def test_a_doubtful_target_gives_a_doubtful_answer() -> None:
    """Images of one place whose labellers say two thirds: the probe says two thirds, not one."""
    random = np.random.default_rng(0)
    features = torch.from_numpy(random.normal(size=(1, 60, 3)).astype(np.float32))
    targets = np.tile(np.array([2 / 3, 1 / 3], np.float32), (60, 1))
    places = np.arange(60)
    fit = fit_probe(
        features, targets, places, places, classes=2, probe=Probe(penalties=[0.1], iterations=200)
    )
    answers = (features[0] @ fit.weight.T + fit.bias).softmax(1)
    assert answers[:, 0].numpy() == pytest.approx(np.full(60, 2 / 3), abs=0.02)


def test_balanced_classes_find_the_rare_one() -> None:
    """Two overlapping classes, one of them rare: with weights, more of its images are called by its name."""
    random = np.random.default_rng(0)
    targets = np.array([0] * 90 + [1] * 10)
    features = (random.normal(size=(1, 100, 2)) + targets[None, :, None]).astype(np.float32)
    places = np.arange(100)
    found = {}
    for kind in ("none", "balanced"):
        probe = Probe(penalties=[0.01], iterations=200, class_weights=kind)
        fit = fit_probe(torch.from_numpy(features), targets, places, places, classes=2, probe=probe)
        answers = (features[0] @ fit.weight.numpy().T + fit.bias.numpy()).argmax(1)
        found[kind] = int(answers[90:].sum())
    assert found["balanced"] > found["none"] + 3


def test_the_classifier_may_learn_at_a_rate_of_its_own(
    network: MobileNetV2, activations: npt.NDArray[np.float32]
) -> None:
    """At almost nothing it stays where it starts while the blocks learn; the blocks' rate is the default."""
    short = replace(SETTINGS, learning_rates=[1e-3], epochs=1, averaging=0.0)
    still = tuned(network, activations, settings=replace(short, head_learning_rate=1e-12)).head
    torch.testing.assert_close(still.classifier.weight, NOTHING.weight, atol=1e-9, rtol=0)
    assert not torch.equal(still.blocks[0][0].weight, network.features[FIRST][0].weight)
    same, default = (
        tuned(network, activations, settings=replace(short, head_learning_rate=rate)) for rate in (1e-3, None)
    )
    assert same.history == default.history


def test_the_plain_mean_is_that_of_every_step_from_its_epoch_on(
    network: MobileNetV2, activations: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three steps an epoch, each noted: epoch 1 keeps its last, epoch 3 the mean of six."""
    noted: list[torch.Tensor] = []

    class Noting(torch.optim.AdamW):
        def step(self, closure: None = None) -> None:
            super().step(closure)
            noted.append(self.param_groups[1]["params"][0].detach().clone())

    monkeypatch.setattr(torch.optim, "AdamW", Noting)
    settings = replace(SETTINGS, epochs=3, mean_from_epoch=2)
    trial = Trial(
        network,
        activations,
        TARGETS,
        TRAIN,
        start=NOTHING,
        settings=settings,
        rate=1e-3,
        seed=0,
        name="patterns",
    )
    trial.epoch()
    torch.testing.assert_close(trial.average.classifier.weight, noted[2], rtol=0, atol=0)
    trial.epoch()
    trial.epoch()
    torch.testing.assert_close(trial.average.classifier.weight, torch.stack(noted[3:9]).mean(0))


def test_soft_targets_and_bfloat16_learn_too(
    network: MobileNetV2, activations: npt.NDArray[np.float32]
) -> None:
    """Probabilities as targets, and products in bfloat16: every validation image is right as well."""
    settings = replace(SETTINGS, learning_rates=[3e-3], precision="bfloat16", class_weights="balanced")
    fit = fine_tune(
        network,
        activations,
        np.eye(CLASSES, dtype=np.float32)[TARGETS],
        TRAIN,
        VALIDATION,
        start=NOTHING,
        settings=settings,
        seed=0,
        name="patterns",
    )
    assert fit.best.validation_accuracy == 1.0
    assert fit.head.classifier.weight.dtype == torch.float32


def test_a_rate_that_gets_no_better_is_given_up(
    network: MobileNetV2, activations: npt.NDArray[np.float32], caplog: pytest.LogCaptureFixture
) -> None:
    """After two epochs that were no better than the best; the next rate is tried all the same."""
    caplog.set_level("INFO")
    hopeless = replace(SETTINGS, learning_rates=[1e-12, 3e-3], epochs=6, patience=2, dropout=0.0)
    fit = tuned(network, activations, settings=hopeless)
    rows = [[row for row in fit.history if row.learning_rate == rate] for rate in (1e-12, 3e-3)]
    for tried in rows:
        best = max(tried, key=Epoch.rank)
        assert len(tried) == min(6, best.epoch + 2)
    assert len(rows[0]) < 6
    assert "rate 1e-12: stopped early, as no epoch was better than" in caplog.text
    assert fit.best.learning_rate == 3e-3


def test_a_small_data_set_is_learned_with_the_shipped_settings(network: MobileNetV2) -> None:
    """50 images of each of three classes, from a classifier of zeros: what is kept left its start behind."""
    targets = np.arange(150) % CLASSES
    settings = FineTune(first_block=FIRST, learning_rates=[5e-5, 2e-4])
    fit = fine_tune(
        network,
        make_activations(targets),
        targets,
        np.arange(100),
        np.arange(100, 150),
        start=NOTHING,
        settings=settings,
        seed=0,
        name="small",
    )
    assert fit.best.validation_accuracy == 1.0
    assert fit.best.validation_loss < 0.6 * np.log(CLASSES)


def test_small_data_sets_get_small_batches() -> None:
    """Sixteen steps an epoch, of eight images at least; as many as were asked for where there are enough."""
    sizes = {images: batch_size(images, FineTune(batch_size=64)) for images in (10, 150, 500, 1024, 5000)}
    assert sizes == {10: 8, 150: 9, 500: 31, 1024: 64, 5000: 64}
    assert batch_size(5000, FineTune(batch_size=4)) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="it tells what happens without a GPU")
def test_without_a_gpu_one_that_is_asked_for_is_missed_in_one_line() -> None:
    """`auto` takes the CPU then."""
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    with pytest.raises(ConfigurationError, match=r"sees no GPU here: say finetune\.device=auto"):
        choose_device("cuda")
