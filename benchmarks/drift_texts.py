"""Queries with candidates whose relevance is known, put together from sentences; seeded."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

SUBJECTS = (
    *("beekeeping", "the tea trade", "glass blowing", "volcanic soil", "the bicycle", "aspirin"),
    *("solar panels", "the violin", "rice farming", "night trains", "whale song", "sourdough"),
    *("lighthouses", "the printing press", "coral reefs", "wool", "chess", "concrete"),
    *("desert foxes", "public libraries", "sea salt", "the telescope", "orchids", "tram lines"),
    *("paper making", "mountain huts", "honey", "vaccines", "canal locks", "pencils"),
)

ASPECTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "history": (
        ("How did {0} begin?", "What is the history of {0}?"),
        (
            "The earliest written mention of {0} is some six hundred years old.",
            "Historians trace {0} back to the workshops and fields of the late Middle Ages.",
            "In the nineteenth century {0} spread from a few towns to the whole continent.",
        ),
    ),
    "cost": (
        ("How much money does {0} cost?", "Is {0} expensive?"),
        (
            "Prices around {0} have doubled in ten years, mostly because of wages.",
            "Whoever pays for {0} should expect a few hundred euros at the start.",
            "The cheapest offers for {0} are found in winter, when demand is low.",
        ),
    ),
    "danger": (
        ("What are the dangers of {0}?", "Can {0} be harmful to people?"),
        (
            "Accidents with {0} are rare, but some of them have been serious.",
            "Children should be kept away from {0} unless an adult is near.",
            "Doctors warn that {0} can cause injuries and allergic reactions.",
        ),
    ),
    "law": (
        ("Which laws apply to {0}?", "Do I need a permit for {0}?"),
        (
            "A licence from the local authority is required for {0} in most countries.",
            "Courts have ruled on {0} several times, and the rules differ by region.",
            "Since the new act {0} must be registered within thirty days.",
        ),
    ),
    "climate": (
        ("How does climate change affect {0}?", "What does a warmer world mean for {0}?"),
        (
            "Hotter summers have already changed {0} in the south.",
            "Researchers expect that drought and storms will hit {0} hard by 2050.",
            "The carbon footprint of {0} is small, yet it grows with every year.",
        ),
    ),
    "learning": (
        ("How can I learn about {0}?", "Where are courses on {0}?"),
        (
            "Evening schools teach {0} in courses of ten weeks.",
            "A good book and a patient teacher are the best way to understand {0}.",
            "Beginners in {0} practise for about a year before they feel at home.",
        ),
    ),
    "tools": (
        ("Which tools are needed for {0}?", "What equipment does {0} require?"),
        (
            "A knife, a brush and a set of clamps are the basic equipment for {0}.",
            "Modern machines for {0} weigh less than the wooden ones they replaced.",
            "Before work with {0} starts, every instrument is cleaned and oiled.",
        ),
    ),
    "art": (
        ("How has {0} been painted or sung about?", "Where does {0} appear in art?"),
        (
            "Painters of the Dutch school loved {0} and showed it in many scenes.",
            "A well known folk song compares {0} with a faithful friend.",
            "The film about {0} won a prize for its photography.",
        ),
    ),
}

FILLERS = (
    "This note was revised last spring.",
    "More about it is in the next chapter.",
    "Readers sent in photographs and letters.",
)

N_CANDIDATES = 12
SAME, SAME_SUBJECT, SAME_ASPECT, UNRELATED = 3, 2, 1, 0
"""Grades: what a document has in common with its query."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query, its candidates and how relevant each of them is (3 to 0)."""

    query: str
    documents: tuple[str, ...]
    grades: tuple[int, ...]


def questions(n: int, *, seed: int) -> list[Question]:
    """Different questions; a quarter of them have no document that answers."""
    rng = random.Random(seed)
    topics = [(subject, aspect) for subject in SUBJECTS for aspect in ASPECTS]
    return [_question(rng, *topic) for topic in rng.sample(topics, n)]


def _question(rng: random.Random, subject: str, aspect: str) -> Question:
    query = rng.choice(ASPECTS[aspect][0]).format(subject)
    graded = list(_candidates(rng, subject, aspect))
    return Question(
        query, tuple(document for document, _ in graded), tuple(grade for _, grade in graded)
    )


def _candidates(rng: random.Random, subject: str, aspect: str) -> Iterator[tuple[str, int]]:
    aspects = [other for other in ASPECTS if other != aspect]
    subjects = [other for other in SUBJECTS if other != subject]
    n_same = 0 if rng.random() < 0.25 else 1
    for _ in range(n_same):
        yield _document(rng, subject, aspect), SAME
    for other in rng.sample(aspects, 3):
        yield _document(rng, subject, other), SAME_SUBJECT
    for other in rng.sample(subjects, 3):
        yield _document(rng, other, aspect), SAME_ASPECT
    for other in rng.sample(subjects, N_CANDIDATES - 6 - n_same):
        yield _document(rng, other, rng.choice(aspects)), UNRELATED


def _document(rng: random.Random, subject: str, aspect: str) -> str:
    sentences = [*rng.sample(ASPECTS[aspect][1], rng.randint(1, 3)), rng.choice(FILLERS)]
    return " ".join(sentence.format(subject) for sentence in sentences)
