"""Makes ndcg-auc.json with scikit-learn: .venv/bin/python tests/golden/ndcg-auc.py"""

import json
from pathlib import Path

import numpy as np
from sklearn.metrics import ndcg_score, roc_auc_score

rng = np.random.default_rng(0)
cases = []
for _ in range(60):
    n = int(rng.integers(2, 15))
    gains = rng.integers(0, 4, n).astype(float)
    scores = rng.permutation(n).astype(float)
    tied = rng.integers(0, 4, n).astype(float)
    k = int(rng.integers(1, n + 1))
    positive = gains > 1
    both = bool(positive.any() and not positive.all())
    cases.append({
        "gains": gains.tolist(), "scores": scores.tolist(), "tied": tied.tolist(), "k": k,
        "ndcg": float(ndcg_score([gains], [scores], k=k)) if gains.any() else 0.0,
        "auc": float(roc_auc_score(positive, scores)) if both else None,
        "auc_tied": float(roc_auc_score(positive, tied)) if both else None,
    })
Path(__file__).with_suffix(".json").write_text(json.dumps(cases) + "\n")
