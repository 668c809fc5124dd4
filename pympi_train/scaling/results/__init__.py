"""How long it takes to reach a validation score, by ranks and batch size."""
