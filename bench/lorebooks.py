"""Lorebooks as SillyTavern fires them: random books and chats, our scan beside its own code.

python -m bench.lorebooks world-info.js [--cases 2000] [--seed N]

The file is SillyTavern's public/scripts/world-info.js; node runs what scans in it, over stand-ins for the rest of the program. Left out is
what its code does otherwise than its documents say: entries of two groups at once, cooldown of sticky entries in groups, delay until
recursion without recursion, tokens of entries that prevent recursion; and what is drawn.
"""

import argparse
import json
import random
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from townhall.characters.lore_state import LoreState
from townhall.characters.lorebook import Lorebook
from townhall.characters.lorebook_scan import LoreScanner, ScanSettings

TAKEN = (
    *("export const world_info_logic", "export const scan_state", "export const world_info_position", "export const wi_anchor_position"),
    *("class WorldInfoBuffer", "class WorldInfoTimedEffects", "export function parseRegexFromString", "function parseDecorators"),
    *("export async function checkWorldInfo", "function filterGroupsByScoring", "function filterGroupsByTimedEffects"),
    "function filterByInclusionGroups",
)
BEFORE = r"""
const DEFAULT_DEPTH = 4, DEFAULT_WEIGHT = 100, MAX_SCAN_DEPTH = 1000, KNOWN_DECORATORS = ['@@activate', '@@dont_activate'];
const world_info_min_activations = 0, world_info_min_activations_depth_max = 0, world_info_budget = 25, world_info_budget_cap = 0;
const world_info_overflow_alert = false, world_info_max_recursion_steps = 0, shouldWIAddPrompt = false;
let world_info_depth, world_info_recursive, world_info_case_sensitive, world_info_match_whole_words, world_info_use_group_scoring;
let chat_metadata = {}, entriesOfCase = [];
const getContext = () => ({ extensionPrompts: {} }), substituteParams = text => text, getRegexedString = text => text;
const regex_placement = {}, extension_prompt_roles = { SYSTEM: 0 }, sortFn = (a, b) => b.order - a.order;
const escapeRegex = text => text.replace(/[-/\\^$*+?.()|[\]{}]/g, '\\$&');
const getTokenCountAsync = async text => text.split(/\s+/).filter(word => word).length;
const print = console.log;
for (const name of ['debug', 'log', 'warn', 'error']) console[name] = () => {};
async function getSortedEntries() {
    return entriesOfCase.toSorted(sortFn).map(entry => {
        const [decorators, content] = parseDecorators(entry.content);
        return { ...entry, decorators, content, hash: entry.uid };
    });
}
"""
AFTER = r"""
(async () => {
    const out = [];
    for (const one of JSON.parse(require('fs').readFileSync(0, 'utf8'))) {
        [entriesOfCase, chat_metadata] = [one.entries, {}];
        [world_info_depth, world_info_recursive] = [one.depth, one.recursive];
        [world_info_case_sensitive, world_info_match_whole_words, world_info_use_group_scoring] = [one.case, one.whole, one.scoring];
        const turns = [];
        for (let n = 1; n <= one.messages.length; n++) {
            const done = await checkWorldInfo(one.messages.slice(0, n).reverse(), one.context, false);
            turns.push([...done.allActivatedEntries].map(entry => String(entry.uid)).sort());
        }
        out.push(turns);
    }
    print(JSON.stringify(out));
})();
"""
KEYS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "antler", "Bee", "the cat", "dog-"]
PATTERNS = ["/c[ao]t/", "/DOG/i", "/^\\x01fox/m", "/e+l\\b/"]


def program(source: str) -> str:
    """The parts of world-info.js that scan, with what they need."""
    parts = []
    for start in TAKEN:
        at = source.index(start)
        end = min(found for end in ("\n}\n", "\n};\n") if (found := source.find(end, at)) >= 0)
        parts.append(source[at : end + 3].removeprefix("export ") + ("\n" if "const" in start else ""))
    return BEFORE + "\n".join(parts) + AFTER


def entry(rng: random.Random, uid: int, order: int, recursive: bool, short: bool) -> dict[str, Any]:
    """A world info entry with some of all options."""

    def some(*counts: int) -> list[str]:
        return rng.choices(KEYS + PATTERNS, k=rng.choice(counts))

    def rarely(*values: Any) -> Any:
        return rng.choice(values) if rng.random() < 0.3 else None

    content = " ".join(rng.choices(KEYS, k=rng.randint(1, 5)))
    decorator = rng.choice(["@@activate\n", "@@dont_activate\n", "@@foo\n@@@activate\n"]) if rng.random() < 0.05 else ""
    selective, disabled, group, sticky = rng.random() < 0.8, rng.random() < 0.05, rarely("g1", "g2") or "", rarely(1, 2, 3)
    return {
        "uid": uid,
        "key": some(0, 1, 1, 2, 3),
        "keysecondary": some(0, 0, 1, 2) if selective else [],
        "selective": selective,
        "selectiveLogic": rng.randrange(4),
        "content": decorator + content,
        "constant": rng.random() < 0.08,
        "order": order,
        "position": rng.randrange(7),
        "disable": disabled,
        "excludeRecursion": rng.random() < 0.15,
        "depth": 4,
        "role": 0,
        "preventRecursion": rng.random() < 0.15 and not short,
        "probability": rng.choice([100] * 8 + [0]),
        "delayUntilRecursion": (rarely(True, 1, 2) if recursive and not disabled else None) or False,
        "useProbability": rng.random() < 0.9,
        "group": group,
        "groupOverride": True,
        "groupWeight": 100,
        "scanDepth": rarely(0, 1, 5),
        "caseSensitive": rarely(True, False),
        "matchWholeWords": rarely(True, False),
        "useGroupScoring": rarely(True, False),
        "sticky": sticky,
        "cooldown": None if group and sticky else rarely(1, 2, 3),
        "delay": rarely(2, 3),
    }


def case(rng: random.Random) -> dict[str, Any]:
    """A book, settings, and a chat that grows by a message each time."""
    recursive, context = rng.random() < 0.6, rng.choice([100_000] * 3 + [40, 80])
    orders = rng.sample(range(1000), rng.randint(1, 11))
    return {
        "recursive": recursive,
        "context": context,
        "depth": rng.randint(1, 3),
        "case": rng.random() < 0.3,
        "whole": rng.random() < 0.3,
        "scoring": rng.random() < 0.2,
        "entries": [entry(rng, uid, order, recursive, context < 1000) for uid, order in enumerate(orders)],
        "messages": [" ".join(rng.choices([*KEYS, "x", "y"], k=rng.randint(1, 4))) for _ in range(rng.randint(1, 9))],
    }


def ours(one: dict[str, Any]) -> list[list[str]]:
    """The entries that fire at each turn."""
    book = Lorebook.from_values({"entries": {str(entry["uid"]): entry for entry in one["entries"]}}, "book", "the case")
    settings = ScanSettings(
        scan_depth=one["depth"],
        budget=(round(one["context"] / 4) or 1) - 1,  # SillyTavern stops where a budget is reached, we where it is exceeded
        recursive=one["recursive"],
        max_passes=100,
        case_sensitive=one["case"],
        whole_words=one["whole"],
        group_scoring=one["scoring"],
    )
    scanner, state, turns = LoreScanner([book], settings=settings), LoreState(), []
    for count in range(1, len(one["messages"]) + 1):
        messages = [("user", text) for text in one["messages"][:count]]
        done = scanner.scan(messages, state, lambda text: len(text.split()), random.Random(0))  # type: ignore[arg-type]
        state = done.state
        turns.append(sorted(fired.entry.uid for fired in done.fired))
    return turns


def speed() -> str:
    """10,000 entries over 20 messages of 40 words."""
    rng = random.Random(1)
    letters, weights = "etaoinshrdlucmfwypvbgkjqxz", range(26, 0, -1)
    vocabulary = ["".join(rng.choices(letters, weights, k=rng.randint(3, 10))) for _ in range(30_000)]
    entries = [{"keys": rng.sample(vocabulary, 3), "content": "It is so.", "insertion_order": at} for at in range(10_000)]
    scanner = LoreScanner([Lorebook.from_values({"entries": entries, "scan_depth": 20}, "book", "the bench")])
    messages = [("user", " ".join(rng.choices(vocabulary, k=40))) for _ in range(20)]
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        done = scanner.scan(messages, LoreState(), len, random.Random(0))  # type: ignore[arg-type]
        times.append(time.perf_counter() - begun)
    return f"10,000 entries, 30,000 keys, 20 messages: {1000 * min(times):.0f} ms a scan (best of 7), {len(done.fired)} fire"


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare lorebook scans with SillyTavern's.")
    parser.add_argument("script", type=Path, nargs="?", help="world-info.js of SillyTavern; without it only the speed is measured")
    parser.add_argument("--cases", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32), help="default: a new one each time")
    options = parser.parse_args()
    print(speed())
    if options.script is None:
        return 0
    rng = random.Random(options.seed)
    cases = [case(rng) for _ in range(options.cases)]
    node = ["node", "--input-type=commonjs", "--eval", program(options.script.read_text())]
    theirs = json.loads(subprocess.run(node, input=json.dumps(cases), capture_output=True, text=True, check=True).stdout)
    differ = [one | {"theirs": turns} for one, turns in zip(cases, theirs, strict=True) if ours(one) != turns]
    turns, fired = sum(map(len, theirs)), sum(len(uids) for turns in theirs for uids in turns)
    print(f"{len(cases):,} chats (seed {options.seed}), {turns:,} turns, {fired:,} entries fire; {len(differ)} chats differ")
    if differ:
        print(json.dumps(differ[0]))
    return int(bool(differ))


if __name__ == "__main__":
    sys.exit(main())
