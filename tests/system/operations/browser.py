"""Airflow's UI as a person uses it: log in, trigger with the form, watch, follow the link to the result.

Needs playwright (environment of airflow/) and a Chromium (Debian: chromium). The pictures go into docs/img/.
"""

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[3]
SIZE = {"width": 1280, "height": 720}
LARGEST_PICTURE = 150_000  # bytes
PATIENCE = 900.0  # seconds for the run


class Walk:
    """One walk through the UI.

    Args:
        page: of a browser.
        address: of Airflow.
        dag: the DAG to trigger.
        pictures: folder for the screenshots.
    """

    def __init__(self, page: Page, address: str, dag: str, pictures: Path) -> None:
        self._page = page
        self._dag = dag
        self._address = address.rstrip("/")
        self._pictures = pictures

    def log_in(self, user: str, password: str) -> None:
        """Log in by the form."""
        page = self._page
        page.goto(self._address)
        page.fill("input[name=username]", user)
        page.fill("input[name=password]", password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "/login" not in url)
        page.get_by_role("link", name="Dags").first.wait_for()

    def trigger(self, limit: int) -> str:
        """Fill in the DAG's form and trigger a run.

        Args:
            limit: images to score.

        Returns:
            The run's id.
        """
        page = self._page
        page.goto(f"{self._address}/dags/{self._dag}")
        before = self.last_run()
        page.get_by_role("button", name=re.compile("^Trigger")).first.click()
        page.get_by_text("Single Run").first.wait_for()
        field = page.locator("input[name=element_limit]")
        field.scroll_into_view_if_needed()
        field.fill(str(limit))
        page.locator("input[name=element_input]").scroll_into_view_if_needed()
        self.picture("trigger-form")
        page.get_by_role("button", name=re.compile("^Trigger$")).last.click()
        deadline = time.monotonic() + 60
        while (run := self.last_run()) == before:
            if time.monotonic() > deadline:
                raise TimeoutError("the form started no run")
            time.sleep(0.5)
        return run

    def watch(self, run: str) -> None:
        """Look at the run until its state is shown as a success."""
        page = self._page
        page.goto(f"{self._address}/dags/{self._dag}/runs/{run}")
        expect(page.get_by_test_id("state-badge").first).to_contain_text("Success", timeout=PATIENCE * 1000)
        page.wait_for_timeout(3000)  # the grid is drawn after its data has come
        self.picture("run-succeeded")

    def follow_the_result(self, run: str) -> str:
        """Open the last task and press its button *Result*.

        Returns:
            The text of the page that it leads to.
        """
        page = self._page
        page.goto(f"{self._address}/dags/{self._dag}/runs/{run}/tasks/postprocess/details")
        page.locator("a", has_text=re.compile("^Result$")).click()
        page.wait_for_url("**/xcom")
        page.get_by_role("button", name=re.compile("expand", re.IGNORECASE)).first.click()
        page.get_by_text("predictions.csv").first.wait_for()
        self.picture("result")
        return page.locator("body").inner_text().replace("\u00a0", " ")

    def last_run(self) -> str:
        """Name the newest run of the DAG."""
        path = f"/api/v2/dags/{self._dag}/dagRuns?order_by=-run_after&limit=1"
        runs = self._page.request.get(f"{self._address}{path}").json()["dag_runs"]
        return str(runs[0]["dag_run_id"]) if runs else ""

    def picture(self, name: str) -> None:
        """Keep what is seen.

        Raises:
            ValueError: the file would be larger than the documentation bears.
        """
        path = self._pictures / f"airflow-{name}.png"
        self._page.screenshot(path=path)
        if path.stat().st_size > LARGEST_PICTURE:
            raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {LARGEST_PICTURE}")


@contextmanager
def browser_page() -> Iterator[Page]:
    """Open a page in a headless Chromium.

    Raises:
        FileNotFoundError: there is no Chromium.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise FileNotFoundError("no Chromium on the PATH: install one (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        # The sandbox wants a user namespace, which root in a container does not get.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def main() -> int:
    """Walk through the UI of a running stack.

    Returns:
        0: every step was possible, and the result's counts are those that were asked for.
    """
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("address", help="such as http://127.0.0.1:8088")
    options.add_argument("--dag", default="batch_image_inference")
    options.add_argument("--user", default="admin")
    options.add_argument("--limit", type=int, default=256)
    options.add_argument("--pictures", type=Path, default=ROOT / "docs" / "img")
    asked = options.parse_args()
    with browser_page() as page:
        walk = Walk(page, asked.address, asked.dag, asked.pictures)
        walk.log_in(asked.user, os.environ["AIRFLOW_PASSWORD"])
        run = walk.trigger(asked.limit)
        print(f"triggered {unquote(run)}", flush=True)
        walk.watch(run)
        text = walk.follow_the_result(run)
    if f'"predicted": {asked.limit}' not in text:
        raise SystemExit(f"the result page does not show {asked.limit} predictions: {text[-500:]}")
    print("logged in, triggered, watched, followed the link")
    return 0


if __name__ == "__main__":
    sys.exit(main())
