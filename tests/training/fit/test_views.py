import numpy as np
import pytest
from imagebatch_training.configuration import AUGMENTATIONS as KNOWN
from imagebatch_training.configuration import CONFIG_DIR, load_settings
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.fit.views import AUGMENTATIONS, MIRRORED, views

PICTURE = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)


def test_the_first_view_is_the_image_and_the_next_are_its_mirrorings() -> None:
    """Left to right, top to bottom, both: and no two of them are the same."""
    seen = [view(PICTURE) for view in views([])]
    assert len(seen) == MIRRORED == len({one.tobytes() for one in seen})
    assert (seen[0] == PICTURE).all()
    assert (seen[1] == PICTURE[:, :, ::-1]).all()
    assert (seen[2] == PICTURE[:, ::-1]).all()
    assert (seen[3] == PICTURE[:, ::-1, ::-1]).all()


def test_further_views_in_one_order_however_they_are_asked_for() -> None:
    """Cached activations are found again by what was asked for, not by the order of the words."""
    one, other = (views(names) for names in (["gamma", "blur"], ["blur", "gamma"]))
    assert one == other or [v(PICTURE).tobytes() for v in one] == [v(PICTURE).tobytes() for v in other]
    assert len(one) == MIRRORED + 4


def test_light_and_sharpness_by_hand() -> None:
    """A grey of 128 by 0.8 and 1.25, by both curves; black and white stay; a blur keeps the mean."""
    grey = np.full((1, 8, 8), 128, np.uint8)
    darker, brighter = (view(grey).max() for view in AUGMENTATIONS["exposure"])
    assert (darker, brighter) == (102, 160)
    lighter, deeper = (view(grey).max() for view in AUGMENTATIONS["gamma"])
    assert (lighter, deeper) == (round(255 * (128 / 255) ** 0.7), round(255 * (128 / 255) ** 1.4))
    ends = np.array([[[0, 255]]], np.uint8)
    for view in AUGMENTATIONS["gamma"]:
        assert sorted(view(ends).ravel().tolist()) == [0, 255]
    board = np.indices((16, 16)).sum(0)[None] % 2 * np.uint8(200)
    for view in AUGMENTATIONS["blur"]:
        blurred = view(board.astype(np.uint8))
        assert blurred.dtype == np.uint8
        assert blurred.shape == board.shape
        assert abs(blurred[0, 6:10, 6:10].astype(float) - 100).max() < 5


def test_every_view_keeps_shape_and_type() -> None:
    """What is cached is one array."""
    for view in views(list(AUGMENTATIONS)):
        assert view(PICTURE).shape == PICTURE.shape
        assert view(PICTURE).dtype == np.uint8


@pytest.mark.parametrize("words", ["[flash]", "[blur,blur]"])
def test_an_unknown_view_is_refused(words: str) -> None:
    """With what there is."""
    assert tuple(AUGMENTATIONS) == KNOWN
    with pytest.raises(ConfigurationError, match="augment must be some of gamma, exposure, blur, each once"):
        load_settings(CONFIG_DIR, [f"augment={words}"])
