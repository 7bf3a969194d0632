"""noble-spirit: the constitution. Validates what goes to a model and what comes from it, and keeps the audit log."""
