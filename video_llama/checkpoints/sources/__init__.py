"""One file for each foreign format: a table of names, and how a file of that format is recognised."""
