"""Rerank in this process, without a server."""

from tamis import Reranker

QUESTION = "How do plants make glucose from sunlight?"
DOCUMENTS = [
    {"id": 7, "text": "Plants have green leaves due to chlorophyll pigment."},
    {"id": 8, "text": "Photosynthesis uses sunlight to convert CO2 and water into glucose."},
    {"id": 9, "text": "Aspirin can cause stomach irritation and bleeding in some patients."},
]


def main() -> None:
    """Print the two best documents with the words that matched."""
    reranker = Reranker()
    for ranked in reranker.rank(QUESTION, DOCUMENTS, top_n=2, explain=True):
        print(f"{ranked.score:.3f}  {ranked.document}")
        for match in ranked.explanation or ():
            print(
                f"         {match.query_token} -> {match.document_token} ({match.similarity:.2f})"
            )


if __name__ == "__main__":
    main()
