"""What every feature stands on: one Chromium, pages that are started once for each kind, and evidence where a step fails.

Nothing here waits for a fixed time: conditions are waited for, with deadlines that only a broken page reaches.
"""

import os
import re
import shutil
from typing import Any

from playwright.sync_api import Request, expect, sync_playwright

from tests.web.houses import House, Outside, Plan
from tests.web.looking import SCREENSHOTS

DEADLINE = 90_000  # milliseconds
BROWSER_START = 300_000  # milliseconds; two busy cores need a minute for it
DESKTOP = {"width": 1280, "height": 800}

# What only a quick machine hides, as `behave -D delay=700 -D late=700 -D slow=5`: what is asked of the server takes up to so many
# milliseconds longer, each piece of its streams as well (they keep their order), and the browser has a fifth of its speed.
LATE = """{
  const plain = fetch, a_while = most => new Promise(done => setTimeout(done, Math.random() * most));
  window.fetch = async (...asked) => {
    await a_while(DELAY);
    const answer = await plain(...asked);
    if (!LATE || !answer.body || !String(asked[0]).includes("/events")) return answer;
    const reader = answer.body.getReader();
    let before = Promise.resolve(); // late, but none slower: what came while another piece was late is not late on top of it
    const late = new ReadableStream({
      async start(stream) {
        for (let done = false; !done;) {
          const piece = await reader.read().catch((error) => ({ error }));
          done = piece.done || Boolean(piece.error);
          const give = () => (piece.error ? stream.error(piece.error) : done ? stream.close() : stream.enqueue(piece.value));
          before = Promise.all([before, a_while(LATE)]).then(give).catch(() => {});
        }
      },
      cancel: (why) => reader.cancel(why),
    });
    return new Response(late, { status: answer.status, headers: answer.headers });
  };
}"""

# `-D frames=1000`: what a component does after the next frame (useEffect) comes so many milliseconds later still
LATE_EFFECTS = """{
  const plain = setTimeout;
  window.setTimeout = (task, pause = 0, ...given) => plain(task, pause < 50 ? pause + FRAMES : pause, ...given);
}"""


def before_all(context: Any) -> None:
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not executable:
        raise SystemExit("CHROMIUM names no browser; run the features with `make test-web`")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for picture in SCREENSHOTS.glob("failed-*.png"):  # an earlier run's
        picture.unlink()
    context.deadline = int(context.config.userdata.get("deadline", DEADLINE))
    expect.set_options(timeout=context.deadline)
    context.outside = Outside()
    context.houses = {}
    context.counts = {"passed": 0, "failed": 0}
    # root's Chromium has no sandbox; whatever the page asks of other hosts ends at the proxy, which does not exist for loopback
    alone = ["--no-sandbox"] if os.geteuid() == 0 else []
    context.playwright = sync_playwright().start()
    context.chromium = context.playwright.chromium.launch(
        executable_path=executable,
        args=[*alone, f"--proxy-server={context.outside.url.removeprefix('http://')}"],
        timeout=BROWSER_START,
    )


def after_all(context: Any) -> None:
    for house in getattr(context, "houses", {}).values():
        house.close()
    if hasattr(context, "chromium"):
        context.chromium.close()
        context.playwright.stop()
        context.outside.close()
    print("browser: {passed} passed, {failed} failed".format(**context.counts))


def before_scenario(context: Any, scenario: Any) -> None:
    context.scheme, context.viewport, context.locale = "light", DESKTOP, "en-GB"
    context.browsers, context.foreign, context.faults = [], [], []
    context.own = []  # houses that no other scenario may use
    context.remembered = {}

    def house(model: str = "echo", own: bool = False, **plan: Any) -> House:
        """A running page; the same for all who want the same, unless the story breaks it."""
        wanted = Plan(model, **plan)
        if own:
            context.own.append(House(context.outside, wanted))
            return context.own[-1]
        if wanted not in context.houses:
            context.houses[wanted] = House(context.outside, wanted)
        return context.houses[wanted]

    def visit(house: House, url: str = "") -> Any:
        """A tab of a browser that has never been here; `url` is where it finds the page, if not at its own address."""
        context.house = house
        browser = context.chromium.new_context(
            viewport=context.viewport,
            color_scheme=context.scheme,
            reduced_motion="reduce",
            service_workers="block",
            has_touch=context.viewport["width"] < 600,
            locale=context.locale,
        )
        browser.set_default_timeout(context.deadline)
        browser.on("request", lambda request: note(context, request))
        browser.on("weberror", lambda error: context.faults.append(str(error.error)))
        browser.on("console", lambda message: overheard(context, message))
        hinder(context, browser)
        context.browsers.append(browser)
        context.page = browser.new_page()
        context.page.goto(url or house.page.url)
        return context.page

    context.new_house, context.visit = house, visit


def hinder(context: Any, browser: Any) -> None:
    """Make that browser's pages as slow as the command line says."""
    delay, late, slow, frames = (int(context.config.userdata.get(name, 0)) for name in ("delay", "late", "slow", "frames"))
    if delay or late:
        browser.add_init_script(LATE.replace("DELAY", str(delay)).replace("LATE", str(late)))
    if frames:
        browser.add_init_script(LATE_EFFECTS.replace("FRAMES", str(frames)))
    if slow:
        browser.on("page", lambda page: browser.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slow}))


def note(context: Any, request: Request) -> None:
    """Remember who asks for anything that is not on this machine."""
    if not re.match(r"(http|ws)s?://(127\.0\.0\.1|localhost)[:/]|(data|blob|about):", request.url):
        context.foreign.append(request.url)


def overheard(context: Any, message: Any) -> None:
    """Remember what the content security policy kept out, which a page that is whole never tries."""
    if "Content Security Policy" in message.text:
        context.faults.append(message.text)


def after_step(context: Any, step: Any) -> None:
    if step.status != "failed" and step.status != "error":
        return
    name = re.sub(r"\W+", "-", f"{context.scenario.name} {step.name}").strip("-").lower()[:100]
    for number, browser in enumerate(getattr(context, "browsers", [])):
        for tab, page in enumerate(browser.pages):
            page.screenshot(path=SCREENSHOTS / f"failed-{name}-{number}{tab}.png")
    if getattr(context, "house", None):
        print("\n".join(["The processes said:", context.house.words()[-4000:], *context.faults]))


def after_scenario(context: Any, scenario: Any) -> None:
    for fault in context.faults:
        print("the page itself said:", fault)
    context.counts["passed" if scenario.status == "passed" else "failed"] += 1
    for browser in context.browsers:
        browser.close()
    for house in context.own:
        house.close()
