"""A small world with known answers, frozen towers that fit it, and the quickstart that trains on it."""
