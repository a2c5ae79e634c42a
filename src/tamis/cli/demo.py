"""`tamis demo`: what reranking changes, on the embedded model."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from tamis.types import RankedDocument


@dataclass(frozen=True, slots=True)
class Case:
    """A question with documents in the order in which shared words would put them.

    Attributes:
        answer: Position of the document that should come first.
        lesson: What the case shows.
    """

    lesson: str
    query: str
    documents: tuple[str, ...]
    answer: int


_TRAPS = (
    "Plants have green leaves due to chlorophyll pigment.",
    "Photosynthesis produces oxygen as a byproduct.",
    "Aspirin can cause stomach irritation and bleeding in some patients.",
    "Photosynthesis uses sunlight to convert CO2 and water into glucose.",
)

CASES = (
    Case(
        "The same shape of sentence, another country",
        "What is the capital of France?",
        ("Berlin is the capital of Germany.", "Paris is the capital of France."),
        answer=1,
    ),
    Case(
        "A trap that is about plants, too",
        "How do plants make glucose from sunlight?",
        _TRAPS,
        answer=3,
    ),
    Case(
        "The same documents, another question", "What are the side effects of aspirin?", _TRAPS, 2
    ),
    Case(
        "Apple's newest AI features: the event shares the words, not the meaning",
        "苹果公司最新发布的AI功能",
        (
            "苹果发布会介绍新款iPhone和健康功能",
            "Apple Intelligence 是苹果推出的人工智能系统，可以改写文字、生成图片，并让 Siri 更聪明",
            "苹果的营养价值与种植技术",
        ),
        answer=1,
    ),
    Case(
        "An English question, a Chinese answer",
        "How do vaccines protect the body against disease?",
        (
            "Vaccines must be stored in a refrigerator at the clinic.",
            "The body needs vitamins and sleep every day.",
            "疫苗让免疫系统提前认识病原体，产生抗体和记忆细胞，从而预防疾病。",
        ),
        answer=2,
    ),
)


def demo() -> None:
    """Show five small rerankings, before and after, with the embedded model."""
    from tamis.reranker import Reranker

    console = Console()
    reranker = Reranker(offline=True)
    for case in CASES:
        ranking = reranker.rank(case.query, case.documents)
        console.print(f"\n[bold]{case.query}[/bold]\n[dim]{case.lesson}[/dim]")
        console.print(_before_and_after(case.documents, ranking))


def _before_and_after(documents: Sequence[str], ranking: Sequence[RankedDocument]) -> Table:
    table = Table(show_edge=False, pad_edge=False, show_lines=False)
    table.add_column("score", justify="right")
    table.add_column("before", overflow="fold", ratio=1)
    table.add_column("score", justify="right")
    table.add_column("after", overflow="fold", ratio=1)
    scores = {ranked.index: f"{ranked.score:.3f}" for ranked in ranking}
    for position, after in enumerate(ranking):
        table.add_row(
            scores[position], documents[position], scores[after.index], documents[after.index]
        )
    return table
