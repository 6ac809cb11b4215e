"""The page on attention: one file, which a real browser opens without an error and with nothing else at hand."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import Ask, Trained

from qkv.look import page
from qkv.look.heads import Kind

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LOOKED = """<script>
addEventListener("error", event => document.body.dataset.failed = event.message);
addEventListener("unhandledrejection", event => document.body.dataset.failed = event.reason);
const waiting = setInterval(() => {
  if (!document.body.dataset.ready) return;
  clearInterval(waiting);
  const press = (at, how) => document.querySelector(at).dispatchEvent(new MouseEvent(how, {bubbles: true}));
  press("nav button:last-child", "click");
  press("tr:last-child td", "click");
  press("#q1", "mouseover");
  document.body.dataset.done = "yes";
}, 10);
</script></body>"""


def seen(path: Path) -> str:
    """The page as a browser has it when somebody has chosen the last kind, the first head of its last level, and the second
    word."""
    assert BROWSER is not None
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", LOOKED), encoding="utf-8")
    how = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=10000",
        "--dump-dom",
        f"--user-data-dir={path}.d",
    ]
    return subprocess.run([BROWSER, *how, path.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout


needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium")


@needs_browser
def test_a_browser_opens_the_page_of_a_run(ask: Ask, trained: Trained, tmp_path: Path) -> None:
    """And hostile text is text."""
    out, text = tmp_path / "heads.html", "ka </script><b>lo & 'mi'"
    answer = ask("look", "heads", trained.folder, text, "KA LO", "--out", out)
    assert (answer.code, answer.out) == (0, f"{out}\n"), answer.err
    whole = out.read_text(encoding="utf-8")
    assert not re.search(r"https?:|src=|@import|url\(", whole), "it asks nobody for anything"
    dom = seen(out)
    assert "data-failed" not in dom and 'data-done="yes"' in dom
    assert re.search(r'<h1 id="title">ka &lt;/script&gt;&lt;b&gt;lo &amp; \'mi\'\s+KA LO</h1>', dom)
    assert re.search(r'<button aria-pressed="true">decoder: target to target</button></nav>', dom)


@needs_browser
def test_what_it_says_of_a_word_is_what_the_weights_say(tmp_path: Path) -> None:
    queries, keys = ["who", "asks", "here"], ["a", "b", "c", "d"]
    first, second = torch.zeros(2, 3, 4), torch.zeros(1, 3, 4)
    first[:, :, 0] = 1
    second[0, 1] = torch.tensor([0.0, 0.2, 0.7, 0.1])
    kinds = [Kind("one", [first], queries, keys, "block", [1]), Kind("other", [first, second], queries, keys, "step", [2, 5])]
    page.write(kinds, "a title", tmp_path / "page.html")
    dom = seen(tmp_path / "page.html")
    assert "\u201casks\u201d attends to \u201cc\u201d (70%), \u201cb\u201d (20%), \u201cd\u201d (10%)" in dom
    assert re.findall(r"<th>(step \d|block \d)</th>", dom) == ["step 2", "step 5"]
    assert re.findall(r'<td data-name="([\d,]+)"[^>]*aria-selected="true"', dom) == ["1,0"]
    assert dom.count("0.0 bit") == 2 and "1.2 bit" in dom  # of the query that sees something


def test_entropy_and_distance() -> None:
    even = torch.full((4, 4), 0.25)
    assert page.entropy(even) == pytest.approx(2) and page.distance(even) == pytest.approx(1.25)
    assert page.entropy(torch.eye(3)) == 0 and page.distance(torch.eye(3)) == 0
    blank = torch.cat([even[:1], torch.zeros(3, 4)])
    assert page.entropy(blank) == pytest.approx(2), "who sees nothing does not count"
    assert page.entropy(torch.zeros(2, 2)) == 0


def test_a_page_of_128_tokens_six_levels_and_eight_heads_is_small(tmp_path: Path) -> None:
    """Of the kind that shrinks least: weights of a random model, of a pair."""
    pieces = [f"token{number}" for number in range(128)]
    weights = torch.randn(6, 8, 128, 128, generator=torch.Generator().manual_seed(0)).mul(2).softmax(-1)
    kinds = [Kind(name, list(weights), pieces, pieces, "block", list(range(1, 7))) for name in ("encoder", "memory", "decoder")]
    page.write(kinds, "title", tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 3_000_000
