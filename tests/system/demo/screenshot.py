"""Take the picture of a DAG run that the README shows: `make demo`, then this (environment of airflow/).

It needs a Chromium (Debian: chromium) and writes docs/img/dag-run.png; with `--form` the trigger form, as
docs/img/airflow-trigger-form.png. No test: a person looks at it.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[3]
VAR = Path(os.environ.get("IMAGEBATCH_VAR") or ROOT / "var")
AIRFLOW = f"http://127.0.0.1:{os.environ.get('IMAGEBATCH_PORT_AIRFLOW') or 8088}"
PICTURE = ROOT / "docs" / "img" / "dag-run.png"
FORM = PICTURE.with_name("airflow-trigger-form.png")
SIZE, FORM_SIZE = {"width": 1400, "height": 560}, {"width": 1280, "height": 800}


def main() -> None:
    """Log in, open the last run's graph beside the grid, and keep the picture."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--dag", default="batch_image_inference")
    options.add_argument("--form", action="store_true")
    options.add_argument("--output", type=Path)
    asked = options.parse_args()
    output: Path = asked.output or (FORM if asked.form else PICTURE)
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        sys.exit("no Chromium on the PATH: install one (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        # The sandbox wants a user namespace, which root in a container does not get.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=browser_path, args=arguments)
        page = browser.new_page(viewport=FORM_SIZE if asked.form else SIZE)
        log_in(page)
        (open_form if asked.form else open_run)(page, asked.dag)
        page.screenshot(path=output)
        browser.close()
    print(f"{output}: {output.stat().st_size / 1000:.0f} kB")  # noqa: T201 - a script


def open_run(page: Page, dag: str) -> None:
    """Show the graph of the last run."""
    page.goto(f"{AIRFLOW}/dags/{dag}/runs/{last_run(page, dag)}")
    page.get_by_label("Show Graph").click()
    page.get_by_text("check_manifest").first.wait_for()
    page.wait_for_timeout(3000)  # the graph is laid out and drawn after its data has come


def open_form(page: Page, dag: str) -> None:
    """Show the fields of a run by hand."""
    page.goto(f"{AIRFLOW}/dags/{dag}")
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_text("Run Parameters").first.wait_for()
    # The demo's default is a path of the machine that takes the picture.
    page.locator("input[value*='solar-cells/images']").first.fill("/data/solar-cells/images")
    page.get_by_text("Columns to carry").first.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)  # the form unfolds


def log_in(page: Page) -> None:
    """Log in by the form, as a person does."""
    password = json.loads((VAR / "airflow" / "passwords.json").read_text())["admin"]
    page.goto(AIRFLOW)
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(f"{AIRFLOW}/**")
    page.get_by_text("Dags").first.wait_for()


def last_run(page: Page, dag: str) -> str:
    """Ask Airflow for the newest run of a DAG."""
    answer = page.request.get(f"{AIRFLOW}/api/v2/dags/{dag}/dagRuns?order_by=-run_after&limit=1")
    return str(answer.json()["dag_runs"][0]["dag_run_id"])


if __name__ == "__main__":
    main()
