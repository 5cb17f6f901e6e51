"""Statistics of evaluations: metrics, bootstrap intervals, selection strategies, equal cost, and the typed report."""
