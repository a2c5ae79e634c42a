"""Write the model card; every measured figure comes from a saved result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.data import manuals
from training.model import teacher
from training.model.base import MEMBER, PACKAGE, SHA256

Result = dict[str, Any]

RESULTS = (
    *(
        "across",
        "files",
        "head",
        "precision",
        "projection",
        "ranking",
        "training",
        "traps",
        "vocabulary",
    ),
)
ARITHMETIC = {
    "float32": "in float32, as in use",
    "bfloat16": "with bfloat16 products (a test requires features within 0.002 of float32's)",
}
TEMPLATE = Path(__file__).parent / "card.md"

# XLM-RoBERTa's training languages that are not kept (Conneau et al., 2020, table 6).
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
        "arithmetic": ARITHMETIC[found["ranking"]["arithmetic"]],
        "precision_arithmetic": ARITHMETIC[found["precision"]["products"]],
        "obvious": _obvious(found["traps"]),
        "teacher_package": teacher.PACKAGE,
        "teacher_sha256": teacher.SHA256,
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
        **_of_training(found["training"]["plan"]),
        **_of_projection(found["projection"]),
        **_of_traps(found["traps"]),
        **_of_across(found["across"]),
        "pieces": f"{found['vocabulary']['pieces']:,}",
        "pieces_full": f"{found['vocabulary']['pieces_full']:,}",
        "always_kept": f"{found['vocabulary']['always_kept']:,}",
        "packed": f"{found['files']['packed_bytes'] / 1e6:.1f}",
        "seed": found["head"]["seed"],
        "lists": f"{found['head']['lists']:,}",
        "practice_pairs": f"{found['head']['pairs']:,}",
        "fitted_pairs": f"{calibration['pairs_fitted_on']:,}",
        "calibration_error": calibration["expected_calibration_error"],
        **{f"above_{kind}": f"{x:.0%}" for kind, x in calibration["above_one_half"].items()},
        "dtype": precision["dtype"],
        "noise_float32": f"{noise['float32']['largest']:.6f}",
        "noise_int8": f"{noise['int8']['largest']:.3f}",
        "speed_ratio": f"{speed['int8'] / speed['float32']:.2f}",
        "precision_version": found["precision"]["version"],
        "processor": found["precision"]["machine"]["processor"],
        "cores": found["precision"]["machine"]["cores"],
    }


def _of_training(plan: Result) -> Result:
    return {
        "first_layer": plan["first_layer"],
        "trained_layers": 12 - plan["first_layer"],
        "n_steps": plan["n_steps"],
        "training_seed": plan["seed"],
        "mixing": plan["mixing"],
    }


def _of_projection(projection: Result) -> Result:
    counts: dict[str, int] = projection["questions"]
    return {
        "manuals": ", ".join(package.replace("==", " ") for package in manuals.PACKAGES),
        "projection_steps": projection["plan"]["n_steps"],
        "projection_questions": f"{sum(counts.values()):,}",
        "projection_sources": ", ".join(f"{name} {n:,}" for name, n in counts.items()),
        "projection_share": f"{projection['plan']['share']:.0%}",
        "projection_judged": f"{projection['plan']['judged']:.0%}",
    }


def _of_traps(traps: Result) -> Result:
    after, before = traps["keyword_traps"], traps["keyword_traps_untrained"]
    return {
        **{f"traps_{language}": after["passed"][language] for language in ("en", "zh")},
        **{f"traps_{language}_before": before["passed"][language] for language in ("en", "zh")},
        "traps_failed": "; ".join(after["failed"]) or "none",
    }


def _of_across(both: Result) -> Result:
    across, before = both["trained"], both["untrained"]
    worst = across["worst"]
    return {
        "across_questions": across["questions"],
        "across_passages": across["passages"],
        "across_same": f"{across['same_language']:.3f}",
        "across_other": f"{across['across']:.3f}",
        "across_ratio": f"{across['ratio']:.3f}",
        "across_before": f"{before['across']:.3f}",
        "across_ratio_before": f"{before['ratio']:.3f}",
        "across_worst": f"{worst['nDCG@10']:.3f} ({worst['question']} over {worst['passages']})",
    }


def _table(header: list[str], rows: list[list[str]]) -> str:
    rule = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


KINDS = ("bm25", "pooled_cosine", "untrained_maxsim", "version_4", "maxsim", "shipped")
NAMES = (
    "BM25",
    "base, pooled cosine",
    "base, MaxSim",
    "version 4",
    "MaxSim alone",
    "**as shipped**",
)


def _ranking(ranking: Result) -> str:
    rows = []
    for name, found in ranking["sets"].items():
        cells = [_both(found[kind]) if kind in found else "–" for kind in KINDS]
        rows.append([name, f"{found['queries']:,}", *cells, _p(found["p"]["bm25"])])
    return _table(["set", "queries", *NAMES, "p against BM25"], rows)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _both(measured: dict[str, float]) -> str:
    return f"{measured['nDCG@10']:.3f} / {measured['RR@10']:.3f}"


def _obvious(traps: Result) -> str:
    rows = [
        [row["query"], f"{row['answer']:.3f}", f"{row['other']:.3f}"] for row in traps["obvious"]
    ]
    return _table(["query", "answer", "other document"], rows)


def _precision(precision: Result) -> str:
    rows = []
    for name, found in precision["sets"].items():
        ndcg, part = found["nDCG@10"], found["arithmetic"]
        pair = part["int8_against_float32"]
        row = [name, f"{found['queries']:,}", f"{ndcg['weights_float32']:.4f}"]
        row += [f"{ndcg['file_int8']:.4f}", str(part["queries"])]
        row += [f"{part[kind]:.4f}" for kind in ("float32", "int8")]
        row += [f"{pair['kendall_tau']:.3f}", f"{pair['top_5_changed']:.0%}"]
        rows.append([*row, f"{pair['largest_logit_difference']:.2f}"])
    header = ["set", "queries", "weights", "file", "first queries", "arithmetic float32", "int8"]
    return _table([*header, "tau", "top 5 changed", "largest logit difference"], rows)


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
    header = ["texts", "unknown, full", "unknown, here", "tokens per character", "more tokens"]
    return _table(header, rows)


def _left_out_increase(vocabulary: Result) -> str:
    found = vocabulary["languages_left_out"]
    return ", ".join(f"{name} {increase:+.0%}" for name, increase in found.items())


def _bins(head: Result) -> str:
    rows = [
        [f"{row['score']:.2f}", f"{row['relevant']:.2f}", f"{row['share']:.0%}"]
        for row in head["calibration"]["bins"]
    ]
    return _table(["mean score", "share of answers", "share of pairs"], rows)


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
