"""Writes trees.json: a small model of LightGBM, rows with missing values, and its own predictions.

.venv/bin/python tests/golden/trees.py
"""

import json
from pathlib import Path

import lightgbm
import numpy as np

rng = np.random.default_rng(7)
rows, cols = 4000, 6
features = rng.standard_normal((rows, cols)).astype(np.float32)
features[:, 3] = np.round(features[:, 3])  # ties
features[rng.random((rows, cols)) < 0.1] = np.nan
features[:, 5] = np.nan_to_num(features[:, 5])  # never missing while fitted: NaN counts as zero afterwards
score = np.nan_to_num(features[:, 0], nan=1.0) + np.nan_to_num(features[:, 1], nan=-2.0) * np.nan_to_num(features[:, 2])
groups = np.full(rows // 20, 20)
labels = (rng.random(rows) < 1 / (1 + np.exp(2 - score - features[:, 5]))).astype(int)
params = {"objective": "lambdarank", "num_leaves": 12, "min_data_in_leaf": 20, "seed": 1, "verbosity": -1}
params |= {"num_threads": 1, "deterministic": True, "force_row_wise": True}
booster = lightgbm.train(params, lightgbm.Dataset(features, labels, group=groups), 12)
asked = rng.standard_normal((60, cols)).astype(np.float32)
asked[rng.random(asked.shape) < 0.25] = np.nan
asked[0] = np.nan
asked[1] = 0
asked[2, 3] = 1.0
text = booster.model_to_string()
parameters = text.index("\nparameters:")
golden = {
    "model": text[:parameters],
    "rows": [[None if np.isnan(x) else float(x) for x in row] for row in asked],
    "predictions": [float(p) for p in booster.predict(asked)],
}
Path(__file__).with_suffix(".json").write_text(json.dumps(golden))
