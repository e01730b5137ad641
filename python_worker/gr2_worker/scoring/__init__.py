"""What a token or an answer is worth: constraints, log-probabilities, Plackett-Luce ranking, losses."""
