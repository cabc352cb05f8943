"""Trends over simulated nights: what is planted is named with its night, and quiet months stay quiet."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from imagebatch.history.findings import Finding, findings
from imagebatch.history.reported import remembered
from imagebatch.history.summary import RunSummary, keep_summary

from tests.support.calls import Call
from tests.support.nights import nights


def sentences_of(runs: list[RunSummary]) -> list[str]:
    """What is said about runs at the usual alpha."""
    return [one.text for one in findings(runs, 0.002)[1]]


def night_of(sentences: list[str], beginning: str) -> int:
    """The night that a sentence names."""
    found = [re.search(r"night-(\d\d)", text) for text in sentences if text.startswith(beginning)]
    assert len(found) == 1, sentences
    assert found[0], sentences
    return int(found[0][1])


def test_a_slowdown_a_class_shift_and_a_weekly_pattern_are_named() -> None:
    """Proves on 8 histories that all three, planted together, are named with the right night, give or take 2.

    Noise may place a step elsewhere: one class shift in eight is let off.
    """
    misplaced = 0
    for seed in range(8):
        slow, shift = np.random.default_rng(seed).integers(12, 48, 2)
        sentences = sentences_of(nights(seed, slow=slow, shift=shift, weekly=0.3))
        assert abs(night_of(sentences, "The throughput fell") - slow) <= 2
        misplaced += abs(night_of(sentences, "The share of mono-defective rose") - shift) > 2
        assert any("number of images is lower on Saturdays and Sundays" in text for text in sentences)
        assert not any(word in text for text in sentences for word in ("confidence", "drift", "brightness"))
    assert misplaced <= 1


def test_nothing_is_raised_on_quiet_nights() -> None:
    """Proves that of 4 quiet histories of 60 nights none raises anything."""
    assert [sentences_of(nights(1000 + seed)) for seed in range(4)] == [[]] * 4


def test_a_steady_fall_is_called_one() -> None:
    """Proves that a slope is told from a step."""
    sentences = sentences_of(nights(7, slope=-0.08))
    assert len(sentences) == 1
    assert sentences[0].startswith("The mean confidence falls steadily, from 0.77")


def test_the_verbs_read_what_reports_have_kept(call: Call, runs: Path) -> None:
    """Proves trends and history on kept figures: sentences, the page, a comparison, escaped names."""
    for run in nights(3, slow=30):
        keep_summary(str(runs), run)
    found = call("trends")
    assert (found.code, found.last["runs"], found.last["found"]) == (0, 60, 1)
    assert found.last["changes"][0]["key"] == "simulated throughput level down night-30"
    assert found.last["changes"][0]["text"] in found.err
    listed = call("history", "--last", 40)
    assert (listed.code, listed.last["runs"], listed.last["newest"]) == (0, 40, "night-59")
    assert listed.last["compared"]["images_per_second"] < 0.2
    page = (runs / "_history/history.html").read_text()
    assert "The throughput fell from" in page
    assert page.count('<line class="limit"') == 1
    chart = page.split("<span>Images per second</span>")[1].split("<span>Images</span>")[0]
    assert '<line class="limit"' in chart
    assert ": night-30, 1 Oct 2026" in chart
    assert "night-59" in listed.err
    assert "<script" not in page


def test_trials_and_past_nights_are_no_trend(call: Call, runs: Path) -> None:
    """Proves that runs which the DAGs set aside raise nothing beside the nights, and can be asked for."""
    for run in nights(3):
        keep_summary(str(runs), run)
    for run in nights(5, slow=30):
        keep_summary(str(runs), replace_pipeline(run, "simulated.trial"))
    assert call("trends").last["found"] == 0
    assert call("trends", "--pipeline", "simulated.trial").last["found"] == 1


def replace_pipeline(run: RunSummary, pipeline: str) -> RunSummary:
    """The same run, as one of another pipeline."""
    return run.model_copy(update={"pipeline": pipeline, "run_id": f"{pipeline}-{run.run_id}"})


def test_too_few_runs_say_so(call: Call, runs: Path) -> None:
    """Proves that a young installation gets 99 and a sentence, not a verdict."""
    assert call("history").code == 99
    for run in nights(3)[:5]:
        keep_summary(str(runs), run)
    refused = call("trends")
    assert refused.code == 99
    assert "trends need 14" in refused.err


def test_each_pipeline_is_looked_at_by_itself(call: Call, runs: Path) -> None:
    """Proves that a pipeline of another speed and size beside the nightly one is no change of anything."""
    for run in nights(3):
        keep_summary(str(runs), run)
    for run in nights(4, slow=0, weekly=0.5, pipeline="other")[::3]:
        keep_summary(str(runs), run)
    found = call("trends")
    assert (found.code, found.last["runs"], found.last["found"]) == (0, 80, 0)
    assert call("trends", "--pipeline", "other").last["runs"] == 20
    assert call("history").last["runs"] == 60
    page = (runs / "_history/history.html").read_text()
    assert page.count("<span>Images per second</span>") == 2


def test_many_pipelines_do_not_hide_a_change(call: Call, runs: Path) -> None:
    """Proves that the correction for ten pipelines still lets a slow-down of one of them be seen."""
    for number in range(10):
        slow = 30 if number == 4 else 60
        for run in nights(50 + number, slow=slow, pipeline=f"p{number}")[::2]:
            keep_summary(str(runs), run)
    found = call("trends")
    assert (found.last["runs"], found.last["found"]) == (300, 1)
    assert found.last["changes"][0]["text"].startswith("p4: The throughput fell from")


def test_a_change_keeps_its_name_from_night_to_night(call: Call, runs: Path) -> None:
    """Proves that the growing history names one slow-down by one key, so that people are told once."""
    history = nights(11, slow=30)
    for run in history[:34]:
        keep_summary(str(runs), run)
    keys = []
    for run in history[34:50]:
        keep_summary(str(runs), run)
        keys += [
            change["key"] for change in call("trends").last["changes"] if "throughput level" in change["key"]
        ]
    assert len(keys) >= 10
    assert len(set(keys)) == 1


def test_a_change_is_remembered_while_its_run_is_in_sight() -> None:
    """Proves what is the same change, and that one found again after its run has left is news."""
    runs = [f"night-{night:02}" for night in range(60)]
    fall = Finding("throughput", "level", rises=False, run_id="night-20", p=0.001, text="")
    (first,), known = remembered([], "p", [fall], runs)
    (moved,), _ = remembered(known, "p", [replace(fall, run_id="night-22")], [*runs, "night-60"])
    assert moved.key == first.key == "p throughput level down night-20"
    (another,), known = remembered(known, "p", [replace(fall, run_id="night-50")], runs)
    (risen,), known = remembered(known, "p", [replace(fall, rises=True)], runs)
    assert len({first.key, another.key, risen.key}) == 3
    assert len(known) == 3
    nothing, known = remembered(known, "p", [], runs[21:])
    assert (nothing, [one.run_id for one in known]) == ([], ["night-50"])
    assert remembered(known, "q", [], runs) == ([], [])
