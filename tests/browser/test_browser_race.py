"""The buttons of a race in a real JupyterLab, while its curves grow; the keyboard alone suffices."""

import pytest
from jupyter_lab import OUTPUT, framed, launch, nameless, open_notebook, run_all, serve

pytestmark = pytest.mark.browser

CELL = """
import lalib as la

images, test = la.load("digits").subset(range(300)), la.load("digits", "test").subset(range(50))
task = la.Task(model="cnn", steps=50)
race = la.widgets.Race(images, test, strategies=["random", "margin"], task=task, rounds=1, seeds=6, out="race")
race
"""


def test_a_race_is_paused_and_goes_on(tmp_path, chromium):
    files = tmp_path / "race"
    with serve(tmp_path, {"race": [CELL]}) as address, launch(chromium) as browser:
        page = open_notebook(browser, address, "race")
        run_all(page)
        page.click("button:has-text('Pause')")
        page.wait_for_selector(".lalib-sentence:has-text('Paused.')")
        finished = len(list(files.glob("*.json")))
        assert 1 <= finished < 12
        assert page.locator("button:has-text('Pause')").is_disabled()
        page.wait_for_timeout(1500)
        assert len(list(files.glob("*.json"))) == finished
        assert nameless(page, OUTPUT) == []
        page.locator("button:has-text('Stop')").focus()
        page.keyboard.press("Shift+Tab")  # to Start: Pause is disabled
        assert page.evaluate("document.activeElement.textContent") == "Start"
        assert framed(page)
        page.keyboard.press("Enter")
        page.wait_for_selector(".lalib-sentence:has-text('Finished. All 12 runs are done.')")
        assert len(list(files.glob("*.json"))) == 12
        page.wait_for_selector(".js-plotly-plot .legendtext:has-text('margin')")
        page.wait_for_selector(
            ".lalib-sentence:has-text('seeds: random 6, margin 6. Test accuracy (%) with most labels')"
        )
        page.wait_for_selector(".js-plotly-plot[role=img][aria-label^='Plot: Learning curves, mean and 95 % interval']")
        assert nameless(page, OUTPUT) == []
        assert page.locator(".plotlyjsicon").count() == 0  # a link to plotly's site
        assert page.outside == []
