"""A module per verb, or per group of verbs that are one thought."""
