"""The page for people, in a real browser against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytest_asyncio
from google.protobuf import json_format

from pairwire.server.config import ListenConfig, ServerConfig
from pairwire.server.engine import ClassifyOptions, EngineConfig
from pairwire.server.runtime.fake import FakeRuntime
from pairwire.v1 import embedding_pb2, scoring_pb2
from tests.server import serving
from tests.server.compat.http import browsing
from tests.server.engine import toys

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

DOCUMENTS = ["mix flour and water", "the dog runs", "bake the bread", "<b>bold</b> & 'quoted' \"twice\" \\ é"]
LISTEN = ListenConfig(port=0, metrics_port=-1, http_port=0)


def settings(*packages: Path, listen: ListenConfig = LISTEN) -> ServerConfig:
    return dataclasses.replace(serving.config(*packages), listen=listen)


def url_of(served: serving.Served) -> str:
    return f"http://127.0.0.1:{served.application.http_port}/"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with browsing.chromium() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(
    scorer_package: Path, nli_package: Path, embedder_package: Path, sparse_package: Path
) -> AsyncIterator[serving.Served]:
    packages = (scorer_package, nli_package, embedder_package, sparse_package)
    async with serving.serve(settings=settings(*packages)) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, served: serving.Served) -> AsyncIterator[Page]:
    async with browsing.page_of(browser, url_of(served)) as found:
        await found.select_option("#model", "scorer")
        yield found


async def ranking(page: Page) -> list[tuple[str, float]]:
    """What the page shows once it has an answer."""
    await page.wait_for_selector("#answer:not([aria-busy]) #ranking:not([hidden]) li")
    texts = await page.locator("#ranking .text").all_inner_texts()
    scores = await page.locator("#ranking .score").all_inner_texts()
    return list(zip(texts, map(float, scores), strict=True))


async def shows(page: Page, id: str, words: str) -> None:
    """Returns once an element has these words in it. Without JavaScript as text, which the page's policy forbids."""
    await page.locator(f"#{id}", has_text=words).wait_for(timeout=1000 * serving.PATIENCE_S)


async def ask(page: Page, query: str = "how do I bake bread", lines: list[str] = DOCUMENTS) -> list[tuple[str, float]]:
    await page.fill("#query", query)
    await page.fill("#lines", "\n".join(lines) + "\n\n")
    await page.click("#send")
    return await ranking(page)


async def test_documents_come_in_the_engines_order_with_its_scores_and_times(
    page: Page, served: serving.Served
) -> None:
    found = await ask(page)
    result = await served.application.engine.rerank("how do I bake bread", DOCUMENTS, model="scorer")
    order = np.argsort(-result.scores[:, 0], kind="stable")
    assert [text for text, _ in found] == [DOCUMENTS[at] for at in order]
    assert [score for _, score in found] == pytest.approx(result.scores[order, 0].tolist(), abs=1e-4)
    times = await page.inner_text("#times")
    for word in ("waiting", "tokenising", "computing", "in all"):
        assert word in times


async def test_a_bi_encoder_compares_and_an_nli_model_classifies(page: Page, served: serving.Served) -> None:
    assert await page.locator("#model option").all_inner_texts() == ["embedder", "nli", "scorer"]
    await page.select_option("#model", "embedder")
    found = await ask(page)
    vectors = (await served.application.engine.embed(["how do I bake bread", *DOCUMENTS], model="embedder")).embeddings
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert dict(found) == pytest.approx(dict(zip(DOCUMENTS, (unit[1:] @ unit[0]).tolist(), strict=True)), abs=2e-4)
    await page.select_option("#model", "nli")
    labels = ["bread", "a dog"]
    for multi_label in (False, True):
        await page.set_checked("#multi", multi_label)
        found = await ask(page, "bake the bread", labels)
        options = ClassifyOptions(multi_label=multi_label)
        result = await served.application.engine.classify(["bake the bread"], labels, options=options)
        assert dict(found) == pytest.approx(dict(zip(labels, result.scores[0].tolist(), strict=True)), abs=1e-4)


async def test_texts_are_text_and_never_markup(browser: Browser, served: serving.Served) -> None:
    hostile = "<img src=x onerror='window.harmed = 1'><script>window.harmed = 1</script>"
    async with browsing.page_of(browser, url_of(served), meant="TrustedHTML") as page:
        await page.select_option("#model", "scorer")
        found = await ask(page, hostile, [hostile, "plain"])
        assert hostile in [text for text, _ in found]
        assert await page.evaluate("window.harmed") is None
        assert await page.locator("main img, main script").count() == 0
        # What might get through all the same is stopped by the policy.
        await page.evaluate("try { document.body.innerHTML = '<p>' } catch (error) { window.caught = String(error) }")
        assert "TrustedHTML" in await page.evaluate("window.caught")


async def test_what_is_loaded_and_how_busy_it_is_are_shown(page: Page, served: serving.Served) -> None:
    cards = await page.locator(".card").all_inner_texts()
    assert [card.split("\n")[0] for card in cards] == ["embedder", "nli", "scorer", "splade"]
    assert "contradiction, entailment, neutral" in cards[1]
    assert "not checked" in cards[2]
    await ask(page)
    await shows(page, "rate", "texts/s")
    await shows(page, "latency", "median")
    await shows(page, "fill", "% text")
    assert await page.locator(".spark").count() == 4


async def test_numbers_are_those_of_prometheus(page: Page) -> None:
    def reading(rows: int, fast: int, slow: int) -> str:
        return f"""# HELP x y
pairwire_rows_total{{model="a \\"b\\""}} {rows}.0
pairwire_queue_tokens 5.0
pairwire_queue_limit_tokens 10.0
pairwire_request_seconds_bucket{{le="0.1",rpc="Rerank"}} {fast}.0
pairwire_request_seconds_bucket{{le="0.3",rpc="Rerank"}} {fast + slow}.0
pairwire_request_seconds_bucket{{le="+Inf",rpc="Rerank"}} {fast + slow}.0
"""

    script = """async ([first, second]) => {
      const { Readings } = await import("./ui/metrics.js");
      const readings = new Readings();
      readings.add(100, first);
      readings.add(110, second);
      return [readings.summary(), readings.history("rows")];
    }"""
    summary, history = await page.evaluate(script, [reading(5, 10, 0), reading(45, 14, 4)])
    assert summary["rows"] == 4
    assert summary["filled"] == 0.5
    assert summary["median"] == pytest.approx(0.1)  # the 4th of 8, which are 4 below 0.1
    assert summary["slow"] == pytest.approx(0.28)  # 95 % are 7.6 of 8: 3.6 of the 4 between 0.1 and 0.3
    assert summary["fill"] is None
    assert history == [None, 4]


async def test_the_keyboard_is_enough(page: Page) -> None:
    await page.evaluate("document.activeElement.blur()")
    seen = []
    for _ in range(11):
        await page.keyboard.press("Tab")
        seen.append(await page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert seen[:5] == ["Skip to the form", "Try", "Live", "Models", "Call"]
    assert seen[5:9] == ["model", "query", "lines", "send"]
    assert seen[9:] == ["metrics", "tab-curl"]
    assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    await page.keyboard.press("ArrowRight")
    assert await page.get_attribute("#tab-grpcurl", "aria-selected") == "true"
    await page.keyboard.press("End")
    assert "from pairwire.client import Client" in await page.inner_text("#code")
    await page.focus("#query")
    await page.keyboard.press("Control+Enter")
    assert await ranking(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_can_be_read_and_every_control_has_a_name(
    browser: Browser, served: serving.Served, scheme: str
) -> None:
    async with browsing.page_of(browser, url_of(served), color_scheme=scheme) as page:
        await ask(page)
        assert await page.evaluate(browsing.CONTRAST) == []
        script = "[...document.querySelectorAll('input, select, textarea')].filter((each) => !each.labels.length)"
        assert await page.evaluate(f"{script}.map((each) => each.id)") == []
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(","))) < 3 * 128) is (scheme == "dark")


@pytest.mark.parametrize("width", [320, 390])
async def test_it_fits_a_phone(browser: Browser, served: serving.Served, width: int) -> None:
    context = {"viewport": {"width": width, "height": 700}, "is_mobile": True, "has_touch": True}
    async with browsing.page_of(browser, url_of(served), **context) as page:
        await ask(page, lines=[*DOCUMENTS, "one-word-without-an-end" * 20])
        await shows(page, "fill", "% text")
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        script = (
            "[...document.querySelectorAll('button, select, textarea, nav a')].map((e) => e.getBoundingClientRect())"
        )
        boxes = await page.evaluate(f"{script}.map((box) => [box.left, box.right, box.height])")
        assert all(left >= 0 and right <= width and height >= 24 for left, right, height in boxes)


async def test_code_to_copy_does_what_the_form_does(page: Page, tmp_path: Path) -> None:
    found = await ask(page)
    await page.click("#tab-python")
    code = await page.inner_text("#code")
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert [line.split("  ", 1)[1] for line in done.stdout.splitlines()] == [text for text, _ in found]
    await page.click("#tab-curl")
    command = await page.inner_text("#code")
    if shutil.which("curl"):
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", f"{command} -s"], capture_output=True, text=True, check=True
        )
        indices = [each["index"] for each in json.loads(done.stdout)["results"]]
        assert [DOCUMENTS[index] for index in indices] == [text for text, _ in found]


@pytest.mark.parametrize(
    ("model", "method", "request_type"),
    [
        ("scorer", "ScoringService/Rerank", scoring_pb2.RerankRequest),
        ("nli", "ScoringService/Classify", scoring_pb2.ClassifyRequest),
        ("embedder", "EmbeddingService/Embed", embedding_pb2.EmbedRequest),
    ],
)
async def test_grpcurl_is_told_a_request_that_the_server_knows(
    page: Page, served: serving.Served, model: str, method: str, request_type: type
) -> None:
    await page.select_option("#model", model)
    await page.fill("#lines", "\n".join(DOCUMENTS))
    await page.click("#tab-grpcurl")
    words = shlex.split((await page.inner_text("#code")).replace("\\\n", " "))
    assert words[:3] == ["grpcurl", "-plaintext", "-d"]
    assert words[4:] == [f"127.0.0.1:{served.application.port}", f"pairwire.v1.{method}"]
    request = json_format.Parse(words[3], request_type())
    assert request.model == model
    text = request.SerializeToString().decode("utf-8", "replace")
    assert all(document in text for document in DOCUMENTS)


async def test_a_mistake_is_a_sentence(page: Page) -> None:
    await page.fill("#lines", " \n ")
    await page.click("#send")
    assert await page.inner_text("#failure") == "Give at least one line under Documents."
    await page.fill("#lines", "\n".join("abc"[at % 3] for at in range(2049)))
    await page.click("#send")
    await shows(page, "failure", "2049 exceed --max-items")
    assert await page.is_hidden("#ranking")
    assert await ask(page)
    assert await page.is_hidden("#failure")


async def test_a_full_server_and_one_that_is_gone_are_shown_as_such(browser: Browser) -> None:
    gate = threading.Event()
    manifest = toys.cross_encoder_manifest("toy")
    engine = EngineConfig(workers=1, queue_tokens=64, default_deadline_s=0)
    config = dataclasses.replace(settings(), engine=engine)

    def models() -> list[object]:
        return [toys.toy_model(FakeRuntime(gate=gate), manifest)]

    async with contextlib.AsyncExitStack() as stack:
        stack.callback(gate.set)
        served = await stack.enter_async_context(serving.serve(settings=config, models=models))  # type: ignore[arg-type]
        page = await stack.enter_async_context(browsing.page_of(browser, url_of(served)))
        score, statistics = served.application.engine.score, served.application.engine.statistics
        running = asyncio.ensure_future(score([("a", toys.unlike(40))]))
        await serving.eventually(lambda: statistics().running_rows == 1)
        waiting = asyncio.ensure_future(score([("a", toys.unlike(40))]))
        await serving.eventually(lambda: statistics().queued_rows == 1)
        await page.fill("#query", "a")
        await page.fill("#lines", toys.unlike(40))
        await page.click("#send")
        await shows(page, "failure", "The server is full: ")
        await page.wait_for_selector("#state[data-state=busy]")
        assert await page.inner_text("#state") == "Overloaded"
        assert "refused 1 request in the last half minute" in await page.inner_text("#trouble")
        gate.set()
        await asyncio.gather(running, waiting)
        await served.application.abort()
        await page.wait_for_selector("#state[data-state=gone]")
        assert "has not answered since" in await page.inner_text("#trouble")
        await page.click("#send")
        await shows(page, "failure", "does not answer")
        again = ListenConfig(port=0, metrics_port=-1, http_port=int(url_of(served).split(":")[-1].strip("/")))
        async with serving.serve(settings=dataclasses.replace(config, listen=again), models=models):  # type: ignore[arg-type]
            await page.wait_for_selector("#state[data-state=serving]")
            await page.wait_for_selector("#trouble", state="hidden")


ROOT = Path(__file__).parents[4]
PICTURES = {
    "page": {"viewport": {"width": 960, "height": 760}},
    "page-dark": {"viewport": {"width": 960, "height": 760}, "color_scheme": "dark"},
    "page-phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}


async def test_pictures_for_the_docs(
    request: pytest.FixtureRequest, browser: Browser, scorer_package: Path, tmp_path: Path
) -> None:
    """With ``--screenshots`` they are of the demo's model under some load, and go to docs/images."""
    wanted = request.config.getoption("--screenshots")
    package = ROOT / "models/demo" if wanted else scorer_package
    assert package.exists(), "run make demo first"
    folder = ROOT / "docs/images" if wanted else tmp_path
    async with serving.serve(settings=settings(package)) as served:
        load = asyncio.ensure_future(_some_load(served, 60.0 if wanted else 0.0))
        for name, context in PICTURES.items():
            async with browsing.page_of(browser, url_of(served), **context) as page:  # type: ignore[arg-type]
                await page.click("#send")
                await ranking(page)
                if wanted:  # readings of a while, so that there are lines to be seen
                    await page.wait_for_timeout(14_000)
                if name == "page-dark":
                    await page.locator("#live").scroll_into_view_if_needed()
                    await page.evaluate(
                        "scrollTo({top: document.getElementById('live').offsetTop - 70, behavior: 'instant'})"
                    )
                else:
                    await page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
                await page.screenshot(path=folder / f"{name}.png")
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    assert {each.name for each in folder.glob("page*.png")} == {f"{name}.png" for name in PICTURES}
    assert all(each.stat().st_size < 200_000 for each in folder.glob("page*.png"))


async def _some_load(served: serving.Served, seconds: float) -> None:
    words = itertools.cycle(
        [
            "tide",
            "moon",
            "sea",
            "bread",
            "dough",
            "water",
            "harbour",
            "ship",
            "river",
            "mineral",
            "earth",
            "sun",
            "yeast",
            "salt",
        ]
    )
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    for round in itertools.count():
        if loop.time() >= end:
            return
        documents = [" ".join(itertools.islice(words, 5 + (7 * round + 3 * at) % 23)) for at in range(4 + round % 9)]
        request = scoring_pb2.RerankRequest(query=f"number {round}", documents=documents)
        await served.scoring.Rerank(request)
        await asyncio.sleep(0.05 * (round % 5))
