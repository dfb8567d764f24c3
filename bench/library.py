"""Libraries: how often the passage with the answer is found, by words, by vectors and by both; indexing MB/s, search ms.

python -m bench.library [--misses] [--documents 10000]

The corpus is on every machine that runs the tests: the READMEs of the installed packages, which pyproject.toml pins, and the sources of
Python's standard library, whose docstrings are documentation amid code. Questions are worded otherwise than their answers:
bench/library_questions.yaml.
"""

import argparse
import heapq
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

import yaml

from townhall.library import ranking
from townhall.library.indexer import UpdateReport, update
from townhall.library.libraries import Library

QUESTIONS = Path(__file__).with_name("library_questions.yaml")
LEFT_OUT = {"idlelib", "lib2to3", "turtledemo", "encodings", "ensurepip", "site-packages", "test", "tests"}
DEPTHS = (1, 5, 10)


def corpus(folder: Path) -> None:
    """Write the documents there."""
    for name in ("readme", "stdlib"):
        (folder / name).mkdir(parents=True)
    for distribution in distributions():
        metadata = distribution.metadata.json
        text = str(metadata.get("description") or "")
        if len(text) > 500 and distribution.name != "townhall":
            kind = str(metadata.get("description_content_type"))
            (folder / "readme" / f"{distribution.name.lower()}{'.md' if 'markdown' in kind else '.rst'}").write_text(text)
    library = Path(heapq.__file__).parent
    for path in sorted(library.glob("*.py")) + sorted(library.glob("*/*.py")):
        place = path.relative_to(library)
        if not LEFT_OUT & set(place.parts):
            (folder / "stdlib" / place).parent.mkdir(exist_ok=True)
            shutil.copy(path, folder / "stdlib" / place)


def many(folder: Path, count: int) -> None:
    """So many documents of two pages each, none like another."""
    folder.mkdir()
    sources = [path for path in sorted((folder.parent / "corpus").rglob("*.*")) if path.is_file()]
    text = " ".join(" ".join(path.read_text(errors="replace").split()) for path in sources)
    step = max(1, (len(text) - 4000) // count)
    for n in range(count):
        (folder / f"{n:05}.txt").write_text(f"Document {n}\n==========\n\n{text[n * step : n * step + 4000]}\n")


def holds(library: Library, ids: Sequence[int], file: str, phrase: str) -> int | None:
    """The rank, from 0, of the first passage of that document with the phrase."""
    passages = library.index.passages(ids)
    for rank, id in enumerate(ids):
        path, *_, text = passages[id]
        if path.endswith(f"/{file}") and phrase in " ".join(text.split()):
            return rank
    return None


def rankings(library: Library, question: str) -> dict[str, list[int]]:
    """What each half proposes, and both."""
    assert library.embedder
    words = library.index.best(ranking.content_words(question), ranking.POOL)
    ids, matrix = library.index.vectors(library.embedder.id, library.embedder.dim)
    top, _ = ranking.nearest(library.embedder.embed([question])[0], matrix, ranking.POOL)
    vectors = [int(ids[row]) for row in top]
    return {"BM25": words, "vectors": vectors, "fusion": list(ranking.fused([words, vectors]))}


def table(library: Library, known: Sequence[tuple[str, str, str]], misses: bool) -> None:
    """Recall and mean reciprocal rank of each ranking."""
    ranks: dict[str, list[int | None]] = {}
    for file, phrase, question in known:
        for name, ids in rankings(library, question).items():
            ranks.setdefault(name, []).append(holds(library, ids, file, phrase))
    print(f"{'':<10}" + "".join(f"{f'recall@{depth}':>11}" for depth in DEPTHS) + f"{'MRR':>8}")
    for name, found in ranks.items():
        recalls = [sum(rank is not None and rank < depth for rank in found) / len(found) for depth in DEPTHS]
        reciprocal = statistics.mean(0.0 if rank is None else 1 / (rank + 1) for rank in found)
        print(f"{name:<10}" + "".join(f"{recall:>11.2f}" for recall in recalls) + f"{reciprocal:>8.3f}")
    if misses:
        for (file, _, question), rank in zip(known, ranks["fusion"]):
            if rank is None or rank >= DEPTHS[1]:
                print(f"  {'-' if rank is None else rank + 1:>3}  {file}: {question}")


def thresholds(library: Library, known: Sequence[tuple[str, str, str]], unknown: Sequence[str]) -> None:
    """What the bound on relevance keeps and lets through, on both halves of the questions."""
    for name, part in (("even", slice(0, None, 2)), ("odd", slice(1, None, 2))):
        found = [(library.search(question, 5), file, phrase) for file, phrase, question in known[part]]
        right = sum(any(p.file.endswith(f"/{file}") and phrase in " ".join(p.text.split()) for p in ps) for ps, file, phrase in found)
        wrong = sum(bool(library.search(question, 5)) for question in unknown[part])
        anything = sum(bool(passages) for passages, *_ in found)
        print(
            f"{name:<5} questions with the bound {ranking.FIT}: recall@5 {right / len(found):.2f}, something found for {anything} of "
            f"{len(found)}; without an answer, something found for {wrong} of {len(unknown[part])}"
        )


def shrink(library: Library, passages: int) -> None:
    """Forget documents until no more passages are left."""
    for entry in library.index.documents():
        if library.index.count() <= passages:
            break
        library.index.forget(entry.path)
    library.index.commit()


def speed(library: Library, questions: Sequence[str], say: str) -> None:
    """Milliseconds of a whole search, five passages, once each."""
    library.search("warm")
    wall, cpu = [], []
    for question in questions:
        started, used = time.perf_counter(), time.process_time()
        library.search(question, 5)
        wall.append((time.perf_counter() - started) * 1000)
        cpu.append((time.process_time() - used) * 1000)
    print(
        f"search of {say}: median {statistics.median(wall):.1f} ms, 95 % {sorted(wall)[int(0.95 * len(wall))]:.1f} ms "
        f"(processor {statistics.median(cpu):.1f} ms)"
    )


def index(library: Library, folder: Path, say: str) -> UpdateReport:
    """Read a folder, and print how fast; the rate of one processor leaves the other processes of a busy machine out."""
    started, used = time.perf_counter(), time.process_time()
    report = update(library, [folder])
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    size = report.bytes / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"indexing {say}: {report.read:,} documents, {size:.1f} MB, {report.passages:,} passages in {seconds:.1f} s: "
        f"{size / seconds:.2f} MB/s ({size / cpu:.2f} a processor second); file {library.index.path.stat().st_size / 1e6:.0f} MB, "
        f"peak memory {peak:.0f} MB"
    )
    started = time.perf_counter()
    update(library)
    print(f"  again, with nothing changed: {time.perf_counter() - started:.2f} s")
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure retrieval: recall, indexing, search.")
    parser.add_argument("--misses", action="store_true", help="name the questions whose passage is not among five")
    parser.add_argument("--documents", type=int, default=0, help="also index so many documents, for memory and time")
    options = parser.parse_args()
    questions = yaml.safe_load(QUESTIONS.read_text())
    known = [(str(file), str(phrase), str(question)) for file, phrase, question in questions["known"]]
    unknown = [str(question) for question in questions["unknown"]]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        corpus(folder / "corpus")
        with Library.open("corpus", folder, create=True) as library:
            if library.embedder is None:
                print("bench.library: wordllama is missing; install it with pip install -e '.[library]'", file=sys.stderr)
                return 2
            report = index(library, folder / "corpus", "the corpus")
            print(f"{len(known)} questions with known passages")
            table(library, known, options.misses)
            thresholds(library, known, unknown)
            asked = [question for *_, question in known]
            speed(library, asked, f"{report.passages:,} passages")
            shrink(library, 10_000)
            speed(library, asked, f"{library.index.count():,} passages")
        if options.documents:
            many(folder / "many", options.documents)
            with Library.open("many", folder, create=True) as library:
                report = index(library, folder / "many", "many documents")
                speed(library, asked, f"{report.passages:,} passages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
