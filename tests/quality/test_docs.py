"""Documents say what is so."""

import json
import re
from pathlib import Path

import pytest
from docs import generate

from tamis import Reranker
from tamis.settings import describe_options

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("[tb]*/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_command_line_page_is_what_help_prints() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == generate.cli_page(), "run `make docs`"


def test_the_configuration_page_has_every_option() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == generate.configuration_page(), "run `make docs`"
    assert all(f"`{name}`" in written for name, _, _ in describe_options())


def test_the_performance_page_is_what_was_measured() -> None:
    written = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert written == generate.performance_page(), "run `make docs`"


def test_the_numerics_page_has_the_measured_figures() -> None:
    written = (ROOT / "docs" / "numerics.md").read_text(encoding="utf-8")
    assert written == generate.numerics_page(), "run `make docs`"


def test_every_error_code_is_in_the_api_page() -> None:
    from tamis.errors import RequestError, TamisError, UnavailableError

    def below(cls: type[TamisError]) -> set[type[TamisError]]:
        return {cls}.union(*(below(child) for child in cls.__subclasses__()))

    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    concrete = (below(RequestError) - {RequestError}) | (
        below(UnavailableError) - {UnavailableError}
    )
    assert len(concrete) > 5
    assert [cls.code for cls in concrete if f"`{cls.code}`" not in page] == []


def test_the_readmes_answer_is_what_the_embedded_model_says() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    asked = json.loads(text.partition(" -d '")[2].partition("'\n")[0])
    answer = json.loads(text.partition("```json\n")[2].partition("```")[0])
    ranked = Reranker().rank(asked["query"], asked["documents"])
    assert [result["index"] for result in answer["results"]] == [place.index for place in ranked]
    for result, place in zip(answer["results"], ranked, strict=True):
        assert result["document"] == place.document
        assert result["score"] == pytest.approx(place.logit, abs=1e-3)
        assert result["relevance_score"] == pytest.approx(place.score, abs=1e-3)


def table_below(text: str, start: str) -> list[list[str]]:
    """Cells of the Markdown table whose first line begins so."""
    lines = (start + text.partition(start)[2]).partition("\n\n")[0].splitlines()
    rows = [line.strip("|").split("|") for line in lines if not line.startswith("|---")]
    return [[cell.strip(" *") for cell in row] for row in rows]


def test_the_chinese_readme_keeps_step_with_the_english_one() -> None:
    def parts(name: str) -> dict[str, list[str]]:
        text = (ROOT / name).read_text(encoding="utf-8")
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        return {
            "heading levels": re.findall(r"^(#+) ", prose, flags=re.MULTILINE),
            "code": re.findall(r"```.*?```", text, flags=re.DOTALL),
            "commands": re.findall(r"^    .*$", prose, flags=re.MULTILINE),
            "names in code": sorted(set(re.findall(r"`([^`\n]+)`", prose))),
            "links": [link for link in re.findall(r"\]\(([^)]+)\)", prose) if "README" not in link],
            "figures": re.findall(r"\| ([\d.]+ s \| [\d.]+) \|", prose),
        }

    assert parts("README.zh-CN.md") == parts("README.md")


def test_the_readme_s_speed_table_is_what_was_measured_side_by_side() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    path = ROOT / "benchmarks/results/side_by_side.json"
    (run,) = json.loads(path.read_text(encoding="utf-8"))["measured"].values()
    _, *rows = table_below(text, "| | time for 50 documents")
    names = [
        *("tutorial", "CrossEncoder", "tamis ctranslate2 float32", "tamis torch float32"),
        *("tamis ctranslate2 int8", "tamis torch bfloat16"),
    ]
    for (_, seconds, times), name in zip(rows, names, strict=True):
        found = run["contestants"][name]
        assert float(seconds.removesuffix(" s")) == pytest.approx(found["seconds_median"], abs=0.06)
        assert float(times) == pytest.approx(found["times_faster_than_tutorial"], abs=0.006)
        assert len(found["seconds"]) == 3
    few = json.loads(path.with_name("side_by_side_16_documents.json").read_text(encoding="utf-8"))
    (run,) = few["measured"].values()
    ours, theirs = (
        run["contestants"][name]["times_faster_than_tutorial"]
        for name in ("tamis ctranslate2 int8", "FlagReranker")
    )
    assert f"is {ours / theirs:.2f} times as fast as" in text
