"""Means of trec_eval's measures (pytrec_eval) over every query of a qrels file, by run file, as JSON.

python trec.py QRELS RUN...: a query without an answer counts 0, as in `trec_eval -c`.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import pytrec_eval

# Ours: trec_eval's. Its NDCG has linear gains and log2(rank + 1), as ours.
MEASURES = {
    "R@1": "recall_1",
    "R@3": "recall_3",
    "R@5": "recall_5",
    "N@3": "ndcg_cut_3",
    "N@5": "ndcg_cut_5",
    "MRR": "recip_rank",
}


def main(qrels_path: str, run_paths: list[str]) -> None:
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for line in Path(qrels_path).read_text().splitlines():
        query, _, item, label = line.split()
        qrels[query][item] = int(label)
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"recall.1,3,5", "ndcg_cut.3,5", "recip_rank"})
    out = {}
    for path in run_paths:
        run: dict[str, dict[str, float]] = defaultdict(dict)
        for line in Path(path).read_text().splitlines():
            query, _, item, _, score, _ = line.split()
            run[query][item] = float(score)
        scored = evaluator.evaluate(run)
        out[Path(path).name.removesuffix(".run.txt")] = {
            name: sum(s[theirs] for s in scored.values()) / len(qrels) for name, theirs in MEASURES.items()
        }
    json.dump(out, sys.stdout)


main(sys.argv[1], sys.argv[2:])
