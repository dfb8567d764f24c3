"""Third-party files of the page (townhall/web/assets/vendor) and of its tests (tests/web/vendor), from their npm packages.

python -m bench.page_vendor: fetch each package with `npm pack`, copy the files listed here, and write manifest.json beside them: package,
version, licence, path in the package, SHA-256 as published and as stored. tests/townhall/web/test_vendor.py checks the files against it.
"""

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE, TESTS = ROOT / "townhall/web/assets/vendor", ROOT / "tests/web/vendor"
LANGUAGES = (
    *("bash", "cpp", "css", "diff", "go", "ini", "java", "javascript", "json", "markdown", "python", "rust", "sql", "xml"),
    "yaml",
)
FONTS = (
    *("AMS-Regular", "Caligraphic-Bold", "Caligraphic-Regular", "Fraktur-Bold", "Fraktur-Regular", "Main-Bold", "Main-BoldItalic"),
    *("Main-Italic", "Main-Regular", "Math-BoldItalic", "Math-Italic", "SansSerif-Bold", "SansSerif-Italic", "SansSerif-Regular"),
    *("Script-Regular", "Size1-Regular", "Size2-Regular", "Size3-Regular", "Size4-Regular", "Typewriter-Regular"),
)
# package and version, SPDX licence, licence file, folder of ours, {path in the package: path of ours}
PACKAGES: list[tuple[str, str, str, Path, dict[str, str]]] = [
    ("preact@11.2.0", "MIT", "LICENSE", PAGE, {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "preact-hooks.js"}),
    ("htm@3.1.1", "Apache-2.0", "LICENSE", PAGE, {"dist/htm.module.js": "htm.js"}),
    ("marked@18.2.1", "MIT", "LICENSE", PAGE, {"lib/marked.esm.js": "marked.js"}),
    ("dompurify@3.5.0", "MPL-2.0 OR Apache-2.0", "LICENSE", PAGE, {"dist/purify.min.js": "purify.js"}),
    (
        "@highlightjs/cdn-assets@11.12.0",
        "BSD-3-Clause",
        "LICENSE",
        PAGE,
        {"es/core.min.js": "highlight/core.js"} | {f"es/languages/{name}.min.js": f"highlight/{name}.js" for name in LANGUAGES},
    ),
    (
        "katex@0.19.1",
        "MIT",
        "LICENSE",
        PAGE,
        {"dist/katex.min.js": "katex/katex.js", "dist/katex.min.css": "katex/katex.css"}
        | {f"dist/fonts/KaTeX_{name}.woff2": f"katex/fonts/KaTeX_{name}.woff2" for name in FONTS},
    ),
    ("axe-core@4.14.1", "MPL-2.0", "LICENSE", TESTS, {"axe.min.js": "axe.js"}),
]


def edited(path: str, data: bytes) -> bytes:
    """A published file as it is stored: imports by relative path, no references to files that are not shipped."""
    if path.endswith((".js", ".mjs")):
        data = re.sub(rb"\n//# sourceMappingURL=\S+\s*$", b"\n", data).replace(b'from"preact"', b'from"./preact.js"')
    if path.endswith("katex.min.css"):
        data = re.sub(rb',url\([^)]*\.(?:woff|ttf)\) format\("[a-z]+"\)', b"", data)
    return data


def packed(name: str, folder: Path) -> Callable[[str], bytes]:
    """Fetch a package; a function that reads a file of it."""
    said = subprocess.run(["npm", "pack", name, "--json"], cwd=folder, check=True, capture_output=True, text=True)
    archive = tarfile.open(folder / json.loads(said.stdout)[0]["filename"])

    def read(path: str) -> bytes:
        file = archive.extractfile(f"package/{path}")
        assert file, f"{name} holds no file {path}"
        return file.read()

    return read


def main() -> int:
    """Write every file and both manifests."""
    manifests: dict[Path, list[dict[str, object]]] = {PAGE: [], TESTS: []}
    with tempfile.TemporaryDirectory() as temporary:
        for name, licence, licence_file, folder, files in PACKAGES:
            package, _, version = name.rpartition("@")
            read = packed(name, Path(temporary))
            stored: list[dict[str, str]] = []
            licence_name = f"licences/{package.strip('@').replace('/', '-')}.txt"
            for path, ours in {**files, licence_file: licence_name}.items():
                published = read(path)
                data = edited(path, published)
                target = folder / ours
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                entry = {"file": ours, "from": path, "sha256": hashlib.sha256(data).hexdigest()}
                if data != published:
                    entry["published_sha256"] = hashlib.sha256(published).hexdigest()
                stored.append(entry)
            print(f"{name}: {len(stored)} files", file=sys.stderr)
            manifests[folder].append({"package": package, "version": version, "licence": licence, "files": stored})
    for folder, packages in manifests.items():
        (folder / "manifest.json").write_text(json.dumps({"source": "npm", "packages": packages}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
