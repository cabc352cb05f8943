"""The demo's MLflow in a browser: from the experiments to the pictures of the training that is served."""

from typing import Any

from playwright.sync_api import Browser, expect

PATIENCE = 60_000.0  # milliseconds for a page of a server that other tests keep busy


def test_a_person_finds_the_served_training(browser: Browser, stack: Any, first: Any) -> None:
    """Proves the way to the newest training: its figures, and where the model saw what it named."""
    assert first
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.goto(f"http://127.0.0.1:{stack.ports['mlflow']}/#/experiments")
    page.get_by_text("Model training").first.click()
    page.get_by_role("link", name="solar-cells").first.click()
    page.get_by_role("link", name="train", exact=True).first.click()
    expect(page.get_by_text("block_test_images").first).to_be_visible(timeout=PATIENCE)
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("grad-cam.png").first.click()
    picture = page.locator("img[src^='blob:']").first
    expect(picture).to_be_visible(timeout=PATIENCE)
    width = picture.evaluate("image => image.decode().then(() => image.naturalWidth)")
    assert width > 600  # six photographs side by side
    page.close()
