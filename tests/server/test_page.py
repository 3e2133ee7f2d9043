"""The page in headless Chromium: real clicks, downloads, a recording, a screenshot."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from level_recogniser import NAMES, audio_file, levels

pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import expect, sync_playwright

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium (Debian: chromium)"),
]
WORDS = [3, 5, 6, 1, 4, 2]
# Pixels of the picture that are mostly red or blue: firings and alphas.
COLORS = """() => {
  const { width, height } = document.getElementById("picture");
  const pen = document.getElementById("picture").getContext("2d");
  const data = pen.getImageData(0, 0, width, height).data;
  let red = 0, blue = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] < 200) continue;
    if (data[i] > 180 && data[i + 1] < 90) red++;
    if (data[i + 2] > 180 && data[i] < 90) blue++;
  }
  return [red, blue];
}"""
expect.set_options(timeout=20_000)
DROP = """([bytes, name]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name));
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def browser():
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


@pytest.fixture
def page(browser, served):
    """The open page; fails on errors in its script and of its policy."""
    context = browser.new_context(viewport={"width": 900, "height": 760})
    one = context.new_page()
    one.set_default_timeout(20_000)
    faults = []
    one.on("pageerror", lambda error: faults.append(str(error)))
    one.on(
        "console",
        lambda said: (
            faults.append(said.text)
            if said.type == "error" and "status of 400" not in said.text
            else None
        ),
    )
    one.goto(served)
    expect(one.locator("#model option")).to_have_text("levels")
    yield one
    context.close()
    assert faults == []


def speech():
    """Audio of the words; a tone, so that there is something to see."""
    rate = 16000
    samples = levels(*WORDS, rate=rate)
    tone = np.sin(2 * np.pi * 300 / rate * np.arange(len(samples)))
    return audio_file(np.sqrt(2) * samples * tone, rate)


def choose(page, name, content):
    with page.expect_file_chooser() as chooser:
        page.click("#choose")
    chooser.value.set_files({"name": name, "mimeType": "audio/wav", "buffer": content})


def test_words_times_confidences_picture_and_downloads(page, tmp_path):
    choose(page, "speech.wav", speech())
    words = page.locator(".word")
    expect(words).to_have_count(len(WORDS))

    shown = [words.nth(i).inner_text().split("\n") for i in range(len(WORDS))]
    assert [text for text, _ in shown] == [NAMES[level] for level in WORDS]
    assert shown[1][1] == "0:00.25–0:00.50"
    assert words.nth(1).get_attribute("title") == "confidence 50 %"
    clear = "getComputedStyle(node).backgroundColor.match(/[\\d.]+\\)$/)[0]"
    shades = [
        1 - float(words.nth(i).evaluate(f"node => {clear}").rstrip(")"))
        for i in range(len(WORDS))
    ]
    # The surer, the clearer.
    assert list(np.argsort(shades)) == list(np.argsort(WORDS))
    expect(page.locator(".flag")).to_have_count(1)
    red, blue = page.evaluate(COLORS)
    assert red > 300 and blue > 100
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 10_000

    files = {}
    for kind in ("srt", "vtt", "json"):
        with page.expect_download() as download:
            page.click(f"#downloads a:text-is('{kind}')")
        assert download.value.suggested_filename == f"speech.{kind}"
        download.value.save_as(tmp_path / kind)
        files[kind] = (tmp_path / kind).read_text("utf-8")
    assert files["srt"].startswith("1\n00:00:00,000 --> ")
    assert files["vtt"].startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert json.loads(files["json"])["text"] == " ".join(NAMES[one] for one in WORDS)


def test_a_click_on_a_word_plays_it(page):
    choose(page, "speech.wav", speech())
    page.locator(".word").nth(4).click()

    page.wait_for_function("document.getElementById('player').currentTime >= 1")
    expect(page.locator(".word.now")).not_to_have_count(0)


def test_a_dropped_file_and_one_that_is_no_audio(page):
    page.evaluate(DROP, [list(b"no audio at all"), "notes.txt"])
    expect(page.locator("#status.error")).to_contain_text("no audio that this server")
    expect(page.locator("#result")).to_be_hidden()

    page.evaluate(DROP, [list(audio_file(levels(4, 2))), "talk.wav"])
    expect(page.locator(".word")).to_have_count(2)
    expect(page.locator("#status")).to_have_text("talk.wav: 0.50 s")


def test_a_recording(page):
    page.click("#record")
    expect(page.locator("#record")).to_have_text("Stop")
    page.wait_for_timeout(1200)
    page.click("#record")

    expect(page.locator("#status")).to_have_text(re.compile(r"recording.wav: [\d.]+ s"))
    assert page.locator(".word").count() >= 2
    expect(page.locator("#record")).to_have_text("Record")


def test_audio_of_a_format_that_only_the_browser_reads(page):
    """Recorded as WebM: the browser decodes it, and sends it again as WAV."""
    page.evaluate(
        """async () => {
          const context = new AudioContext(), tone = new OscillatorNode(context);
          const sink = context.createMediaStreamDestination();
          tone.connect(new GainNode(context, { gain: 0.5 })).connect(sink);
          tone.start();
          const recorder = new MediaRecorder(sink.stream), parts = [];
          recorder.ondataavailable = (event) => parts.push(event.data);
          const stopped = new Promise((done) => { recorder.onstop = done; });
          recorder.start();
          await new Promise((done) => setTimeout(done, 900));
          recorder.stop();
          await stopped;
          const data = new DataTransfer();
          data.items.add(new File(parts, "talk.webm"));
          document.getElementById("drop").dispatchEvent(
            new DragEvent("drop", { dataTransfer: data, cancelable: true }));
        }"""
    )

    expect(page.locator("#status")).to_have_text(re.compile(r"talk.webm: 0\.\d+ s"))
    expect(page.locator(".word")).not_to_have_count(0)
