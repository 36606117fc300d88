"""What the course consists of, read from `book/curriculum.yml`, `_config.yml` and the files."""

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LABEL = re.compile(r"^\(([qiack]-\d\d)\)=\s*$", re.MULTILINE)
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@dataclass(frozen=True)
class Chapter:
    """One of the forty chapters as planned; `stem` names its files whether they exist or not."""

    number: int
    slug: str
    title: str
    about: str
    part: str
    modules: tuple[str, ...]
    questions: dict[str, str]

    @property
    def stem(self) -> str:
        """The name that text, notebook and exercises share: `05_attention`."""
        return f"{self.number:02d}_{self.slug}"


@dataclass(frozen=True)
class Course:
    """The curriculum and the files under `root`."""

    root: Path = ROOT

    @cached_property
    def plan(self) -> dict:
        """The curriculum file as it is."""
        return yaml.safe_load((self.root / "book" / "curriculum.yml").read_text("utf8"))

    @cached_property
    def config(self) -> dict:
        """The book's configuration."""
        return yaml.safe_load((self.root / "_config.yml").read_text("utf8"))

    @property
    def url(self) -> str:
        """The repository's address, written in `_config.yml` and nowhere else."""
        return self.config["repository"]["url"].rstrip("/")

    @property
    def branch(self) -> str:
        """The branch that Colab and the source links open."""
        return self.config["repository"].get("branch", "main")

    @cached_property
    def chapters(self) -> list[Chapter]:
        """All chapters in order, written or not."""
        return [
            Chapter(
                number=entry["number"],
                slug=entry["slug"],
                title=entry["title"],
                about=entry["about"],
                part=part["title"],
                modules=tuple(entry.get("modules") or ()),
                questions=entry.get("questions") or {},
            )
            for part in self.plan["parts"]
            for entry in part["chapters"]
        ]

    def text_of(self, chapter: Chapter) -> Path:
        """The chapter's text, which may not exist yet."""
        return self.root / "chapters" / f"{chapter.stem}.md"

    @property
    def written(self) -> list[Chapter]:
        """The chapters whose text exists."""
        return [chapter for chapter in self.chapters if self.text_of(chapter).exists()]

    def shown(self, chapter: Chapter) -> bool:
        """Whether the book can show the chapter: its text exists and was executed."""
        text = self.text_of(chapter)
        return text.exists() and text.with_suffix(".ipynb").exists()

    @cached_property
    def modules(self) -> list[str]:
        """Every module of the library that holds code, without the leading `minillm.`."""
        package = self.root / "minillm"
        found = []
        for path in sorted(package.rglob("*.py")):
            name = path.relative_to(package).with_suffix("")
            if name.name not in ("__init__", "__main__") and name.parts[0] != "checks":
                found.append(".".join(name.parts))
        return found

    @cached_property
    def homes(self) -> dict[str, list[str]]:
        """For each module the pages (`chapters/05_attention`) that claim to be its home.

        A written chapter's front matter counts before what the curriculum plans.
        """
        own, later = {}, dict(self.plan.get("homes") or {})
        for chapter in self.chapters:
            text = self.text_of(chapter)
            listed = front_matter(text).get("minillm", {}).get("modules") if text.exists() else None
            claims = later if listed is None else own
            claims[f"chapters/{chapter.stem}"] = chapter.modules if listed is None else listed

        def claiming(module: str, claims: dict) -> list[str]:
            names = {module, f"{module.split('.')[0]}.*"}
            return [page for page, listed in claims.items() if names & set(listed)]

        return {m: claiming(m, own) or claiming(m, later) for m in self.modules}

    @cached_property
    def answers(self) -> dict[str, list[str]]:
        """For each question id the shown chapters (stems) with its label, once per label."""
        found: dict[str, list[str]] = {}
        for chapter in filter(self.shown, self.chapters):
            for label in LABEL.findall(self.text_of(chapter).read_text("utf8")):
                found.setdefault(label, []).append(chapter.stem)
        return found

    def docstring(self, module: str) -> str:
        """The first line of a module's docstring."""
        path = self.root / "minillm" / Path(*module.split(".")).with_suffix(".py")
        text = ast.get_docstring(ast.parse(path.read_text("utf8"))) or ""
        return text.strip().splitlines()[0] if text.strip() else ""


def front_matter(path: Path) -> dict:
    """Return the YAML between the first two `---` lines, or nothing."""
    match = FRONT_MATTER.match(path.read_text("utf8"))
    return yaml.safe_load(match.group(1)) if match else {}
