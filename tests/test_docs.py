"""Documents do not lie: links lead somewhere, commands and options exist, marked code runs, no machine is named."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import run
from assetgen import cli

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "plugins").rglob("*.md")])
TEXT = {".py", ".pyi", ".md", ".toml", ".txt", ".json", ".yaml", ".yml", ".proto", ".lock", ".cfg", ""}
FENCE = re.compile(r"(<!-- test -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Absolute paths of somebody's machine, and addresses of networks that only one place has.
MACHINE = re.compile(
    r"(?<![\w.<{\])}~-])/(?:home|root|opt|work|Users|mnt)/[\w.-]+|\bfile:///|\b[A-Z]:\\\\?Users\\"
    r"|//(?:10\.|192\.168\.)\d|\bhttps?://[\w.-]+\.(?:internal|local|lan|corp)\b"
)


def slug(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def links(text: str) -> list[str]:
    without_code = FENCE.sub("", text)
    return re.findall(r"\]\(([^)\s]+)\)", without_code)


def dead(path: Path) -> list[str]:
    """Return the relative links of a document that lead nowhere."""
    found = []
    for link in links(path.read_text(encoding="utf-8")):
        if "://" in link or link.startswith("mailto:"):
            continue
        target, _, anchor = link.partition("#")
        place = (path.parent / target).resolve() if target else path
        if not place.exists():
            found.append(link)
        elif anchor and place.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            found += [] if anchor in {slug(heading) for heading in headings} else [link]
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    assert dead(path) == []


def test_a_dead_link_is_found(tmp_path):
    document = tmp_path / "a.md"
    document.write_text("# Top\n[a](missing.md) [b](#top) [c](#bottom)\n", encoding="utf-8")
    assert dead(document) == ["missing.md", "#bottom"]


def commands() -> list[tuple[str, str]]:
    """Return every command line of the documents' blocks, with the document's name."""
    found = []
    for path in DOCUMENTS:
        for _, language, body in FENCE.findall(path.read_text(encoding="utf-8")):
            if language in {"console", "bash", "sh"}:
                lines = re.sub(r"\\\n\s*", " ", body).splitlines()
                found += [(path.name, line.removeprefix("$ ").partition(" #")[0].strip()) for line in lines]
    return found


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what `assetgen WORDS --help` prints."""
    try:
        status = cli.main([*words, "--help"])
    except SystemExit as stop:
        status = stop.code
    assert status in {0, None}, f"assetgen {' '.join(words)} does not exist: {capsys.readouterr().err}"
    return capsys.readouterr().out


ASSETGEN = [(name, line) for name, line in commands() if line.startswith("assetgen ")]


@pytest.mark.parametrize(("document", "line"), ASSETGEN, ids=[f"{name}: {line}" for name, line in ASSETGEN])
def test_commands_and_their_options_exist(document, line, capsys):
    words = line.split()[1:]
    subcommands = []
    for word in words:
        if not re.fullmatch(r"[a-z]+", word) or len(subcommands) == 2:
            break
        subcommands.append(word)
    nested = "{" in help_of(subcommands[:1], capsys).partition("positional arguments")[2]
    text = help_of(subcommands if nested else subcommands[:1], capsys)
    options = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--help"}
    unknown = [option for option in options if not re.search(rf"{re.escape(option)}\b", text)]
    assert not unknown, f"{document}: `{line}` has options that do not exist: {unknown}"


def test_the_readme_shows_every_user_the_way():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    shown = set(re.findall(r"run\.py (\w+)", text))
    assert shown == {"demo", "test"}
    assert all(f"run.py {name}" in run.USAGE for name in shown)
    assert any(line.startswith("assetgen serve") for _, line in commands())


def test_extras_that_documents_name_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    named = {extra for group in re.findall(r"\.\[([\w,-]+)\]", text) for extra in group.split(",")}
    named |= set(re.findall(r"--extra ([\w-]+)", text))
    assert {"cpu", "cuda"} <= named <= extras.keys()


def test_marked_code_runs(tmp_path):
    """Run the Python blocks that `<!-- test -->` stands above."""
    for path in DOCUMENTS:
        for marked, language, body in FENCE.findall(path.read_text(encoding="utf-8")):
            assert language or not marked, f"{path.name}: a marked block without a language"
            if marked:
                assert language == "python", f"{path.name}: only Python blocks can be marked"
                command = [sys.executable, "-W", "error", "-c", body]
                done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{path.name}:\n{body}\n{done.stderr}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_tests_that_documents_name_exist(path):
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", path.read_text(encoding="utf-8")):
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"
    for module in re.findall(r"python -m (tests\.[\w.]+)", path.read_text(encoding="utf-8")):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module


def files() -> list[Path]:
    """Return the files that git would commit."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("NOT A GIT CHECKOUT: cannot tell which files are the project's")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_one_machine():
    texts = [path for path in files() if path.suffix in TEXT]
    assert len(texts) > 30
    found = {}
    for path in texts:
        hits = MACHINE.findall(path.read_text(encoding="utf-8"))
        if hits and path != Path(__file__):
            found[path.relative_to(ROOT).as_posix()] = sorted(set(hits))
    assert found == {}


@pytest.mark.parametrize(
    "text", ["see /home/ann/x", "file:///srv", "http://mirror.corp/x", "http://10.1.2.3", "(/opt/x)"]
)
def test_a_machine_path_is_found(text):
    assert MACHINE.search(text)


@pytest.mark.parametrize(
    "text", ["and/or/not", "assetgen/work/x", "~/opt/x", "https://example.org/home/a", "version 10.4.0.35"]
)
def test_other_slashes_are_not(text):
    assert not MACHINE.search(text)


def test_no_large_file_is_committed():
    large = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in files() if path.stat().st_size > 2**24}
    assert large == {}


def test_every_picture_is_shown_somewhere():
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    pictures = [path.name for path in (ROOT / "docs" / "images").glob("*.png")]
    assert [name for name in pictures if name not in text] == []
