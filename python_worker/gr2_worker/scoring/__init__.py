"""Scores of tokens and answers: constraints, log-probabilities, Plackett-Luce ranking, losses."""
