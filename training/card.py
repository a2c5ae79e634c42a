"""Writes the model card from the saved results: every figure in it comes from one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.base import MEMBER, PACKAGE, SHA256
from training.corpora import EVALUATION_SETS

Result = dict[str, Any]

RESULTS = ("files", "head", "precision", "ranking", "traps", "vocabulary")
TEMPLATE = Path(__file__).parent / "card.md"

# What XLM-RoBERTa was trained on beside the languages that stay (Conneau et al., 2020, table 6).
LEFT_OUT = (
    "Afrikaans, Albanian, Amharic, Armenian, Assamese, Azerbaijani, Basque, Belarusian, Bengali, "
    "Bosnian, Breton, Bulgarian, Burmese, Catalan, Croatian, Czech, Danish, Dutch, Esperanto, "
    "Estonian, Filipino, Finnish, French, Galician, Georgian, Gujarati, Hausa, Hebrew, Hungarian, "
    "Icelandic, Indonesian, Irish, Italian, Javanese, Kannada, Kazakh, Khmer, Korean, Kurdish, "
    "Kyrgyz, Lao, Latin, Latvian, Lithuanian, Macedonian, Malagasy, Malay, Malayalam, Marathi, "
    "Mongolian, Nepali, Norwegian, Oriya, Oromo, Pashto, Persian, Polish, Portuguese, Punjabi, "
    "Sanskrit, Scottish Gaelic, Serbian, Sindhi, Sinhala, Slovak, Slovenian, Somali, Sundanese, "
    "Swahili, Swedish, Tamil, Telugu, Ukrainian, Urdu, Uyghur, Uzbek, Welsh, Western Frisian, "
    "Xhosa, Yiddish"
)


def write_card(path: Path, results: Path) -> None:
    """Fills the card's template."""
    found: dict[str, Result] = {
        name: json.loads((results / f"{name}.json").read_text(encoding="utf-8")) for name in RESULTS
    }
    path.write_text(card_text(found), encoding="utf-8")


def card_text(found: dict[str, Result]) -> str:
    """The card; a name in the template without a value is an error."""
    values = {
        "package": PACKAGE,
        "member": MEMBER,
        "sha256": SHA256,
        "left_out": LEFT_OUT,
        "left_out_increase": _left_out_increase(found["vocabulary"]),
        "ranking": _ranking(found["ranking"]),
        "averages": _averages(found["ranking"]),
        "precision": _precision(found["precision"]),
        "segmentation": _segmentation(found["vocabulary"]),
        "traps": _traps(found["traps"]),
        "bins": _bins(found["head"]),
        **_numbers(found),
    }
    return TEMPLATE.read_text(encoding="utf-8").format(**values)


def _numbers(found: dict[str, Result]) -> Result:
    head, precision = found["head"]["head"], found["precision"]
    calibration = found["head"]["calibration"]
    noise, speed = precision["batch_noise_logits"], precision["tokens_per_second"]
    return {
        **head,
        "pieces": f"{found['vocabulary']['pieces']:,}",
        "pieces_full": f"{found['vocabulary']['pieces_full']:,}",
        "always_kept": f"{found['vocabulary']['always_kept']:,}",
        "packed": f"{found['files']['packed_bytes'] / 1e6:.1f}",
        "seed": found["head"]["seed"],
        "lists": f"{found['head']['lists']:,}",
        "practice_pairs": f"{found['head']['pairs']:,}",
        "calibration_error": calibration["expected_calibration_error"],
        **{f"above_{kind}": f"{x:.0%}" for kind, x in calibration["above_one_half"].items()},
        "dtype": precision["dtype"],
        "noise_float32": f"{noise['float32']['largest']:.6f}",
        "noise_int8": f"{noise['int8']['largest']:.3f}",
        "speed_ratio": f"{speed['int8'] / speed['float32']:.2f}",
        "processor": found["precision"]["machine"]["processor"],
        "cores": found["precision"]["machine"]["cores"],
    }


def _table(header: list[str], rows: list[list[str]]) -> str:
    rule = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def _ranking(ranking: Result) -> str:
    rows = []
    for name in EVALUATION_SETS:
        found = ranking["sets"][name]
        cells = [
            f"{found[variant]['nDCG@10']:.3f} / {found[variant]['RR@10']:.3f}"
            for variant in ("bm25", "pooled_cosine", "maxsim", "blend")
        ]
        p_values = " / ".join(_p(found[f"p_against_{rival}"]) for rival in ("bm25", "cosine"))
        rows.append([name, f"{found['queries']:,}", *cells, p_values])
    header = ["set", "queries", "BM25", "pooled cosine", "MaxSim alone", "**as shipped**"]
    return _table([*header, "p against BM25 / cosine"], rows)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _averages(ranking: Result) -> str:
    parts = []
    for label, names in (
        ("all five sets", EVALUATION_SETS),
        ("the four without limit-small", EVALUATION_SETS[:-1]),
    ):
        means = {
            variant: sum(ranking["sets"][name][variant]["nDCG@10"] for name in names) / len(names)
            for variant in ("bm25", "pooled_cosine", "maxsim", "blend")
        }
        parts.append(
            f"Mean nDCG@10 over {label}: BM25 {means['bm25']:.3f}, pooled cosine "
            f"{means['pooled_cosine']:.3f}, MaxSim alone {means['maxsim']:.3f}, as shipped "
            f"**{means['blend']:.3f}**."
        )
    return " ".join(parts)


def _precision(precision: Result) -> str:
    rows = []
    for name in EVALUATION_SETS:
        found = precision["sets"][name]
        ndcg, pair = found["nDCG@10"], found["int8_against_float32"]
        row = [name, str(found["queries"])]
        row += [f"{ndcg[v]:.4f}" for v in ("base_float32", "shipped_float32", "shipped_int8")]
        row += [f"{pair['kendall_tau']:.3f}"]
        row += [f"{pair[key]:.0%}" for key in ("top_1_changed", "top_5_changed")]
        rows.append([*row, f"{pair['largest_logit_difference']:.2f}"])
    header = ["set", "first queries", "base, float32", "shipped, float32", "shipped, int8"]
    header += ["tau", "top 1 changed", "top 5 changed", "largest logit difference"]
    return _table(header, rows)


def _segmentation(vocabulary: Result) -> str:
    rows = [
        [
            name,
            f"{found['unknown_full']:.3%}",
            f"{found['unknown_trimmed']:.3%}",
            f"{found['tokens_per_character_trimmed']:.3f}",
            f"{found['increase']:+.1%}",
        ]
        for kind in ("held_out_rows", "evaluation_texts")
        for name, found in vocabulary[kind].items()
    ]
    header = ["texts", "unknown, full", "unknown, here", "tokens a character", "more tokens"]
    return _table(header, rows)


def _left_out_increase(vocabulary: Result) -> str:
    found = vocabulary["languages_left_out"]
    return ", ".join(f"{name} {increase:+.0%}" for name, increase in found.items())


def _bins(head: Result) -> str:
    rows = [
        [f"{row['score']:.2f}", f"{row['relevant']:.2f}", f"{row['share']:.0%}"]
        for row in head["calibration"]["bins"]
    ]
    return _table(["mean score", "share that answers", "share of pairs"], rows)


def _traps(traps: Result) -> str:
    rows = [
        [
            trap["query"],
            document["document"],
            "answers" if document["is_answer"] else "",
            f"{document['score']:.3f}",
            "" if trap["passed"] else "**wrong order**",
        ]
        for trap in traps["traps"]
        for document in trap["documents"]
    ]
    return _table(["query", "document", "", "score", ""], rows)
