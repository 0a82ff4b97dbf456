"""How fast each stage is, beside a baseline that is measured in the same minutes."""
