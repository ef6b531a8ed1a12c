"""From tables to answers: front, scenarios, advice, tree."""
